"""Fills the tables of RESULTS.md from the results that lie beside this file.

python results/build.py [FOLDER]

Between <!-- configs/studies/FILE.py:ARGUMENT --> and <!-- end --> stands what the study makes of *.json here; its
figure goes to docs/results/. FOLDER is a study's --workdir: the results of these studies are copied from it first.
"""

import json
import re
import sys
from pathlib import Path

from spear_jax import config as configs
from spear_jax import studies
from spear_jax.errors import InputError
from spear_jax.files import write_whole

HERE = Path(__file__).parent
PAGE, FIGURES = HERE.parent / "RESULTS.md", HERE.parent / "docs" / "results"
DEFAULTS = HERE / "defaults.txt"
SECTION = re.compile(r"(<!-- (configs/studies/\S+\.py\S*) -->\n).*?(<!-- end -->)", re.DOTALL)


def defaults() -> dict[str, str]:
    """Every field of a config and its default, as text."""
    return {name: repr(value) for name, value in configs.flatten(configs.default_config()).items()}


def check_defaults() -> None:
    """Refuses results that were measured with other defaults: a run's name tells only what differs from them.

    Raises:
      InputError: a default has changed since; fields that were added do not matter.
    """
    before = dict(line.split("=", 1) for line in DEFAULTS.read_text().splitlines()) if DEFAULTS.exists() else {}
    now = defaults()
    changed = [f"{name} was {value}, is {now.get(name)}" for name, value in before.items() if now.get(name) != value]
    if changed:
        raise InputError(f"{DEFAULTS}: measured with other defaults ({'; '.join(changed)}): measure again")


def copy(planned: list[studies.Planned], measured: Path) -> None:
    """Takes over the results of runs that are done, as one line each."""
    for one in planned:
        source = measured / "runs" / one.name / "results.json"
        if source.is_file():
            numbers = json.loads(source.read_text())
            write_whole(HERE / f"{one.name}.json", (json.dumps(numbers, separators=(",", ":")) + "\n").encode())
    write_whole(DEFAULTS, "".join(f"{name}={value}\n" for name, value in sorted(defaults().items())).encode())


def section(path: str, folder: Path) -> str:
    """A study's table; its figure is written to a folder, and what is not measured yet is said.

    Args:
      path: as behind --config=.
      folder: gets <name>.png, .md and .csv.
    """
    study = studies.load(path)
    planned = studies.plan(study, {})
    known = [one for one in planned if (HERE / f"{one.name}.json").is_file()]
    command = f"`python -m spear_jax.main --mode=study --config={path} --workdir=runs/studies`"
    if not known:
        return f"Not measured yet: {command}\n"
    contents = {one.name: json.loads((HERE / f"{one.name}.json").read_text()) for one in known}
    text = studies.publish(study, known, contents, folder)
    missing = [name for name in study.rows if name not in {one.row for one in known}]
    left = f"Not measured yet: {'; '.join(missing)}.\n\n" if missing else ""
    return f"{text}\n{left}![{study.title}](docs/results/{study.name}.png)\n\n{command}\n"


def main() -> None:
    """Rewrites RESULTS.md and the figures."""
    check_defaults()
    page = PAGE.read_text()
    if len(sys.argv) > 1:
        for _, path, _ in SECTION.findall(page):
            copy(studies.plan(studies.load(path), {}), Path(sys.argv[1]))
    FIGURES.mkdir(parents=True, exist_ok=True)
    page = SECTION.sub(lambda found: found[1] + section(found[2], FIGURES) + found[3], page)
    for beside in (*FIGURES.glob("*.md"), *FIGURES.glob("*.csv")):
        beside.unlink()
    write_whole(PAGE, page.encode())


if __name__ == "__main__":
    main()
