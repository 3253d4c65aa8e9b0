"""Compares all methods and controls on the same splits and labels, scored by the same code.

python -m spear_jax.main --mode=study --config=configs/studies/methods.py:nasa --workdir=runs/studies

Where the weights of BERT-base or Gemma 2B or a chat model are available, the words bert, gemma and api add their rows:
methods.py:nasa,bert.
"""

import os

from spear_jax.config import METHODS, MINILM, TINY, variants
from spear_jax.studies import PROTOCOL, Row, Study, on_data_set

MORE = {
    "bert": {
        "SPEAR-BERT (BERT-base)": {},
        "zero-shot, masked word (BERT-base)": {"method": "zero_shot_masked"},
    },
    "gemma": {
        "SPEAR-Gemma (Gemma 2B)": {},
        "zero-shot, yes or no (Gemma 2B)": {"method": "zero_shot_yes_no"},
        "zero-shot, surprise (Gemma 2B)": {"method": "zero_shot_surprise"},
    },
    "api": {"zero-shot, OpenAI-compatible API": {"method": "zero_shot_api"}},
}
BASELINES = (
    "lstm",
    "lstm_causal",
    "gradient_boosting",
    "logistic_regression",
    "isolation_forest",
    "nearest_neighbours",
    "matrix_profile",
    "sub_pca",
)


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random for the split; bert, gemma, api; debug."""
    words = variants(arg, (*PROTOCOL, "time", "random", *MORE, "debug"))
    data = next((name for name in PROTOCOL if name in words), "nasa")
    rest = sorted(words - MORE.keys())
    rows = {
        "SPEAR": Row(),
        "SPEAR, bin embeddings trained": Row({"embedding.kind": "trained"}),
        "control: head only (m = 0), by gradient descent": Row({"prompt.length": 0}),
        "control: random prompt, untrained": Row({"train.parts": "head", "prompt.init": "normal"}),
        "control: prompt of vocabulary rows, untrained": Row({"train.parts": "head"}),
        "control: random backbone (one draw)": Row({"backbone.name": TINY if "debug" in words else f"random:{MINILM}"}),
        "control: shuffled labels": Row({"train.shuffled_labels": True}),
        "fine-tuning of all weights": Row({"method": "fine_tuning"}),
        "LoRA, rank 8": Row({"method": "lora"}),
        "LoRA, rank 8, at the prompt's learning rate": Row({"method": "lora", "train.backbone_learning_rate": 3e-3}),
    }
    for name in BASELINES:
        method = METHODS[name]
        rows[method.title + ("" if method.labels else " (no labels)")] = Row({"method": name})
    not_measured = {}
    model = os.environ.get("OPENAI_MODEL", "")
    for word, more in MORE.items():
        config = f"configs/{data}.py:{'minilm' if word == 'api' else word}"
        if word in words:
            suffix = f": {model}" if word == "api" and model else ""  # each chat model gets a row
            rows |= {label + suffix: Row(overrides, config) for label, overrides in more.items()}
            continue
        study = f"configs/studies/methods.py:{','.join([*rest, word])}"
        command = f"python -m spear_jax.main --mode=study --config={study} --workdir=runs/studies"
        if word == "api":
            command = f"OPENAI_MODEL=... OPENAI_API_KEY=... {command}"
            if data == "mimic_iv":  # its data use agreement forbids sending it to a third party
                command = f"OPENAI_BASE_URL=http://localhost:8000/v1 {command}"
        not_measured |= dict.fromkeys(more, command)
    study = Study(
        name="methods",
        title="All methods",
        question="Is a soft prompt on a frozen language model better than its controls and than cheaper methods?",
        varied="method",
        rows=rows,
        controls_of="SPEAR",
        reference="SPEAR",
        not_measured=not_measured,
    )
    return on_data_set(study, ",".join(rest))
