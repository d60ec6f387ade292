"""The device to compute on, and the number of threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ase_flatten.utils.exceptions import InputError

ONE_THREAD_BELOW = 2**18
"""Size of the largest array of a computation, in elements, below which a single thread is fastest."""


def find_device(wanted: str | torch.device | None) -> torch.device:
    """Return the device to compute on: by default, a GPU if there is one.

    Raises
    ------
    InputError
        The device is neither cpu nor cuda, or the machine does not have it.
    """
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"the device must be cpu or cuda, got {wanted!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"the device must be cpu or cuda, got {wanted!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"{device} was asked for, this machine has {torch.cuda.device_count()} GPUs; use cpu")
    return device


@contextmanager
def one_thread() -> Iterator[None]:
    """Restrict torch to one thread within the block.

    The arrays of small molecules are too small to gain from more, and on a busy machine each operation would wait
    for the slowest thread.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
