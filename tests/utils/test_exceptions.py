"""A user's mistake and a backend that failed are two things, on the command line too."""

import pytest
import typer

from ase_flatten.utils import console
from ase_flatten.utils.exceptions import BackendError, InputError, keeping


@pytest.mark.parametrize(
    ("raised", "status", "shown"),
    [
        (InputError("expected a run, found none; make one"), 2, "expected a run, found none; make one"),
        (BackendError("i-PI ended; see its log"), 1, "i-PI ended; see its log; steps are kept in RUN; add --resume"),
    ],
)
def test_exit_status_and_sentence(raised, status, shown, capsys):
    @console.user_errors
    def failing():
        with keeping("steps are kept in RUN; add --resume"):
            raise raised

    with pytest.raises(typer.Exit) as finished:
        failing()
    assert finished.value.exit_code == status
    assert capsys.readouterr().err == f"ase-flatten: {shown}\n"


def test_a_failed_backend_is_not_taken_for_a_hard_configuration():
    from ase_flatten.models import MODEL_ERRORS

    assert not issubclass(BackendError, (*MODEL_ERRORS, InputError))
