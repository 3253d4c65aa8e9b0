"""Holds what the GPU benchmark's programs share: models, their FLOPs, the clock and the file of a part's results."""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

PROMPT_LENGTH = 20

BERT_BASE = {
    "model_type": "bert",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 128,  # the word table is not used
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
GEMMA_2B = {
    "model_type": "gemma",
    "hidden_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "intermediate_size": 16384,
    "vocab_size": 128,
    "max_position_embeddings": 8192,
}
MODELS: dict[str, dict[str, Any]] = {
    "minilm": BERT_BASE | {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "bert": BERT_BASE,
    "gemma": GEMMA_2B,
    # For the CPU, where only the programs are tried.
    "tiny-bert": BERT_BASE
    | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "tiny-gemma": GEMMA_2B
    | {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 16,
        "intermediate_size": 64,
    },
}
# The batch sizes that are tried; after one that fails, a quarter of it.
BATCHES: dict[tuple[str, int], tuple[int, ...]] = {
    ("minilm", 128): (512,),
    ("minilm", 492): (512,),
    ("bert", 128): (256,),
    ("bert", 492): (256,),
    ("gemma", 128): (128,),
    ("gemma", 492): (32,),
    ("tiny-bert", 12): (2,),
    ("tiny-gemma", 12): (2,),
}


def try_batches(model: str, window: int, measure: Callable[[int], None], recorder: Any) -> None:
    """Measures each batch size; if the first one fails, which is recorded, also a quarter of it."""
    for batch in BATCHES[model, window]:
        try:
            measure(batch)
        except Exception as error:
            recorder.add(model=model, window=window, batch=batch, failed=reason(error))
            if batch != BATCHES[model, window][0]:
                continue
            try:
                measure(max(batch // 4, 1))
            except Exception as second:
                recorder.add(model=model, window=window, batch=batch // 4, failed=reason(second))


class Flops(NamedTuple):
    """Floating-point operations of the matrix products of one window, a multiplication and an addition being two.

    Attributes:
      forward: of scoring.
      training: of a training step: the same, and the gradient with respect to activations (frozen weights have none).
        What is computed again to save memory does not count.
    """

    forward: float
    training: float


def count_flops(model: str, window: int, batch: int) -> Flops:
    """Counts the matrix products of the layers, attention over all pairs of positions included.

    A decoder computes the prompt once per batch. The last layer computes only keys and values of the prompt. The head,
    norms and softmax are left out.
    """
    shape = MODELS[model]
    hidden, layers, inner = shape["hidden_size"], shape["num_hidden_layers"], shape["intermediate_size"]
    size = shape.get("head_dim", hidden // shape["num_attention_heads"])
    queries = shape["num_attention_heads"] * size
    keys = shape.get("num_key_value_heads", shape["num_attention_heads"]) * size
    decoder = shape["model_type"] == "gemma"
    both = 2 * hidden * 2 * keys  # keys and values
    rest = 2 * hidden * 2 * queries + 2 * (3 if decoder else 2) * hidden * inner  # of a position
    prompts = PROMPT_LENGTH / batch if decoder else PROMPT_LENGTH  # prompt positions per window
    linear = layers * (window + prompts) * both + (layers * window + (layers - 1) * prompts) * rest
    pair = 2 * 2 * queries  # a query's product with a key, and a weight's with a value
    attended = PROMPT_LENGTH + window
    attention = pair * (layers * window * attended + (layers - 1) * prompts * (PROMPT_LENGTH if decoder else attended))
    return Flops(linear + attention, 2 * linear + 3 * attention)


def write_config(model: str) -> Path:
    """Writes a model's config.json to a new folder."""
    folder = Path(tempfile.mkdtemp(prefix=f"{model}_"))
    (folder / "config.json").write_text(json.dumps(MODELS[model]))
    return folder


def median_seconds(
    run: Callable[[], Any], wait: Callable[[Any], Any], *, repeats: int = 5, at_least: float = 0.05
) -> float:
    """Returns the median time of a call, compiled and warm.

    Args:
      run: starts the work.
      wait: waits for what `run` returned, and so for all that was started before it.
      repeats: how many times are measured.
      at_least: seconds of a measurement; shorter calls are started several times in a row.
    """
    wait(run())
    began = time.perf_counter()
    wait(run())
    calls = max(1, int(at_least / max(time.perf_counter() - began, 1e-6)))
    calls = min(calls, 200)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(calls - 1):
            run()
        wait(run())
        times.append((time.perf_counter() - began) / calls)
    return statistics.median(times)


class Recorder:
    """Writes the results after every figure, so that a process that is stopped leaves what it measured.

    The file holds, for each part, its rows and, once it has ended, its seconds and the reason if it failed.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.parts: dict[str, dict[str, Any]] = {}
        self.counts: dict[str, int] = {}

    def add(self, **row: Any) -> None:
        """Adds a row to the part that began last."""
        list(self.parts.values())[-1]["rows"].append(row)
        self.write()

    def run(self, part: str, measure: Callable[[], None]) -> None:
        """Measures a part; an error is recorded, and the next part can begin."""
        outcome: dict[str, Any] = {"rows": []}
        self.parts[part] = outcome
        self.counts.clear()
        began = time.perf_counter()
        self.write()
        try:
            measure()
        except (Exception, SystemExit) as error:
            outcome["failed"] = reason(error)
        outcome["seconds"] = round(time.perf_counter() - began, 1)
        outcome.update(self.counts)
        self.write()

    def write(self) -> None:
        """Writes all parts."""
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(self.parts))
        partial.replace(self.file)


class Arguments(NamedTuple):
    """The arguments of a measuring program.

    Attributes:
      file: where its results go.
      parts: what it measures, each a few words.
      compile_only: whether it only fills the caches of compiled programs.
    """

    file: Path
    parts: list[str]
    compile_only: bool


def read_arguments() -> Arguments:
    """Reads [--wait] [--compile-only] FILE PART...; with --wait, returns after a line on standard input."""
    options = [word for word in sys.argv[1:] if word.startswith("--")]
    file, *parts = [word for word in sys.argv[1:] if not word.startswith("--")]
    if "--wait" in options and not sys.stdin.readline():
        sys.exit("error: ended before its turn")
    return Arguments(Path(file), parts, "--compile-only" in options)


def reason(error: BaseException) -> str:
    """Returns the first line of an error, short enough for a table."""
    text = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {text[0]}"[:300]
