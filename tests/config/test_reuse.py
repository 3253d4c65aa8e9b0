"""Which fields may change when a run is resumed or a detector is applied."""

import contextlib
import json
from typing import Any

import pytest

from spear_jax.config import checks, fields, reading, reuse
from spear_jax.config.fields import FIELDS
from spear_jax.errors import InputError


def stored(**changes: Any) -> dict[str, Any]:
    """Returns the content of config.json for the defaults with some fields (a__b for a.b) changed."""
    config = fields.default_config()
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return json.loads(reading.to_json(config))


def test_stored_config_equals_itself() -> None:
    assert reuse.differences(stored(), fields.default_config()) == []
    assert reuse.read_stored(stored(train__epochs=3)).train.epochs == 3


@pytest.mark.parametrize("name", FIELDS)
def test_every_change_that_affects_results_is_a_difference(name: str) -> None:
    default, config = FIELDS[name].default, fields.default_config()
    changed: dict[type, Any] = {str: "x", bool: not default, int: 12345, float: 0.123, tuple: (0.5, 0.3, 0.2)}
    config.update_from_flattened_dict({name: changed[type(default)]})
    differences = reuse.differences(stored(), config)
    if FIELDS[name].affects == "results":
        assert len(differences) == 1
        assert differences[0].startswith(f"{name} (") and "there" in differences[0] and "here" in differences[0]
    else:
        assert differences == []


def test_field_that_an_older_run_lacks_is_a_difference() -> None:
    before = stored()
    del before["prompt"]["words"]
    (difference,) = reuse.differences(before, fields.default_config())
    assert difference.startswith("prompt.words ('absent' there")


@pytest.mark.parametrize("name", reuse.ADDED)
def test_field_that_was_added_since_must_have_the_value_that_means_what_was_done(name: str) -> None:
    before = stored()
    section, _, leaf = name.rpartition(".")
    del before[section][leaf]
    assert reuse.differences(before, fields.default_config()) == []
    config = fields.default_config()
    then = reuse.ADDED[name]
    now = f"{then},spread" if isinstance(then, str) else type(then)(4)
    config.update_from_flattened_dict({name: now})
    (difference,) = reuse.differences(before, config)
    assert difference == f"{name} ({then!r} there, {now!r} here)"


@pytest.mark.parametrize("name", reuse.RETIRED)
def test_retired_field_must_have_the_value_that_is_still_used(name: str) -> None:
    before = stored()
    *parents, leaf = name.split(".")
    section = before
    for parent in parents:
        section = section[parent]
    section[leaf] = reuse.RETIRED[name]
    assert reuse.differences(before, fields.default_config()) == []
    assert reuse.read_stored(before) == fields.default_config()
    section[leaf] = "other"
    assert len(reuse.differences(before, fields.default_config())) == 1
    with pytest.raises(InputError, match=f"config.{name} no longer exists"):
        reuse.read_stored(before)


@pytest.mark.parametrize("name", reuse.RETIRED)
def test_retired_field_can_be_set_to_the_value_that_is_still_used(name: str) -> None:
    value = reuse.RETIRED[name]
    config = checks.load_valid_config("configs/quickstart.py", {name: str(value)})
    assert config == checks.load_valid_config("configs/quickstart.py", {})
    reuse.check_evaluate_override(name, reuse_threshold=True)
    for other in ("7", "x"):
        with pytest.raises(InputError) as error:
            checks.load_valid_config("configs/quickstart.py", {name: other})
        assert str(error.value) == f"--config.{name}={other} no longer exists; this version always uses {value!r}"


def test_detector_carries_its_fields_and_no_others() -> None:
    config = fields.default_config()
    detector = reuse.read_stored(stored(quantizer__bins=7, data__window=32, seed=5, data__name="nab", train__epochs=3))
    reuse.carry(detector, config)
    assert (config.quantizer.bins, config.data.window, config.seed) == (7, 32, 5)
    assert (config.data.name, config.train.epochs) == ("nasa", 40)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quantizer.bins", "comes from the detector"),
        ("seed", "comes from the detector"),
        ("tsmote.enabled", "trains nothing"),
        ("alarms.merge_gap", "add --config.threshold.reuse=False"),
        ("threshold.reuse", ""),
        ("backbone.dtype", ""),
        ("data.dir", ""),
    ],
)
def test_overrides_of_an_evaluation(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) if message else contextlib.nullcontext():
        reuse.check_evaluate_override(name, reuse_threshold=True)
