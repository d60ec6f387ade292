"""SchNetPack's potentials: made from settings, or read from SchNetPack's files without executing their content."""

import logging
import pickle
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import dataloader

from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.typing import IntArray

if not hasattr(dataloader, "T_co"):  # SchNetPack 2.1 imports this name, PyTorch 2.6 renamed it
    dataloader.T_co = dataloader._T_co  # type: ignore[attr-defined]

_root, _level, _handlers = logging.getLogger(), logging.getLogger().level, logging.getLogger().handlers[:]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schnetpack as spk
    from schnetpack import atomistic, model, representation, transform
_root.setLevel(_level)  # importing SchNetPack configures the root logger
_root.handlers[:] = _handlers

_ALLOWED_FUNCTIONS = (
    "schnetpack.nn.activations.shifted_softplus",
    "torch.nn.functional.silu",
    "torch.nn.functional.softplus",
    "torch.nn.functional.tanh",
    "torch.nn.init.xavier_uniform_",
    "torch.nn.init.zeros_",
)
"""Functions that a SchNetPack potential may refer to; calling them is harmless."""


def make_potential(
    *, n_features: int, n_interactions: int, n_rbf: int, cutoff: float, offset: float, n_atoms: int
) -> Any:
    """Make a `NeuralNetworkPotential` with SchNetPack's initial weights, drawn from torch's generator.

    Parameters
    ----------
    n_features, n_interactions, n_rbf, cutoff
        See `SchNetSettings`.
    offset : float
        Added to the energy of the molecule.
    n_atoms : int
        Atoms of the molecule; SchNetPack distributes the offset over them.
    """
    schnet = representation.SchNet(
        n_atom_basis=n_features,
        n_interactions=n_interactions,
        radial_basis=spk.nn.GaussianRBF(n_rbf=n_rbf, cutoff=cutoff),
        cutoff_fn=spk.nn.CosineCutoff(cutoff),
    )
    potential = model.NeuralNetworkPotential(
        representation=schnet,
        input_modules=[atomistic.PairwiseDistances()],
        output_modules=[
            atomistic.Atomwise(n_in=n_features, output_key="energy"),
            atomistic.Forces(energy_key="energy", force_key="forces"),
        ],
        postprocessors=[transform.CastTo64(), transform.AddOffsets("energy", add_mean=True)],
    )
    potential.postprocessors[1].mean = torch.tensor([offset / n_atoms], dtype=torch.float64)
    return potential


def offset_of(potential: Any, numbers: IntArray) -> float:
    """Return the energy that the postprocessors of a potential add to that of a molecule."""
    offset = 0.0
    for step in potential.postprocessors:
        if isinstance(step, transform.AddOffsets):
            if step.add_mean:
                offset += float(step.mean.sum()) * (len(numbers) if step.is_extensive else 1)
            if step.add_atomrefs:
                offset += float(step.atomref.double().flatten()[torch.tensor(numbers)].sum())
        elif not isinstance(step, transform.CastTo64 | transform.CastTo32):
            raise InputError(
                f"expected a SchNetPack potential that adds offsets, found {type(step).__name__}: not supported"
            )
    return offset


def read_torch(path: Path, what: str) -> Any:
    """Read a file written by torch, without unpickling anything but tensors and plain values.

    Raises
    ------
    InputError
        The file is missing, damaged, or of another kind.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise InputError(f"expected {what} in {path}, could not read it: {printable(reason)}") from error


def read_potential(path: Path) -> Any:
    """Read a `best_model` written by SchNetPack.

    The file is a pickle. Only modules of torch and SchNetPack, and a few harmless functions, are loaded from it; a
    file that refers to anything else is refused.

    Raises
    ------
    InputError
        The file is missing, damaged, or does not hold a SchNet.
    """
    if not path.is_file():
        raise InputError(f"expected a model of SchNetPack, found no file {path}; check the path")
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise InputError(
            f"expected PyTorch 2.6 or later to read {path} without unpickling it, found {torch.__version__}; update it"
        )
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise InputError(f"expected a model of SchNetPack in {path}, could not read it: {printable(error)}") from error
    with torch.serialization.safe_globals([_allowed(name, path) for name in named]):
        potential = read_torch(path, "a model of SchNetPack")
    schnet = getattr(potential, "representation", None)
    outputs = list(getattr(potential, "output_modules", []))
    if not isinstance(schnet, representation.SchNet) or len(schnet.electronic_embeddings):
        found = type(potential).__name__ if schnet is None else type(schnet).__name__
        raise InputError(f"expected a SchNet in {path}, found {found}; analyse it as ase:module:factory")
    if not outputs or not isinstance(outputs[0], atomistic.Atomwise) or outputs[0].aggregation_mode != "sum":
        raise InputError(f"expected an energy that is the sum over atoms first in {path}, found another output")
    return potential


def _allowed(name: str, path: Path) -> Any:
    """Return the object that a file refers to, if it is a module or a harmless function."""
    home, _, attribute = name.rpartition(".")
    if home.split(".")[0] in ("schnetpack", "torch"):
        found = getattr(sys.modules.get(home), attribute, None)
        if name in _ALLOWED_FUNCTIONS or (isinstance(found, type) and issubclass(found, nn.Module)):
            return found
    raise InputError(f"expected a model of SchNetPack in {path}, found one that needs {name}; it is not loaded")
