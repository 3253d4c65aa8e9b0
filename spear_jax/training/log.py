"""What training says: metrics.jsonl for programs, a bar and a line per epoch for people."""

import json
from typing import Any

from etils import epath
from tqdm import tqdm

from spear_jax import parallel
from spear_jax.storage import write_whole
from spear_jax.training.progress import Progress


class Log:
    """metrics.jsonl: one line per call and per evaluation, and no step twice, also after a resume."""

    def __init__(self, path: epath.Path, step: int) -> None:
        """Opens the log and drops the lines after `step`, which a resumed run will write again."""
        self._path = path
        if parallel.is_main() and path.exists():
            lines = path.read_text().splitlines(keepends=True)
            kept = [one for one in lines if one.endswith("\n") and json.loads(one)["step"] <= step]
            write_whole(path, "".join(kept).encode())

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line."""
        if parallel.is_main():
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def progress_bar(progress: Progress, steps: int, epochs: int) -> tqdm:
    """A bar for the epoch under way, on a terminal and in the main process."""
    return tqdm(
        total=steps,
        initial=progress.step_in_epoch,
        desc=f"epoch {progress.epoch + 1}/{epochs}",
        unit="step",
        leave=False,
        disable=parallel.no_bar(),
    )


def epoch_line(line: dict[str, Any], epochs: int, windows_per_second: float, seconds_left: float) -> str:
    """What is printed after an epoch."""

    def number(value: float | None) -> str:
        return "undefined (one class)" if value is None else f"{value:.3f}"

    minutes, seconds = divmod(round(seconds_left), 60)
    return (
        f"epoch {line['epoch']:>3}/{epochs}  loss {line['loss']:.4f}"
        f"  validation: loss {line['validation_loss']:.4f} AUROC {number(line['validation_auroc'])}"
        f" AUPR {number(line['validation_aupr'])} (base rate {line['validation_base_rate']:.3f})"
        f"  prompt: gradient {line['prompt_gradient']:.1e} update {line['prompt_update']:.1e}"
        f"  {windows_per_second:.1f} windows/s  ETA {minutes}:{seconds:02d}{'  best' if line['best'] else ''}"
    )


def diagnose(prompt_length: int, line: dict[str, Any]) -> list[str]:
    """What is wrong with an epoch, loudly."""
    said = []
    if prompt_length and line["prompt_update"] < 1e-6:
        said.append(
            f"the prompt does not move (mean update {line['prompt_update']:.1e} of its norm a step):"
            " raise train.prompt_learning_rate"
        )
    if line["validation_aupr"] is None:
        said.append("validation has one class only: its loss decides on the best epoch and early stopping")
    if line["validation_score_spread"] < 1e-3:
        said.append(
            f"all predictions are one class: validation scores differ by {line['validation_score_spread']:.1e} at most"
        )
    return said
