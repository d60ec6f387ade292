"""GAP with SOAP (Bartók et al. 2010, doi:10.1103/PhysRevLett.104.136403), through QUIP's `gap_fit` and quippy.

`native` reads and writes QUIP's files, `quip -> workers` predict, in this process and in others,
`model` gives both as a model; `fit` runs `gap_fit`, `trainer` holds the settings.
"""

from ase_flatten.models.gap.model import GAPModel
from ase_flatten.models.gap.trainer import FAMILY, PRESETS, GAPTrainer

__all__ = ["FAMILY", "PRESETS", "GAPModel", "GAPTrainer"]
