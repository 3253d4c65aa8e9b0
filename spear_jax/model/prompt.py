"""Produces the soft prompt: the module with its vectors, and the initial values of these."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, Shaped

from spear_jax import hub
from spear_jax.backbones import Backbone
from spear_jax.errors import InputError, one_line
from spear_jax.model import peft
from spear_jax.storage import read_npy


class SoftPrompt(nn.Module):
    """m trainable vectors in the space of the backbone's word embeddings."""

    length: int
    hidden: int

    @nn.compact
    def __call__(self) -> Float[Array, "prompt hidden"]:
        """Returns the prompt vectors, in float32 whatever the dtype of the backbone."""
        return self.param("vectors", nn.initializers.normal(0.02), (self.length, self.hidden), jnp.float32)


def initial_prompt(
    init: str, length: int, backbone: Backbone, *, words: str, seed: int | tuple[int, ...]
) -> Float[np.ndarray, "prompt hidden"]:
    """Makes the initial prompt.

    vocabulary  rows of the word table, sampled without replacement (Lester et al. 2021)
    words       rows of the tokens of `words`, repeated or cut to the length
    normal      normal vectors with the word table's mean and standard deviation
    uniform     uniform in [-0.5, 0.5]
    *.npy       an array of this shape
    FOLDER      a folder with an adapter of PEFT's prompt tuning, or the adapter's id on the Hub

    Raises:
      InputError: the file cannot be read, or its array has another shape.
    """
    rng = np.random.default_rng(seed)
    if init == "vocabulary":
        return backbone.word_rows(rng.choice(backbone.vocabulary_size, length, replace=False))
    if init == "words":
        ids = backbone.tokenize(words)
        if not ids:
            raise InputError(f"prompt.words={words!r}: must contain at least one word")
        return backbone.word_rows(np.resize(ids, length))
    if init == "normal":
        mean, deviation = backbone.word_table_statistics
        return (mean + deviation * rng.normal(size=(length, len(mean)))).astype(np.float32)
    if init == "uniform":
        return rng.uniform(-0.5, 0.5, (length, backbone.hidden_size)).astype(np.float32)
    prompt = _read_array(init) if init.endswith(".npy") else _read_adapter(init, backbone)
    shape = (length, backbone.hidden_size)
    if prompt.shape != shape or prompt.dtype.kind not in "fiu" or not np.isfinite(prompt).all():
        raise InputError(
            f"prompt.init={init!r}: the array has shape {prompt.shape} and type {prompt.dtype}; expected finite"
            f" numbers of shape {shape} (prompt.length, hidden size of {backbone.name})"
        )
    return prompt.astype(np.float32)


def _read_array(init: str) -> Shaped[np.ndarray, "..."]:
    try:
        content = epath.Path(init).expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"prompt.init={init!r}: cannot read this array ({one_line(error)})") from error
    return read_npy(content, f"prompt.init={init!r}")


def _read_adapter(init: str, backbone: Backbone) -> Float[np.ndarray, "prompt hidden"]:
    try:
        folder = hub.find_folder(init)
        if not (folder / peft.ADAPTER_CONFIG).exists():
            raise InputError(f"no {peft.ADAPTER_CONFIG} there")
        return peft.read_adapter(folder, backbone.name)
    except InputError as error:
        raise InputError(f"prompt.init={init!r}: {error}") from error
