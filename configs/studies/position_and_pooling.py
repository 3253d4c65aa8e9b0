"""Compares the prompt's place, what a window head reads, and bidirectional with causal attention.

python -m spear_jax.main --mode=study --config=configs/studies/position_and_pooling.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Row, Study, on_data_set

STEP = {"head.kind": "step"}
WINDOW = {"head.kind": "window"}


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random for the split; debug (random:tiny, a few minutes)."""
    rows = {
        f"{position}, head per step": {**STEP, "prompt.position": position}
        for position in ("prefix", "after_cls", "suffix")
    }
    rows |= {
        f"prefix, head per window, pooling {pooling}": {**WINDOW, "head.pooling": pooling}
        for pooling in ("mean", "last", "peft_first", "peft_last")
    }
    rows["after_cls, head per window, pooling cls"] = {
        **WINDOW,
        "prompt.position": "after_cls",
        "head.pooling": "cls",
    }
    rows["prefix, head per step, causal attention"] = {**STEP, "backbone.attention": "causal"}
    rows["prefix, head per window, pooling last, causal attention"] = {
        **WINDOW,
        "head.pooling": "last",
        "backbone.attention": "causal",
    }
    study = Study(
        name="position_and_pooling",
        title="Prompt position, pooling and attention",
        question="Does it matter where the prompt stands and what the head reads? The paper does not say, and"
        " SPEAR-Gemma may owe its lower numbers to it.",
        varied="prompt.position, head, attention",
        rows={label: Row(overrides) for label, overrides in rows.items()},
    )
    return on_data_set(study, arg)
