"""Declares the modes of the command line, and formats the text of --help."""

import ast
import dataclasses
import textwrap

from spear_jax.config import BACKBONES, LOCAL, packaged_configs


@dataclasses.dataclass(frozen=True)
class Mode:
    """A value of --mode.

    Attributes:
      purpose: description for --help.
      example: example arguments for --help.
      needs: required flags. Other flags do not apply, except --workdir and --distributed.
      overrides: True if it accepts --config.FIELD.
      takes: flags that may be given.
    """

    purpose: str
    example: str
    needs: tuple[str, ...]
    overrides: bool = True
    takes: tuple[str, ...] = ()


MODES = {
    "train": Mode(
        "train, then evaluate (default); the same command again resumes, or reports that the run is done",
        "--config=configs/nasa.py:minilm --workdir=runs/nasa",
        ("config", "workdir"),
    ),
    "evaluate": Mode(
        "apply a trained detector to another data set",
        "--config=configs/nab.py --detector=runs/nasa --workdir=runs/on_nab",
        ("config", "detector", "workdir"),
    ),
    "score": Mode(
        "score your own CSV or Parquet files with a trained detector",
        "--detector=runs/nasa --input=telemetry.csv --workdir=runs/telemetry",
        ("detector", "input", "workdir"),
    ),
    "preview": Mode(
        "show how the data are read and split, before anything is trained",
        "--config=configs/files.py --config.data.dir=telemetry.csv",
        ("config",),
    ),
    "prepare": Mode("download and prepare the data, nothing else", "--config=configs/nasa.py", ("config",)),
    "memory": Mode(
        "show how much device memory a config needs, before anything is loaded",
        "--config=configs/nasa.py:gemma",
        ("config",),
        takes=("topology",),
    ),
    "study": Mode(
        "run a grid of configs and seeds one by one and tabulate the results; finished runs are not repeated",
        "--config=configs/studies/bins.py:nasa --workdir=runs/bins",
        ("config", "workdir"),
    ),
    "compare": Mode(
        "compare finished runs below a folder with each other and with the paper's numbers",
        "--workdir=runs",
        ("workdir",),
        overrides=False,
    ),
    "export": Mode(
        "write a detector whose prompt PEFT's prompt tuning can load, for torch",
        "--detector=runs/nasa --workdir=nasa_peft",
        ("detector", "workdir"),
        overrides=False,
    ),
}

EXAMPLES = {
    "config": "--config=configs/quickstart.py; --help lists more",
    "detector": "--detector=runs/first",
    "input": "--input=telemetry.csv",
    "workdir": "--workdir=runs/first",
    "topology": "--topology=v5e:2x4",
}
"""Flags that only some modes need or take, and an example of each."""

HELP = """\
usage: python -m spear_jax.main --config=FILE[:ARGUMENT] --workdir=FOLDER [--mode=MODE] [--config.FIELD=VALUE ...]

Frozen language models, steered by a tiny trainable soft prompt, as anomaly detectors for time series.

modes, with an example each:
{modes}
flags:
  --config=FILE[:ARGUMENT]         a config file, looked up in the current folder, then in the package;
                                   each file documents its arguments, such as minilm or debug
  --config.FIELD=VALUE             overrides a field, such as --config.train.epochs=5
  --workdir=FOLDER                 where the run's files go
  --detector=FOLDER|USER/NAME      a detector or run folder, checkpoints/STEP of a run, or a detector on the Hugging
                                   Face Hub, with or without @REVISION; `hf upload USER/NAME runs/x/detector` shares one
  --input=FILE|FOLDER|-            what to score: CSV (compressed or not) or Parquet; - reads lines of CSV from standard
                                   input as they arrive and writes scores to standard output, without --workdir
  --topology=v5e:2x4|...           --mode=memory compiles for these TPUs instead, and needs none: pip install '.[aot]';
                                   v5e:16x16,slices=2 is two slices
  --distributed=auto|on|off        joins the other processes of a Slurm, Open MPI or GKE job, or those that
                                   JAX_COORDINATOR_ADDRESS names; on joins a TPU pod outside GKE (default: auto)
  --help                           this text

configs that come with the package:
{configs}
fields of a detector that can be overridden where it is used (evaluate, score); the weights must stay the same:
  {machine}

backbones, as arguments of every config but quickstart, such as --config=configs/nasa.py:gemma3-1b;
--config.backbone.name accepts any Hugging Face id or folder of these families:
{backbones}
"""


def help_text() -> str:
    """Returns the text of --help."""
    files = sorted(packaged_configs().glob("[a-z]*.py"))
    titles = {file.name: (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0] for file in files}
    return HELP.format(
        modes="".join(
            f"  {name:<10} {mode.purpose}\n             python -m spear_jax.main"
            f"{'' if name == 'train' else f' --mode={name}'} {mode.example}\n"
            for name, mode in MODES.items()
        ),
        configs="".join(f"  configs/{name:<15} {title}\n" for name, title in titles.items()),
        machine=", ".join(f"--config.{name}" for name in LOCAL),
        backbones=textwrap.fill(", ".join(BACKBONES), 120, initial_indent="  ", subsequent_indent="  "),
    )
