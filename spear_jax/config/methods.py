"""Declares every method: its name in tables, what it learns from, and what it trains."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to score time steps; `spear_jax.methods` holds the implementations.

    Attributes:
      title: its name in tables and figures.
      labels: True if it learns from the labels of the training split.
      backbone: 'frozen', 'adapted' (LoRA), 'trained' (all weights), or '' without a language model of ours.
      trains: regular expression for the parameters ('head/kernel') that the training loop changes; '' without the loop.
      prompt: True if it puts a soft prompt in front of the series; only such a method can be saved as a detector.
      zero_shot: True if it asks a language model about each window in words.
      heads: the kinds of head that it supports.
    """

    title: str
    labels: bool = False
    backbone: Literal["", "frozen", "adapted", "trained"] = ""
    trains: str = ""
    prompt: bool = False
    zero_shot: bool = False
    heads: tuple[str, ...] = ("step", "window")


METHODS = {
    "spear": Method("SPEAR", labels=True, backbone="frozen", trains=r"(prompt|head)/.*", prompt=True),
    "lstm": Method("LSTM, both ways", labels=True, trains=r"network/.*", heads=("step",)),
    "lstm_causal": Method("LSTM, causal", labels=True, trains=r"network/.*", heads=("step",)),
    "fine_tuning": Method("fine-tuning", labels=True, backbone="trained", trains=r"(head|backbone)/.*"),
    "lora": Method("LoRA", labels=True, backbone="adapted", trains=r"head/.*|.*/lora_[ab]"),
    "isolation_forest": Method("isolation forest"),
    "nearest_neighbours": Method("1-nearest neighbour"),
    "matrix_profile": Method("matrix profile"),
    "sub_pca": Method("sub-PCA"),
    "logistic_regression": Method("logistic regression", labels=True),
    "gradient_boosting": Method("gradient boosting", labels=True),
    "zero_shot_masked": Method("zero-shot, masked", backbone="frozen", zero_shot=True),
    "zero_shot_yes_no": Method("zero-shot, yes/no", backbone="frozen", zero_shot=True),
    "zero_shot_surprise": Method("zero-shot, surprise", backbone="frozen", zero_shot=True),
    "zero_shot_api": Method("zero-shot, API", zero_shot=True),
}
