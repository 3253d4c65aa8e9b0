"""How long a prompt helps: 0 to 50 vectors.

python -m spear_jax.main --mode=study --config=configs/studies/prompt_length.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Study, grid, one_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random (splits); debug (random:tiny, minutes)."""
    return one_data_set(
        arg,
        "prompt_length",
        title="Prompt length",
        question="The paper finds its best prompts at 20 to 30 vectors. 0 is the head alone.",
        varied="prompt.length",
        rows=grid(prompt__length=(0, 5, 10, 20, 30, 50)),
        axis="prompt.length",
    )
