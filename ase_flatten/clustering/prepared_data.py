"""The data that a training starts from, prepared once and handed on."""

from dataclasses import dataclass
from functools import cached_property

from ase_flatten.clustering.clusters import Clustering, representatives
from ase_flatten.clustering.splits import Splits
from ase_flatten.data.dataset import Dataset
from ase_flatten.utils.typing import IntArray


@dataclass(frozen=True, eq=False)
class PreparedData:
    """A data set, its broad clusters, and the splits of its frames.

    Parameters
    ----------
    dataset : Dataset
        It holds its pair distances as well, which are computed once.
    clustering : Clustering
    splits : Splits

    Examples
    --------
    >>> import numpy as np
    >>> from ase_flatten import PreparedData, cluster, read_dataset
    >>> from ase_flatten.clustering.splits import split
    >>> rng = np.random.default_rng(0)
    >>> dataset = read_dataset("examples/data/salicylic_gfn2_500K.npz")
    >>> clustering = cluster(dataset, rng=rng, n_geometry=4, n_energy=2)
    >>> data = PreparedData(dataset, clustering, split(clustering, dataset.pair_distances, rng=rng))
    >>> data.representatives.shape
    (8,)
    """

    dataset: Dataset
    clustering: Clustering
    splits: Splits

    @cached_property
    def representatives(self) -> IntArray:
        """The frame nearest to the centroid of each cluster, (n_clusters,)."""
        return representatives(self.clustering, self.dataset.pair_distances)
