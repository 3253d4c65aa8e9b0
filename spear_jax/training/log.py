"""Logs training: metrics.jsonl for programs, a progress bar and a line per epoch for people."""

import contextlib
import hashlib
import json
from typing import Any

from etils import epath

from spear_jax import parallel
from spear_jax.errors import InputError
from spear_jax.storage import parse_json, write_whole


class Log:
    """The log metrics.jsonl, with a line per call and per evaluation, and no step twice, even after a resume."""

    def __init__(self, path: epath.Path, step: int, digest: str = "") -> None:
        """Opens the log and drops the lines after `step`, which a resumed run will write again.

        With a digest, a warning says if the lines up to `step` do not have it.
        """
        self._path, self._sha256 = path, hashlib.sha256()
        if parallel.is_main() and path.exists():
            before = [line for line, content in read_log(path) if content["step"] <= step]
            self._sha256.update("".join(before).encode())
            if digest and digest != self.digest:
                parallel.warn(f"{path}: damaged or edited: it is not what was written up to step {step}")
            write_whole(path, "".join(before))

    @property
    def digest(self) -> str:
        """Returns the digest of all lines."""
        return self._sha256.hexdigest()

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line."""
        text = json.dumps(line) + "\n"
        self._sha256.update(text.encode())
        if parallel.is_main():
            with self._path.open("a") as file:
                file.write(text)


def read_log(path: epath.Path) -> list[tuple[str, dict[str, Any]]]:
    """Returns the lines of a log with what they hold; those that no run has written are left out."""
    lines = []
    for line in path.read_bytes().decode(errors="replace").splitlines(keepends=True):
        with contextlib.suppress(InputError):
            content = parse_json(line, path)
            numbers = [content.get(name) for name in _NUMBERS[: None if content.get("kind") == "evaluation" else 3]]
            if line.endswith("\n") and all(type(number) in (int, float) for number in numbers):
                lines.append((line, content))
    return lines


_NUMBERS = ("step", "epoch", "loss", "validation_loss", "validation_base_rate")
"""Numbers in a line of the log; the first three in all of them, the rest in those of evaluations."""


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
