"""Stands in for commands of other machines (gcloud, srun, ...) and runs launchers with them."""

import dataclasses
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from conftest import REPOSITORY, Outcome, plain_environment

LAUNCH = REPOSITORY / "launch"


@dataclasses.dataclass(frozen=True)
class Fakes:
    """A folder of fake commands that come first on PATH and record their calls in the file `calls`."""

    folder: Path

    def add(self, name: str, then: str = "") -> None:
        """Adds a command; `then` is bash that runs after the call is recorded, with $FAKES as its folder."""
        file = self.folder / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f'#!/bin/bash\necho "{name} $*" >>"$FAKES/calls"\n{then}\n')
        file.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """Returns the environment of a launcher, without its settings and without anything that names a cluster."""
        settings = ("ZONE", "TYPE", "NAME", "SPOT", "RUNTIME", "KEEP", "POLL", "PYTHON", "VENV", "EXTRA")
        plain = {name: value for name, value in plain_environment().items() if name not in settings}
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return plain | {"PATH": path, "FAKES": str(self.folder), "TMPDIR": str(self.folder / "tmp")}

    def run(self, *command: str, environment: Mapping[str, str] | None = None) -> Outcome:
        """Runs bash in the folder `here` with the fakes on PATH."""
        for name in ("here", "tmp"):
            (self.folder / name).mkdir(exist_ok=True)
        finished = subprocess.run(
            ["bash", *command],
            cwd=self.folder / "here",
            env=self.environment | dict(environment or {}),
            capture_output=True,
            text=True,
            timeout=200,
        )
        return Outcome(finished.returncode, finished.stdout, finished.stderr)

    @property
    def calls(self) -> list[str]:
        """Returns the recorded calls in order."""
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []
