"""The sentences and the table of a run's conclusions: their words are those of the verdicts, in one unit."""

import re

import numpy as np
import pytest

from ase_flatten.data.units import KCAL_PER_MOL, output_units
from ase_flatten.evaluation.claims import Claim, Claims, Estimate, make_claims
from ase_flatten.evaluation.conclusions import conclude, table
from ase_flatten.evaluation.frame_groups import Groups
from ase_flatten.evaluation.held_out import HeldoutErrors

N_FRAMES = 2000
LABELS = np.repeat([0, 1], N_FRAMES // 2)


def claims_of(factor: float, rng: np.random.Generator, *, draws: tuple[float, ...] = ()) -> Claims:
    """Make claims on two models whose errors on every frame differ by a factor, so that their ratio is certain."""
    default = rng.lognormal(0, 0.1, N_FRAMES) * np.where(LABELS == 1, 1.70, 1.0) * KCAL_PER_MOL
    errors = {"default": default, "improved": factor * default * rng.lognormal(0, 0.001, N_FRAMES)}
    drawn = np.array([one * default for one in draws])
    heldout = HeldoutErrors(np.arange(N_FRAMES), LABELS, errors, errors, drawn, drawn)
    sizes = np.array([N_FRAMES // 2] * 2)
    return make_claims(heldout, Groups(((0,), (1,)), sizes), 5 * sizes, rng=rng, n_resamples=100)


def words(claims: Claims, units: str = "kcal/mol") -> list[str]:
    return conclude(claims, 100, output_units(units), seed=0)


@pytest.mark.parametrize("factor", [1.69 / 1.70, 1.70 / 1.69])
@pytest.mark.parametrize("draws", [(), (1.0, 1.0002, 0.9999)])
def test_a_hundredth_is_neither_better_nor_worse(factor, draws, rng):
    claims = claims_of(factor, rng, draws=draws)
    worst = claims.of["worst_group"]
    assert worst.ratio.high < 1 or worst.ratio.low > 1  # beyond the noise of so many frames, and still nothing
    said = words(claims)
    assert said[0].startswith("No difference beyond noise where errors are largest: ")
    assert not any(re.search(r"\b(better|worse)\b", sentence) for sentence in said), said
    assert {row["verdict"] for row in table(claims, output_units("kcal/mol"))} == {"within noise"}
    assert "differ by less than 2 %" in said[-1] and "includes 1" not in said[-1]
    assert "(less than 2 %: within noise)" in said[1]  # where the interval excludes 1, the reason is another one


@pytest.mark.parametrize(("factor", "negligible"), [(1.019, True), (1.0202, False)])
def test_the_least_difference_is_the_same_in_both_directions(factor, negligible):
    for ratio, verdict in ((factor, "worse"), (1 / factor, "better")):
        default, improved = Estimate(1.0, 1.0, 1.0), Estimate(ratio, ratio, ratio)
        claim = Claim("overall", default, improved, improved, np.array([1.0]), None)
        assert claim.negligible == negligible and claim.verdict == ("within noise" if negligible else verdict)


@pytest.mark.parametrize(("factor", "verdict"), [(0.9, "better"), (1.1, "worse")])
def test_a_tenth_is(factor, verdict, rng):
    said = words(claims_of(factor, rng))
    assert said[0].startswith(f"The improved model is {verdict} where errors are largest")
    assert said[0].endswith(f"({verdict}).")


@pytest.mark.parametrize(("units", "other"), [("kcal/mol", "eV"), ("eV", "kcal")])
def test_one_unit_within_one_output(units, other, rng):
    said = " ".join(words(claims_of(0.9, rng), units))
    assert units.split("/")[0] in said and other not in said
