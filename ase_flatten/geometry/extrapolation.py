"""How far a geometry lies outside the geometries that a model was trained on.

Two measures, both in units of their typical value for a training geometry compared with the others:

1. The distance to the nearest training geometry: the root mean square, over all pairs of atoms, of the
   difference of the pair's distance divided by its spread in the training set.
2. For each single pair of atoms, how far its distance lies outside the range of the training set, in spreads of
   that pair; the largest value counts. The spread of a bond length is small, so a bond that is too long stands out
   even among hundreds of normal distances.

The larger of the two is the extrapolation. Both are 1 at the `QUANTILE` of the training geometries, each compared with
all others.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_flatten.geometry.image_products import Images
from ase_flatten.geometry.pair_distances import NEAR_IDENTICAL, pair_distances
from ase_flatten.utils.blocks import blocks
from ase_flatten.utils.typing import FloatArray, IntArray

QUANTILE = 0.95
"""The fraction of training geometries that lie inside by each measure when they are left out.

Preferred to 99 % for its calibration (docs/extrapolation.rst): for a hundred geometries, the 99 % quantile is
practically the largest value, which depends on a single geometry."""

LEAST_MARGIN = 0.5
"""Both measures allow at least this many spreads, however densely the training geometries lie."""

_MEASURED = 200
"""Number of training geometries, evenly spaced, that are compared with all others for the unit of the first measure."""

_FARTHEST = 1e6


@dataclass(frozen=True)
class OutlyingDistance:
    """The distance of one geometry that lies farthest outside its training range, in spreads of the pair.

    Parameters
    ----------
    atoms : (int, int)
        Indices of the two atoms.
    distance, smallest, largest : float, Å
        In this geometry, and the range in the training geometries and their images.
    extrapolation : float
        The second measure; zero or negative for a distance inside its range.
    """

    atoms: tuple[int, int]
    distance: float
    smallest: float
    largest: float
    extrapolation: float


@dataclass(frozen=True, eq=False)
class TrainingRegion:
    """The region that training geometries fill; see `training_region`.

    Parameters
    ----------
    smallest, largest, spread : (n_pairs,) arrays, Å
        Of each pair distance, over the training geometries and their images.
    margin : float
        Number of spreads by which a single distance may lie outside its range.
    centre : (n_pairs,) array, Å
    scaled : (n_train, n_pairs) float32 array
        Pair distances of the training geometries relative to `centre`, in spreads. Single precision suffices for
        a comparison and takes half the time.
    squared_norms : (n_train,) float32 array
        Of the rows of `scaled`.
    reach : float
        Largest distance to the nearest training geometry (root mean square of the scaled differences).
    images : Images
        The images of geometries in which like atoms are exchanged.
    """

    smallest: FloatArray
    largest: FloatArray
    spread: FloatArray
    margin: float
    centre: FloatArray
    scaled: NDArray[np.float32]
    squared_norms: NDArray[np.float32]
    reach: float
    images: Images

    def extrapolation(self, positions: FloatArray) -> FloatArray:
        """Compute the extrapolation of many geometries.

        Parameters
        ----------
        positions : (n_frames, n_atoms, 3) array, Å

        Returns
        -------
        (n_frames,) array
            Above 1 outside the training set; NaN for positions that are not finite.
        """
        distances = pair_distances(positions)
        values = self._outside(distances).max(axis=1) / self.margin
        return np.maximum(values, self.nearest(distances) / self.reach)

    def outlying_distance(self, positions: FloatArray) -> OutlyingDistance:
        """Find the distance of one geometry, (n_atoms, 3) in Å, that lies farthest outside its training range."""
        distances = pair_distances(positions[None])
        outside = self._outside(distances)[0]
        pair = int(np.argmax(outside))
        i, j = np.tril_indices(len(positions), -1)
        return OutlyingDistance(
            atoms=(int(j[pair]), int(i[pair])),
            distance=float(distances[0, pair]),
            smallest=float(self.smallest[pair]),
            largest=float(self.largest[pair]),
            extrapolation=float(outside[pair] / self.margin),
        )

    def nearest(self, distances: FloatArray) -> FloatArray:
        """Return how far the nearest training geometry is, (n_frames,), for distances, (n_frames, n_pairs) in Å."""
        scaled = (distances - self.centre) / self.spread
        rows = np.clip(scaled, -_FARTHEST, _FARTHEST).astype(np.float32)  # the squares must not overflow
        return _differences(rows, self.scaled, self.squared_norms, self.images).min(axis=1)

    def _outside(self, distances: FloatArray) -> FloatArray:
        """Return how far each distance lies outside its range, in spreads; negative inside."""
        return np.asarray(np.maximum(self.smallest - distances, distances - self.largest) / self.spread)


def training_region(
    positions: FloatArray, permutations: IntArray, *, quantile: float = QUANTILE
) -> TrainingRegion | None:
    """Measure the region of configurational space that training geometries fill.

    Parameters
    ----------
    positions : (n_train, n_atoms, 3) array, Å
    permutations : (n_permutations, n_atoms) int array
        A group of permutations of atoms under which the model is invariant: the images of a training geometry are
        training geometries, too.
    quantile : float
        The fraction of the training geometries for which each measure is at most 1.

    Returns
    -------
    TrainingRegion or None
        None for fewer than two geometries, which have no spread.
    """
    if len(positions) < 2:
        return None
    distances = pair_distances(positions)
    images = Images.of(permutations)
    smallest, largest, centre, spread = (np.empty(distances.shape[1]) for _ in range(4))
    outside = np.full(len(distances), -np.inf)
    for pairs in _orbits(images):
        values = distances[:, pairs]
        low, high = values.min(axis=1), values.max(axis=1)
        smallest[pairs], largest[pairs], centre[pairs] = low.min(), high.max(), values.mean()
        spread[pairs] = unit = max(float(values.std()), NEAR_IDENTICAL)
        np.maximum(outside, np.maximum(_others_least(low) - low, high + _others_least(-high)) / unit, out=outside)
    scaled = ((distances - centre) / spread).astype(np.float32)
    squared_norms = np.einsum("fp,fp->f", scaled, scaled)
    rows = np.unique(np.linspace(0, len(scaled) - 1, _MEASURED).astype(np.int64))
    gaps = _differences(scaled[rows], scaled, squared_norms, images)
    gaps[np.arange(len(rows)), rows] = np.inf
    return TrainingRegion(
        smallest=smallest,
        largest=largest,
        spread=spread,
        margin=max(float(np.quantile(outside, quantile)), LEAST_MARGIN),
        centre=centre,
        scaled=scaled,
        squared_norms=squared_norms,
        reach=max(float(np.quantile(gaps.min(axis=1), quantile)), LEAST_MARGIN),
        images=images,
    )


def _differences(
    rows: NDArray[np.float32], training: NDArray[np.float32], squared_norms: NDArray[np.float32], images: Images
) -> FloatArray:
    """Compute root-mean-square differences of scaled distances, in the nearest image: (n_rows, n_train).

    Centre and spread of a pair are the same in all images, so images of scaled distances need no further scaling.
    """
    n_pairs, n_train, n_images = rows.shape[1], len(training), len(images)
    squared = np.empty((len(rows), n_train))
    for block in blocks(len(rows), 4 * n_images * (n_train + n_pairs)):
        some = rows[block]
        largest = images.products(some, training).max(axis=1)
        squared[block] = np.einsum("fp,fp->f", some, some)[:, None] + squared_norms - 2 * largest
    return np.sqrt(np.maximum(squared, 0) / n_pairs)


def _orbits(images: Images) -> list[IntArray]:
    """Return the sets of pairs that the images exchange with one another."""
    return [np.flatnonzero(images.first == pair) for pair in np.unique(images.first)]


def _others_least(values: FloatArray) -> FloatArray:
    """Return, for each of at least two values, the smallest of the others."""
    least, second = np.partition(values, 1)[:2]
    return np.where(values == least, second, least)
