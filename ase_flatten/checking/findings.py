"""Findings of the checks of a data set, and text about frames."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ase_flatten.utils.typing import IntArray

SHOWN_FRAMES = 10
"""Largest number of frames that a message lists."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a data set, or worth knowing about it."""

    level: Literal["refused", "note"]
    what: str
    """A short key, such as "duplicates"."""
    message: str
    """One sentence: what was expected, what was found, what to do."""
    frames: tuple[int, ...] = ()
    """The affected frames; empty if the whole set is affected."""
    reasons: tuple[str, ...] = ()
    """What is wrong with each of them, or one reason for all."""

    mend: bool = False
    """Whether these frames can be corrected, so that they should not be left out."""

    def reason(self, row: int) -> str:
        """Return what is wrong with the frame of this row."""
        return self.reasons[row] if len(self.reasons) == len(self.frames) else self.reasons[0]


def frame_numbers(frames: IntArray) -> str:
    """Format the numbers of the first frames, and how many more there are."""
    shown = ", ".join(str(frame) for frame in frames[:SHOWN_FRAMES])
    more = len(frames) - SHOWN_FRAMES
    return f"frame{'s' if len(frames) > 1 else ''} {shown}" + (f" and {more} more" if more > 0 else "")


def as_frames(chosen: np.ndarray) -> tuple[int, ...]:
    """Return the numbers of the frames that a mask selects."""
    return tuple(int(frame) for frame in np.flatnonzero(chosen))


def some(chosen: np.ndarray) -> str:
    """Format how many frames a mask selects, and which is the first."""
    return f"{int(np.sum(chosen))} of {len(chosen)} frames (the first is frame {int(np.argmax(chosen))})"


def count_reasons(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """Count reasons, the most frequent first; what they say in parentheses is removed."""
    return Counter(re.sub(r" \([^)]*\)", "", reason) for reason in reasons).most_common()
