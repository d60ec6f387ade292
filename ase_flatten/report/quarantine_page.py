"""The section of the report on frames in quarantine."""

import re
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from ase_flatten.data.units import OutputUnits
from ase_flatten.evaluation.held_out import SCHEMES
from ase_flatten.report.molecule_drawing import structure_png, turned_vectors, upright
from ase_flatten.report.pictures import data_uri
from ase_flatten.selection.quarantine import BEFORE_TRAINING
from ase_flatten.utils.records import understood
from ase_flatten.workflow.run_folder import Run

_COLUMNS = re.compile(r":[RILS]:([0-9]+)")
"""The number of columns of each property in extended XYZ."""

N_DRAWN = 12
"""Number of frames that are drawn."""

LABEL, MODEL = "#c1121f", "#1f78b4"
"""Colours of the forces of the label and of the model."""


def quarantine_sentences(run: Run, units: OutputUnits) -> list[str]:
    """Return how many frames are in quarantine, their effect on the held-out errors, and which raised an alarm."""
    quarantine, n_frames = run.quarantine, run.info.dataset.n_frames
    trained = np.array([frame for line in run.history[-1:] for frame in line.train_frames], dtype=np.int64)
    inside, sentences = np.setdiff1d(quarantine.frames, trained), []
    if len(inside):
        one = len(inside) == 1
        why = (
            f"{'its label contradicts' if one else 'their labels contradict'} similar frames and the models"
            if run.settings.quarantine == "on"
            else f"{'it was' if one else 'they were'} set aside by the user"
        )
        sentences.append(
            f"{len(inside)} of {n_frames:,} frames {'is' if one else 'are'} in quarantine: {why}; "
            f"the final models were not trained on {'it' if one else 'them'}."
        )
    if heldout := _heldout(run, units):
        sentences.append(heldout)
    alarmed = np.intersect1d([alarm.frame for alarm in quarantine.alarms], trained).astype(np.int64)
    if len(alarmed):
        shown = ", ".join(map(str, alarmed[:10])) + (", ..." if len(alarmed) > 10 else "")
        sentences.append(
            f"The labels of {len(alarmed)} training frames of the improved model may be wrong ({shown}): they "
            "contradict what it learned from the others; inspect them, and recompute those in doubt."
        )
    return sentences


def _heldout(run: Run, units: OutputUnits) -> str:
    """Compare the held-out errors with and without the frames in quarantine."""
    inside = run.quarantine.frames
    if not len(inside):
        return ""
    errors = run.heldout_errors
    sound = ~np.isin(errors.frames, inside)
    if sound.all():
        return ""
    rmse = [
        [float(np.sqrt(np.mean(values**2))) * units.scale for values in (every, every[sound])]
        for every in (errors.force_rmse[scheme] for scheme in SCHEMES)
    ]
    (default, default_sound), (improved, improved_sound) = rmse
    return (
        f"{np.sum(~sound)} of the {len(sound):,} held-out frames are in quarantine but count in all errors; without "
        f"them the force RMSE is {default_sound:.3g} instead of {default:.3g} {units.force} for the default model, "
        f"and {improved_sound:.3g} instead of {improved:.3g} for the improved one."
    )


def quarantine_section(run: Run) -> dict[str, Any]:
    """Return what the page shows: one row for each frame that was ever set aside, the alarms, and pictures."""
    content = run.quarantine.to_json()
    return {"rows": [_row(entry) for entry in content["frames"]], "alarms": content["alarms"], "pictures": _drawn(run)}


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    row = {name: entry[name] for name in ("frame", "reason", "score", "released")}
    first = entry["entered"] == BEFORE_TRAINING
    return {**row, "entered": "before training" if first else f"step {entry['entered']}"}


def _drawn(run: Run) -> list[dict[str, str]]:
    path = run.folder / "quarantine.extxyz"
    if not path.exists():
        return []
    with understood(
        path, what="frames in quarantine", remedy="write them again with: ase-flatten train --resume --out RUN"
    ):
        frames = _read_frames(path, len(run.reference.molecule.numbers))
        return [_picture(atoms) for atoms in frames]


def _read_frames(path: Path, n_atoms: int) -> list[Atoms]:
    """Read the frames to draw, after checking that their sizes are those that `write_frames` writes."""
    if not path.is_file():
        raise ValueError("not a regular file")
    with path.open(encoding="utf-8") as stream:
        lines = list(islice(stream, N_DRAWN * (n_atoms + 2)))
    for count, comment in zip(lines[:: n_atoms + 2], lines[1 :: n_atoms + 2], strict=True):
        if count.strip() != str(n_atoms) or any(int(size) > 3 for size in _COLUMNS.findall(comment)):
            raise ValueError(f"frames that are not of {n_atoms} atoms")
    try:
        return list(read(StringIO("".join(lines)), index=":", format="extxyz"))
    except Exception as error:  # ASE's readers raise whatever their parsers do
        raise ValueError(str(error)) from error


def _picture(atoms: Atoms) -> dict[str, str]:
    turned = upright(atoms)
    forces = {LABEL: atoms.get_forces(), MODEL: atoms.arrays["model_forces"]}
    image = structure_png(turned, {colour: turned_vectors(of, atoms, turned) for colour, of in forces.items()})
    return {
        "title": f"frame {atoms.info['frame']}",
        "words": str(atoms.info["reason"]),
        "image": data_uri(image),
    }
