"""Config files, fields and their checks, without running anything."""

import ast
import contextlib
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CONFIGS
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from spear_jax.config import arguments, checks, fields, reading
from spear_jax.config.field import Limits
from spear_jax.config.fields import FIELDS
from spear_jax.errors import InputError

DEFAULTS = {name: field.default for name, field in FIELDS.items()}
NUMBERS = [name for name, value in DEFAULTS.items() if type(value) in (int, float)]
RANGES = {name: field.allowed for name, field in FIELDS.items() if isinstance(field.allowed, Limits)}
CHOICES = {name: field.allowed for name, field in FIELDS.items() if field.allowed and name not in RANGES}
EXPERIMENTS = sorted(CONFIGS.glob("*.py"))  # studies: test_studies.py


@contextlib.contextmanager
def refused(*parts: str) -> Iterator[None]:
    """Expects an InputError whose message is one line and has all the parts."""
    with pytest.raises(InputError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def config_with(field: str, value: Any) -> ConfigDict:
    """Returns the defaults with one field set to a value of any type."""
    config = fields.default_config()
    *parents, leaf = field.split(".")
    section = config
    for parent in parents:
        section = section[parent]
    with section.ignore_type():
        section[leaf] = value
    return config


def words_of(file: Path) -> list[str]:
    """Returns the arguments that a config file accepts, taken from its error message."""
    with pytest.raises(InputError) as caught:
        reading.load_config(f"{file}:no-such-word")
    return str(caught.value).partition("must be one of ")[2].split(", ")


# --- The files in configs/ ------------------------------------------------------------


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_config_file_is_valid_with_every_argument(file: Path) -> None:
    words = words_of(file)
    assert "debug" in words
    checks.validate(reading.load_config(str(file)))
    for word in words:
        checks.validate(reading.load_config(f"{file}:{word}"))
    others = [word for word in words if word not in arguments.BACKBONES]
    for pair in itertools.permutations([*others, "minilm"] if "minilm" in words else others, 2):
        checks.validate(reading.load_config(f"{file}:{','.join(pair)}"))


@pytest.mark.parametrize(
    "file", [file for file in EXPERIMENTS if file.stem != "quickstart"], ids=lambda file: file.stem
)
def test_every_config_accepts_every_backbone(file: Path) -> None:
    for word, name in arguments.BACKBONES.items():
        config = reading.load_config(f"{file}:{word}")
        assert config.backbone.name == name
        auto = "bert" in word or word == "minilm" or name.startswith("package:")
        assert config.backbone.dtype == ("auto" if auto else "bfloat16")
    with pytest.raises(InputError, match=r"'gemma,minilm' names 2 backbones; it must name one"):
        reading.load_config(f"{file}:minilm,gemma")


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_config_file_documents_its_command_and_arguments(file: Path) -> None:
    module = ast.parse(file.read_text())
    command = ast.get_docstring(module) or ""
    assert "python -m spear_jax.main" in command
    assert f"--config=configs/{file.name}" in command
    (function,) = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    documented = ast.get_docstring(function) or ""
    for word in words_of(file):
        assert word in documented or (word in arguments.BACKBONES and "of `config.BACKBONES`" in documented)


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_debug_is_tiny_and_random_unless_a_backbone_is_named(file: Path) -> None:
    assert reading.load_config(f"{file}:debug").backbone.name == "random:tiny"
    assert reading.load_config(f"{file}").backbone.name != "random:tiny"


def test_debug_keeps_a_named_backbone() -> None:
    short = reading.load_config(f"{CONFIGS / 'nasa.py'}:minilm,debug")
    assert short.backbone.name == arguments.MINILM
    assert short.train.epochs < reading.load_config(f"{CONFIGS / 'nasa.py'}:minilm").train.epochs


def test_current_folder_comes_before_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = "from spear_jax.config import default_config\ndef get_config(arg):\n"
    own += "    config = default_config()\n    config.prompt.words = arg\n    return config\n"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "nasa.py").write_text(own)
    assert reading.load_config("configs/nasa.py:a:b, c").prompt.words == "a:b, c"


# --- Values -----------------------------------------------------------------------------


def test_defaults_are_valid_and_typed() -> None:
    checks.validate(fields.default_config())
    assert {type(value) for value in DEFAULTS.values()} <= {str, bool, int, float, tuple}


def test_every_number_has_limits_and_only_strings_have_choices() -> None:
    assert reading.flatten(fields.default_config()) == DEFAULTS
    assert set(RANGES) == set(NUMBERS)
    assert all(type(DEFAULTS[name]) is str for name in CHOICES)


@pytest.mark.parametrize("field", DEFAULTS)
def test_every_default_can_be_typed(field: str) -> None:
    config = fields.default_config()
    reading.override(config, field, str(DEFAULTS[field]))
    value = reading.flatten(config)[field]
    assert (type(value), value) == (type(DEFAULTS[field]), DEFAULTS[field])
    checks.validate(config)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.5,0.25,0.25", (0.5, 0.25, 0.25)), ("[.6, .2, .2]", (0.6, 0.2, 0.2))],
)
def test_fractions_can_be_typed_with_or_without_brackets(text: str, expected: tuple[float, ...]) -> None:
    config = fields.default_config()
    reading.override(config, "data.fractions", text)
    checks.validate(config)
    assert config.data.fractions == expected


def test_whole_number_is_a_number() -> None:
    config = fields.default_config()
    reading.override(config, "train.clip_norm", "2")
    assert type(config.train.clip_norm) is float
    checks.validate(config_with("train.clip_norm", 2))


@given(st.sampled_from(sorted(DEFAULTS)), st.data())
@settings(max_examples=150, deadline=None)
def test_every_value_can_be_typed(field: str, data: st.DataObject) -> None:
    kind = type(DEFAULTS[field])
    values: dict[type, st.SearchStrategy[Any]] = {
        str: st.text(),
        bool: st.booleans(),
        int: st.integers(),
        float: st.floats(allow_nan=False),
        tuple: st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
    }
    value = data.draw(values[kind])
    config = fields.default_config()
    reading.override(config, field, str(value))
    assert reading.flatten(config)[field] == value


@given(
    st.sampled_from(sorted(DEFAULTS)),
    st.one_of(st.text(max_size=20), st.sampled_from(["{[]: 1}", "(" * 300, "9" * 5000, "None", ""])),
)
@settings(max_examples=300, deadline=None)
def test_any_text_is_accepted_or_refused_by_name(field: str, text: str) -> None:
    config = fields.default_config()
    try:
        reading.override(config, field, text)
    except InputError as error:
        assert str(error).startswith(f"--config.{field}=")
    assert type(reading.flatten(config)[field]) is type(DEFAULTS[field])


# --- Errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "parts"),
    [
        ("train.epoch", ["train.epoch does not exist", "did you mean train.epochs"]),
        ("tain.epochs", ["did you mean train.epochs"]),
        ("epochs", ["train.epochs"]),
        ("train", ["it is a section with", "train.batch_size"]),
        ("train.early_stopping", ["section with train.early_stopping.metric"]),
        ("train.epochs.more", ["does not exist"]),
        ("qqqqqqqq", ["does not exist", "did you mean"]),
        ("", ["does not exist"]),
    ],
)
def test_unknown_field_suggests_similar_ones(field: str, parts: list[str]) -> None:
    with refused(f"--config.{field}", *parts):
        reading.override(fields.default_config(), field, "1")


@pytest.mark.parametrize(
    ("field", "text", "needed"),
    [
        ("train.epochs", "five", f"a whole number, such as {DEFAULTS['train.epochs']}"),
        ("train.epochs", "2.5", "a whole number"),
        ("train.epochs", "True", "a whole number"),
        ("train.epochs", "", "a whole number"),
        ("train.clip_norm", "big", f"a number, such as {DEFAULTS['train.clip_norm']}"),
        ("backbone.remat", "1", "true or false, such as "),
        ("data.fractions", "0.5", f"a list of numbers, such as {DEFAULTS['data.fractions']}"),
        ("data.fractions", "{0.5}", "a list of numbers"),
    ],
)
def test_wrong_type_names_field_value_and_type(field: str, text: str, needed: str) -> None:
    with refused(f"--config.{field}={text} must be ", needed):
        reading.override(fields.default_config(), field, text)


@pytest.mark.parametrize("field", CHOICES)
def test_unknown_choice_lists_the_choices(field: str) -> None:
    allowed = ", ".join(CHOICES[field])
    with refused(f"config.{field}='no-such-choice'", f"must be one of {allowed}"):
        checks.validate(config_with(field, "no-such-choice"))


@pytest.mark.parametrize("field", RANGES)
def test_value_outside_its_limits_names_them(field: str) -> None:
    low, high = RANGES[field]
    kind = type(DEFAULTS[field])
    for inside in {low, high} - {math.inf}:
        config = fields.default_config()
        reading.override(config, field, str(kind(inside)))
        assert reading.flatten(config)[field] == inside
    outside = [kind(low - 1)] + ([] if high == math.inf else [kind(high + 1)])
    for value in outside:
        with refused(f"config.{field}={value}", "must be", f"{low:g}"):
            checks.validate(config_with(field, value))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", [f for f in NUMBERS if type(DEFAULTS[f]) is float])
def test_infinite_number_is_refused(field: str, value: float) -> None:
    config = fields.default_config()
    reading.override(config, field, str(value))
    with refused(f"config.{field}={value}", "finite"):
        checks.validate(config)


@pytest.mark.parametrize(
    ("field", "value", "parts"),
    [
        ("seed", None, ["config.seed=None", "a whole number"]),
        ("seed", 1.0, ["config.seed=1.0", "a whole number"]),
        ("seed", True, ["config.seed=True", "a whole number"]),
        ("train.epochs", "5", ["config.train.epochs='5'"]),
        ("data.fractions", (0.6, 0.4), ["three shares"]),
        ("data.fractions", (0.6, 0.6, 0.2), ["sum to 1"]),
        ("data.fractions", (0.8, 0.2, 0.0), ["between 0 and 1"]),
        ("data.fractions", (0.6, 0.2, "a"), ["three shares"]),
        ("data.fractions", (0.6, 0.2, math.nan), ["three shares"]),
        ("prompt.init", "ones", ["config.prompt.init='ones'", "vocabulary, words", ".npy"]),
        ("data.synthetic", 3, ["config.data.synthetic"]),
        ("no_such", 3, ["config.no_such does not exist"]),
    ],
)
def test_value_in_a_config_file_is_checked(field: str, value: Any, parts: list[str]) -> None:
    with refused(*parts):
        checks.validate(config_with(field, value))


def test_missing_field_is_named() -> None:
    config = fields.default_config()
    del config.prompt.length
    with refused("config.prompt.length is missing"):
        checks.validate(config)


def test_cls_pooling_needs_a_cls() -> None:
    config = config_with("head.kind", "window")
    config.head.pooling = "cls"
    with refused("config.head.pooling='cls'", "'after_cls'"):
        checks.validate(config)
    config.prompt.position = "after_cls"
    checks.validate(config)


@pytest.mark.parametrize(
    ("folds", "fold", "split", "parts"),
    [
        (1, 0, "series", ["config.data.folds=1 must be at least 2, or 0"]),
        (4, 4, "series", ["config.data.fold=4 must be 0 to 3 with config.data.folds=4"]),
        (0, 1, "series", ["config.data.fold=1 must be 0 without config.data.folds"]),
        (4, 0, "time", ["config.data.folds=4 must be 0 with config.data.split='time'"]),
    ],
)
def test_impossible_folds_are_refused(folds: int, fold: int, split: str, parts: list[str]) -> None:
    config = config_with("data.folds", folds)
    config.data.fold, config.data.split = fold, split
    with refused(*parts):
        checks.validate(config)


def test_gaps_between_windows_are_refused() -> None:
    config = config_with("data.window", 128)
    config.data.stride = 128
    checks.validate(config)
    config.data.stride = 129
    with refused("config.data.stride=129", "config.data.window=128"):
        checks.validate(config)


@pytest.mark.parametrize(("position", "taken"), [("prefix", 0), ("suffix", 0), ("after_cls", 1)])
def test_prompt_and_window_may_fill_every_position(position: str, taken: int) -> None:
    config = fields.default_config()
    config.prompt.position = position
    config.prompt.length = 20
    config.data.window = 512 - 20 - taken
    checks.check_length(config, config.data.window, 512)
    config.data.window += 1
    with refused(f"config.data.window={config.data.window}", f"at most {512 - 20 - taken}:"):
        checks.check_length(config, config.data.window, 512)
    config.data.window = 2
    config.prompt.length = 510 - taken
    checks.check_length(config, config.data.window, 512)
    config.prompt.length += 1
    with refused(f"config.prompt.length={511 - taken}", f"at most {510 - taken}:"):
        checks.check_length(config, config.data.window, 512)


@pytest.mark.parametrize("value", [2**33, 2**63, 10**400])
def test_no_field_takes_a_number_that_overflows(value: int) -> None:
    for name, field in FIELDS.items():
        if type(field.default) in (int, float):
            assert field.problem(value).startswith("must be "), name
