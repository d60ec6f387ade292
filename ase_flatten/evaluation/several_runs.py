"""Claims over several runs that differ in their seed: the spread over runs, and one p-value per claim.

The frames of one run show how well the errors of its two models are known; only several runs show whether improved
training has the same effect again. Each run is one observation here, however many frames it held out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ase_flatten.evaluation.claims import Claims
from ase_flatten.utils.typing import FloatArray


@dataclass(frozen=True, eq=False)
class OverRuns:
    """One measure of several runs.

    Parameters
    ----------
    default, improved : (n_runs,) arrays, eV/Å, or eV for energies
        The measure for the final models of each run.
    draws : (n_draws,) array
        The measure for all default models of all runs.
    p_value : float or None
        Of a two-sided paired t test on the logarithms of the ratios improved/default: the probability of a mean at
        least as large if improved training changed nothing. None for a single run. With two or three runs it is small
        only if the ratios hardly differ; the number of runs then limits the claim.
    """

    default: FloatArray
    improved: FloatArray
    draws: FloatArray
    p_value: float | None

    @property
    def ratios(self) -> FloatArray:
        """Improved divided by default for each run, (n_runs,)."""
        ratios: FloatArray = self.improved / self.default
        return ratios

    @property
    def n_better(self) -> int:
        """Number of runs whose improved model has the smaller error."""
        return int(np.sum(self.improved < self.default))


def over_runs(runs: Sequence[Claims], measure: str) -> OverRuns:
    """Collect one measure over runs on the same data, with the same settings except for the seed.

    If a run has several default draws, its default value is their geometric mean, so that its ratio does not depend
    on a lucky or unlucky draw.

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
    """Format the mean, with the standard deviation if there are several values."""
    text = f"{np.mean(values):.{decimals}f}"
    return f"{text} ± {np.std(values, ddof=1):.{decimals}f}" if len(values) > 1 else text
