"""The one exception that a user's input can cause."""


class InputError(ValueError):
    """Bad input from the user.

    The message is one line that names the file or argument, its value, the expected one and the fix.
    The command line prints it without a traceback and exits with code 2.
    """
