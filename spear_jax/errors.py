"""The exception for bad input, which the program reports in one line."""


class InputError(ValueError):
    """Input that cannot be used: a flag, a config field, a file.

    The message is one line that says what is wrong, where, and what is allowed. `main` prints it without a traceback
    and exits with code 2. Any other exception is a bug in the program.
    """


def one_line(error: BaseException) -> str:
    """Returns an exception's message without line breaks."""
    return " ".join(str(error).split())
