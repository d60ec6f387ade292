"""Temperatures of a run: that of the momenta, and that of the configurations."""

import numpy as np
from ase import units

from ase_flatten.md.analysis.time_series import mean_error, timeseries
from ase_flatten.utils.typing import FloatArray


def configurational_temperature(positions: FloatArray, forces: FloatArray) -> FloatArray:
    """Return the configurational temperature that each frame contributes, (n_frames,) in K.

    Generalised equipartition: of a bound molecule ⟨Σ_i (x_i - x̄)·∂U/∂x_i⟩ = (3 n_atoms - 3) k_B T, with x̄ the
    centre of the atoms, since the integral of ∂(x e^{-U/kT})/∂x vanishes (the virial among the vector fields
    of Jepps et al., https://doi.org/10.1103/PhysRevE.62.4757). Unlike ⟨|F|²⟩/⟨∇²U⟩ it needs no second
    derivatives of the model. Only the mean over frames is meaningful.

    Parameters
    ----------
    positions, forces : (n_frames, n_atoms, 3) arrays, Å and eV/Å
    """
    centred = positions - positions.mean(axis=1, keepdims=True)
    freedom = 3 * positions.shape[1] - 3
    return np.asarray(-np.einsum("fax,fax->f", centred, forces) / (freedom * units.kB))


def mean_and_error(series: FloatArray) -> tuple[float | None, float | None]:
    """Return mean and standard error of an (n, n_replicas) series; None if there are none."""
    if series.size < 2:
        return None, None
    return float(series.mean()), mean_error(series)


def effective_samples(series: FloatArray) -> float | None:
    """Count the independent samples in an (n, n_replicas) series: its size over its statistical inefficiency.

    The inefficiency is pymbar's, from the autocorrelation (Chodera et al., https://doi.org/10.1021/ct0502864).
    The standard errors come from block averages instead, which are as accurate, are not limited to an
    inefficiency of at least 1, and whose length the fit of the drift needs as well.

    Raises
    ------
    InputError
        The package pymbar is missing.
    """
    if len(series) < 2 or not series.size or not series.var() > 0:
        return None
    return series.size / float(timeseries().statistical_inefficiency_multiple(list(series.T), fast=True))
