"""Where to compute, and on how many threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ase_flatten.utils.exceptions import InputError

ONE_THREAD_BELOW = 2**18
"""Numbers in the largest arrays of a computation, below which one thread does it best."""


def find_device(wanted: str | torch.device | None) -> torch.device:
    """Find the device to compute on: a GPU if there is one, where nobody says.

    Raises
    ------
    InputError
        A device that is neither cpu nor cuda, or that this machine does not have.
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
    """Keep torch, in this thread, from sharing out work among others.

    Arrays of small molecules are too small for it: it gains nothing, and where other
    processes are busy too, each operation waits for the slowest thread.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
