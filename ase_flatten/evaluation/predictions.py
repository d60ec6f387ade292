"""Predicted against true values on the held-out frames, stored compactly for figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.utils.atomic_files import write_npz
from ase_flatten.utils.records import read_arrays, understood
from ase_flatten.utils.typing import FloatArray, IntArray

HELDOUT_PREDICTIONS = "heldout_predictions.npz"

_N_BINS = 120
_MARGIN = 1.05
"""The bins reach beyond the largest true force by this factor; predictions farther out count in the last bin."""


class ForceCounts:
    """Histogram of predicted against true force components, filled while a model predicts.

    Parameters
    ----------
    edges : (n_bins + 1,) array, eV/Å
        Of the bins, equally spaced.
    """

    def __init__(self, edges: FloatArray) -> None:
        self.edges = edges
        self.counts: IntArray = np.zeros((len(edges) - 1, len(edges) - 1), dtype=np.int64)

    def add(self, true: FloatArray, predicted: FloatArray) -> None:
        """Count force components, arrays of one shape in eV/Å; those beyond the edges count in the outermost bins."""
        n_bins = len(self.counts)
        width = (self.edges[-1] - self.edges[0]) / n_bins
        row, column = (
            np.clip((values.ravel() - self.edges[0]) / width, 0, n_bins - 1).astype(np.int64)
            for values in (true, predicted)
        )
        self.counts += np.bincount(n_bins * row + column, minlength=n_bins**2).reshape(n_bins, n_bins)


def force_edges(forces: FloatArray) -> FloatArray:
    """Return edges of bins, eV/Å, symmetric about zero, that hold all of these forces."""
    largest = _MARGIN * float(np.abs(forces).max(initial=0.0)) or 1.0
    return np.linspace(-largest, largest, _N_BINS + 1)


@dataclass(frozen=True, eq=False)
class HeldoutPredictions:
    """What figures of predicted against true values need besides `HeldoutErrors`.

    Parameters
    ----------
    energies : (n_heldout,) array, eV
        True energies of the held-out frames, above the lowest of the data.
    force_edges : (n_bins + 1,) array, eV/Å
        Of the bins of the force components.
    force_counts : mapping of scheme to (n_bins, n_bins) int array
        Force components by their true value (rows) and the predicted one (columns).
    """

    energies: FloatArray
    force_edges: FloatArray
    force_counts: Mapping[str, IntArray]

    def write(self, path: Path) -> None:
        """Write heldout_predictions.npz, in kcal/mol and kcal/(mol Å)."""
        counts = {f"force_counts_{scheme}": counts for scheme, counts in self.force_counts.items()}
        scaled = {"energies": self.energies / KCAL_PER_MOL, "force_edges": self.force_edges / KCAL_PER_MOL}
        write_npz(path, {**scaled, **counts})

    @classmethod
    def read(cls, path: Path, schemes: tuple[str, ...], *, n_heldout: int) -> "HeldoutPredictions":
        """Read heldout_predictions.npz; raise InputError if it is damaged."""
        words = {
            "what": "the held-out predictions of a run",
            "remedy": "compute them again with: ase-flatten train --resume --out RUN",
        }
        names = {scheme: f"force_counts_{scheme}" for scheme in schemes}
        shapes = {"energies": f"float {n_heldout}", "force_edges": "float edges"}
        shapes |= dict.fromkeys(names.values(), "int bins bins")
        arrays = read_arrays(path, list(shapes), shapes=shapes, **words)
        edges = arrays["force_edges"]
        with understood(path, **words):
            if len(edges) < 2 or np.any(np.diff(edges) <= 0):
                raise ValueError("edges of bins that do not ascend")
            for name in names.values():
                counts = arrays[name]
                if len(counts) != len(edges) - 1 or counts.min() < 0 or not 0 < counts.sum() < 2**62:
                    raise ValueError(f"impossible {name} between {len(edges)} edges")
        return cls(
            arrays["energies"] * KCAL_PER_MOL,
            edges * KCAL_PER_MOL,
            {scheme: arrays[name] for scheme, name in names.items()},
        )
