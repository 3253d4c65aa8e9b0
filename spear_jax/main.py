"""Command line: flags and dispatch, nothing else."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from spear_jax.errors import InputError

MODES = ("train", "evaluate", "score", "preview", "prepare", "memory", "study", "compare", "export")


HELP = """\
usage: python -m spear_jax.main --config=FILE[:ARGUMENT] --workdir=FOLDER [--mode=MODE] [--config.FIELD=VALUE ...]

Frozen language models, steered by a tiny trainable soft prompt, as anomaly detectors for time series.

modes, with an example each:
  train      train, then evaluate (default); the same command again resumes, or says that it is done
             python -m spear_jax.main --config=configs/nasa.py:minilm --workdir=runs/nasa
  evaluate   apply a trained detector to another data set
             python -m spear_jax.main --mode=evaluate --config=configs/quickstart.py --detector=runs/nasa \\
                 --workdir=runs/nasa_on_synthetic
  score      score your own CSV or Parquet files with a trained detector
             python -m spear_jax.main --mode=score --detector=runs/nasa --input=telemetry.csv --workdir=runs/telemetry
  preview    print what was understood of the data, before anything is trained
             python -m spear_jax.main --mode=preview --config=configs/files.py --config.data.dir=telemetry.csv
  prepare    download and prepare the data, nothing else
             python -m spear_jax.main --mode=prepare --config=configs/nasa.py
  memory     print what a config will need of a device's memory, before anything is loaded
             python -m spear_jax.main --mode=memory --config=configs/nasa.py:gemma
  study      a grid of configs times seeds, run one by one, and a table; runs that are done are not repeated
             python -m spear_jax.main --mode=study --config=configs/studies/bins.py:nasa --workdir=runs/bins
  compare    finished runs below a folder side by side, with the paper's numbers and the command of each
             python -m spear_jax.main --mode=compare --workdir=runs
  export     a detector with its prompt in the files of PEFT's prompt tuning beside it, for torch
             python -m spear_jax.main --mode=export --detector=runs/nasa --workdir=nasa_peft

flags:
  --config=FILE[:ARGUMENT]         a config file, looked up in the current folder, then in the package;
                                   arguments such as minilm or debug are named in the file
  --config.FIELD=VALUE             overrides a field, e.g. --config.train.epochs=5
  --workdir=FOLDER                 where the run's files go
  --detector=FOLDER|USER/NAME      a detector or run folder, or checkpoints/<step> of a run; or, where there is no such
                                   folder, a detector of the Hugging Face Hub, @revision or not (evaluate, score,
                                   export); `hf upload USER/NAME runs/x/detector` puts one there
  --input=FILE|FOLDER|-            what to score: CSV (compressed or not) or Parquet; - reads lines of CSV as they come
                                   and writes a line for each to standard output, without --workdir (score)
  --distributed=auto|on|off        joins the other processes of a Slurm, Open MPI or GKE job, or those that
                                   JAX_COORDINATOR_ADDRESS names; on joins a TPU pod outside GKE (default: auto);
                                   score runs in one process
  --help                           this text

configs that come with the package: configs/quickstart.py (generated telemetry), configs/nasa.py (NASA SMAP and MSL),
  configs/nab.py (Numenta Anomaly Benchmark), configs/mimic_iv.py (vital signs), configs/files.py (your own files)

what of a detector may be changed where it is used: --config.backbone.dtype, --config.backbone.int8, and
  --config.backbone.name, where the same weights lie on this machine (evaluate, score)

backbones, as arguments of the last four, e.g. --config=configs/nasa.py:gemma3-1b; --config.backbone.name takes any
  Hugging Face id or folder of these families:
  minilm, bert, roberta, distilbert, modernbert, gemma, gemma2-2b, gemma3-270m, gemma3-1b, gemma3-4b, llama3-1b,
  llama3-3b, llama3-8b, qwen2.5-0.5b, qwen2.5-1.5b, qwen3-0.6b, qwen3-1.7b, deepseek-r1-qwen-1.5b, deepseek-r1-llama-8b
"""


# What tensorstore says of a file that it cannot write, by the place where it notices.
_TENSORSTORE = ("local file", "Failed writing", "No space left on device")


@dataclasses.dataclass
class Flags:
    """The parsed command line; '' is unset."""

    config: str = ""
    workdir: str = ""
    mode: str = "train"
    detector: str = ""
    input: str = ""
    distributed: str = "auto"
    overrides: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def command(self) -> str:
        """The command line, without the folder that it writes to."""
        given = {"mode": "" if self.mode == "train" else self.mode, "config": self.config, "detector": self.detector}
        given = {name: value for name, value in given.items() if value}
        given |= {f"config.{name}": value for name, value in self.overrides.items()}
        flags = [shlex.quote(f"--{name}={value}") for name, value in given.items()]
        return " ".join(["python -m spear_jax.main", *flags])


def parse_flags(arguments: Sequence[str]) -> Flags:
    """Reads `--flag=value` and `--flag value`.

    Raises:
      InputError: an unknown flag, a flag without its value, or an unknown mode.
    """
    flags, left = Flags(), list(arguments)
    known = [field.name for field in dataclasses.fields(Flags) if field.name != "overrides"]
    while left:
        argument = left.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not (name in known or name.startswith("config.")):
            raise InputError(f"unknown argument {argument!r}; flags are --{', --'.join(known)}, --config.FIELD, --help")
        if not equals:
            if not left:
                raise InputError(f"--{name} needs a value: --{name}=...")
            value = left.pop(0)
        if name.startswith("config."):
            flags.overrides[name.removeprefix("config.")] = value
        else:
            # Shells leave a ~ behind an equals sign as it is.
            setattr(flags, name, str(Path(value).expanduser()) if value.startswith("~") else value)
    if flags.mode not in MODES:
        raise InputError(f"--mode={flags.mode!r}: allowed are {', '.join(MODES)}")
    if flags.mode == "score" and flags.config:
        raise InputError("--config is not of --mode=score: the detector carries all that is needed")
    if flags.mode == "compare" and (flags.config or flags.overrides):
        raise InputError("--config is not of --mode=compare: it reads what runs have left in --workdir")
    if flags.mode == "export" and (flags.config or flags.overrides):
        raise InputError("--config is not of --mode=export: the detector is written as it is")
    if not flags.config and flags.mode not in ("score", "compare", "export"):
        raise InputError("--config is missing, e.g. --config=configs/quickstart.py; --help shows more")
    live = flags.mode == "score" and flags.input == "-"
    if live and flags.workdir:
        raise InputError("--workdir is not of --input=-: the scores go to standard output")
    if flags.mode not in ("prepare", "preview", "memory") and not live and not flags.workdir:
        raise InputError("--workdir is missing: the folder that the run's files go to, e.g. --workdir=runs/first")
    of_mode = {"detector": ("evaluate", "score", "export"), "input": ("score",)}
    for name, modes in of_mode.items():
        if (flags.mode in modes) != bool(getattr(flags, name)):
            raise InputError(
                f"--mode={flags.mode} needs --{name}=..."
                if flags.mode in modes
                else f"--{name} is of --mode={' and --mode='.join(modes)}"
            )
    return flags


def run_mode(flags: Flags) -> str:
    """Runs one mode; returns why it stopped before its end, '' if it is done.

    Raises:
      InputError: something given cannot be used; nothing was written.
    """
    from absl import logging

    from spear_jax import parallel
    from spear_jax.commands import data, evaluate, export, memory, score, train
    from spear_jax.config import load_config, override, take_environment, validate
    from spear_jax.storage import check_scheme

    # Orbax logs a traceback for each file that it cannot write, then raises; `main` says it once.
    logging.set_verbosity(logging.FATAL)
    for name in ("workdir", "detector", "input"):
        check_scheme(f"--{name}", getattr(flags, name))
    if flags.distributed not in parallel.DISTRIBUTED:
        raise InputError(f"--distributed={flags.distributed!r}: allowed are {', '.join(parallel.DISTRIBUTED)}")
    if flags.mode == "score":
        parallel.start(flags.distributed)
        parallel.check_alone(flags.mode)  # each process would write all files
        if flags.input == "-":
            score.live(flags.detector, sys.stdin.buffer if sys.stdin else None, sys.stdout, flags.overrides)
        else:
            score.score_files(flags.detector, flags.input, flags.workdir, flags.overrides)
        return ""
    if flags.mode == "export":
        export.export(flags.detector, flags.workdir)
        return ""
    if flags.mode == "compare":
        from spear_jax.studies import compare

        print(compare(Path(flags.workdir)), end="")
        return ""
    if flags.mode == "study":
        from spear_jax.studies import load_study, run_study

        print(run_study(load_study(flags.config), flags.overrides, Path(flags.workdir), Path("results")))
        return ""
    config = load_config(flags.config)
    for field, text in flags.overrides.items():
        override(config, field, text)
    validate(config)
    check_scheme("config.data.dir", config.data.dir)
    check_scheme("config.data.intervals", config.data.intervals)
    take_environment(config)
    parallel.start(flags.distributed)
    if flags.mode == "prepare":
        data.prepare_data(config)
    elif flags.mode == "preview":
        data.preview_data(config)
    elif flags.mode == "memory":
        parallel.say(memory.memory_table(config))
    elif flags.mode == "evaluate":
        evaluate.evaluate_detector(
            config, flags.detector, flags.workdir, flags.command, overridden=list(flags.overrides)
        )
    else:
        return train.train_and_evaluate(config, flags.workdir, flags.command)
    return ""


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")  # at once: print() writes the line break by itself, and several processes may speak


def main(arguments: Sequence[str]) -> int:
    """The program; returns its exit code: 0 done, 1 stopped or diverged (resumable), 2 bad input, 130 Ctrl-C."""
    if "--help" in arguments or "-h" in arguments:
        print(HELP, end="")
        return 0
    try:
        stopped = run_mode(parse_flags(arguments))
        if stopped:
            _say(f"stopped: {stopped}")
            return 1
    except InputError as fault:
        _say(f"error: {fault}")
        return 2
    except ImportError as fault:
        if "gcsfs" not in str(fault):
            raise
        _say("error: gs:// needs the package gcsfs: pip install '.[gcs]'")
        return 2
    except KeyboardInterrupt:  # where nothing was under way that a signal saves or ends in order
        _say("stopped: Ctrl-C")
        return 130
    except RuntimeError as fault:
        from spear_jax.training import TrainingDivergedError

        if not isinstance(fault, TrainingDivergedError):
            raise
        _say(f"stopped: {fault}")
        return 1
    except (OSError, ValueError) as fault:
        # A disk that is full or not writable; tensorstore's errors under Orbax are ValueErrors.
        if isinstance(fault, ValueError) and not any(words in str(fault) for words in _TENSORSTORE):
            raise
        reason = " ".join(str(fault).split())
        _say(f"stopped: {reason}; with that mended, the same command goes on")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
