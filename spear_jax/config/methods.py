"""Declares every method: its name in tables, what it learns from, and what it trains."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to score time steps.

    Attributes:
      title: its name in tables and figures.
      implementation: 'module.function' of spear_jax.methods.
      labels: True if it learns from the labels of the training split.
      backbone: 'frozen', 'adapted' (LoRA), 'trained' (all weights), or '' if it runs no language model itself.
      trains: regular expression for the parameters ('head/kernel') that the training loop updates; '' without loop.
      prompt: True if it puts a soft prompt in front of the series; only such a method can be saved as a detector.
      zero_shot: True if it asks a language model about each window in words.
      heads: the kinds of head that it supports.
    """

    title: str
    implementation: str
    labels: bool = False
    backbone: Literal["", "frozen", "adapted", "trained"] = ""
    trains: str = ""
    prompt: bool = False
    zero_shot: bool = False
    heads: tuple[str, ...] = ("step", "window")


METHODS = {
    "spear": Method(
        "SPEAR", "soft_prompt.start_spear", labels=True, backbone="frozen", trains=r"(prompt|head)/.*", prompt=True
    ),
    "lstm": Method("bidirectional LSTM", "lstm.start_lstm", labels=True, trains=r"network/.*", heads=("step",)),
    "lstm_causal": Method("causal LSTM", "lstm.start_lstm", labels=True, trains=r"network/.*", heads=("step",)),
    "fine_tuning": Method(
        "fine-tuning", "fine_tuning.start_fine_tuning", labels=True, backbone="trained", trains=r"(head|backbone)/.*"
    ),
    "lora": Method(
        "LoRA", "fine_tuning.start_fine_tuning", labels=True, backbone="adapted", trains=r"head/.*|.*/lora_[ab]"
    ),
    "isolation_forest": Method("isolation forest", "unsupervised.start_unsupervised"),
    "nearest_neighbours": Method("1-nearest neighbour", "unsupervised.start_unsupervised"),
    "matrix_profile": Method("matrix profile", "unsupervised.start_unsupervised"),
    "sub_pca": Method("sub-PCA", "unsupervised.start_unsupervised"),
    "logistic_regression": Method("logistic regression", "supervised.start_supervised", labels=True),
    "gradient_boosting": Method("gradient boosting", "supervised.start_supervised", labels=True),
    "zero_shot_masked": Method("zero-shot, masked", "zero_shot.start_zero_shot", backbone="frozen", zero_shot=True),
    "zero_shot_yes_no": Method("zero-shot, yes/no", "zero_shot.start_zero_shot", backbone="frozen", zero_shot=True),
    "zero_shot_surprise": Method("zero-shot, surprise", "zero_shot.start_zero_shot", backbone="frozen", zero_shot=True),
    "zero_shot_api": Method("zero-shot, API", "zero_shot_api.start_zero_shot_api", zero_shot=True),
}
