"""Parses the command line and runs the chosen mode."""

import os
import signal
import sys


def _end_at_once(*_: object) -> None:
    """Says that Ctrl-C was pressed, and ends the process, as `kill -9` may at any moment.

    An exception is lost in some libraries, and makes others abort.
    """
    os.write(2, b"stopped: Ctrl-C\n")
    os._exit(130)


if __name__ == "__main__":  # before the other imports, which take most of a start
    signal.signal(signal.SIGINT, _end_at_once)
    if sys.stderr is None:  # closed; print() would take standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115

import dataclasses
import re
import shlex
import threading
from collections.abc import Sequence
from pathlib import Path

from spear_jax.commands import usage
from spear_jax.errors import InputError, one_line, plain

DISTRIBUTED = ("auto", "on", "off")
_SECONDS_TO_END = 8


@dataclasses.dataclass
class Flags:
    """The parsed command line; '' is unset."""

    config: str = ""
    workdir: str = ""
    mode: str = "train"
    detector: str = ""
    input: str = ""
    topology: str = ""
    distributed: str = "auto"
    overrides: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def command(self) -> str:
        """Returns the command line without --workdir, which reproduces the results in another folder."""
        values = {"mode": "" if self.mode == "train" else self.mode, "config": self.config, "detector": self.detector}
        values = {name: value for name, value in values.items() if value}
        values |= {f"config.{name}": value for name, value in self.overrides.items()}
        flags = [shlex.quote(f"--{name}={value}") for name, value in values.items()]
        return " ".join(["python -m spear_jax.main", *flags])

    @property
    def live(self) -> bool:
        """Returns whether rows are scored as they arrive on standard input."""
        return self.mode == "score" and self.input == "-"


def parse_flags(arguments: Sequence[str]) -> Flags:
    """Parses `--flag=value` and `--flag value`.

    Raises:
      InputError: a flag is unknown, has no value or does not apply to the mode, or the mode needs another one.
    """
    flags, rest = Flags(), list(arguments)
    names = [field.name for field in dataclasses.fields(Flags) if field.name != "overrides"]
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not (name in names or name.startswith("config.")):
            raise InputError(f"unknown argument {argument!r}; flags are --{', --'.join(names)}, --config.FIELD, --help")
        if not equals:
            if not rest:
                raise InputError(f"--{name} needs a value: --{name}=...")
            value = rest.pop(0)
        if name.startswith("config."):
            flags.overrides[name.removeprefix("config.")] = value
        else:
            # Shells do not expand ~ after an equals sign.
            setattr(flags, name, str(Path(value).expanduser()) if value.startswith("~") else value)
    _check_flags(flags)
    return flags


def _check_flags(flags: Flags) -> None:
    for name, value, allowed in (("mode", flags.mode, usage.MODES), ("distributed", flags.distributed, DISTRIBUTED)):
        if value not in allowed:
            raise InputError(f"--{name}={value} must be one of {', '.join(allowed)}")
    mode = usage.MODES[flags.mode]
    if flags.overrides and not mode.overrides:
        raise InputError(f"--config.{next(iter(flags.overrides))} does not apply to --mode={flags.mode}")
    if flags.live and flags.workdir:
        raise InputError("--workdir does not apply to --input=-: the scores go to standard output")
    for name, example in usage.EXAMPLES.items():
        value = getattr(flags, name)
        if name in mode.needs and not value and not (name == "workdir" and flags.live):
            raise InputError(f"--mode={flags.mode} needs --{name}, such as {example}")
        if value and name not in (*mode.needs, *mode.takes, "workdir"):
            modes = [f"--mode={other}" for other, entry in usage.MODES.items() if name in (*entry.needs, *entry.takes)]
            raise InputError(f"--{name} only applies to {', '.join(modes)}")


def run_mode(flags: Flags) -> str:
    """Runs one mode; returns the reason why it stopped early, or '' if it is done.

    Raises:
      InputError: the command line cannot be used; nothing was written.
    """
    from absl import logging
    from etils import epath

    from spear_jax import parallel
    from spear_jax.commands import evaluate, export, memory, preview, score, topology, train
    from spear_jax.commands.run_folder import own_folder
    from spear_jax.config import RETIRED, check_not_carried, check_scheme, load_valid_config
    from spear_jax.data import prepare_dataset
    from spear_jax.storage import LOCK, OwnedFolder
    from spear_jax.studies import compare_runs, load_study, run_study

    # Orbax logs a traceback for every file that it cannot write, then raises; `main` reports it once.
    logging.set_verbosity(logging.FATAL)
    for name in ("workdir", "detector", "input"):
        check_scheme(f"--{name}", getattr(flags, name))
    match flags.mode:
        case "score":
            parallel.join_processes(flags.distributed)
            parallel.check_alone(flags.mode)  # each process would write all files
            if flags.live:
                score.score_live(flags.detector, flags.overrides)
            else:
                with own_folder(flags.workdir, flags.mode) as folder:
                    score.score_files(flags.detector, flags.input, folder, flags.overrides)
            return ""
        case "export":
            with own_folder(flags.workdir, flags.mode) as folder:
                export.export_detector(flags.detector, folder)
            return ""
        case "compare":
            print(compare_runs(Path(flags.workdir)), end="")
            return ""
        case "study":
            study = load_study(flags.config)
            with OwnedFolder(epath.Path(flags.workdir), flags.mode, lock=f".{study.name}{LOCK}").locked():
                print(run_study(study, flags.overrides, Path(flags.workdir), Path("results")))
            return ""
    for name in flags.overrides if flags.mode == "evaluate" else ():  # the config's own value may not fit to it
        check_not_carried(name)
    config = load_valid_config(flags.config, flags.overrides)
    if flags.topology:  # no device of this machine is used
        print(topology.compiled_table(config, flags.topology))
        return ""
    parallel.join_processes(flags.distributed)
    match flags.mode:
        case "prepare":
            parallel.say(prepare_dataset(config))
        case "preview":
            preview.preview_data(config)
        case "memory":
            parallel.say(memory.memory_table(config))
        case "evaluate":
            fields = [name for name in flags.overrides if name not in RETIRED]
            with own_folder(flags.workdir, flags.mode) as folder:
                evaluate.evaluate_detector(config, flags.detector, folder, flags.command, overridden=fields)
        case _:
            with own_folder(flags.workdir, flags.mode) as folder:
                return train.train_and_evaluate(config, folder, flags.command)
    return ""


# How tensorstore's messages, which may be thousands of characters long, give the error of the system.
_SYSTEM_ERROR = re.compile(r"(?:os_error_code='|OS error )(\d+)")


def main(arguments: Sequence[str]) -> int:
    """Runs the program; returns its exit code: 0 done, 1 stopped or diverged (resumable), 2 bad input, 130 Ctrl-C."""
    if "--help" in arguments or "-h" in arguments:
        print(usage.help_text(), end="")
        return 0
    try:
        stopped = run_mode(parse_flags(arguments))
        return _report(f"stopped: {stopped}", 1) if stopped else 0
    except InputError as error:
        return _report(f"error: {error}", 2)
    except ImportError as error:
        if "gcsfs" not in str(error):
            raise
        return _report("error: gs:// needs the package gcsfs: pip install '.[gcs]'", 2)
    except KeyboardInterrupt:  # outside the parts of a run that handle signals themselves
        return _report("stopped: Ctrl-C", 130)
    except RuntimeError as error:
        from spear_jax.training import TrainingDivergedError

        if not isinstance(error, TrainingDivergedError):
            raise
        return _report(f"stopped: {error}", 1)
    except (OSError, ValueError) as error:
        # The disk is full or read-only; under Orbax, tensorstore's errors are ValueErrors.
        if isinstance(error, ValueError):
            if not (code := _SYSTEM_ERROR.search(str(error))):
                raise
            error = OSError(int(code[1]), os.strerror(int(code[1])))
        # A write to an open file fails without naming it.
        place = "" if error.filename else f"{_workdir(arguments)}: "
        return _report(f"stopped: {place}{one_line(error)}; once that is fixed, the same command resumes", 1)


def _workdir(arguments: Sequence[str]) -> str:
    return parse_flags(arguments).workdir or "standard output"


def _report(line: str, code: int) -> int:
    # One call, since print() writes the line break separately and processes may interleave.
    sys.stderr.write(f"{plain(line)}\n")
    return code


def program(arguments: Sequence[str]) -> int:
    """Runs the program in a process of its own, which a stop or Ctrl-C always ends soon; see `main`."""
    signal.signal(signal.SIGINT, _end_at_once)
    if code := main(arguments):
        _end_soon(code)
    return code


def _end_soon(code: int) -> None:
    """Ends the process in a few seconds, whatever threads and exit handlers of libraries still wait for."""
    timer = threading.Timer(_SECONDS_TO_END, os._exit, [code])
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    sys.exit(program(sys.argv[1:]))
