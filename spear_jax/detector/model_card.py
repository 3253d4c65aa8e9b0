"""Renders the model card of a detector: README.md, with the metadata that the Hugging Face Hub reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spear_jax.config import METHODS
from spear_jax.data import dataset_title
from spear_jax.report import COLUMNS, NAMES, describe_readout, format_number

# Metrics that the Hub calls by other names.
_HUB_METRICS = {"auroc": "roc_auc", "aupr": "average_precision"}

_CARD = """\
---
{metadata}
---

# Anomaly detector for time series, trained on {data}

A frozen language model, steered by a small trained soft prompt, gives every time step of a series a score between 0 \
and 1; a higher one is more anomalous (SPEAR, [arXiv 2510.03962](https://arxiv.org/abs/2510.03962); trained with \
`spear_jax`). The backbone's weights are not included: they are loaded by name and checked by sha256.

| | |
|---|---|
{facts}
{metrics}{warnings}
## Use

`DETECTOR` is this folder, or its `user/name` on the Hugging Face Hub.

```bash
python -m spear_jax.main --mode=score --detector=DETECTOR --input=telemetry.csv --workdir=scored
```

```python
import spear_jax

detector = spear_jax.SpearDetector.load("DETECTOR")
scores = detector.decision_function(series)  # an array [T] in, a score per time step out
```

No licence is stated here. Whoever publishes this states one (`license:` above) that agrees with those of the backbone \
and of the data.

Saved with {versions}.
"""

_METRICS = """
## Numbers

On the test split of the data that it was trained on (base rate {base_rate:.3f}), beside controls that any learned \
method has to beat. The threshold was chosen on the validation split; a '-' is undefined.

{table}
"""

_PEFT = """
## In torch, with PEFT

`adapter_config.json` and `adapter_model.safetensors` hold the prompt alone, without head, bins and threshold. If \
their prompt differs from that in `detector.safetensors`, because it was trained further in PEFT, it takes its place.

```python
from peft import PeftModel
from transformers import AutoModel

model = PeftModel.from_pretrained(AutoModel.from_pretrained("{name}"), "DETECTOR")
states = model(inputs_embeds=steps, attention_mask=mask).last_hidden_state[:, {length}:]  # of the time steps
```
"""


def render_card(content: Mapping[str, Any]) -> str:
    """Renders a detector's card."""
    data = dataset_title(content["trained_on"], full=True)
    name = _backbone_name(content)
    warnings = list(content["warnings"])
    if not content["backbone"]["pretrained"]:
        warnings.insert(0, f"{name}: RANDOM WEIGHTS, not a pretrained language model: its scores say nothing about one")
    lines = "".join(f"- {warning}\n" for warning in warnings)
    return _CARD.format(
        metadata=_metadata(content, data),
        data=data,
        facts="\n".join(f"| {key} | {fact} |" for key, fact in _facts(content, data, name).items()),
        metrics=_metrics(content["test"]) if content["test"] else "",
        warnings=f"\n## Warnings\n\n{lines}" if warnings else "",
        versions=", ".join(f"{package} {version}" for package, version in content["versions"].items()),
    )


def render_peft_section(backbone: str, length: int) -> str:
    """Renders what a card adds if the prompt is exported to PEFT's files."""
    return _PEFT.format(name=backbone.partition("@")[0], length=length)


def _backbone_name(content: Mapping[str, Any]) -> str:
    """Returns the backbone's name; of a local folder the last part, as the rest concerns nobody else."""
    backbone = content["backbone"]
    return Path(backbone["name"]).name if backbone["revision"] == "local" else backbone["name"]


def _facts(content: Mapping[str, Any], data: str, name: str) -> dict[str, str]:
    backbone, config = content["backbone"], content["config"]
    quantizer, prompt = config["quantizer"], config["prompt"]
    parts = ["head"] if config["train"]["parts"] == "head" else ["prompt", "head"]
    parts += ["bin embeddings"] if config["embedding"]["kind"] == "trained" else []
    window = f"windows of {config['data']['window']} steps" if config["data"]["window"] else "whole series"
    int8 = "" if config["backbone"]["int8"] == "none" else ", its kernels in int8"
    score = config["score"]
    readout = describe_readout(score["smoothing"], score["distance_weight"], score["level"])
    members = f"{prompt['members']} of " if prompt["members"] > 1 else ""
    return {
        "trained on": f"{data} (`{content['trained_on']}`); labels: {config['data']['labels']}; seed {config['seed']}",
        "trained parts": ", ".join(parts),
        "backbone, frozen": f"`{name}`, revision {backbone['revision']}, weights of sha256 `{backbone['sha256']}`, held"
        f" in {backbone['dtype']}{int8}",
        "prompt": f"{members}{prompt['length']} vectors, position {prompt['position']}",
        "input": f"{window}, in {quantizer['bins']} bins ({quantizer['kind']}, scale {quantizer['scale']}); bin"
        f" embeddings: {config['embedding']['kind']}",
        "output": f"a score per time step, from one logit per {config['head']['kind']}"
        + (f"; {readout}" if readout else ""),
        "threshold": f"{content['threshold']['value']:.4g} ({content['threshold']['rule']})",
    }


def _metrics(test: Mapping[str, Mapping[str, float | None]]) -> str:
    """Renders the section with the test metrics of the detector and the controls."""
    rows = []
    for name, metrics in test.items():
        title = METHODS[name].title if name == "spear" else NAMES[name]
        rows.append([title, *(format_number(column, metrics.get(column)) for column in COLUMNS)])
    header = f"| | {' | '.join(COLUMNS.values())} |\n{'|---' * (len(COLUMNS) + 1)}|"
    table = "\n".join([header, *(f"| {' | '.join(row)} |" for row in rows)])
    return _METRICS.format(base_rate=test["spear"]["base_rate"], table=table)


def _metadata(content: Mapping[str, Any], data: str) -> str:
    """Renders the metadata for the Hub, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData  # slow to import, and only needed to save

    backbone = content["backbone"]
    on_hub = backbone["pretrained"] and backbone["revision"] != "local"
    results = [
        EvalResult(
            task_type="other",
            task_name="time-series anomaly detection",
            dataset_type=content["trained_on"],
            dataset_name=data,
            dataset_split="test",
            metric_type=_HUB_METRICS.get(metric, metric),
            metric_name=COLUMNS[metric],
            metric_value=round(value, 6),
        )
        for metric, value in content["test"].get("spear", {}).items()
        if metric in COLUMNS and value is not None
    ]
    return ModelCardData(
        library_name="spear_jax",
        pipeline_tag="other",  # the Hub has none for anomaly detection
        tags=["anomaly-detection", "time-series", "soft-prompt", "prompt-tuning", "jax"],
        base_model=backbone["name"].partition("@")[0] if on_hub else None,
        base_model_relation="adapter" if on_hub else None,
        model_name=f"SPEAR on {data}" if results else None,
        eval_results=results or None,
    ).to_yaml()
