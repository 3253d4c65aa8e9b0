"""The model card of a detector: README.md with the metadata that the Hugging Face Hub reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spear_jax.config import METHODS
from spear_jax.data import dataset_title
from spear_jax.report import COLUMNS, NAMES, format_number

# What the Hub calls a metric, where that is not our name of it.
_HUB_METRICS = {"auroc": "roc_auc", "aupr": "average_precision"}


def text(about: Mapping[str, Any]) -> str:
    """The card of a detector.

    Args:
      about: the content of detector.json.
    """
    backbone, config, test = about["backbone"], about["config"], about["test"]
    bins = config["quantizer"]
    data = dataset_title(about["trained_on"], full=True)
    name = Path(backbone["name"]).name if backbone["revision"] == "local" else backbone["name"]
    parts = ["head"] if config["train"]["parts"] == "head" else ["prompt", "head"]
    parts += ["bin embeddings"] if config["embedding"]["kind"] == "trained" else []
    window = f"windows of {config['data']['window']} steps" if config["data"]["window"] else "whole series"
    int8 = "" if config["backbone"]["int8"] == "none" else ", its kernels in int8"
    facts = {
        "trained on": f"{data} (`{about['trained_on']}`); labels: {config['data']['labels']}; seed {config['seed']}",
        "trained parts": ", ".join(parts),
        "backbone, frozen": f"`{name}`, revision {backbone['revision']}, weights of sha256 `{backbone['sha256']}`, held"
        f" in {backbone['dtype']}{int8}",
        "prompt": f"{config['prompt']['length']} vectors, position {config['prompt']['position']}",
        "input": f"{window}, in {bins['bins']} bins ({bins['kind']}, scale {bins['scale']}); bin embeddings:"
        f" {config['embedding']['kind']}",
        "output": f"a score per time step, from one logit per {config['head']['kind']}",
        "threshold": f"{about['threshold']['value']:.4g} ({about['threshold']['rule']})",
    }
    warnings = [] if backbone["pretrained"] else [f"{name}: RANDOM WEIGHTS; no pretrained language model is in this"]
    warnings += about["warnings"]
    versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    return "\n".join(
        [
            f"---\n{_metadata(about, data)}\n---",
            "",
            f"# Anomaly detector for time series, trained on {data}",
            "",
            "A frozen language model, steered by a small trained soft prompt, gives every time step of a series a"
            " score between 0 and 1; a higher one is more anomalous (SPEAR, [arXiv 2510.03962]"
            "(https://arxiv.org/abs/2510.03962); trained with `spear_jax`). The backbone's weights are not in here:"
            " they are loaded by name and checked by sha256.",
            "",
            "| | |\n|---|---|",
            *(f"| {key} | {fact} |" for key, fact in facts.items()),
            *_numbers(test),
            *(["", "## Warnings", "", *(f"- {warning}" for warning in warnings)] if warnings else []),
            "",
            "## Use",
            "",
            "`DETECTOR` is this folder, or its `user/name` on the Hugging Face Hub.",
            "",
            "```bash",
            "python -m spear_jax.main --mode=score --detector=DETECTOR --input=telemetry.csv --workdir=scored",
            "```",
            "",
            "```python",
            "import spear_jax",
            "",
            'detector = spear_jax.SpearDetector.load("DETECTOR")',
            "scores = detector.decision_function(series)  # an array [T] in, a score per time step out",
            "```",
            "",
            "No licence is stated here: it is for whoever publishes this to state one (`license:` above), with those of"
            " the backbone and of the data in mind.",
            "",
            f"Saved with {versions}.",
            "",
        ]
    )


def of_peft(backbone: str, length: int) -> str:
    """What a card adds where the prompt lies beside the detector in PEFT's files.

    Args:
      backbone: a Hugging Face id or a folder.
      length: vectors of the prompt.
    """
    name = backbone.partition("@")[0]
    return f"""
## In torch, with PEFT

`adapter_config.json` and `adapter_model.safetensors` are the prompt alone, without head, bins and threshold. Where they
hold another prompt than `detector.safetensors`, for one trained on in PEFT, theirs is the one that scores.

```python
from peft import PeftModel
from transformers import AutoModel

model = PeftModel.from_pretrained(AutoModel.from_pretrained("{name}"), "DETECTOR")
states = model(inputs_embeds=steps, attention_mask=mask).last_hidden_state[:, {length}:]  # of the steps
```
"""


def _numbers(test: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """The table of test metrics, with the controls beside them."""
    if not test:
        return []

    def cells(metrics: Mapping[str, float | None]) -> list[str]:
        return [format_number(column, metrics.get(column)) for column in COLUMNS]

    rows = [
        [METHODS[name].title if name == "spear" else NAMES[name], *cells(metrics)] for name, metrics in test.items()
    ]
    return [
        "",
        "## Numbers",
        "",
        f"On the test part of the data that it was trained on (base rate {test['spear']['base_rate']:.3f}), beside"
        " controls that anything learned has to beat. The threshold is of the validation part; a '-' is undefined.",
        "",
        f"| | {' | '.join(COLUMNS.values())} |",
        "|---" * (len(COLUMNS) + 1) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _metadata(about: Mapping[str, Any], data: str) -> str:
    """What the Hub reads, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData  # takes its time, and only a save needs it

    backbone = about["backbone"]
    of_hub = backbone["pretrained"] and backbone["revision"] != "local"
    measured = [
        EvalResult(
            task_type="other",
            task_name="time-series anomaly detection",
            dataset_type=about["trained_on"],
            dataset_name=data,
            dataset_split="test",
            metric_type=_HUB_METRICS.get(metric, metric),
            metric_name=COLUMNS[metric],
            metric_value=round(value, 6),
        )
        for metric, value in about["test"].get("spear", {}).items()
        if metric in COLUMNS and value is not None
    ]
    return ModelCardData(
        library_name="spear_jax",
        pipeline_tag="other",  # the Hub knows no anomaly detection
        tags=["anomaly-detection", "time-series", "soft-prompt", "prompt-tuning", "jax"],
        base_model=backbone["name"].partition("@")[0] if of_hub else None,
        base_model_relation="adapter" if of_hub else None,
        model_name=f"SPEAR on {data}" if measured else None,
        eval_results=measured or None,
    ).to_yaml()
