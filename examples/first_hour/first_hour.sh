#!/usr/bin/env bash
# The first hour of a new user, as commands: own data in four dialects of extended XYZ, a training that is stopped and
# resumed, two models side by side, a calculator of one's own. `make first-hour` runs it; docs/first_hour.rst shows it.
#
#     examples/first_hour/first_hour.sh DATASET FOLDER      with ase-flatten and python on the PATH
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$(realpath "$1")
mkdir -p "$2"
cd "$2"

refused() {  # the command must end with status 2, in a sentence, without a traceback
    local status=0
    "$@" >refused.txt 2>&1 || status=$?
    cat refused.txt
    [ "$status" -eq 2 ]
    ! grep -q Traceback refused.txt
}

python "$here/foreign_files.py" "$data" .

# [four dialects]
refused ase-flatten check mace.xyz
ase-flatten check ase.xyz --energy-unit eV --length-unit Ang
ase-flatten check mace.xyz --energy-key REF_energy --forces-key REF_forces --energy-unit eV --length-unit Ang
ase-flatten check gap.xyz --energy-key dft_energy --forces-key dft_forces --energy-unit eV --length-unit Ang
ase-flatten check other.xyz --energy-key Energy --forces-key force --energy-unit eV --length-unit Ang
# [show]
ase-flatten show mace.xyz --energy-key REF_energy --forces-key REF_forces --energy-unit eV --length-unit Ang \
    --model sgdml
# [train]
(ase-flatten train mace.xyz --energy-key REF_energy --forces-key REF_forces --energy-unit eV --length-unit Ang \
    -n 2 -i 40 -s 20 --set sigma=20 --out runs/mine & pid=$!; sleep 6; kill -9 $pid; wait $pid) || true
# [resume]
[ -e runs/mine/run.json ] || ase-flatten train mace.xyz --energy-key REF_energy --forces-key REF_forces \
    --energy-unit eV --length-unit Ang -n 2 -i 40 -s 20 --set sigma=20 --out runs/mine
ase-flatten train --resume
refused ase-flatten train --resume --out runs/mine --set sigma=30
# [side by side]
ase-flatten errors ase.xyz runs/mine --energy-unit eV --length-unit Ang
ase-flatten errors ase.xyz runs/mine/default --energy-unit eV --length-unit Ang
ase-flatten errors ase.xyz ase:mycalc:make --energy-unit eV --length-unit Ang
[ "$(ls -d runs/*-errors | wc -l)" -eq 3 ]  # nothing was overwritten
# [use]
ase-flatten predict runs/mine ase.xyz -o predicted.extxyz
ase-flatten show runs/mine
ase-flatten md runs/mine --T 300 --ps 0.1
refused ase-flatten md runs/mine --T 300 --ps 0.1 --engine ase
ase-flatten md runs/mine --T 300 --ps 0.1 --engine ase --replicas 2 --out runs/md-ase
ase-flatten report runs/mine
