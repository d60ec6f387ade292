"""Selectors: what a selection rule must offer, and how selectors are found.

A selector is an object with the attributes of `Selector`, named by an entry point in the group
``ase_flatten.selectors``. A third-party package adds a selector by declaring such an entry point.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import Progress
from ase_flatten.utils.typing import FloatArray, IntArray

ENTRY_POINT_GROUP = "ase_flatten.selectors"


@dataclass(frozen=True, eq=False)
class Candidates:
    """Frames that a step may add to the training set, and what is known of them.

    Parameters
    ----------
    frames : (n,) int array
        Frames of the bad clusters, in rising order, none of them a training frame.
    force_mse : (n,) array, (eV/Å)²
        Mean squared force error of each frame, per component.
    descriptors : (n, n_pairs) array, Å
        Pair distances of each frame.
    train_descriptors : (n_train, n_pairs) array, Å
        Pair distances of the training frames.
    """

    frames: IntArray
    force_mse: FloatArray
    descriptors: FloatArray
    train_descriptors: FloatArray


Choose = Callable[[NDArray[np.bool_]], IntArray]
"""Return the rows of the candidates to add, given which candidates are refused, (n,) bool array."""


class Selector(Protocol):
    """A rule that chooses the frames that a step adds to the training set."""

    @property
    def name(self) -> str:
        """The name on the command line and in run.json."""

    def prepare(self, candidates: Candidates, n_added: int, *, rng: np.random.Generator, progress: Progress) -> Choose:
        """Return a function that chooses among the candidates.

        What is costly or random is done here, once. The function is called again whenever the label of a
        chosen frame has turned out to be wrong; the refused frames must not be among those that it returns.

        Parameters
        ----------
        candidates : Candidates
        n_added : int
            How many frames to choose.

        Returns
        -------
        callable
            Returns up to `n_added` different rows of `candidates`, the best first; fewer if there are not
            enough candidates that differ from each other and from the training frames.
        """


def selectors() -> list[str]:
    """Return the names of the selectors that are installed."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)})


def find_selector(name: str) -> Selector:
    """Return a selector by its name.

    Raises
    ------
    InputError
        No installed package offers it, or its package cannot be imported.
    """
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        try:
            found: Selector = point.load()
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"the selector {name} is declared by an installed package but cannot be imported ({error}); "
                "reinstall that package"
            ) from error
        return found
    raise InputError(f"the selector must be one of {', '.join(selectors()) or 'none installed'}, got {name!r}")
