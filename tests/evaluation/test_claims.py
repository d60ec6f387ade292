"""Claims on held-out errors: groups, resampling, intervals that cover, and verdicts."""

import numpy as np
import pytest

from ase_flatten.evaluation.bootstrap import block_length, resample_counts
from ase_flatten.evaluation.claims import MEASURES, Claims, make_claims, probability_of_draw
from ase_flatten.evaluation.frame_groups import Groups, merge_clusters
from ase_flatten.evaluation.group_intervals import intervals_of_each, intervals_of_largest, intervals_of_unevenness
from ase_flatten.evaluation.held_out import HeldoutErrors
from ase_flatten.evaluation.several_runs import mean_and_spread, over_runs

SIZES = np.array([20, 35, 60, 100, 150, 200])


def groups_of(sizes: np.ndarray) -> Groups:
    return Groups(tuple((group,) for group in range(len(sizes))), sizes)


def claims_of(default: np.ndarray, improved: np.ndarray, rng: np.random.Generator, *, draws: tuple = ()) -> Claims:
    """Make claims on lognormal errors of single frames, whose expected force RMSE is given for each group."""
    labels = np.repeat(np.arange(len(SIZES)), SIZES)
    common = rng.normal(0, 0.2, len(labels))

    def errors(rmse: np.ndarray) -> np.ndarray:
        exponent = common + rng.normal(0, 0.15, len(labels))
        return rmse[labels] * np.exp(exponent - 0.2**2 - 0.15**2)

    forces = {"default": errors(default), "improved": errors(improved)}
    energies = {scheme: rng.normal(size=len(labels)) for scheme in forces}
    drawn = np.array([factor * forces["default"] for factor in draws])
    heldout = HeldoutErrors(np.arange(len(labels)), labels, forces, energies, drawn, drawn)
    return make_claims(heldout, groups_of(SIZES), 5 * SIZES, rng=rng, n_resamples=250)


def test_clusters_are_merged_with_neighbours_in_energy() -> None:
    n_heldout = np.array([30, 5, 18, 40, 7, 2, 25])
    geometry = np.array([0, 0, 0, 0, 1, 1, 2])
    centres = np.array([[0.0], [0.0], [0.0], [0.0], [5.0], [5.0], [6.0]])
    groups = merge_clusters(n_heldout, geometry, centres, 5 * n_heldout)
    # 5 joins 18, the smaller neighbour; the geometric cluster of 9 frames joins the nearest one.
    assert groups.members == ((0,), (1, 2), (3,), (4, 5, 6))
    assert groups.n_heldout.tolist() == [30, 23, 40, 34]
    assert groups.of_cluster.tolist() == [0, 1, 1, 2, 3, 3, 3]
    assert [groups.name(group) for group in range(4)] == ["cluster 0", "clusters 1-2", "cluster 3", "clusters 4-6"]
    assert Groups(((0, 2, 3), (1,)), np.array([20, 20])).name(0) == "clusters 0, 2-3"


def test_few_frames_in_all_are_one_group() -> None:
    groups = merge_clusters(np.array([4, 0, 3]), np.array([0, 1, 2]), np.eye(3), np.array([9, 1, 9]))
    assert groups.members == ((0, 1, 2),) and groups.n_heldout.tolist() == [7]


@pytest.mark.parametrize("length", [1, 4])
def test_resamples_keep_the_size_of_each_group(length: int, rng: np.random.Generator) -> None:
    groups = np.repeat([0, 1], [20, 40])
    counts = np.concatenate(list(resample_counts(groups, length, 300, rng=rng)))
    assert counts.shape == (300, 60)
    np.testing.assert_array_equal(counts[:, :20].sum(axis=1), 20)
    np.testing.assert_array_equal(counts[:, 20:].sum(axis=1), 40)
    blocks = counts.reshape(300, -1, length)
    assert np.all(blocks == blocks[:, :, :1])
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.4)


def test_blocks_are_as_long_as_the_correlation_asks(rng: np.random.Generator) -> None:
    groups = np.repeat([0, 1, 2], 400)
    noise = rng.normal(size=1200)
    assert block_length(np.exp(noise), groups) <= 2
    assert block_length(np.exp(5 * groups + noise), groups) <= 2  # groups that differ are no correlation in time
    slow = np.repeat(rng.normal(size=120), 10) + 0.1 * noise
    assert block_length(np.exp(slow), groups) >= 10
    assert block_length(np.zeros(1200), groups) == 1


def test_measures_are_those_of_the_frames(rng: np.random.Generator) -> None:
    claims = claims_of(np.linspace(1, 2, 6), np.linspace(1, 1.5, 6), rng)
    labels = np.repeat(np.arange(6), SIZES)
    assert set(claims.of) == set(MEASURES) and claims.n_frames == SIZES.sum()
    rmse = claims.group_rmse["default"]
    assert claims.of["worst_group"].default.value == pytest.approx(rmse.max())
    overall = np.sqrt(np.average(rmse**2, weights=SIZES))
    assert claims.of["overall"].default.value == pytest.approx(overall)
    shares = SIZES / SIZES.sum()
    assert claims.of["unevenness"].default.value == pytest.approx(np.sum(shares * np.abs(rmse - overall)))
    forces = np.arange(1.0, len(labels) + 1)
    same = dict.fromkeys(("default", "improved"), forces)
    found = make_claims(
        HeldoutErrors(np.arange(len(labels)), labels, same, same), groups_of(SIZES), SIZES, rng=rng, n_resamples=50
    ).of
    for name, share in (("quantile_99", 0.99), ("quantile_90", 0.9), ("median", 0.5)):
        assert found[name].default.value == pytest.approx(np.quantile(forces, share, method="inverted_cdf"))
    n_worst = len(forces) / 10
    assert found["worst_tenth"].default.value == pytest.approx(
        np.sqrt((np.sum(forces[-56:] ** 2) + 0.5 * forces[-57] ** 2) / n_worst)
    )
    assert all((claim.ratio.low, claim.ratio.high) == pytest.approx((1, 1)) for claim in found.values())


def test_intervals_cover(rng: np.random.Generator) -> None:
    """Of 60 intervals, three standard errors fewer than 95 % of them at the least."""
    default, improved = np.array([1.0, 1.0, 1.1, 1.2, 1.0, 1.6]), np.full(6, 1.0)
    truth = {
        "worst_group": (1.6, 1.0),
        "overall": tuple(np.sqrt(SIZES @ x**2 / SIZES.sum()) for x in (default, improved)),
    }
    hits = {name: np.zeros(3) for name in truth}
    for _ in range(60):
        claims = claims_of(default, improved, rng)
        for name, (before, after) in truth.items():
            claim = claims.of[name]
            pairs = zip((claim.default, claim.improved, claim.ratio), (before, after, after / before), strict=True)
            hits[name] += [one.low <= true <= one.high for one, true in pairs]
    assert all(np.all(found >= 52) for found in hits.values()), hits


def test_percentiles_would_not_cover_the_largest_of_equals(rng: np.random.Generator) -> None:
    noise, n = 0.1, np.full(30, 50)
    estimates = [rng.normal(0, noise, 30) for _ in range(2)]
    samples = [one + rng.normal(0, noise, (500, 30)) for one in estimates]
    assert np.quantile(samples[0].max(axis=1), 0.025) > 0
    first, second, difference = intervals_of_largest(estimates, samples, n, 0.95)
    assert all(low <= 0 <= high for low, high in (first, second, difference))
    low, _ = intervals_of_unevenness(estimates, samples, n, np.full(30, 1 / 30), 0.95)[0]
    assert low == 0


def test_the_unevenness_of_equal_groups_reaches_its_boundary(rng: np.random.Generator) -> None:
    """Of 60 pairs of models that are equally right everywhere, 95 % have an interval from 0, and any ratio may be."""
    noise, n, shares = 0.1, np.full(30, 50), np.full(30, 1 / 30)
    begins, ratios = np.zeros(2), []
    for _ in range(60):
        estimates = [rng.normal(0, noise, 30) for _ in range(2)]
        samples = [one + rng.normal(0, noise, (200, 30)) for one in estimates]
        default, improved, ratio = intervals_of_unevenness(estimates, samples, n, shares, 0.95)
        begins += [default[0] == 0, improved[0] == 0]
        ratios.append((default[0] == 0) == np.isinf(ratio[1]) and (improved[0] == 0) == (ratio[0] == 0))
    assert np.all(begins >= 52) and all(ratios)


def test_a_single_uneven_group_is_seen(rng: np.random.Generator) -> None:
    estimate = rng.normal(0, 0.02, 10) + np.eye(10)[3]
    samples = estimate + rng.normal(0, 0.02, (200, 10))
    found = intervals_of_unevenness([estimate] * 2, [samples] * 2, np.full(10, 50), np.full(10, 0.1), 0.95)
    assert found[0][0] > 0.1 and found[2] == pytest.approx([1, 1])


def test_small_groups_borrow_the_tails_of_all(rng: np.random.Generator) -> None:
    """Twenty frames that happen to be alike do not make a group certain."""
    sizes = np.array([20, 400, 400])
    estimates, spreads = np.zeros(3), np.array([0.001, 0.05, 0.05])
    samples = rng.normal(0, spreads, (500, 3))
    low, high = intervals_of_each(estimates, samples, sizes, 0.95)
    assert high[0] - low[0] > 0.5 * np.sqrt(400 / 20) * (high[1] - low[1])
    assert not intervals_of_each(estimates, np.zeros((500, 3)), sizes, 0.95).any()


@pytest.mark.parametrize(
    ("factor", "draws", "verdict"),
    [
        (0.6, (), "better"),
        (1.7, (), "worse"),
        (1.0, (), "within noise"),
        (0.6, (0.98, 1.03, 1.01), "better"),
        (0.6, (0.7, 1.3, 0.5), "within noise"),  # a draw is as good
        (0.9, (1.0, 1.01, 0.85), "within noise"),
        (1.7, (0.98, 1.03, 1.01), "worse"),
    ],
)
def test_verdicts(factor: float, draws: tuple[float, ...], verdict: str, rng: np.random.Generator) -> None:
    rmse = np.linspace(1, 3, 6)
    claim = claims_of(rmse, factor * rmse, rng, draws=draws).of["worst_group"]
    assert claim.verdict == verdict
    assert (claim.p_draw is None) == (not draws) and len(claim.draws) == 1 + len(draws)


def test_probability_of_another_draw(rng: np.random.Generator) -> None:
    assert probability_of_draw(np.array([1.0]), 0.5) is None
    assert probability_of_draw(np.array([1.0, 1.0]), 0.5) == 0 and probability_of_draw(np.ones(3), 1.0) == 0.5
    # Over many sets of draws, one more of them lies below its own 5 % quantile in 5 % of the cases.
    samples = np.exp(rng.normal(size=(2000, 5)))
    found = np.array([probability_of_draw(row[:4], row[4]) for row in samples])
    assert np.mean(found < 0.05) == pytest.approx(0.05, abs=0.02)


def test_the_same_seed_gives_the_same_claims() -> None:
    first, second = (claims_of(np.ones(6), np.ones(6), np.random.default_rng(3)).of for _ in range(2))
    assert all(first[name].ratio == second[name].ratio for name in MEASURES)


def test_over_runs_counts_runs_not_frames(rng: np.random.Generator) -> None:
    rmse = np.linspace(1, 2, 6)
    runs = [claims_of(rmse, factor * rmse, rng, draws=(1.1,)) for factor in (0.70, 0.75, 0.72)]
    found = over_runs(runs, "overall")
    assert found.n_better == 3 and len(found.draws) == 6 and found.p_value is not None and found.p_value < 0.05
    assert found.default[0] == pytest.approx(runs[0].of["overall"].default.value * np.sqrt(1.1))
    assert over_runs(runs[:1], "overall").p_value is None
    mixed = over_runs([runs[0], claims_of(rmse, 1.3 * rmse, rng)], "overall")
    assert mixed.p_value is not None and mixed.p_value > 0.3
    assert mean_and_spread(np.array([1.0, 2.0])) == "1.500 ± 0.707" and mean_and_spread(np.array([1.0])) == "1.000"
