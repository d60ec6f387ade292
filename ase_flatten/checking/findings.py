"""What a check of a data set can find, and how it names frames."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ase_flatten.utils.typing import IntArray

SHOWN_FRAMES = 10
"""Frames that a message names by their numbers."""


@dataclass(frozen=True)
class Finding:
    """Say one thing that is wrong, or worth knowing, about a data set."""

    level: Literal["refused", "note"]
    what: str
    """A short key, such as "duplicates"."""
    message: str
    """One sentence: what was expected, what was found, what to do."""
    frames: tuple[int, ...] = ()
    """The frames concerned, where it concerns single ones; empty where the whole set is at fault."""
    reasons: tuple[str, ...] = ()
    """What is wrong with each of them, or one reason for all."""

    mend: bool = False
    """Whether these frames are sound once they are mended, so that they should not be left out."""

    def reason(self, row: int) -> str:
        """Say what is wrong with the frame of this row."""
        return self.reasons[row] if len(self.reasons) == len(self.frames) else self.reasons[0]


def frame_numbers(frames: IntArray) -> str:
    """List the first frames, and say how many more there are."""
    shown = ", ".join(str(frame) for frame in frames[:SHOWN_FRAMES])
    more = len(frames) - SHOWN_FRAMES
    return f"frame{'s' if len(frames) > 1 else ''} {shown}" + (f" and {more} more" if more > 0 else "")


def as_frames(chosen: np.ndarray) -> tuple[int, ...]:
    """Turn a mask over frames into their numbers."""
    return tuple(int(frame) for frame in np.flatnonzero(chosen))


def some(chosen: np.ndarray) -> str:
    """Say how many of the frames a mask has, and which is the first."""
    return f"{int(np.sum(chosen))} of {len(chosen)} frames (the first is frame {int(np.argmax(chosen))})"


def count_reasons(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """Count reasons, the commonest first; the numbers in parentheses are left away."""
    return Counter(re.sub(r" \([^)]*\)", "", reason) for reason in reasons).most_common()
