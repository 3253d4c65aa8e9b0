"""Logs training: metrics.jsonl for programs, a progress bar and a line per epoch for people."""

import json
from typing import Any

from etils import epath

from spear_jax import parallel
from spear_jax.storage import write_whole


class Log:
    """The log metrics.jsonl, with a line per call and per evaluation, and no step twice, even after a resume."""

    def __init__(self, path: epath.Path, step: int) -> None:
        """Opens the log and drops the lines after `step`, which a resumed run will write again."""
        self._path = path
        if parallel.is_main() and path.exists():
            lines = path.read_text().splitlines(keepends=True)
            before = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            write_whole(path, "".join(before).encode())

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line."""
        if parallel.is_main():
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def epoch_line(line: dict[str, Any], epochs: int, windows_per_second: float, seconds_left: float) -> str:
    """Formats the line that is printed after an epoch."""

    def number(value: float | None) -> str:
        return "undefined (one class)" if value is None else f"{value:.3f}"

    minutes, seconds = divmod(round(seconds_left), 60)
    return (
        f"epoch {line['epoch']:>3}/{epochs}  loss {line['loss']:.4f}"
        f"  validation: loss {line['validation_loss']:.4f} AUROC {number(line['validation_auroc'])}"
        f" AUPR {number(line['validation_aupr'])} (base rate {line['validation_base_rate']:.3f})"
        f"  prompt: gradient {line['prompt_gradient']:.1e} update {line['prompt_update']:.1e}"
        f"  {windows_per_second:.1f} windows/s  ETA {minutes}:{seconds:02d}, then scoring"
        f"{'  best' if line['best'] else ''}"
    )


def diagnose(prompt_length: int, line: dict[str, Any]) -> list[str]:
    """Returns warnings about clear signs of trouble in an epoch."""
    warnings = []
    if prompt_length and line["prompt_update"] < 1e-6:
        warnings.append(
            f"the prompt does not move (mean update per step: {line['prompt_update']:.1e} of its norm):"
            " raise train.prompt_learning_rate"
        )
    if line["validation_aupr"] is None:
        warnings.append("validation has one class only: its loss decides on the best epoch and early stopping")
    if line["validation_score_spread"] < 1e-3:
        warnings.append(
            f"all predictions are one class: validation scores differ by {line['validation_score_spread']:.1e} at most"
        )
    return warnings
