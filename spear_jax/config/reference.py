"""What every field of a config means; `python -m spear_jax.config_reference` prints it as docs/config.md."""

import math

from spear_jax.config import fields, reading
from spear_jax.config.fields import MEANINGS


def allowed(field: str, default: object) -> str:
    """What a field may be, in a few words."""
    if field in fields.CHOICES:
        return ", ".join(f"`{choice}`" if choice else "`''`" for choice in fields.CHOICES[field])
    if field in fields.RANGES:
        low, high = fields.RANGES[field]
        return f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
    return {bool: "true, false", str: "text", tuple: "three shares that sum to 1"}.get(type(default), "a number")


def page() -> str:
    """The reference in Markdown, a table for each section."""
    lines = [
        "# Every field of a config",
        "",
        "Set on the command line as `--config.FIELD=VALUE`. A file in configs/ changes some of these defaults. Made by"
        " `python -m spear_jax.config_reference`.",
    ]
    section, defaults = None, reading.flatten(fields.default_config())
    for field, meaning in MEANINGS.items():
        default = defaults[field]
        if field.partition(".")[0] != section:
            section = field.partition(".")[0]
            lines += ["", f"## {section}", "", "| field | default | allowed | meaning |", "|---|---|---|---|"]
        shown = f"`{default!r}`" if isinstance(default, str | tuple) else f"`{str(default).lower()}`"
        lines.append(f"| `{field}` | {shown} | {allowed(field, default)} | {meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
