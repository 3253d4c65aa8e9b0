"""Compares prompts of 0 to 50 vectors.

python -m spear_jax.main --mode=study --config=configs/studies/prompt_length.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Study, grid, on_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random for the split; debug (random:tiny, a few minutes)."""
    study = Study(
        name="prompt_length",
        title="Prompt length",
        question="How long should the prompt be? The paper finds 20 vectors best. 0 is the head alone.",
        varied="prompt.length",
        rows=grid(prompt__length=(0, 5, 10, 20, 30, 50)),
        axis="prompt.length",
    )
    return on_data_set(study, arg)
