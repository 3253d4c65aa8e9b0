"""Writes golden/families.npz: results of torch and transformers for the small checkpoints of test_decoder.py.

    python tests/backbones/make_golden_families.py

Stored are each checkpoint's config.json, its tensors' names and shapes, and the hidden states; the weights follow from
the names. Made with torch 2.13.0, transformers 5.23.0.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import safetensors.numpy
from test_decoder import CASES, GOLDEN, inputs, torch_hidden, write_checkpoint


def main() -> None:
    ids, mask = inputs()
    about, hidden = {}, {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            model = write_checkpoint(name, Path(folder))
            config = json.loads(Path(folder, "config.json").read_text())
            parameters = dict(model.named_parameters())
            stored = safetensors.numpy.load_file(Path(folder, "model.safetensors"))
        tensors = []
        for key, tensor in stored.items():
            path = next(path for path, parameter in parameters.items() if np.array_equal(parameter.detach(), tensor))
            tensors.append([key, path, list(tensor.shape)])
        about[name] = {"config": config, "tensors": tensors}
        hidden[name] = torch_hidden(model, mask, input_ids=ids)
    np.savez_compressed(GOLDEN / "families.npz", about=json.dumps(about), **hidden)


if __name__ == "__main__":
    main()
