"""SchNet (Schütt et al. 2018, doi:10.1063/1.5019779) by SchNetPack's modules, for one molecule at a time.

`device, settings -> native -> network -> training` make and train a network, `model` predicts with it, and
`trainer` fits it into the loop of improved training.
"""

from ase_flatten.models.schnet.model import MODEL_FILE, SchNetModel, as_schnetpack, load_best_model
from ase_flatten.models.schnet.settings import SchNetSettings
from ase_flatten.models.schnet.trainer import FAMILY, SchNetTrainer

__all__ = ["FAMILY", "MODEL_FILE", "SchNetModel", "SchNetSettings", "SchNetTrainer", "as_schnetpack", "load_best_model"]
