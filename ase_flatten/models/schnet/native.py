"""SchNetPack's networks: made by settings, or read from its own files without running what they name."""

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

from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import IntArray

if not hasattr(dataloader, "T_co"):  # a name that SchNetPack 2.1 imports and PyTorch 2.6 has renamed
    dataloader.T_co = dataloader._T_co  # type: ignore[attr-defined]

_root, _level, _handlers = logging.getLogger(), logging.getLogger().level, logging.getLogger().handlers[:]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schnetpack as spk
    from schnetpack import atomistic, model, representation, transform
_root.setLevel(_level)  # SchNetPack sets the log of the whole process up when it is imported
_root.handlers[:] = _handlers

_ALLOWED_FUNCTIONS = (
    "schnetpack.nn.activations.shifted_softplus",
    "torch.nn.functional.silu",
    "torch.nn.functional.softplus",
    "torch.nn.functional.tanh",
    "torch.nn.init.xavier_uniform_",
    "torch.nn.init.zeros_",
)
"""What a potential of SchNetPack refers to beside modules; calling them does no harm."""


def make_potential(
    *, n_features: int, n_interactions: int, n_rbf: int, cutoff: float, offset: float, n_atoms: int
) -> Any:
    """Make a `NeuralNetworkPotential` with SchNetPack's initial weights, drawn from torch's generator.

    Parameters
    ----------
    n_features, n_interactions, n_rbf, cutoff
        See `SchNetSettings`.
    offset : float
        What is added to the energy of a molecule.
    n_atoms : int
        Atoms of the molecule, over which SchNetPack spreads the offset.
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
    """Return what the postprocessors of a potential add to the energy of a molecule."""
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
    """Read a file that torch wrote, never unpickling anything but tensors and plain values.

    Raises
    ------
    InputError
        The file is missing, damaged, or holds something else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise InputError(f"expected {what} in {path}, could not read it: {reason}") from error


def read_potential(path: Path) -> Any:
    """Read a `best_model` that SchNetPack wrote.

    The file is a pickle. Only modules of torch and of SchNetPack are made from it, and a
    few functions that do no harm; a file that names anything else is refused.

    Raises
    ------
    InputError
        The file is missing, damaged, holds something else, or no SchNet.
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
        raise InputError(f"expected a model of SchNetPack in {path}, could not read it: {error}") from error
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
    """Find what a file refers to, if it is a module or a function that does no harm."""
    home, _, attribute = name.rpartition(".")
    if home.split(".")[0] in ("schnetpack", "torch"):
        found = getattr(sys.modules.get(home), attribute, None)
        if name in _ALLOWED_FUNCTIONS or (isinstance(found, type) and issubclass(found, nn.Module)):
            return found
    raise InputError(f"expected a model of SchNetPack in {path}, found one that needs {name}; it is not loaded")
