"""Fills the tables of RESULTS.md from the results that lie beside this file.

python results/build.py [FOLDER]

Between <!-- configs/studies/FILE.py:ARGUMENT --> and <!-- end --> stands what the study's table says of results/*.json;
its figure goes to docs/results/. FOLDER is a study's --workdir: the results of these studies are copied from it first.
"""

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

from spear_jax import studies

HERE = Path(__file__).parent
PAGE, FIGURES = HERE.parent / "RESULTS.md", HERE.parent / "docs" / "results"
SECTION = re.compile(r"(<!-- (configs/studies/\S+\.py\S*) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(path: str, measured: Path | None) -> str:
    """A study's table and figure; what is not measured yet is said below it.

    Args:
      path: as behind --config=.
      measured: the study's --workdir, whose results are copied.
    """
    study = studies.load(path)
    planned = studies.plan(study, {})
    for one in planned:
        source = measured / "runs" / one.name / "results.json" if measured else None
        if source and source.is_file():
            numbers = json.loads(source.read_text())
            (HERE / f"{one.name}.json").write_text(json.dumps(numbers, separators=(",", ":")) + "\n")
    found = {one.name: HERE / f"{one.name}.json" for one in planned}
    known = [one for one in planned if found[one.name].is_file()]
    missing = sorted({one.row for one in planned} - {one.row for one in known}, key=list(study.rows).index)
    if not known:
        return f"Not measured yet: `--mode=study --config={path}`.\n"
    with tempfile.TemporaryDirectory() as folder:
        contents = {one.name: json.loads(found[one.name].read_text()) for one in known}
        text = studies.publish(study, known, contents, Path(folder))
        FIGURES.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(folder) / f"{study.name}.png", FIGURES)
    command = f"`python -m spear_jax.main --mode=study --config={path} --workdir=runs/studies`"
    lines = [text, f"![{study.title}](docs/results/{study.name}.png)", "", command, ""]
    if missing:
        lines.insert(1, f"Not measured yet: {'; '.join(missing)}.\n")
    return "\n".join(lines)


def main() -> None:
    """Rewrites RESULTS.md."""
    measured = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    page = SECTION.sub(lambda found: found[1] + table(found[2], measured) + found[3], PAGE.read_text())
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
