"""What `ase info --plugins` lists of this package, by ASE's entry-point group ``ase.plugins``.

ASE loads this module whenever it looks for plugins, so it imports nothing heavy. The group is an
experiment of ASE's; a version that has moved `CalculatorPlugin` must find nothing here rather than
fail.
"""

from typing import Any

import ase_flatten

try:
    from ase._4.plugins.plugin import CalculatorPlugin
except ImportError:
    __ase_plugins__: set[Any] = set()
else:
    __ase_plugins__ = {
        CalculatorPlugin(
            name=name, citation="doi:10.1063/5.0035530", implementation=f"{ase_flatten.__name__}.{name}"
        )
        for name in ase_flatten.__all__
        if name.startswith("Flattened")
    }  # fmt: skip
