"""A driver for i-PI's own client, which finds it by the two names below.

    i-pi-driver-py -u -a flatten -m custom -P "$(ase-flatten ipi --pes)" -o model=runs/demo

With i-PI's ``<ffdirect>`` (``<pes>custom</pes>``, ``<pes_path>`` this file's, ``<parameters>{model:runs/demo}``)
it works within i-PI itself, without a socket.

Licence: i-PI comes under the GPL version 3 and, at the user's choice, under the MIT licence (``license_MIT.txt`` of
its distribution). This file contains no code of i-PI; it imports and subclasses a class of it under the MIT licence,
so that the MIT licence of this project applies here as everywhere else. The rest of the package does not import i-PI:
the engine runs it as a process and talks to it through a socket.
"""

from typing import Any

import numpy as np
from ase import units
from ipi.pes import Dummy_driver

from ase_flatten.ipi.model import load_answer
from ase_flatten.ipi.socket_protocol import check_count
from ase_flatten.utils.typing import FloatArray

__DRIVER_NAME__ = "ase_flatten"
__DRIVER_CLASS__ = "FlattenDriver"

_Result = tuple[float, FloatArray, FloatArray, str]


class FlattenDriver(Dummy_driver):
    """Driver that returns energies and forces of a model to i-PI, with virials of zero.

    Parameters
    ----------
    model, structure : str
        See `load_answer`.
    """

    def __init__(self, model: str, structure: str | None = None, *args: Any, **kwargs: Any) -> None:
        self._answer, self._numbers = load_answer(model, structure)
        super().__init__(*args, **kwargs)

    def compute(self, cell: Any, pos: Any) -> _Result | list[_Result]:
        """Evaluate a configuration, or a list of them in one call of the model; Bohr and Hartree."""
        batch = np.array(pos if isinstance(pos, list) else [pos], dtype=float)
        batch = batch.reshape(len(batch), -1, 3)
        check_count(batch.shape[1], len(self._numbers))
        energies, forces = self._answer(batch * units.Bohr)
        results = [
            (float(energy / units.Hartree), force * (units.Bohr / units.Hartree), np.zeros((3, 3)), "")
            for energy, force in zip(energies, forces, strict=True)
        ]
        return results if isinstance(pos, list) else results[0]
