"""What `ase-flatten check` notices: kinds of corruption, molecules and sizes; and its false alarms on sound data.

    python benchmarks/data_checks.py --data DIR --molecules ethanol uracil --out RESULTS.jsonl
    python benchmarks/data_checks.py --table RESULTS.jsonl ...

Each line of the results is one data set: how many of its bad frames are refused, noted or missed, and how many good
ones are refused or noted. Lines that exist already are not computed again. The table is reStructuredText.
"""

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from corruption import KINDS, corrupt

from ase_flatten.checking.check import Checkup, check_up
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset
from ase_flatten.utils import console
from ase_flatten.utils.typing import IntArray

FILES = {
    "ethanol": "md17_ethanol",
    "uracil": "md17_uracil",
    "salicylic": "salicylic_gfn2_500K",
    "toluene": "md17_toluene",
    "peptide": "acala3nhme_gfn2_500K",
    "salicylic MD17": "md17_salicylic",
}
SIZES = (10_000, 1000)
SUBSETS = (1000, 300, 100)
SHARE = 0.01


def subset(dataset: Dataset, n_frames: int, rng: np.random.Generator) -> Dataset:
    """Draw frames at random, in their order; all of them if there are no more."""
    if n_frames >= dataset.n_frames:
        return dataset
    return dataset.take(np.sort(rng.choice(dataset.n_frames, n_frames, replace=False)))


def count(found: Checkup, bad_frames: IntArray, n_frames: int) -> dict[str, Any]:
    """Count bad frames that are refused, noted and missed, and good ones that are refused or noted."""
    named: dict[str, set[int]] = defaultdict(set)
    for finding in found.findings:
        named[finding.level].update(finding.frames)
    bad = set(bad_frames.tolist())
    refused, noted = named["refused"], named["note"] - named["refused"]
    whole = found.whole_set
    return {
        "n_frames": n_frames,
        "bad": len(bad),
        "refused": len(bad & refused),
        "noted": len(bad & noted),
        "false_refused": len(refused - bad),
        "false_noted": len(noted - bad),
        "whole_set": "" if whole is None or whole.frames else whole.what,
        "what": sorted({f"{finding.level} {finding.what}" for finding in found.findings}),
    }


def measure(given: argparse.Namespace) -> None:
    """Check sound and corrupted data sets, and write one line for each."""
    known = set()
    if given.out.exists():
        lines = map(json.loads, given.out.read_text(encoding="utf-8").splitlines())
        known = {(line["molecule"], line["size"], line["kind"], line["seed"]) for line in lines}
    for molecule in given.molecules:
        whole = read_dataset(given.data / f"{FILES[molecule]}.npz")
        jobs = [(size, kind, 0) for size in given.sizes for kind in given.kinds if kind in KINDS]
        if "sound" in given.kinds:
            jobs += [(size, "sound", 0) for size in given.sizes if size > max(SUBSETS)]
            jobs += [(size, "sound", seed) for size in SUBSETS for seed in range(given.seeds)]
        for size, kind, seed in jobs:
            if (molecule, size, kind, seed) in known:
                continue
            rng = np.random.default_rng([seed, size])
            dataset, bad_frames = subset(whole, size, rng), np.empty(0, dtype=np.int64)
            if kind != "sound":
                dataset, bad_frames = corrupt(dataset, kind, SHARE, rng=rng)
            start = time.perf_counter()
            found = count(check_up(dataset, rng=np.random.default_rng(seed)), bad_frames, dataset.n_frames)
            line = {"molecule": molecule, "size": size, "kind": kind, "seed": seed, **found}
            line["seconds"] = round(time.perf_counter() - start, 1)
            with open(given.out, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
            console.say(json.dumps(line))


def write_tables(results: list[Path]) -> None:
    """Print the tables of several files of results."""
    lines = [json.loads(text) for path in results for text in path.read_text(encoding="utf-8").splitlines()]
    molecules = [molecule for molecule in FILES if any(line["molecule"] == molecule for line in lines)]
    bad = {(line["kind"], line["size"], line["molecule"]): line for line in lines if line["kind"] != "sound"}
    shown = [molecule for molecule in molecules if any(key[2] == molecule for key in bad)]
    rows = []
    for kind in KINDS:
        for size in SIZES:
            cells = [_cell(bad.get((kind, size, molecule))) for molecule in shown]
            if any(cells):
                rows.append([kind, f"{size:,}", *cells])
    _print_table(["corruption", "frames", *shown], rows)
    sound = defaultdict(list)
    for line in lines:
        if line["kind"] == "sound":
            sound[line["size"], line["molecule"]].append(line)
    rows = []
    for size in sorted({size for size, _ in sound}, reverse=True):
        cells = []
        for molecule in molecules:
            found = sound.get((size, molecule), [])
            refusals = sum(any(what.startswith("refused") for what in line["what"]) for line in found)
            notes = sum(line["false_noted"] > 0 for line in found)
            cells.append(f"{len(found)}: {refusals}, {notes}" if found else "")
        rows.append([f"{size:,}", *cells])
    _print_table(["frames", *molecules], rows)


def _cell(line: dict[str, Any] | None) -> str:
    if line is None:
        return ""
    if line["whole_set"]:
        return f"set: {line['whole_set']}"
    missed = line["bad"] - line["refused"] - line["noted"]
    false = line["false_refused"] + line["false_noted"]
    return f"{line['refused']} / {line['noted']} / {missed}" + (f" ({false} false)" if false else "")


def _print_table(heads: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    rule = " ".join("=" * width for width in widths)
    for row in (None, heads, None, *rows, None):
        cells = [cell.ljust(width) for cell, width in zip(row or [], widths, strict=False)]
        console.say(rule if row is None else " ".join(cells).rstrip())
    console.say("")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--molecules", nargs="+", choices=FILES, default=list(FILES), help="molecules [all]")
    parser.add_argument(
        "--kinds", nargs="+", choices=["sound", *KINDS], default=["sound", *KINDS], help="kinds of corruption [all]"
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="frames of corrupted data sets")
    parser.add_argument("--seeds", type=int, default=3, help="sound subsets of each size [3]")
    parser.add_argument("--out", type=Path, default=Path("data_checks.jsonl"), help="file of results, appended to")
    parser.add_argument("--table", nargs="+", type=Path, metavar="RESULTS", help="print tables instead")
    given = parser.parse_args()
    console.run_command(*((write_tables, given.table) if given.table else (measure, given)))
