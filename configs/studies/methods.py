"""Every method and control on the same splits, with the same labels, scored by the same code.

python -m spear_jax.main --mode=study --config=configs/studies/methods.py:nasa --workdir=runs/studies
"""

from spear_jax import studies
from spear_jax.config import MINILM, TINY, variants

COMMAND = "python -m spear_jax.main --config=configs/{data}.py:{word} --config.method={method} --workdir=runs/{method}"


def get_study(arg: str = "") -> studies.Study:
    """Arguments: nasa (default), nab or mimic_iv; debug (random:tiny, minutes)."""
    words = variants(arg, (*studies.PROTOCOL, "debug"))
    backbone = TINY if "debug" in words else f"random:{MINILM}"
    data = next((word for word in studies.PROTOCOL if word in words), "nasa")
    command = COMMAND.format(data=data, word="debug" if "debug" in words else "minilm", method="zero_shot_api")
    fields = "".join(f" --config.{name}={value}" for name, value in studies.PROTOCOL[data].items())
    api = f"OPENAI_API_KEY=... OPENAI_MODEL=... {command}{fields}"
    if data == "mimic_iv":
        api = "refused unless the model runs on this host (OPENAI_BASE_URL), as MIMIC-IV's data use agreement has it"
    return studies.one_data_set(
        arg,
        "methods",
        title="All methods",
        question="Is a soft prompt on a frozen language model worth it, beside its controls and cheaper methods?",
        varied="method",
        rows={
            "SPEAR": {},
            "SPEAR, bin embeddings trained too": {"embedding.kind": "trained"},
            "control: head only (m = 0), by gradient descent": {"prompt.length": 0},
            "control: random prompt, not trained": {"train.parts": "head", "prompt.init": "normal"},
            "control: vocabulary rows as prompt, not trained": {"train.parts": "head"},
            "control: random backbone": {"backbone.name": backbone},
            "control: shuffled labels": {"train.shuffled_labels": True},
            "fine-tuning of all weights": {"method": "fine_tuning"},
            "LoRA, rank 8": {"method": "lora"},
            "LSTM, both ways": {"method": "lstm"},
            "LSTM, causal": {"method": "lstm_causal"},
        },
        controls_of="SPEAR",
        not_measured={"zero-shot, OpenAI-compatible API": api},
    )
