"""sGDML (Chmiela et al. 2018, doi:10.1038/s41467-018-06169-2): kernel models whose training set can grow.

`kernel -> cholesky -> factor` solve for the coefficients, `predictor -> model` predict with them. Where permutations
are a direct product of enough local ones (`permutation_sums`), `product_kernel` and `product_predictor` take the place
of plain sums. `single_training` is one training with given settings, `length_scale` chooses the length scale by several
of them, and `trainer` takes part in improved training. `sgdml_package` is what the `sgdml` package does.
"""

from ase_flatten.models.sgdml.length_scale import LENGTH_SCALES
from ase_flatten.models.sgdml.model import MODEL_FILE, SGDMLModel, load_model_file
from ase_flatten.models.sgdml.trainer import FAMILY, SGDMLTrainer

__all__ = ["FAMILY", "LENGTH_SCALES", "MODEL_FILE", "SGDMLModel", "SGDMLTrainer", "load_model_file"]
