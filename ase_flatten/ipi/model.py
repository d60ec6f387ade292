"""Energies and forces for i-PI, from any model of this project or any ASE calculator."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read
from ase.io.formats import UnknownFileTypeError

from ase_flatten.calculators import FlattenedCalculator, load_calculator
from ase_flatten.ipi.socket_protocol import Answer
from ase_flatten.models import MODEL_ERRORS
from ase_flatten.models.resolver import resolve
from ase_flatten.utils.exceptions import BackendError, InputError, printable
from ase_flatten.utils.typing import FloatArray, IntArray


def load_answer(model: str, structure: str | Path | None = None) -> tuple[Answer, IntArray]:
    """Return the function that evaluates a model, and the atomic numbers that it assigns to the atoms of i-PI.

    Parameters
    ----------
    model : str
        A model or a calculator, as `ase_flatten.models.resolver.resolve` reads it.
    structure : str or Path, optional
        A file with the molecule, in i-PI's order of atoms; needed by a model that does not know its elements.

    Raises
    ------
    InputError
        No such model, no structure, or the two do not match.
    BackendError
        From the function: the model has failed.
    """
    named = resolve(model)
    numbers = named.numbers if structure is None else _numbers(structure)
    if numbers is None:
        raise InputError(f"expected the molecule's elements for {model}, found none; name them with --structure")
    if named.predicts_batches:
        calculator = FlattenedCalculator(named, numbers=numbers)

        def predict(positions: FloatArray) -> tuple[FloatArray, FloatArray]:
            prediction = calculator.predict(positions)
            return prediction.energies, prediction.forces

        return _checked(predict), numbers
    atoms = Atoms(numbers, calculator=load_calculator(named))

    def answer(positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        energies, forces = np.empty(len(positions)), np.empty(positions.shape)
        for row, configuration in enumerate(positions):
            atoms.positions = configuration
            energies[row], forces[row] = atoms.get_potential_energy(), atoms.get_forces()
        return energies, forces

    return _checked(answer), numbers


def _checked(answer: Answer) -> Answer:
    """Report a model that fails far from its training data in one sentence: the protocol has no message for it."""

    def checked(positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        try:
            with np.errstate(all="ignore"):
                energies, forces = answer(positions)
        except MODEL_ERRORS as error:
            raise BackendError(
                f"the model failed on a configuration sent by i-PI: {error}; look at its last frame"
            ) from error
        if not (np.isfinite(energies).all() and np.isfinite(forces).all()):
            raise BackendError(
                "expected finite energies and forces from the model, found NaN or infinity; "
                "look at the last frame of i-PI"
            )
        return energies, forces

    return checked


def _numbers(structure: str | Path) -> IntArray:
    try:
        atoms = read(structure)
    except (OSError, ValueError, UnknownFileTypeError) as error:
        raise InputError(
            f"expected a file with the molecule, could not read {structure}: {printable(error)}; check it"
        ) from error
    assert isinstance(atoms, Atoms)  # read gives a list only when asked for several
    numbers: IntArray = atoms.numbers
    return numbers
