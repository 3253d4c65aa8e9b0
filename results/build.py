"""Fills the tables of RESULTS.md from the results that lie beside this file.

python results/build.py [FOLDER]

Between <!-- configs/studies/FILE.py:ARGUMENT --> and <!-- end --> stands what the study makes of *.json here; its
figure goes to docs/results/. FOLDER is a study's --workdir: the results of these studies are copied from it first.
"""

import json
import re
import sys
from pathlib import Path

import pandas as pd

from spear_jax.errors import InputError
from spear_jax.storage import write_whole
from spear_jax.studies import DEFAULTS, Study, changed_defaults, defaults, load_study, plan, publish

HERE = Path(__file__).parent
PAGE, FIGURES = HERE.parent / "RESULTS.md", HERE.parent / "docs" / "results"
SECTION = re.compile(r"(<!-- (configs/studies/\S+\.py\S*) -->\n).*?(<!-- end -->)", re.DOTALL)


def check_defaults() -> None:
    """Refuses results that were measured with other defaults.

    Raises:
      InputError: a default has changed since.
    """
    changed = changed_defaults(HERE)
    if changed:
        raise InputError(f"{HERE}: measured with other defaults ({'; '.join(changed)}): measure again")


def copy(study: Study, measured: Path) -> None:
    """Takes over the results of a study's runs that are done, and the errors of those that failed, as one line each."""
    table = measured / f"{study.name}.csv"
    failed = pd.read_csv(table).dropna(subset="error").set_index("run")["error"] if table.is_file() else pd.Series()
    for one in plan(study, {}):
        source, kept = measured / "runs" / one.name / "results.json", HERE / f"{one.name}.json"
        if source.is_file():
            numbers = json.loads(source.read_text())
        elif one.name in failed.index and not kept.is_file():
            numbers = {"error": failed[one.name]}
        else:
            continue
        write_whole(kept, (json.dumps(numbers, separators=(",", ":")) + "\n").encode())
    text = "".join(f"{name}={value}\n" for name, value in sorted(defaults().items()))
    write_whole(HERE / DEFAULTS, text.encode())


def section(path: str, folder: Path) -> str:
    """A study's table; its figure is written to a folder, and what is not measured yet is said.

    Args:
      path: as behind --config=.
      folder: gets <name>.png, .md and .csv.
    """
    study = load_study(path)
    planned = plan(study, {})
    known = [one for one in planned if (HERE / f"{one.name}.json").is_file()]
    command = f"`python -m spear_jax.main --mode=study --config={path} --workdir=runs/studies`"
    if not known:
        return f"Not measured yet: {command}\n"
    contents = {one.name: json.loads((HERE / f"{one.name}.json").read_text()) for one in known}
    text = publish(study, known, contents, folder)
    seeds: dict[str, list[str]] = {}
    for one in planned:
        if one not in known:
            seeds.setdefault(one.row, []).append(str(one.seed))
    missing = [
        row if len(which) == len(study.seeds) else f"{row} (seed {', '.join(which)})" for row, which in seeds.items()
    ]
    left = f"Not measured yet: {'; '.join(missing)}.\n\n" if missing else ""
    return f"{text}\n{left}![{study.title}](docs/results/{study.name}.png)\n\n{command}\n"


def main() -> None:
    """Rewrites RESULTS.md and the figures."""
    check_defaults()
    page = PAGE.read_text()
    if len(sys.argv) > 1:
        for _, path, _ in SECTION.findall(page):
            copy(load_study(path), Path(sys.argv[1]))
    FIGURES.mkdir(parents=True, exist_ok=True)
    page = SECTION.sub(lambda found: found[1] + section(found[2], FIGURES) + found[3], page)
    for beside in (*FIGURES.glob("*.md"), *FIGURES.glob("*.csv")):
        beside.unlink()
    write_whole(PAGE, page.encode())


if __name__ == "__main__":
    main()
