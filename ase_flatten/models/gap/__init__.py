"""GAP with SOAP (Bartók et al. 2010, doi:10.1103/PhysRevLett.104.136403), by QUIP's `gap_fit` and quippy.

`native` reads and writes QUIP's files, `quip` predicts in this process and `workers` in others, `model` combines them;
`fit` runs `gap_fit`, and `trainer` has the settings.
"""

from ase_flatten.models.gap.model import GAPModel
from ase_flatten.models.gap.trainer import FAMILY, PRESETS, GAPTrainer

__all__ = ["FAMILY", "PRESETS", "GAPModel", "GAPTrainer"]
