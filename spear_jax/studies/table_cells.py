"""Formats tables in Markdown and the numbers in them."""

from collections.abc import Iterable, Sequence

import pandas as pd


def pipe_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines))


def spread(runs: pd.DataFrame, column: str, sign: str = "") -> str:
    """Returns a table cell: mean, standard deviation over runs and, if any, the interval; '-' for no number."""
    values = pd.to_numeric(runs[column], errors="coerce").dropna()
    if not len(values):
        return "-"
    text = f"{values.mean():{sign}.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")
    ends = [runs[end].mean() for end in (f"{column}_low", f"{column}_high") if end in runs]
    if ends and not any(map(pd.isna, ends)):
        text += f" [{ends[0]:.2f}, {ends[1]:.2f}]"
    return text
