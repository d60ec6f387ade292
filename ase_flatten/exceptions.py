"""The one exception that a user's mistake raises."""


class InputError(ValueError):
    """Report a mistake in what the user gave.

    The message is one sentence: what was expected, what was found, what to do.
    The command line prints it and exits with status 2.
    """
