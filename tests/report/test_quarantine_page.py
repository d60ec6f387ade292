"""Frames in quarantine in the report: read from a file that may be damaged."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import molecule

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import write_frames
from ase_flatten.report import quarantine_page
from ase_flatten.utils.exceptions import InputError

WATER = molecule("H2O")


def run_with(folder: Path) -> SimpleNamespace:
    """What the page needs of a run of water."""
    reference = SimpleNamespace(molecule=SimpleNamespace(numbers=WATER.numbers))
    return SimpleNamespace(folder=folder, reference=reference)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Fifteen frames in quarantine, as a run writes them."""
    positions = WATER.positions + np.random.default_rng(0).normal(scale=0.02, size=(15, 3, 3))
    dataset = Dataset(WATER.numbers, positions, np.zeros(15), np.ones((15, 3, 3)))
    reasons = np.array([f"reason {frame}" for frame in range(15)])
    path = tmp_path / "quarantine.extxyz"
    write_frames(path, dataset, np.arange(15), arrays={"model_forces": np.ones((15, 3, 3))}, reason=reasons)
    return path


def test_the_first_frames_are_drawn(path: Path) -> None:
    pictures = quarantine_page._drawn(run_with(path.parent))
    assert len(pictures) == quarantine_page.N_DRAWN == 12
    assert pictures[2]["title"] == "frame 2" and pictures[2]["words"] == "reason 2"
    assert pictures[2]["image"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("3\n", "2147483648\n", "frames that are not of 3 atoms"),
        ("pos:R:3", "pos:R:1099511627776", "frames that are not of 3 atoms"),
        ("pos:R:3", "pos:R:2", ""),
        ("model_forces:R:3", "colours:R:3", "model_forces"),
        ("frame=", "frome=", "frame"),
        ("O ", "Qq ", ""),
    ],
)
def test_a_damaged_file_is_refused(path: Path, old: str, new: str, reason: str) -> None:
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(
        InputError, match=rf"expected frames in quarantine in .*extxyz.*{reason}.*train --resume --out RUN"
    ):
        quarantine_page._drawn(run_with(path.parent))


def test_a_folder_in_its_place_is_refused(path: Path) -> None:
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match="not a regular file"):
        quarantine_page._drawn(run_with(path.parent))
