"""The worst group under other clusterings of the held-out frames."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import KCAL_PER_MOL, output_units
from ase_flatten.evaluation.claims import Claims, make_claims
from ase_flatten.evaluation.conclusions import conclude
from ase_flatten.evaluation.frame_groups import Groups
from ase_flatten.evaluation.held_out import HeldoutErrors
from ase_flatten.evaluation.other_clusterings import (
    N_CLUSTERINGS,
    N_FRAMES_LEAST,
    OtherClusterings,
    other_groups,
    read_other_groups,
    worst_groups,
)
from ase_flatten.utils.atomic_files import write_npz
from ase_flatten.utils.exceptions import InputError

LABELS = np.repeat([0, 1], 150)


def errors(default: np.ndarray, improved: np.ndarray) -> HeldoutErrors:
    forces = {"default": default, "improved": improved}
    return HeldoutErrors(np.arange(300), LABELS, forces, forces)


def test_groups_differ_and_are_large_enough(water: Dataset) -> None:
    heldout = np.arange(0, water.n_frames, water.n_frames // 220)[:220]
    settings = {"n_geometry": 4, "n_energy": 2}
    groups = other_groups(water, heldout, rng=np.random.default_rng(0), **settings)
    assert groups.shape == (N_CLUSTERINGS, 220)
    assert all(np.bincount(labels).min() >= 20 for labels in groups)
    assert len({labels.tobytes() for labels in groups}) > N_CLUSTERINGS / 2
    again = other_groups(water, heldout, rng=np.random.default_rng(0), **settings)
    np.testing.assert_array_equal(groups, again)
    few = other_groups(water, heldout[: N_FRAMES_LEAST - 1], rng=np.random.default_rng(0), **settings)
    assert few.shape == (0, N_FRAMES_LEAST - 1) and worst_groups(errors(np.ones(300), np.ones(300)), few) is None


def test_the_worst_group_of_each_clustering() -> None:
    default = np.where(LABELS == 0, 1.0, 3.0)
    groups = np.array([LABELS, np.tile([0, 1], 150)])
    found = worst_groups(errors(default, np.full(300, 2.5)), groups)
    assert found is not None
    np.testing.assert_allclose(found.default, [3, np.sqrt(5)])
    np.testing.assert_allclose(found.ratios, [2.5 / 3, 2.5 / np.sqrt(5)])
    assert found.n_better == 1


@pytest.fixture
def claims(rng: np.random.Generator) -> Claims:
    """Claims of a model that is better in its worst group."""
    default = rng.lognormal(0, 0.2, 300) * (1 + LABELS) * KCAL_PER_MOL
    groups = Groups(((0,), (1,)), np.array([150, 150]))
    others = np.array([LABELS, LABELS[::-1]])
    return make_claims(errors(default, 0.7 * default), groups, np.array([500, 500]), rng=rng, other_groups=others)


def test_the_conclusion_says_whether_the_claim_rests_on_the_clustering(claims: Claims) -> None:
    def sentence(found: OtherClusterings | None) -> str:
        said = conclude(replace(claims, other_clusterings=found), 100, output_units("kcal/mol"), seed=0)
        return " ".join(one for one in said if "other clusterings" in one)

    same = sentence(claims.other_clusterings)
    assert "Under 2 other clusterings" in same and "is 0.70 to 0.70" in same and "below 1 in 2 of them." in same
    mixed = sentence(OtherClusterings(np.ones(2), np.array([0.7, 1.1])))
    assert "is 0.70 to 1.10" in mixed and "below 1 in 1 of them: the claim on the worst group depends on" in mixed
    assert not sentence(None)


def test_groups_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "other_clusterings.npz"
    assert read_other_groups(path, 300) is None
    groups = np.array([LABELS, 1 - LABELS])
    write_npz(path, {"groups": groups})
    np.testing.assert_array_equal(read_other_groups(path, 300), groups)
    for n_heldout, bad in ((299, groups), (300, groups.astype(float)), (300, groups - 1), (300, LABELS)):
        write_npz(path, {"groups": bad})
        with pytest.raises(InputError, match="remove the file and compute it again"):
            read_other_groups(path, n_heldout)
