"""Exports a detector for PEFT."""

from etils import epath

from spear_jax import parallel
from spear_jax.detector import load_detector
from spear_jax.errors import InputError


def export(detector_path: str, workdir: str) -> None:
    """Writes a detector with its prompt in the files of PEFT's prompt tuning beside it.

    Args:
      detector_path: a detector or run folder.
      workdir: a new folder.

    Raises:
      InputError: bad input, or a prompt that means nothing to PEFT; the folder is as it was.
    """
    folder = epath.Path(workdir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--workdir={folder}: is not a new or empty folder; export writes to a new one")
    detector, _ = load_detector(detector_path)
    detector.export(folder)
    parallel.say(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
