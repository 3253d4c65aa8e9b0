"""Every method and control on the same splits, with the same labels, scored by the same code.

python -m spear_jax.main --mode=study --config=configs/studies/methods.py:nasa --workdir=runs/studies

Where weights of BERT-base or Gemma 2B are to be had, or a chat model, the words bert, gemma and api add their rows:
methods.py:nasa,bert.
"""

import os

from spear_jax.config import MINILM, TINY, variants
from spear_jax.studies import PROTOCOL, Row, Study, one_data_set

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


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random (splits); bert, gemma, api; debug (minutes)."""
    words = variants(arg, (*PROTOCOL, "time", "random", *MORE, "debug"))
    data = next((name for name in PROTOCOL if name in words), "nasa")
    rest = sorted(words - MORE.keys())
    rows = {
        "SPEAR": Row(),
        "SPEAR, bin embeddings trained too": Row({"embedding.kind": "trained"}),
        "control: head only (m = 0), by gradient descent": Row({"prompt.length": 0}),
        "control: random prompt, not trained": Row({"train.parts": "head", "prompt.init": "normal"}),
        "control: vocabulary rows as prompt, not trained": Row({"train.parts": "head"}),
        "control: random backbone (one draw)": Row({"backbone.name": TINY if "debug" in words else f"random:{MINILM}"}),
        "control: shuffled labels": Row({"train.shuffled_labels": True}),
        "fine-tuning of all weights": Row({"method": "fine_tuning"}),
        "LoRA, rank 8": Row({"method": "lora"}),
        "LoRA, rank 8, at the prompt's learning rate": Row({"method": "lora", "train.backbone_learning_rate": 3e-3}),
        "LSTM, both ways": Row({"method": "lstm"}),
        "LSTM, causal": Row({"method": "lstm_causal"}),
        "gradient boosting on local statistics": Row({"method": "gradient_boosting"}),
        "logistic regression on local statistics": Row({"method": "logistic_regression"}),
        "isolation forest, reads no labels": Row({"method": "isolation_forest"}),
        "1-nearest neighbour, reads no labels": Row({"method": "nearest_neighbours"}),
        "matrix profile, reads no labels": Row({"method": "matrix_profile"}),
        "sub-PCA, reads no labels": Row({"method": "sub_pca"}),
    }
    not_measured = {}
    asked = os.environ.get("OPENAI_MODEL", "")
    for word, more in MORE.items():
        config = f"configs/{data}.py:{'minilm' if word == 'api' else word}"
        if word in words:
            # Another model is another row.
            of_model = f": {asked}" if word == "api" and asked else ""
            rows |= {name + of_model: Row(fields, config) for name, fields in more.items()}
            continue
        study = f"configs/studies/methods.py:{','.join([*rest, word])}"
        command = f"python -m spear_jax.main --mode=study --config={study} --workdir=runs/studies"
        if word == "api":
            command = f"OPENAI_MODEL=... OPENAI_API_KEY=... {command}"
            if data == "mimic_iv":  # its data use agreement forbids passing it on
                command = f"OPENAI_BASE_URL=http://localhost:8000/v1 {command}"
        not_measured |= dict.fromkeys(more, command)
    return one_data_set(
        ",".join(rest),
        "methods",
        title="All methods",
        question="Is a soft prompt on a frozen language model worth it, beside its controls and cheaper methods?",
        varied="method",
        rows=rows,
        controls_of="SPEAR",
        reference="SPEAR",
        not_measured=not_measured,
    )
