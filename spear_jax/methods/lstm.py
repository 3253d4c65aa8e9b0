"""Builds an LSTM baseline (Hochreiter and Schmidhuber, 1997) on the same bins, splits and labels as SPEAR."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from spear_jax.data import Dataset
from spear_jax.evaluation import RunRecord
from spear_jax.methods.implementations import Trainable
from spear_jax.model import PlacedModel


def start_lstm(config: ConfigDict, dataset: Dataset, record: RunRecord) -> Trainable:
    """Assembles the model, see `assemble_lstm`."""
    return Trainable(assemble_lstm(config))


class Lstm(nn.Module):
    """Maps bins to a logit per time step; all of its parameters are under the name 'network'.

    Attributes:
      hidden: size of the hidden state, in each direction.
      layers: number of stacked layers.
      bidirectional: each layer reads the window forwards and backwards; else a step sees only its past.
      bins: N; bin N stands for a missing value.
    """

    hidden: int
    layers: int
    bidirectional: bool
    bins: int

    @nn.compact
    def __call__(
        self, bins: Int[Array, "batch time *views"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time"]:
        """Computes the logit of 'anomalous' for every step.

        Args:
          bins: the bin of every step; the network reads the bin's centre and a flag for missing values. Of a step with
            several views it reads the first, the value.
          mask: True at real steps; padding after the last one is ignored in both directions.
        """
        values = bins if bins.ndim == 2 else bins[..., 0]
        return _Network(self.hidden, self.layers, self.bidirectional, self.bins, name="network")(values, mask)


class _Network(nn.Module):
    hidden: int
    layers: int
    bidirectional: bool
    bins: int

    @nn.compact
    def __call__(self, bins: Int[Array, "batch time"], mask: Bool[Array, "batch time"]) -> Float[Array, "batch time"]:
        missing = bins == self.bins
        value = jnp.where(missing, 0.0, 2 * (bins + 0.5) / self.bins - 1)
        x: Any = jnp.stack([value, missing.astype(jnp.float32)], axis=-1)
        lengths = jnp.max(jnp.where(mask, jnp.arange(mask.shape[1]) + 1, 0), axis=1)
        for _ in range(self.layers):
            forward = nn.RNN(nn.OptimizedLSTMCell(self.hidden))
            if self.bidirectional:
                backward = nn.RNN(nn.OptimizedLSTMCell(self.hidden))
                x = nn.Bidirectional(forward, backward)(x, seq_lengths=lengths)
            else:
                x = forward(x, seq_lengths=lengths)
        return nn.Dense(1)(x)[..., 0]


def assemble_lstm(config: ConfigDict) -> PlacedModel:
    """Builds the LSTM of a config with initial parameters, all of which are trainable."""
    module = Lstm(config.lstm.hidden, config.lstm.layers, config.method == "lstm", config.quantizer.bins)
    bins, mask = jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool)
    params = jax.jit(module.init)(jax.random.key(config.seed), bins, mask)["params"]
    return PlacedModel.place(config, module, jax.device_get(params), {})
