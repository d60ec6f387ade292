"""Where to compute."""

import torch

from ase_flatten.exceptions import InputError


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
