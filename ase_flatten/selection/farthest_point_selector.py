"""Farthest-point sampling: frames that are as different as possible (Imbalzano et al. 2018, doi:10.1063/1.5024611)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_flatten.geometry.pair_distances import NEAR_IDENTICAL, squared_distances
from ase_flatten.selection.selectors import Candidates, Choose
from ase_flatten.utils.blocks import blocks
from ase_flatten.utils.progress import Progress
from ase_flatten.utils.typing import IntArray


@dataclass(frozen=True)
class FarthestPointSelector:
    """A selector that repeatedly takes the candidate that is farthest from all training frames and those taken before.

    Distances are Euclidean between the pair distances of two frames. The errors of the candidates do not matter.
    """

    name: str = "farthest-point"

    def prepare(self, candidates: Candidates, n_added: int, *, rng: np.random.Generator, progress: Progress) -> Choose:
        """Measure how far each candidate is from the training frames; see `Selector.prepare`."""
        descriptors, training = candidates.descriptors, candidates.train_descriptors
        to_training = np.full(len(descriptors), np.inf)
        for block in blocks(len(descriptors), 8 * (len(training) + 1)):
            to_training[block] = squared_distances(descriptors[block], training).min(axis=1, initial=np.inf)

        def choose(refused: NDArray[np.bool_]) -> IntArray:
            squared = np.where(refused, 0.0, to_training)
            rows: list[int] = []
            while len(rows) < n_added:
                row = int(np.argmax(squared))
                if squared[row] < NEAR_IDENTICAL**2 * descriptors.shape[1]:
                    break
                rows.append(row)
                squared = np.minimum(squared, squared_distances(descriptors, descriptors[row : row + 1])[:, 0])
            return np.array(rows, dtype=np.int64)

        return choose


FARTHEST_POINT = FarthestPointSelector()
