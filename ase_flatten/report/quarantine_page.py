"""What the report says and shows of frames in quarantine."""

import base64
from typing import Any

import numpy as np
from ase.io import read

from ase_flatten.data.units import OutputUnits
from ase_flatten.evaluation.held_out import SCHEMES
from ase_flatten.report.molecule_drawing import structure_png, turned_vectors, upright
from ase_flatten.selection.quarantine import BEFORE_TRAINING
from ase_flatten.workflow.run_folder import Run

N_DRAWN = 12
"""Frames that are drawn."""

LABEL, MODEL = "#c1121f", "#1f78b4"
"""Colours of the label's and of the model's forces."""


def quarantine_sentences(run: Run, units: OutputUnits) -> list[str]:
    """Say how many frames are in quarantine, what they do to the held-out errors, and which raised an alarm."""
    quarantine, n_frames = run.quarantine, run.info.dataset.n_frames
    trained = np.array(run.history[-1].train_frames, dtype=np.int64)
    inside, sentences = np.setdiff1d(quarantine.frames, trained), []
    if len(inside):
        one = len(inside) == 1
        why = (
            f"{'its label contradicts' if one else 'their labels contradict'} near frames and the models"
            if run.settings.quarantine == "on"
            else "as the list that was given says"
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
            f"The labels of {len(alarmed)} of the improved model's training frames may be wrong ({shown}): they "
            "contradict what it learnt from the others; look at them, and compute them again where in doubt."
        )
    return sentences


def _heldout(run: Run, units: OutputUnits) -> str:
    """Compare the final held-out errors with those without the frames in quarantine."""
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
        f"{np.sum(~sound)} of the {len(sound):,} held-out frames are in quarantine and count in all errors; without "
        f"them the force RMSE is {default_sound:.3g} instead of {default:.3g} {units.force} with the default model, "
        f"and {improved_sound:.3g} instead of {improved:.3g} with the improved one."
    )


def quarantine_section(run: Run) -> dict[str, Any]:
    """Return what the page shows: a row for each frame that was ever set aside, the alarms, and pictures."""
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
    pictures = []
    for atoms in read(path, index=f":{N_DRAWN}", format="extxyz"):
        turned = upright(atoms)
        forces = {LABEL: atoms.get_forces(), MODEL: atoms.arrays["model_forces"]}
        image = structure_png(turned, {colour: turned_vectors(of, atoms, turned) for colour, of in forces.items()})
        pictures.append(
            {
                "title": f"frame {atoms.info['frame']}",
                "words": str(atoms.info["reason"]),
                "image": f"data:image/png;base64,{base64.b64encode(image).decode('ascii')}",
            }
        )
    return pictures
