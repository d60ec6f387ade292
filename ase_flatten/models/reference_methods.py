"""ASE calculators of reference methods, by name."""

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from ase.calculators.calculator import BaseCalculator

from ase_flatten.utils.exceptions import InputError, not_installed, printable

TBLITE_METHODS = ("GFN2-xTB", "GFN1-xTB")
"""The methods of tblite that can be named."""


def tblite_calculator(method: str) -> BaseCalculator:
    """Make a calculator of tblite.

    Raises
    ------
    InputError
        The method is not one of `TBLITE_METHODS`, or tblite is not installed.
    """
    if method not in TBLITE_METHODS:
        near = get_close_matches(method, TBLITE_METHODS, n=1, cutoff=0.0)[0]
        raise InputError(
            f"the method of tblite must be one of {', '.join(TBLITE_METHODS)}, got {printable(method)!r}; "
            f"did you mean {near}?"
        )
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise not_installed(f"tblite:{method}", "tblite", extra="md", error=error) from error
    return TBLite(method=method, verbosity=0)


def factory_calculator(name: str) -> BaseCalculator:
    """Make the calculator that a factory returns.

    Parameters
    ----------
    name : str
        ``package.module:factory``. The factory is called without arguments and returns an ASE calculator with
        energy and forces.

    Raises
    ------
    InputError
        No such module or factory, the factory fails, or what it returns is no such calculator.
    """
    module, _, attribute = name.rpartition(":")
    if not module or not attribute:
        raise InputError(
            "expected a calculator such as ase:ase.calculators.emt:EMT, "
            f"found 'ase:{printable(name)}'; name a module and a factory"
        )
    try:
        factory: Callable[[], Any] = getattr(import_module(module), attribute)
        calculator = factory()
    except Exception as error:  # it is the user's code, which raises anything
        raise InputError(
            f"expected a factory without arguments at {module}:{attribute}, could not call it "
            f"({type(error).__name__}: {printable(error)}); "
            "check the names; the module must be installed, on PYTHONPATH, or in the current folder"
        ) from error
    missing = {"energy", "forces"} - set(getattr(calculator, "implemented_properties", ()))
    if missing:
        raise InputError(
            f"expected an ASE calculator with energy and forces from ase:{name}, found {type(calculator).__name__} "
            f"without {' and '.join(sorted(missing))}; name another factory"
        )
    return calculator
