"""Reference methods: ASE calculators by their name on the command line."""

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from ase.calculators.calculator import BaseCalculator

from ase_flatten.utils.exceptions import InputError, not_installed

TBLITE_METHODS = ("GFN2-xTB", "GFN1-xTB")
"""Methods of tblite that may be asked for."""

_EXAMPLES = "tblite:GFN2-xTB or ase:package.module:factory"


def is_reference(spec: str) -> bool:
    """Return whether `spec` names a calculator for `reference_calculator`, rather than a file or a folder."""
    return spec.startswith(("tblite:", "ase:"))


def reference_calculator(spec: str) -> BaseCalculator:
    """Make the ASE calculator that `spec` names, a fresh one at every call.

    Parameters
    ----------
    spec : str
        ``tblite:GFN2-xTB`` or ``tblite:GFN1-xTB``; or ``ase:package.module:factory``, whose
        factory is called without arguments and gives a calculator with energy and forces.

    Raises
    ------
    InputError
        A name that is not understood, or a package, module or factory that is not there.
    """
    kind, _, name = spec.partition(":")
    if kind == "tblite" and name:
        return _tblite(name)
    if kind == "ase" and name:
        return _from_factory(spec, name)
    raise InputError(f"expected a calculator such as {_EXAMPLES}, found {spec!r}; name one of these kinds")


def _tblite(method: str) -> BaseCalculator:
    if method not in TBLITE_METHODS:
        near = get_close_matches(method, TBLITE_METHODS, n=1, cutoff=0.0)[0]
        raise InputError(
            f"the method of tblite must be one of {', '.join(TBLITE_METHODS)}, got {method!r}; did you mean {near}?"
        )
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise not_installed(f"tblite:{method}", "tblite", extra="md", error=error) from error
    return TBLite(method=method, verbosity=0)


def _from_factory(spec: str, name: str) -> BaseCalculator:
    module, _, attribute = name.rpartition(":")
    if not module or not attribute:
        raise InputError(f"expected a calculator such as {_EXAMPLES}, found {spec!r}; name a module and a factory")
    try:
        factory: Callable[[], Any] = getattr(import_module(module), attribute)
        calculator = factory()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"expected a factory without arguments at {module}:{attribute}, could not call it ({error}); "
            "check the module's name and that it can be imported from here"
        ) from error
    missing = {"energy", "forces"} - set(getattr(calculator, "implemented_properties", ()))
    if missing:
        raise InputError(
            f"expected an ASE calculator with energy and forces from {spec}, found {type(calculator).__name__} "
            f"without {' and '.join(sorted(missing))}; name another factory"
        )
    return calculator
