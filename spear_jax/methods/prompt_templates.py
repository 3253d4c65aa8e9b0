"""Reads and fills in the prompt templates of zero-shot methods; the built-in ones are in templates/."""

import importlib.resources
import re
from collections.abc import Mapping, Sequence

from etils import epath

from spear_jax.errors import InputError

PLACEHOLDER = re.compile(r"\{(\w+)\}")  # other braces, as in JSON, are literal
ONCE = ("values", "mask")


def read_template(path: str, default: str, required: Sequence[str], optional: Sequence[str] = ()) -> str:
    """Reads a template, a text with placeholders in braces.

    Args:
      path: path of the text file; '' reads the built-in one.
      default: file name of the built-in template.
      required: names of placeholders that must occur, 'values' and 'mask' exactly once.
      optional: names of placeholders that may occur.

    Raises:
      InputError: the file cannot be read, or its placeholders are not the allowed ones.
    """
    field = f"config.zero_shot.template={path!r}"
    try:
        if path:
            text = epath.Path(path).expanduser().read_text()
        else:
            text = (importlib.resources.files("spear_jax.methods") / "templates" / default).read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{field}: cannot be read ({reason}); it must be a text file, or '' for the default"
        ) from error
    names = PLACEHOLDER.findall(text)
    problems = [
        f"unknown placeholder {{{name}}}" for name in dict.fromkeys(names) if name not in (*required, *optional)
    ]
    problems += [f"missing placeholder {{{name}}}" for name in required if name not in names]
    problems += [f"{{{name}}} occurs {names.count(name)} times" for name in ONCE if names.count(name) > 1]
    if problems:
        also = f", allowed {_braced(optional)}" if optional else ""
        raise InputError(f"{field}: {', '.join(problems)}; required are {_braced(required)}{also}")
    return text


def fill_in(template: str, values: Mapping[str, str]) -> str:
    """Replaces the placeholders of a template; those without a value are kept."""
    return PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)


def _braced(names: Sequence[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
