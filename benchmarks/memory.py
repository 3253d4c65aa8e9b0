"""Estimates the memory of SPEAR, LoRA and full fine-tuning from shapes: BERT-base and Gemma-2B.

    python benchmarks/memory.py [--window=128] [--batch=16]

Nothing is loaded and nothing is run: parameters and optimizer are counted from shapes, activations are XLA's own
analysis of the compiled training step. The paper gives 0.06 MB (BERT) and 0.16 MB (Gemma) for the prompt alone.
"""

import argparse

import jax

from spear_jax.commands import memory
from spear_jax.config import default_config

ROWS = {
    "SPEAR, BERT-base": ("random:google-bert/bert-base-uncased", "float32", "spear"),
    "LoRA (rank 8), BERT-base": ("random:google-bert/bert-base-uncased", "float32", "lora"),
    "fine-tuning, BERT-base": ("random:google-bert/bert-base-uncased", "float32", "fine_tuning"),
    "SPEAR, Gemma-2B": ("random:google/gemma-2b", "bfloat16", "spear"),
    "LoRA (rank 8), Gemma-2B": ("random:google/gemma-2b", "bfloat16", "lora"),
    "fine-tuning, Gemma-2B": ("random:google/gemma-2b", "bfloat16", "fine_tuning"),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    flags = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, batch {flags.batch}, T {flags.window}, m 20\n")
    head = ("", "trained numbers", "of them prompt", "checkpoint", "optimizer", "backbone", "activations", "together")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for name, (backbone, dtype, method) in ROWS.items():
        config = default_config()
        config.backbone.update(name=backbone, dtype=dtype)
        config.data.window, config.train.batch_size, config.score.batch_size = flags.window, flags.batch, flags.batch
        config.method = method
        estimate = memory.estimate_memory(config)
        trainable, bytes_of = estimate.trainable, estimate.table.iloc[:, 0]
        cells = [
            f"{sum(leaf.size for leaf in jax.tree.leaves(trainable)):,}",
            memory.readable(memory.byte_count(trainable.get("prompt", {}))),
            memory.readable(memory.byte_count(trainable)),
            memory.readable(bytes_of["optimizer"]),
            memory.readable(bytes_of["frozen backbone"] + bytes_of["trained backbone"]),
            memory.readable(bytes_of["activations (XLA)"]),
            memory.readable(bytes_of["total"]),
        ]
        print("| " + " | ".join([name, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
