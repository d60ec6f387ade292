"""SchNet (Schütt et al. 2018, doi:10.1063/1.5019779) with the modules of SchNetPack, for one molecule at a time.

`native` makes and reads SchNetPack's potentials, `network` evaluates one for a single molecule, `training_plan` and
`lightning_training` train it, `model` predicts with it, and `trainer` takes part in improved training.
"""

from ase_flatten.models.schnet.model import MODEL_FILE, SchNetModel, as_schnetpack, load_best_model
from ase_flatten.models.schnet.settings import SchNetSettings
from ase_flatten.models.schnet.trainer import FAMILY, SchNetTrainer

__all__ = ["FAMILY", "MODEL_FILE", "SchNetModel", "SchNetSettings", "SchNetTrainer", "as_schnetpack", "load_best_model"]
