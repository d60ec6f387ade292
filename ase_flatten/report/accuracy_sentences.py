"""What a run says of the accuracy of its two models, on held-out frames and on its external test set."""

from pathlib import Path

from ase_flatten.data.units import OutputUnits
from ase_flatten.evaluation.accuracy import accuracies_of, compared_in_words
from ase_flatten.evaluation.external_test import conclude_test
from ase_flatten.workflow.run_folder import Run


def accuracy_sentences(run: Run, units: OutputUnits) -> list[str]:
    """Return sentences on RMSE, MAE and relative errors, and on the test set if there is one.

    Raises
    ------
    InputError
        The run is not finished, or a file is damaged.
    """
    errors, test, claims = run.heldout_errors, run.external_test, run.test_claims
    frames = f"the {len(errors.frames):,} held-out frames"
    sentences = compared_in_words(accuracies_of(errors), units, frames=frames)
    if test is not None and claims is not None:
        name = Path(run.info.test.source).name if run.info.test else "given"
        sentences += conclude_test(test, claims, units, name=name)
    return sentences
