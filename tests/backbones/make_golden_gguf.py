"""Writes golden/gguf.npz and golden/gguf_real.npz: what torch and transformers make of the models of test_gguf.py.

    python tests/backbones/make_golden_gguf.py [smollm2] [gemma3-270m]

Stored of a small model are its config.json, its tensors' names and shapes, and the hidden states for the weights that
follow from the names, as they are and as they are left by the types of GGUF. Stored of a real one (named as an
argument; its package must be installed) are tokens, every 64th coordinate of the hidden states, and the next tokens.
Made with torch 2.13.0, transformers 5.23.0, gguf 0.19.0.
"""

import json
import sys

import numpy as np
from test_decoder import GOLDEN, torch_hidden
from test_gguf import CASES, IDS, MASK, REAL, SENTENCES, fill, torch_model, weights

from spear_jax.backbones.weights.finding import find_weights


def write_small() -> None:
    about, hidden = {}, {}
    for name in CASES:
        model, config, shapes = torch_model(name)
        about[name] = [config, shapes]
        for mixed in (False, True):
            fill(model, weights(shapes), mixed)
            hidden[f"{name}{'-mixed' if mixed else ''}"] = torch_hidden(model, MASK, input_ids=IDS)
    np.savez_compressed(GOLDEN / "gguf.npz", about=json.dumps(about, default=str), **hidden)


def write_real(name: str) -> None:
    import torch
    import transformers

    file = GOLDEN / "gguf_real.npz"
    content = dict(np.load(file)) if file.exists() else {}
    found = find_weights(f"package:{REAL[name]}", config_only=False)
    assert found.gguf is not None
    where = {"pretrained_model_name_or_path": found.folder, "gguf_file": found.gguf.files[0].name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where, padding_side="right")
    batch = tokenizer(SENTENCES, return_tensors="pt", padding=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
    with torch.no_grad():
        hidden = model.model(**batch).last_hidden_state
        mask = batch["attention_mask"].numpy().astype(bool)
        last = hidden[torch.arange(len(mask)), torch.tensor(mask.sum(axis=1) - 1)]
        content[f"{name}-next"] = model.lm_head(last).argmax(dim=-1).numpy()
    content[f"{name}-ids"], content[f"{name}-mask"] = batch["input_ids"].numpy(), mask
    content[f"{name}-hidden"] = hidden.numpy()[..., ::64]
    print(name, tokenizer.convert_ids_to_tokens(content[f"{name}-next"].tolist()))
    np.savez_compressed(file, **content)


if __name__ == "__main__":
    write_small()
    for name in sys.argv[1:]:
        write_real(name)
