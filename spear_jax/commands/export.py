"""Exports a detector so that PEFT can load its prompt."""

from etils import epath

from spear_jax import parallel
from spear_jax.commands.run_folder import check_new_folder
from spear_jax.detector import load_detector


def export_detector(detector_path: str, workdir: str) -> None:
    """Writes a detector together with its prompt in the format of PEFT's prompt tuning.

    Raises:
      InputError: the folder is not empty, or PEFT cannot represent the prompt; nothing was written.
    """
    folder = epath.Path(workdir)
    check_new_folder(folder, "export")
    detector, _ = load_detector(detector_path)
    detector.export(folder)
    parallel.say(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
