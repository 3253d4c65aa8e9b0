"""A small untrained Gemma: config.json and a tokenizer that splits numbers into digits, as Gemma's does."""

import json
from pathlib import Path

import tokenizers

CONFIG = {
    "model_type": "gemma",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "vocab_size": 300,
    "max_position_embeddings": 256,
    "hidden_act": "gelu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}


def write(folder: Path) -> Path:
    """Writes the files of the model 'random:<folder>'."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    words = [*special, *"0123456789", *"abcdefghijklmnopqrstuvwxyz"]
    model = tokenizers.models.BPE(
        {word: number for number, word in enumerate(words)}, merges=[], unk_token="<unk>", fuse_unk=True
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    about["tokenizer_class"] = "PreTrainedTokenizerFast"  # or transformers would rebuild it as Gemma's own
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder
