#!/usr/bin/env bash
# Install each extra alone into a fresh environment and use it: what works after that, and what is refused in a sentence.
#
#     examples/first_hour/extras.sh [EXTRA ...]      bare sgdml gap schnet md torchsim by default
#
# Prints the time and the size of each installation.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
data="$root/examples/data/salicylic_gfn2_500K.npz"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A copy without what was built, since pip copies the whole folder.
mkdir "$work/source"
(cd "$root" && git ls-files -z | xargs -0 cp -d --parents -t "$work/source")

refused() {  # status 2, one sentence that holds a word, no traceback
    local word=$1 status=0
    shift
    "$@" >refused.txt 2>&1 || status=$?
    [ "$status" -eq 2 ] && grep -q -- "$word" refused.txt && ! grep -q Traceback refused.txt || { cat refused.txt; exit 1; }
}

use() {
    case $1 in
    bare)
        printf 'from ase.calculators.lj import LennardJones\ndef make():\n    return LennardJones()\n' >mycalc.py
        ase-flatten check "$data" -q
        ase-flatten cluster "$data" --out clusters -q >/dev/null
        ase-flatten errors "$data" ase:mycalc:make --clusters clusters -q >/dev/null
        for family in sgdml schnet gap; do
            refused "\[$family\]" ase-flatten train "$data" --model $family --out run
        done
        refused "\[md\]" ase-flatten sample CH4 -o methane.npz
        [ ! -e run ]  # nothing was begun
        ;;
    sgdml) ase-flatten train "$data" -n 1 -i 20 -s 10 --set sigma=20 --default-draws 1 --out run -q ;;
    gap) ase-flatten train "$data" --model gap --preset small -n 1 -i 10 -s 5 --out run -q ;;
    schnet) ase-flatten train "$data" --model schnet --preset small -n 0 -i 20 --set epochs=2 --out run -q ;;
    md) ase-flatten sample CH4 --T 300 --frames 20 --equilibration 0.01 -o methane.npz -q ;;
    torchsim) python -c "import torch_sim, ase_flatten.torchsim" ;;
    esac
}

extras=("$@")
[ ${#extras[@]} -gt 0 ] || extras=(bare sgdml gap schnet md torchsim)
for extra in "${extras[@]}"; do
    begin=$(date +%s)
    python3 -m venv "$work/$extra"
    source=$work/source
    [ "$extra" = bare ] || source="$source[$extra]"
    "$work/$extra/bin/pip" install --quiet --disable-pip-version-check "$source"
    installed=$(date +%s)
    mkdir "$work/use-$extra"
    (cd "$work/use-$extra" && PATH="$work/$extra/bin:$PATH" && use "$extra")
    echo "$extra: installed in $((installed - begin)) s, $(du -sm "$work/$extra" | cut -f1) MB; works"
    rm -rf "$work/$extra" "$work/use-$extra"
done
