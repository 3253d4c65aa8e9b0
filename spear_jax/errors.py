"""The one exception that is the reader's to mend: bad input, said in one line."""


class InputError(ValueError):
    """Something that was given to the program cannot be used.

    The message is one line that says what was found, where, and what is allowed; `main` prints it without a
    traceback and exits with code 2. Faults of the program itself are any other exception.
    """


def one_line(fault: BaseException) -> str:
    """What a fault says, on one line."""
    return " ".join(str(fault).split())
