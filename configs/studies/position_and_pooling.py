"""Where the prompt stands, what a window's head reads, and who sees whom: options in which implementations differ.

python -m spear_jax.main --mode=study --config=configs/studies/position_and_pooling.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Row, Study, one_data_set

STEP = {"head.kind": "step"}
WINDOW = {"head.kind": "window"}


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random (splits); debug (random:tiny, minutes)."""
    rows = {
        f"{position}, a score per step": {**STEP, "prompt.position": position}
        for position in ("prefix", "after_cls", "suffix")
    }
    rows |= {
        f"prefix, a score per window, pooling {pooling}": {**WINDOW, "head.pooling": pooling}
        for pooling in ("mean", "last", "peft_first", "peft_last")
    }
    rows["after_cls, a score per window, pooling cls"] = {
        **WINDOW,
        "prompt.position": "after_cls",
        "head.pooling": "cls",
    }
    rows["prefix, a score per step, causal attention"] = {**STEP, "backbone.attention": "causal"}
    rows["prefix, a score per window, pooling last, causal attention"] = {
        **WINDOW,
        "head.pooling": "last",
        "backbone.attention": "causal",
    }
    return one_data_set(
        arg,
        "position_and_pooling",
        title="Prompt position, pooling and attention",
        question="The paper leaves these open; SPEAR-Gemma may owe its lower numbers to them.",
        varied="prompt.position, head, attention",
        rows={name: Row(fields) for name, fields in rows.items()},
    )
