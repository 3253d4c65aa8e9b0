"""Every method and control on the same splits, with the same labels, scored by the same code.

python -m spear_jax.main --mode=study --config=configs/studies/methods.py:nasa --workdir=runs/studies
"""

from spear_jax import studies
from spear_jax.config import MINILM, TINY, variants

COMMAND = "python -m spear_jax.main --config=configs/{data}.py:{word} --config.method={method} --workdir=runs/{method}"


def get_study(arg: str = "") -> studies.Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random (splits); debug (random:tiny, minutes)."""
    words = variants(arg, (*studies.PROTOCOL, "time", "random", "debug"))
    backbone = TINY if "debug" in words else f"random:{MINILM}"
    data = next((name for name in studies.PROTOCOL if name in words), "nasa")

    def by_hand(word: str, method: str) -> str:
        fields = studies.PROTOCOL[data] | ({"data.split": min(split)} if (split := words & {"time", "random"}) else {})
        of_all = [f" --config.{name}={value}" for name, value in fields.items()]
        return COMMAND.format(data=data, word=word, method=method) + "".join(of_all)

    api = by_hand("debug" if "debug" in words else "minilm", "zero_shot_api")
    api = f"OPENAI_API_KEY=... OPENAI_MODEL=... {api}"
    if data == "mimic_iv":
        api = "refused unless the model runs on this host (OPENAI_BASE_URL), as MIMIC-IV's data use agreement has it"

    return studies.one_data_set(
        arg,
        "methods",
        title="All methods",
        question="Is a soft prompt on a frozen language model worth it, beside its controls and cheaper methods?",
        varied="method",
        rows={
            "SPEAR": studies.Row(),
            "SPEAR, bin embeddings trained too": studies.Row({"embedding.kind": "trained"}),
            "control: head only (m = 0), by gradient descent": studies.Row({"prompt.length": 0}),
            "control: random prompt, not trained": studies.Row({"train.parts": "head", "prompt.init": "normal"}),
            "control: vocabulary rows as prompt, not trained": studies.Row({"train.parts": "head"}),
            "control: random backbone": studies.Row({"backbone.name": backbone}),
            "control: shuffled labels": studies.Row({"train.shuffled_labels": True}),
            "fine-tuning of all weights": studies.Row({"method": "fine_tuning"}),
            "LoRA, rank 8": studies.Row({"method": "lora"}),
            "LSTM, both ways": studies.Row({"method": "lstm"}),
            "LSTM, causal": studies.Row({"method": "lstm_causal"}),
            "gradient boosting on local statistics": studies.Row({"method": "gradient_boosting"}),
            "logistic regression on local statistics": studies.Row({"method": "logistic_regression"}),
            "isolation forest, reads no labels": studies.Row({"method": "isolation_forest"}),
            "1-nearest neighbour, reads no labels": studies.Row({"method": "nearest_neighbours"}),
            "matrix profile, reads no labels": studies.Row({"method": "matrix_profile"}),
            "sub-PCA, reads no labels": studies.Row({"method": "sub_pca"}),
        },
        controls_of="SPEAR",
        not_measured={
            "SPEAR-BERT (BERT-base)": by_hand("bert", "spear"),
            "SPEAR-Gemma (Gemma 2B)": by_hand("gemma", "spear"),
            "zero-shot, masked word (BERT-base)": by_hand("bert", "zero_shot_masked"),
            "zero-shot, yes or no (Gemma 2B)": by_hand("gemma", "zero_shot_yes_no"),
            "zero-shot, surprise (Gemma 2B)": by_hand("gemma", "zero_shot_surprise"),
            "zero-shot, OpenAI-compatible API": api,
        },
    )
