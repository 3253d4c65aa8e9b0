"""The exception for bad input, which the program reports in one line, and text from outside as messages show it."""

import os
import re
from collections.abc import Sequence

SHOWN = 300
"""Characters of a text from outside that a message shows at most."""

# A quoted text, or one without spaces, that is too long; names and paths from outside stand in messages as such.
_LONG = re.compile(rf"(?<!\w)(?P<quote>['\"])(?:(?!(?P=quote))[^\n]){{{SHOWN},}}(?P=quote)|\S{{{SHOWN + 1},}}")
_PASSWORD = re.compile(r"(\w://)[^\s/@'\"]*@")
_SECRET_NAMES = ("_API_KEY", "_TOKEN", "PASSWORD", "SECRET")

_LONGEST = 40  # characters of a name in a list


class InputError(ValueError):
    """Input that cannot be used: a flag, a config field, a file.

    The message is one line that says what is wrong, where, and what is allowed. `main` prints it without a traceback
    and exits with code 2. Any other exception is a bug in the program.
    """

    def __init__(self, message: object = "") -> None:
        """Makes the message safe to show."""
        super().__init__(plain(str(message)))


def plain(text: str, keep: str = "") -> str:
    """Returns a message as it may be shown, whatever names and texts from outside are in it.

    Passwords in addresses and the values of environment variables that hold secrets are masked, what is not printable
    is escaped, except the characters in `keep`, and each part from outside is cut to 300 characters.
    """
    text = _PASSWORD.sub(r"\1***@", text)
    for name, value in os.environ.items():
        if len(value) >= 8 and name.upper().endswith(_SECRET_NAMES):
            text = text.replace(value, "***")
    if not text.isprintable():
        text = "".join(
            char if char.isprintable() or char in keep else char.encode("unicode_escape").decode() for char in text
        )
    return _LONG.sub(lambda match: f"{match[0][: SHOWN // 2]}...{match[0][3 - SHOWN // 2 :]}", text)


def one_line(error: BaseException) -> str:
    """Returns an exception's message as one line of at most 300 characters."""
    return plain(" ".join(str(error).split()))[:SHOWN]


def listed(names: Sequence[str], most: int = 8) -> str:
    """Joins names with commas; of many, the first ones and the number of the others. Long names are cut."""
    names = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in names]
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"
