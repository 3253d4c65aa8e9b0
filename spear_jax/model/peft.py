"""Reads and writes soft prompts in the files of PEFT's prompt tuning.

See `PromptTuningConfig` in https://huggingface.co/docs/peft. PEFT puts the prompt before `inputs_embeds`: word
embeddings, before positions and the embedding's LayerNorm are applied (for Gemma, after their scaling). `SoftPrompt`
lives in the same space, and `prompt.position='prefix'` is the same place, so the numbers are used unchanged.
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

ADAPTER_CONFIG, ADAPTER_TENSORS = "adapter_config.json", "adapter_model.safetensors"
TENSOR = "prompt_embeddings"
# safetensors.numpy reads no bfloat16.
DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def check_exchange(config: ConfigDict, where: str) -> None:
    """Checks that PEFT can use a detector's prompt in the same way.

    Raises:
      InputError: it has no prompt, or uses its prompt in a way that PEFT does not support.
    """
    if not config.prompt.length:
        raise InputError(f"{where}: config.prompt.length=0 leaves no prompt to exchange with PEFT")
    if config.prompt.members > 1:
        raise InputError(f"{where}: config.prompt.members={config.prompt.members}: PEFT has one prompt; it must be 1")
    if config.prompt.position != "prefix":
        raise InputError(
            f"{where}: config.prompt.position={config.prompt.position!r}: PEFT puts its prompt before everything;"
            " it must be prefix"
        )
    if config.backbone.attention != "own":
        raise InputError(
            f"{where}: config.backbone.attention={config.backbone.attention!r}: PEFT leaves the backbone's attention as"
            " it is; it must be own"
        )


def write_adapter(folder: epath.Path, prompt: Float[np.ndarray, "prompt hidden"], backbone: str, revision: str) -> None:
    """Writes adapter_config.json and adapter_model.safetensors.

    `peft.PeftModel.from_pretrained(AutoModel.from_pretrained(backbone), folder)` reads them; given `inputs_embeds`, it
    returns the hidden states of prompt and input.
    """
    length, hidden = prompt.shape
    description = {
        "base_model_name_or_path": backbone.partition("@")[0],
        "inference_mode": True,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": length,
        "peft_type": "PROMPT_TUNING",
        "revision": revision if re.fullmatch("[0-9a-f]{40}", revision) else None,
        "task_type": "FEATURE_EXTRACTION",  # PEFT returns hidden states; the head is ours
        "token_dim": hidden,
    }
    write_whole(folder / ADAPTER_TENSORS, save({TENSOR: np.ascontiguousarray(prompt)}, {"format": "pt"}))
    write_whole(folder / ADAPTER_CONFIG, json.dumps(description, indent=2))


def read_adapter(folder: epath.Path, backbone: str) -> Float[np.ndarray, "prompt hidden"]:
    """Reads the prompt of an adapter that PEFT has trained or that was exported, and ignores everything else in it.

    Raises:
      InputError: it is damaged, from another method of PEFT, or for another backbone.
    """
    file = folder / ADAPTER_CONFIG
    description = read_json(file)
    if description.get("peft_type") != "PROMPT_TUNING":
        raise InputError(f"{file}: peft_type {description.get('peft_type')!r} must be 'PROMPT_TUNING'")
    base, name = description.get("base_model_name_or_path"), backbone.partition("@")[0]
    if isinstance(base, str) and _differ(base, name):
        raise InputError(f"{file}: the prompt was trained with {base}; the backbone here is {name}")
    prompt = _read_tensor(folder / ADAPTER_TENSORS)
    shape = description.get("num_virtual_tokens"), description.get("token_dim")
    if prompt.shape != shape or not np.isfinite(prompt).all():
        raise InputError(
            f"{folder / ADAPTER_TENSORS}: {TENSOR} has the shape {prompt.shape}; expected finite numbers of the shape"
            f" {shape} (num_virtual_tokens and token_dim of {ADAPTER_CONFIG})"
        )
    return prompt


def _read_tensor(file: epath.Path) -> Float[np.ndarray, "..."]:
    try:
        tensors: dict[str, Any] = dict(deserialize(file.read_bytes()))
    except FileNotFoundError as error:
        raise InputError(f"{file}: is missing; PEFT's save_pretrained writes it") from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: damaged ({error})") from error
    if TENSOR not in tensors:
        raise InputError(f"{file}: no tensor {TENSOR!r}; there are {', '.join(sorted(tensors)) or 'none'}")
    tensor = tensors[TENSOR]
    if tensor["dtype"] not in DTYPES:
        raise InputError(f"{file}: {TENSOR} is {tensor['dtype']}; allowed: {', '.join(DTYPES)}")
    return np.frombuffer(tensor["data"], DTYPES[tensor["dtype"]]).reshape(tensor["shape"]).astype(np.float32)


def _differ(base: str, name: str) -> bool:
    """Returns whether two names are ids of different models on the Hub; a folder's name says nothing about its weights.

    The oldest models also have ids without a user: bert-base-uncased is google-bert/bert-base-uncased.
    """
    if base == name or not all(HUB_ID.fullmatch(id_) and not epath.Path(id_).exists() for id_ in (base, name)):
        return False
    return ("/" in base and "/" in name) or base.rpartition("/")[2] != name.rpartition("/")[2]
