"""Claims over several runs that differ in their seed: the spread over runs, and one p for a claim.

Frames of one run tell how well its two models are known; that improved training does the same again is told by runs.
Each run is one observation here, however many frames it held out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ase_flatten.evaluation.claims import Claims
from ase_flatten.utils.typing import FloatArray


@dataclass(frozen=True, eq=False)
class OverRuns:
    """Hold one measure of several runs.

    Parameters
    ----------
    default, improved : (n_runs,) arrays
        The measure of the final models of each run.
    draws : (n_draws,) array
        That of all default models of all runs.
    p_value : float or None
        Of a two-sided paired t test on the logarithms of the ratios improved/default: how often as large a mean
        would come if improved training changed nothing. None for a single run. With two or three runs it is small
        only where the ratios hardly differ: then their number of runs is what limits the claim.
    """

    default: FloatArray
    improved: FloatArray
    draws: FloatArray
    p_value: float | None

    @property
    def ratios(self) -> FloatArray:
        """Improved over default of each run, (n_runs,)."""
        ratios: FloatArray = self.improved / self.default
        return ratios

    @property
    def n_better(self) -> int:
        """Runs whose improved model has the smaller error."""
        return int(np.sum(self.improved < self.default))


def over_runs(runs: Sequence[Claims], measure: str) -> OverRuns:
    """Gather one measure over runs on the same data, with the same settings but for the seed.

    Where a run has several default draws, its default value is their geometric mean, so that no run's ratio hangs on
    a lucky or unlucky draw.

    Parameters
    ----------
    measure : str
        One of `ase_flatten.evaluation.claims.MEASURES`.
    """
    claims = [run.of[measure] for run in runs]
    default = np.array([stats.gmean(claim.draws) for claim in claims])
    improved = np.array([claim.improved.value for claim in claims])
    p_value = None
    if len(claims) > 1:
        logs = np.log(improved / default)
        p_value = float(stats.ttest_1samp(logs, 0).pvalue) if np.ptp(logs) > 0 else float(not logs.any())
    return OverRuns(default, improved, np.concatenate([claim.draws for claim in claims]), p_value)


def mean_and_spread(values: FloatArray, decimals: int = 3) -> str:
    """Write the mean, and the standard deviation where there are several."""
    text = f"{np.mean(values):.{decimals}f}"
    return f"{text} ± {np.std(values, ddof=1):.{decimals}f}" if len(values) > 1 else text
