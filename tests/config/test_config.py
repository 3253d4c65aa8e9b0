"""Config files, fields and their checks, without running anything."""

import ast
import contextlib
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CONFIGS
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from spear_jax.config import arguments, checks, fields, reading, reuse
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
    """The block is refused in one line that has all the parts."""
    with pytest.raises(InputError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def config_with(field: str, value: Any) -> ConfigDict:
    """The defaults with one field changed, whatever its type."""
    config = fields.default_config()
    *parents, leaf = field.split(".")
    section = config
    for parent in parents:
        section = section[parent]
    with section.ignore_type():
        section[leaf] = value
    return config


def written(config: ConfigDict) -> dict[str, Any]:
    """A config as a run's config.json gives it back."""
    return json.loads(reading.to_json(config))


def words_of(file: Path) -> list[str]:
    """The words that a config file allows after its colon, from its own refusal."""
    with pytest.raises(InputError) as caught:
        reading.load_config(f"{file}:no-such-word")
    return str(caught.value).partition("must be one of ")[2].split(", ")


# The files in configs/


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
def test_every_backbone_is_a_word_of_every_config(file: Path) -> None:
    for word, name in arguments.BACKBONES.items():
        config = reading.load_config(f"{file}:{word}")
        assert config.backbone.name == name
        assert config.backbone.dtype == ("float32" if "bert" in word or word == "minilm" else "bfloat16")
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


def test_debug_keeps_a_backbone_that_is_named() -> None:
    short = reading.load_config(f"{CONFIGS / 'nasa.py'}:minilm,debug")
    assert short.backbone.name == arguments.MINILM
    assert short.train.epochs < reading.load_config(f"{CONFIGS / 'nasa.py'}:minilm").train.epochs


def test_config_is_looked_up_in_the_current_folder_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = "from spear_jax.config import default_config\ndef get_config(arg):\n"
    own += "    config = default_config()\n    config.prompt.words = arg\n    return config\n"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "nasa.py").write_text(own)
    assert reading.load_config("configs/nasa.py:a:b, c").prompt.words == "a:b, c"


# Defaults


def test_defaults_are_valid_and_typed() -> None:
    checks.validate(fields.default_config())
    assert {type(value) for value in DEFAULTS.values()} <= {str, bool, int, float, tuple}


def test_every_number_has_limits_and_only_strings_have_choices() -> None:
    assert reading.flatten(fields.default_config()) == DEFAULTS
    assert set(RANGES) == set(NUMBERS)
    assert all(type(DEFAULTS[name]) is str for name in CHOICES)


@pytest.mark.parametrize("field", DEFAULTS)
def test_every_field_takes_its_own_default_as_text(field: str) -> None:
    config = fields.default_config()
    reading.override(config, field, str(DEFAULTS[field]))
    found = reading.flatten(config)[field]
    assert (type(found), found) == (type(DEFAULTS[field]), DEFAULTS[field])
    checks.validate(config)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.5,0.25,0.25", (0.5, 0.25, 0.25)), ("[.6, .2, .2]", (0.6, 0.2, 0.2))],
)
def test_fractions_may_be_written_with_or_without_brackets(text: str, expected: tuple[float, ...]) -> None:
    config = fields.default_config()
    reading.override(config, "data.fractions", text)
    checks.validate(config)
    assert config.data.fractions == expected


def test_whole_number_will_do_where_a_number_is_asked_for() -> None:
    config = fields.default_config()
    reading.override(config, "train.clip_norm", "2")
    assert type(config.train.clip_norm) is float
    checks.validate(config_with("train.clip_norm", 2))


@given(st.sampled_from(sorted(DEFAULTS)), st.data())
@settings(max_examples=150, deadline=None)
def test_what_can_be_set_can_be_set_as_text(field: str, data: st.DataObject) -> None:
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
def test_any_text_is_taken_or_refused_by_name(field: str, text: str) -> None:
    config = fields.default_config()
    try:
        reading.override(config, field, text)
    except InputError as error:
        assert str(error).startswith(f"--config.{field}=")
    assert type(reading.flatten(config)[field]) is type(DEFAULTS[field])


def test_a_config_that_was_written_does_not_differ() -> None:
    assert reuse.differences(written(fields.default_config()), fields.default_config()) == []


# What is refused


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
def test_unknown_field_names_a_near_one(field: str, parts: list[str]) -> None:
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
def test_wrong_type_names_field_value_and_what_is_needed(field: str, text: str, needed: str) -> None:
    with refused(f"--config.{field}={text} must be ", needed):
        reading.override(fields.default_config(), field, text)


@pytest.mark.parametrize("field", CHOICES)
def test_unknown_choice_lists_the_choices(field: str) -> None:
    allowed = ", ".join(CHOICES[field])
    with refused(f"config.{field}='no-such-choice'", f"must be one of {allowed}"):
        checks.validate(config_with(field, "no-such-choice"))


@pytest.mark.parametrize("field", RANGES)
def test_value_outside_its_range_says_the_range(field: str) -> None:
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
def test_number_that_is_not_finite_is_refused(field: str, value: float) -> None:
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
def test_value_of_a_config_file_is_checked_too(field: str, value: Any, parts: list[str]) -> None:
    with refused(*parts):
        checks.validate(config_with(field, value))


def test_missing_field_is_named() -> None:
    config = fields.default_config()
    del config.prompt.length
    with refused("config.prompt.length is missing"):
        checks.validate(config)


def test_pooling_at_cls_needs_one() -> None:
    config = config_with("head.kind", "window")
    config.head.pooling = "cls"
    with refused("config.head.pooling='cls'", "'after_cls'"):
        checks.validate(config)
    config.prompt.position = "after_cls"
    checks.validate(config)


def test_windows_with_gaps_between_them_are_refused() -> None:
    config = config_with("data.window", 128)
    config.data.stride = 128
    checks.validate(config)
    config.data.stride = 129
    with refused("config.data.stride=129", "config.data.window=128"):
        checks.validate(config)


@pytest.mark.parametrize(("position", "taken"), [("prefix", 0), ("suffix", 0), ("after_cls", 1)])
def test_prompt_and_window_fill_the_positions_to_the_last(position: str, taken: int) -> None:
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


# What may change between two starts of a run


@pytest.mark.parametrize("schedule", CHOICES["train.schedule"])
def test_more_epochs_may_be_asked_for(schedule: str) -> None:
    before, now = fields.default_config(), fields.default_config()
    before.train.schedule = now.train.schedule = schedule
    now.train.epochs += 1
    assert reuse.differences(written(before), now) == []


@pytest.mark.parametrize("field", DEFAULTS)
def test_every_other_change_is_noticed(field: str) -> None:
    changed: dict[type, Any] = {
        str: "other",
        bool: not DEFAULTS[field],
        int: 12345,
        float: 0.123,
        tuple: (0.5, 0.3, 0.2),
    }
    now = config_with(field, changed[type(DEFAULTS[field])])
    different = reuse.differences(written(fields.default_config()), now)
    if field in reuse.EXTENDABLE + reuse.IRRELEVANT:
        assert different == []
    else:
        (text,) = different
        assert text.startswith(f"{field} (") and "there" in text and "here" in text


def test_field_that_an_older_run_lacks_is_a_difference() -> None:
    before = written(fields.default_config())
    del before["prompt"]["words"]
    (text,) = reuse.differences(before, fields.default_config())
    assert text.startswith("prompt.words ('absent' there")
