"""Soft prompts in the files of PEFT's prompt tuning (https://huggingface.co/docs/peft, `PromptTuningConfig`).

PEFT puts the prompt in front of `inputs_embeds`: word embeddings, before positions and the embedding's LayerNorm (of
Gemma, after their scaling). That is the space of `SoftPrompt` and the place of `prompt.position='prefix'`, so the
numbers are taken over as they are.
"""

import json
import re
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath
from jaxtyping import Float
from ml_collections import ConfigDict
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from spear_jax.errors import InputError
from spear_jax.storage import read_json, write_whole

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"


_KEY = "prompt_embeddings"


_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def check(config: ConfigDict, where: str) -> None:
    """Checks that a detector's prompt means the same to PEFT.

    Args:
      config: the detector's.
      where: it is, for the message.

    Raises:
      InputError: it has no prompt, or its prompt is read in a way that PEFT does not know.
    """
    if not config.prompt.length:
        raise InputError(f"{where}: config.prompt.length=0 leaves no prompt to exchange with PEFT")
    if config.prompt.position != "prefix":
        raise InputError(
            f"{where}: config.prompt.position={config.prompt.position!r}: PEFT puts its prompt in front of everything;"
            " allowed is prefix"
        )
    if config.backbone.attention != "own":
        raise InputError(
            f"{where}: config.backbone.attention={config.backbone.attention!r}: PEFT takes the backbone as it is;"
            " allowed is own"
        )


def write_adapter(folder: epath.Path, prompt: Float[np.ndarray, "prompt hidden"], backbone: str, revision: str) -> None:
    """Writes adapter_config.json and adapter_model.safetensors.

    `peft.PeftModel.from_pretrained(AutoModel.from_pretrained(backbone), folder)` reads them; what it returns for
    `inputs_embeds` are the hidden states of prompt and input.

    Args:
      folder: of a detector.
      prompt: its vectors.
      backbone: a Hugging Face id or a folder.
      revision: see `Backbone.revision`.
    """
    length, hidden = prompt.shape
    about = {
        "base_model_name_or_path": backbone.partition("@")[0],
        "inference_mode": True,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": length,
        "peft_type": "PROMPT_TUNING",
        "revision": revision if re.fullmatch("[0-9a-f]{40}", revision) else None,
        "task_type": "FEATURE_EXTRACTION",  # hidden states are asked for; the head is ours
        "token_dim": hidden,
    }
    write_whole(folder / TENSORS, save({_KEY: np.ascontiguousarray(prompt)}, {"format": "pt"}))
    write_whole(folder / CONFIG, json.dumps(about, indent=2).encode())


def read_adapter(folder: epath.Path, backbone: str) -> Float[np.ndarray, "prompt hidden"]:
    """The prompt of an adapter that PEFT has trained, or that was exported; whatever else it trained is left out.

    Args:
      folder: with adapter_config.json and adapter_model.safetensors.
      backbone: the Hugging Face id or folder of the model that the prompt is for.

    Raises:
      InputError: it is damaged, of another method of PEFT, or of another backbone.
    """
    about = read_json(folder / CONFIG)
    if not isinstance(about, dict) or about.get("peft_type") != "PROMPT_TUNING":
        kind = about.get("peft_type") if isinstance(about, dict) else about
        raise InputError(f"{folder / CONFIG}: peft_type {kind!r}; allowed is 'PROMPT_TUNING'")
    base, name = about.get("base_model_name_or_path"), backbone.partition("@")[0]
    if isinstance(base, str) and not _may_be_the_same(base, name):
        raise InputError(f"{folder / CONFIG}: the prompt was trained with {base}; the backbone here is {name}")
    try:
        tensors: dict[str, Any] = dict(deserialize((folder / TENSORS).read_bytes()))
    except FileNotFoundError as fault:
        raise InputError(f"{folder / TENSORS}: is missing; PEFT's save_pretrained writes it") from fault
    except (OSError, SafetensorError) as fault:
        raise InputError(f"{folder / TENSORS}: damaged ({fault})") from fault
    if _KEY not in tensors:
        raise InputError(f"{folder / TENSORS}: no tensor {_KEY!r}; there are {', '.join(sorted(tensors)) or 'none'}")
    stored = tensors[_KEY]
    if stored["dtype"] not in _DTYPES:
        raise InputError(f"{folder / TENSORS}: {_KEY} is {stored['dtype']}; allowed are {', '.join(_DTYPES)}")
    prompt = np.frombuffer(stored["data"], _DTYPES[stored["dtype"]]).reshape(stored["shape"]).astype(np.float32)
    needed = about.get("num_virtual_tokens"), about.get("token_dim")
    if prompt.shape != needed or not np.isfinite(prompt).all():
        raise InputError(
            f"{folder / TENSORS}: {_KEY} has the shape {prompt.shape}; needed are finite numbers of the shape {needed}"
            f" (num_virtual_tokens and token_dim of {CONFIG})"
        )
    return prompt


def _may_be_the_same(base: str, name: str) -> bool:
    """False for two ids of the Hub that differ; a folder's name says nothing of the weights in it.

    The oldest models have ids of one word: bert-base-uncased is google-bert/bert-base-uncased.
    """
    if base == name or not all(_ID.fullmatch(one) and not epath.Path(one).exists() for one in (base, name)):
        return True
    return ("/" not in base or "/" not in name) and base.rpartition("/")[2] == name.rpartition("/")[2]


_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
