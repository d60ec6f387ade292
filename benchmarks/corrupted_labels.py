"""Corrupt a share of the labels, clean the data, train with the guard, and measure on sound labels.

    python benchmarks/corrupted_labels.py DATASET.npz ... --kinds zero sign unit method shuffled --shares 0.003 0.01

First a fifth of the frames, with sound labels, is set aside to test all models. The other frames are corrupted, cleaned
as by `ase-flatten clean`, and trained on. Each model is compared with that of sound data with the same seed, and with
`--also-off` also with that without cleaning and guard. Finished trainings are kept in `--out`, so that a benchmark that
was stopped can be resumed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from corruption import corrupt

from ase_flatten.checking.check import check_up
from ase_flatten.checking.cleaning import choose_frames
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.models.model_folder import load_model
from ase_flatten.selection.cluster_errors import frame_errors
from ase_flatten.selection.flattening import Schedule
from ase_flatten.utils import console
from ase_flatten.utils.atomic_files import write_json, write_text
from ase_flatten.utils.typing import IntArray
from ase_flatten.workflow.run_folder import Run, RunSettings
from ase_flatten.workflow.train_run import train

SOUND = "sound"
N_TEST = 2000
ALLOWED = 1.05
"""The improved model may be worse than that of sound data by this factor."""


def main(given: argparse.Namespace) -> None:
    """Train what is missing, print the table and write it."""
    console.set_up_logging(quiet=True, verbose=False)
    rows = []
    for path in given.datasets:
        whole = read_dataset(path)
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            sound = one(given, path, whole, SOUND, 0.0, seed, "on")
            rows.append((path.stem, seed, SOUND, 0.0, sound, None, None))
            for kind in given.kinds:
                for share in given.shares:
                    guarded = one(given, path, whole, kind, share, seed, "on")
                    off = one(given, path, whole, kind, share, seed, "off") if given.also_off else None
                    rows.append((path.stem, seed, kind, share, guarded, off, sound))
    lines = [line(*row) for row in rows]
    console.table("Force RMSE on frames with sound labels, kcal/(mol Å)", HEADER, lines)
    judged = [guarded["improved"] / sound["improved"] for *_, guarded, _, sound in rows if sound]
    if judged:
        within = sum(ratio <= ALLOWED for ratio in judged)
        console.say(
            f"{within} of {len(judged)} improved models are within {ALLOWED - 1:.0%} of the one of sound data; "
            f"the worst is {max(judged):.3f} times as bad, the mean {np.mean(judged):.3f}"
        )
    if given.rst:
        write_text(given.rst, as_rst(lines))


HEADER = (
    "data", "seed", "labels", "share", "left after cleaning", "false", "in quarantine", "trained on", "alarms",
    "default", "improved", "to sound", "off: trained on", "off: default", "off: improved",
)  # fmt: skip


def line(data: str, seed: int, kind: str, share: float, guarded: Any, off: Any, sound: Any) -> tuple[Any, ...]:
    """Format a row of the table: a training with the guard, and the one without."""
    ratio = f"{guarded['improved'] / sound['improved']:.3f}" if sound else ""
    without = (off["n_bad_trained"], f"{off['default']:.3f}", f"{off['improved']:.3f}") if off else ("", "", "")
    return (
        data, seed, kind, f"{share:.1%}", f"{guarded['n_bad_left']} of {guarded['n_bad']}",
        guarded["n_false"], f"{guarded['n_bad_quarantined']} bad, {guarded['n_sound_quarantined']} sound",
        guarded["n_bad_trained"], f"{guarded['n_bad_alarms']} bad, {guarded['n_sound_alarms']} sound",
        f"{guarded['default']:.3f}", f"{guarded['improved']:.3f}", ratio, *without,
    )  # fmt: skip


def one(
    given: argparse.Namespace, path: Path, whole: Dataset, kind: str, share: float, seed: int, guard: str
) -> dict[str, Any]:
    """Return the result of one training, from the file where it is there."""
    name = f"{path.stem}-{kind}-{share:g}-{seed}-{guard}"
    kept = given.out / f"{name}.json"
    if kept.exists():
        content: dict[str, Any] = json.loads(kept.read_text())
        return content
    test = np.sort(np.random.default_rng([seed, 1]).choice(whole.n_frames, N_TEST, replace=False))
    frames = np.setdiff1d(np.arange(whole.n_frames), test)
    data, bad = whole.take(frames), np.empty(0, dtype=np.int64)
    if kind != SOUND:
        data, bad = corrupt(data, kind, share, rng=np.random.default_rng([seed, 2]))
    n_bad, n_false = len(bad), 0
    if guard == "on":
        data, bad, n_false = cleaned(data, bad)
    schedule = Schedule(n_steps=given.steps, n_initial=given.initial, step_size=given.step_size)
    settings = RunSettings(
        default_draws=1,
        trainer={"sigma": given.sigma} if given.sigma else {},
        schedule=schedule,
        seed=seed,
        quarantine=guard,
    )
    run = train(data, given.out / name, settings, resume=True)
    result = {"n_bad": n_bad, "n_bad_left": len(bad), "n_false": n_false, **counted(run, bad)}
    for scheme in ("default", "improved"):
        errors = frame_errors(load_model(run.folder / scheme).model, whole, test)
        result[scheme] = float(np.sqrt(errors.force_mse.mean())) / KCAL_PER_MOL
    write_json(kept, result)
    console.say(f"{name}: {result}")
    return result


def cleaned(data: Dataset, bad: IntArray) -> tuple[Dataset, IntArray, int]:
    """Leave out refused frames until there are none; return the bad frames left and the number of sound ones lost."""
    is_bad, n_false = np.isin(np.arange(data.n_frames), bad), 0
    while (found := check_up(data, rng=np.random.default_rng(0))).refused:
        kept = choose_frames(data, found).kept
        n_false += int(np.sum(~is_bad)) - int(np.sum(~is_bad[kept]))
        data, is_bad = data.take(kept), is_bad[kept]
    return data, np.flatnonzero(is_bad), n_false


def counted(run: Run, bad: IntArray) -> dict[str, int]:
    """Count bad and sound frames in quarantine in the end, in the training set and among the alarms."""
    alarms = np.unique([alarm.frame for alarm in run.quarantine.alarms]).astype(np.int64)
    counts = {
        "n_bad_trained": int(np.isin(run.history[-1].train_frames, bad).sum()),
        "n_bad_trained_initially": int(np.isin(run.history[0].train_frames, bad).sum()),
    }
    for what, frames in (("quarantined", run.quarantine.frames), ("alarms", alarms)):
        counts[f"n_bad_{what}"] = int(np.isin(frames, bad).sum())
        counts[f"n_sound_{what}"] = int((~np.isin(frames, bad)).sum())
    return counts


def as_rst(lines: list[tuple[Any, ...]]) -> str:
    """Write the table as a list-table."""
    text = [".. list-table:: Force RMSE on frames with sound labels, kcal/(mol Å)", "   :header-rows: 1", ""]
    for cells in (HEADER, *lines):
        text += [f"   {'*' if place == 0 else ' '} - {cell}".rstrip() for place, cell in enumerate(cells)]
    return "\n".join(text) + "\n"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--kinds", nargs="+", default=["zero", "sign", "unit", "method", "shuffled"])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.003, 0.01])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("-n", "--steps", type=int, default=4)
    parser.add_argument("-i", "--initial", type=int, default=100)
    parser.add_argument("-s", "--step-size", type=int, default=50)
    parser.add_argument("--sigma", type=float, help="length scale [chosen on validation frames]")
    parser.add_argument("--also-off", action="store_true", help="train without cleaning and guard as well")
    parser.add_argument("--out", type=Path, default=Path("runs/corrupted_labels"))
    parser.add_argument("--rst", type=Path, help="file for the table")
    return parser.parse_args()


if __name__ == "__main__":
    main(arguments())
