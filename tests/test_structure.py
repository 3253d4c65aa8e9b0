"""Keeps the package readable: sizes, names, dependencies, documentation and what the repository tracks."""

import ast
import collections
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.one_python

MODULES_AT_THE_TOP = 10
LINES_OF_A_MODULE = 450
LINES_OF_A_FUNCTION = 80
PARAMETERS = 7
LINES_OF_THE_README = 150
BYTES_OF_THE_RESULTS = 8 * 1024
FILES_OF_A_FOLDER = 80
UNNATURAL_OPENINGS = 15

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


def relative(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


MODULES = {relative(path): path.read_text() for path in sorted((REPOSITORY / "spear_jax").rglob("*.py"))}
TREES = {path: ast.parse(text) for path, text in MODULES.items()}


def dotted(path: str) -> str:
    """Returns a module's name: 'spear_jax.data' for spear_jax/data/__init__.py."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def functions() -> Iterator[tuple[str, Function]]:
    """Yields every function and method, nested ones included, with its module's path."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield path, node


def imports() -> Iterator[tuple[str, str, ast.alias]]:
    """Yields each `from spear_jax... import name` as importing path, module and name."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "spear_jax":
                yield from ((path, node.module, name) for name in node.names)


def tracked() -> list[PurePosixPath]:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    paths = map(PurePosixPath, listed.stdout.splitlines())
    return [path for path in paths if (REPOSITORY / path).exists()]


def test_few_modules_stand_outside_the_packages() -> None:
    assert len([path for path in MODULES if path.count("/") == 1]) <= MODULES_AT_THE_TOP


def test_no_module_is_long() -> None:
    lengths = {path: text.count("\n") for path, text in MODULES.items()}
    assert {path: lines for path, lines in lengths.items() if lines > LINES_OF_A_MODULE} == {}


def test_no_function_is_long() -> None:
    lengths = {}
    for path, function in functions():
        first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
        assert function.end_lineno
        lengths[f"{path}: {function.name}"] = function.end_lineno - first + 1
    assert {name: lines for name, lines in lengths.items() if lines > LINES_OF_A_FUNCTION} == {}


def test_no_function_takes_many_parameters() -> None:
    counts = {}
    for path, function in functions():
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        counts[f"{path}: {function.name}"] = sum(argument.arg not in ("self", "cls") for argument in arguments)
    assert not {name for name, count in counts.items() if count > PARAMETERS}


def test_no_two_modules_classes_or_functions_share_a_name() -> None:
    places = collections.defaultdict(list)
    for path, tree in TREES.items():
        if not path.endswith("/__init__.py"):
            places[PurePosixPath(path).stem].append(path)
        for node in tree.body:
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{path}: {node.name}")
    # The function that a program starts with is called main everywhere.
    assert {name: found for name, found in places.items() if len(found) > 1 and name != "main"} == {}


def test_no_module_is_renamed_on_import() -> None:
    modules = set(map(dotted, MODULES))
    renamed = [
        f"{path}: {module}.{name.name} as {name.asname}"
        for path, module, name in imports()
        if name.asname and f"{module}.{name.name}" in modules
    ]
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                renamed += [f"{path}: {x.name} as {x.asname}" for x in node.names if x.asname and x.name in modules]
    assert renamed == []


def test_packages_import_one_another_through_their_front_doors() -> None:
    back_doors = []
    for path, module, name in imports():
        parts = module.split(".")
        own = dotted(path).split(".")
        # main.py imports the one module of commands/ that it runs, so that --help answers at once.
        if len(parts) > 2 and parts[1] != "commands" and own[1:2] != parts[1:2]:
            back_doors.append(f"{path}: {module}.{name.name}")
    assert back_doors == []


def test_every_front_door_names_what_it_offers() -> None:
    for path, tree in TREES.items():
        if path.count("/") != 2 or not path.endswith("/__init__.py"):
            continue
        assert ast.get_docstring(tree), path
        imported = {name.name for importing, _, name in imports() if importing == path}
        (offered,) = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ] or [[]]
        assert imported == set(offered), path


def test_docstrings_and_comments_open_as_a_native_engineer_would() -> None:
    opening = re.compile(r'^\s*("""|#) ?(What|Where|How) ', re.MULTILINE)
    found = [
        f"{path}: {match.group().strip()}"
        for path in tracked()
        if path.suffix == ".py"
        for match in opening.finditer((REPOSITORY / path).read_text())
    ]
    assert len(found) <= UNNATURAL_OPENINGS, "\n".join(found)


def test_the_readme_and_the_results_are_short() -> None:
    lines = len((REPOSITORY / "README.md").read_text().splitlines())
    size = (REPOSITORY / "RESULTS.md").stat().st_size
    assert lines <= LINES_OF_THE_README
    assert size <= BYTES_OF_THE_RESULTS


def test_no_placeholder_stands_for_the_owner() -> None:
    name = "OWN" + "ER"
    mentions = [str(path) for path in tracked() if name.encode() in (REPOSITORY / path).read_bytes()]
    assert mentions == []


def test_no_tracked_folder_holds_many_files() -> None:
    sizes = collections.Counter(path.parent for path in tracked())
    assert {str(folder): size for folder, size in sizes.items() if size > FILES_OF_A_FOLDER} == {}


def anchors(markdown: str) -> set[str]:
    """Returns the anchors that GitHub gives to a page's headings, and those that it sets itself."""
    found: set[str] = set()
    counts: collections.Counter[str] = collections.Counter()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", without_code_blocks(markdown), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # of a link, its text
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.add(f"{slug}-{counts[slug]}" if counts[slug] else slug)
        counts[slug] += 1
    return found | set(re.findall(r'<a (?:name|id)="([^"]+)"', markdown))


def without_code_blocks(markdown: str) -> str:
    return re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)


def links(markdown: str) -> list[str]:
    """Returns the targets of a page's links and images."""
    prose = re.sub(r"`[^`\n]*`", "", without_code_blocks(markdown))
    inline = re.findall(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)", prose)
    references = re.findall(r"^\[[^\]]+\]: (\S+)", prose, re.MULTILINE)
    return [*inline, *references, *re.findall(r'(?:href|src)="([^"]+)"', prose)]


def test_every_link_of_the_documentation_resolves() -> None:
    pages = [path for path in tracked() if path.suffix == ".md" and path.parts[0] != "tests"]
    broken = []
    for page in pages:
        for link in links((REPOSITORY / page).read_text()):
            if re.match(r"[a-z]+:", link):  # the web
                continue
            name, _, anchor = link.partition("#")
            target = (REPOSITORY / page.parent / name) if name else REPOSITORY / page
            if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
                broken.append(f"{page}: {link}")
    assert broken == []


@pytest.mark.parametrize(
    ("markdown", "check", "expected"),
    [
        ("# One: two\n## `code` & more\n## One: two\n", anchors, {"one-two", "code--more", "one-two-1"}),
        ("```\n# no heading\n```\n", anchors, set()),
        ("[a](b.md#c) ![d](e.png)\n\n[f]: g.md\n`[h](i)`\n", links, ["b.md#c", "e.png", "g.md"]),
    ],
)
def test_links_and_anchors_are_found(
    markdown: str, check: Callable[[str], object], expected: set[str] | list[str]
) -> None:
    assert check(markdown) == expected
