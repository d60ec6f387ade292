"""sGDML (Chmiela et al. 2018, doi:10.1038/s41467-018-06169-2): kernel models whose training grows.

`kernel -> cholesky -> factor` is the training, `predictor -> model` what comes of it, `task` one
training by one choice of settings, `trainer` the choice of these, `package` what is left to the `sgdml` package.
"""

from ase_flatten.models.sgdml.model import MODEL_FILE, SGDMLModel, load_model_file
from ase_flatten.models.sgdml.trainer import FAMILY, LENGTH_SCALES, SGDMLTrainer

__all__ = ["FAMILY", "LENGTH_SCALES", "MODEL_FILE", "SGDMLModel", "SGDMLTrainer", "load_model_file"]
