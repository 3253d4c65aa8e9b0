"""Exports a detector so that PEFT can load its prompt."""

from spear_jax import parallel
from spear_jax.commands.run_folder import check_new_folder
from spear_jax.detector import load_detector
from spear_jax.storage import OwnedFolder, is_content


def export_detector(detector_path: str, owned: OwnedFolder) -> None:
    """Writes a detector together with its prompt in the format of PEFT's prompt tuning.

    Raises:
      InputError: the folder is not empty, or PEFT cannot represent the prompt; nothing was written.
    """
    check_new_folder(owned, "export")
    detector, _ = load_detector(detector_path)
    owned.begin()
    detector.export(owned.path)
    parallel.say(f"{owned.path}: {', '.join(sorted(path.name for path in owned.path.iterdir() if is_content(path)))}")
