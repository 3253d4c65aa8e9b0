"""MIMIC-IV: a synthetic release, damaged ones, private files, and the real demo."""

import gzip
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import filelock
import numpy as np
import pytest
from conftest import TINY, Spear, command, results
from etils import epath

from spear_jax.data.series import Series
from spear_jax.data.sources.mimic_iv import mimic_iv_parser, mimic_iv_source
from spear_jax.errors import InputError

HEADER = "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,valueuom,warning"
STAYS = {301: 10, 302: 10, 303: 11, 304: 12}  # stay: patient


def event(stay: int, time: str, item: int, value: object) -> str:
    return f'{STAYS.get(stay, 99)},1,{stay},,2150-01-{time}:00,,{item},"free, text",{value},,0'


EVENTS = [
    event(302, "03 10:00", 220045, 80),
    event(301, "02 09:00", 220045, 90.5),
    event(301, "01 08:30", 220045, 88),
    event(301, "01 08:30", 220045, 90),  # twice at one time: averaged
    event(301, "01 11:00", 220045, 0),  # not plausible
    event(301, "01 12:00", 220045, ""),  # text only
    event(301, "01 08:00", 223761, 98.6),  # Fahrenheit
    event(301, "01 09:00", 223762, 38.5),
    event(301, "01 10:00", 223762, 99),  # Fahrenheit entered as Celsius
    event(302, "03 11:00", 220277, 100),
    event(302, "03 12:00", 220277, 101),
    event(302, "03 13:00", 220277, 97),
    event(303, "01 00:00", 220045, 60),
    event(303, "01 01:00", 220045, 61),
    event(303, "01 04:00", 220045, 64),
    event(999, "01 00:00", 220045, 70),  # no such stay
    event(303, "01 00:30", 777, 70),  # another item
]


def zipped(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.write("\n".join(lines) + "\n")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A credentialed release: no demo's README, not 100 patients."""
    root = tmp_path / "mimiciv"
    stays = [f"{patient},1,{stay},A,B,2150-01-01,2150-01-09,8" for stay, patient in STAYS.items()]
    zipped(
        root / mimic_iv_parser.STAYS,
        "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los",
        *stays,
    )
    items = [f'{item},"a, label",x,chartevents' for item in (220045, 220277, 223761, 223762, 777)]
    zipped(root / mimic_iv_parser.ITEMS, "itemid,label,abbreviation,linksto", *items)
    zipped(root / mimic_iv_parser.EVENTS, HEADER, *EVENTS)
    zipped(root / "hosp" / "patients.csv.gz", "subject_id", "10", "11", "12")
    return root


def test_series(release: Path) -> None:
    loaded = mimic_iv_source.load_mimic_iv(str(release))
    by_name = {series.name: series for series in loaded.series}
    assert list(by_name) == ["301/heart_rate", "301/temperature", "302/spo2", "303/heart_rate"]
    heart = by_name["301/heart_rate"]
    np.testing.assert_allclose(heart.values, [89, 90.5])  # in order of time, the repeated one averaged
    assert [str(stamp)[:16] for stamp in heart.timestamps] == ["2150-01-01T08:30", "2150-01-02T09:00"]
    np.testing.assert_allclose(by_name["301/temperature"].values, [37.0, 38.5], atol=1e-5)
    np.testing.assert_allclose(by_name["302/spo2"].values, [100, 97])
    assert {series.group for series in loaded.series} == {"10", "11"}  # a patient's stays and signals stay together
    assert not any(series.labelled for series in loaded.series)
    assert loaded.name == "mimic_iv"
    assert "data use agreement" in loaded.warnings[0]
    assert loaded.warnings[1] == "stays left out for fewer than 2 measurements of every chosen signal: 1"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"signals": ("spo2",)}, ["302/spo2"]),
        ({"signals": ("heart_rate",), "min_steps": 1}, ["301/heart_rate", "302/heart_rate", "303/heart_rate"]),
        ({"min_steps": 3}, ["303/heart_rate"]),
        ({"limit": 2}, ["301/heart_rate", "303/heart_rate"]),
    ],
)
def test_choice(release: Path, arguments: dict, names: list[str]) -> None:
    assert [series.name for series in mimic_iv_source.load_mimic_iv(str(release), **arguments).series] == names


def test_resampled_by_the_hour(release: Path) -> None:
    (series,) = mimic_iv_source.load_mimic_iv(str(release), resample_hours=2, min_steps=3).series[-1:]
    assert series.name == "303/heart_rate"
    np.testing.assert_allclose(series.values, [60.5, np.nan, 64])
    assert str(series.timestamps[2])[:16] == "2150-01-01T04:00"


def test_read_once_and_prepared_beside_the_data(release: Path, tfds_folder: Path) -> None:
    first = mimic_iv_source.load_mimic_iv(str(release)).series
    kept = release / "spear_jax"
    assert kept.stat().st_mode & 0o077 == 0  # for its owner alone
    assert "data use agreement" in (kept / "README.txt").read_text()
    assert any("data use agreement" in path.read_text() for path in kept.rglob("dataset_info.json"))
    assert not tfds_folder.exists()  # nothing in the cache that others may read
    events = release / mimic_iv_parser.EVENTS
    about = events.stat()
    size = about.st_size
    events.write_bytes(b"\0" * size)  # not read again
    os.utime(events, ns=(about.st_atime_ns, about.st_mtime_ns))
    for series, other in zip(first, mimic_iv_source.load_mimic_iv(str(release)).series, strict=True):
        np.testing.assert_array_equal(series.values, other.values)
    os.utime(events, (about.st_atime, about.st_mtime + 9))  # changed: read anew
    with pytest.raises(InputError, match=r"chartevents\.csv\.gz: cut off or not readable"):
        mimic_iv_source.load_mimic_iv(str(release))


def test_prepared_by_another_process_while_this_one_waited(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Contested(filelock.FileLock):
        def __enter__(self) -> "Contested":
            monkeypatch.undo()
            others.extend(mimic_iv_source.load_mimic_iv(str(release)).series)  # the other is first
            return super().__enter__()

    others: list[Series] = []
    monkeypatch.setattr(filelock, "FileLock", Contested)
    for series, other in zip(mimic_iv_source.load_mimic_iv(str(release)).series, others, strict=True):
        np.testing.assert_array_equal(series.values, other.values)


def test_the_demo_is_told_by_readme_or_patients(release: Path) -> None:
    (release / "README.txt").write_text("Tables of demographics and so on")
    assert not mimic_iv_parser.is_demo(epath.Path(release))
    (release / "README.txt").write_text("MIMIC-IV Clinical Database Demo")
    assert mimic_iv_parser.is_demo(epath.Path(release))
    (release / "README.txt").unlink()
    zipped(release / "hosp" / "patients.csv.gz", "subject_id", *map(str, range(100)))
    assert mimic_iv_parser.is_demo(epath.Path(release))
    loaded = mimic_iv_source.load_mimic_iv(str(release))
    assert loaded.name == "mimic_iv_demo"
    assert "stand-in" in loaded.warnings[0]


def test_where_it_is_looked_for(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEAR_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError, match=r"credentialed access is granted at https://physionet\.org/"):
        mimic_iv_source.load_mimic_iv()
    release.rename(tmp_path / "mimic_iv_demo")
    assert len(mimic_iv_source.load_mimic_iv().series) == 4
    (tmp_path / "mimic_iv").mkdir()
    with pytest.raises(InputError, match=r"mimic_iv/icu/icustays\.csv\.gz: no such file"):
        mimic_iv_source.load_mimic_iv()
    monkeypatch.delenv("SPEAR_DATA_DIR")
    with pytest.raises(InputError, match="MIMIC-IV is not downloaded"):
        mimic_iv_source.load_mimic_iv()


def damaged(name: str, damage: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda root: damage(root / name)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no stays": (
        damaged(mimic_iv_parser.STAYS, Path.unlink),
        "icustays.csv.gz: no such file; expected the release's layout",
    ),
    "no events": (damaged(mimic_iv_parser.EVENTS, Path.unlink), "chartevents.csv.gz: no such file"),
    "half the events": (damaged(mimic_iv_parser.EVENTS, halve), "chartevents.csv.gz: cut off or not readable"),
    "half the stays": (damaged(mimic_iv_parser.STAYS, halve), "icustays.csv.gz: cannot be read"),
    "no column": (
        damaged(mimic_iv_parser.EVENTS, lambda path: zipped(path, HEADER.replace("valuenum", "number"), EVENTS[0])),
        "chartevents.csv.gz: cut off or not readable",
    ),
    "a word": (
        damaged(mimic_iv_parser.EVENTS, lambda path: zipped(path, HEADER, event(301, "01 00:00", 220045, "high"))),
        "chartevents.csv.gz: cut off or not readable",
    ),
    "other items": (
        damaged(mimic_iv_parser.ITEMS, lambda path: zipped(path, "itemid,label", "1,x")),
        "d_items.csv.gz: lists none of the itemids 220045, ",
    ),
    "no measurement": (
        damaged(mimic_iv_parser.EVENTS, lambda path: zipped(path, HEADER, event(303, "01 00:30", 777, 70))),
        "chartevents.csv.gz: no stay has 2 measurements of heart_rate",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_refused_in_one_line(release: Path, case: str) -> None:
    damage, message = DAMAGES[case]
    damage(release)
    with pytest.raises(InputError) as raised:
        mimic_iv_source.load_mimic_iv(str(release))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_unknown_signal(release: Path) -> None:
    with pytest.raises(InputError, match=r"signals: 'pulse' is unknown; allowed: heart_rate, respiratory_rate"):
        mimic_iv_source.load_mimic_iv(str(release), signals=("pulse",))


def test_folder_that_cannot_hold_what_is_prepared(release: Path) -> None:
    (release / "spear_jax").write_text("a file")
    with pytest.raises(InputError, match=r"spear_jax: cannot store the prepared data .*data\.mimic_iv\.prepared_dir"):
        mimic_iv_source.load_mimic_iv(str(release))


def many(release: Path, patients: int = 12, steps: int = 40) -> None:
    """Fills a release with enough to train on."""
    rng = np.random.default_rng(0)
    rows, stays = [], []
    for patient in range(patients):
        stays.append(f"{patient},1,{1000 + patient}")
        for step in range(steps + 3 * patient):
            time = f"2150-01-{1 + step // 24:02d} {step % 24:02d}:00:00"
            rows.append(f"{patient},1,{1000 + patient},,{time},,220045,,{80 + 10 * rng.normal():.1f},bpm,0")
    zipped(release / mimic_iv_parser.STAYS, "subject_id,hadm_id,stay_id", *stays)
    zipped(release / mimic_iv_parser.EVENTS, HEADER, *rows)


@pytest.mark.figures
def test_all_that_is_made_from_it_carries_the_agreement(spear: Spear, release: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    many(release)
    run = tmp_path / "run"
    outcome = spear(*command("mimic_iv:debug", TINY | {"data.dir": release, "embedding.kind": "ordinal"}, workdir=run))
    assert outcome.code == 0, outcome.err
    assert "WARNING: made from MIMIC-IV, credentialed data" in outcome.out
    content = results(run)
    assert content["dataset"] == "mimic_iv"
    assert any("data use agreement" in warning for warning in content["warnings"])
    for path in [*(run / "scores").iterdir(), run / "per_series.parquet"]:
        metadata = pyarrow.parquet.read_schema(path).metadata
        assert b"data use agreement" in metadata[b"warnings"], path
    assert "data use agreement" in (run / "detector" / "detector.json").read_text()
    for path in (run / "figures").glob("*.png"):
        assert b"data use agreement" in path.read_bytes(), path  # in the picture's own metadata


# The real demo, and the size of the real thing

DEMO = Path(os.environ.get("SPEAR_DATA_DIR", "")) / "mimic_iv_demo"
needs_data = pytest.mark.skipif(
    "SPEAR_DATA_DIR" not in os.environ or not DEMO.exists(), reason="the demo is not in $SPEAR_DATA_DIR/mimic_iv_demo"
)


@needs_data
def test_real_demo(tmp_path: Path) -> None:
    stays = list(mimic_iv_source.prepare_mimic_iv(str(DEMO), str(tmp_path)))
    assert len(stays) == 140
    assert len({stay.subject for stay in stays}) == 100
    counts = np.bincount(np.concatenate([stay.signal for stay in stays]), minlength=len(mimic_iv_parser.SIGNALS))
    of_signal = dict(zip(mimic_iv_parser.SIGNALS, counts.tolist(), strict=True))
    assert of_signal["heart_rate"] == 13_863 - 3  # without those of 0
    assert of_signal["respiratory_rate"] == 13_862 - 47
    assert of_signal["temperature"] <= 3_362 + 391 - 3
    assert of_signal["mean_arterial"] <= 5_548 - 10 - 7
    loaded = mimic_iv_source.load_mimic_iv(str(DEMO), prepared_dir=str(tmp_path))
    assert loaded.name == "mimic_iv_demo"
    temperatures = np.concatenate([series.values for series in loaded.series if series.name.endswith("temperature")])
    assert temperatures.min() > 30 and temperatures.max() < 45


@needs_data
def test_real_demo_is_padded_by_less_than_a_fifth(tmp_path: Path) -> None:
    from spear_jax.config import load_config
    from spear_jax.data import dataset, sources
    from spear_jax.data.batches import MAX_SHAPES, scoring_batches, training_calls

    config = load_config("configs/mimic_iv.py:minilm")
    config.data.dir, config.data.mimic_iv.prepared_dir = str(DEMO), str(tmp_path)
    made = dataset.build_dataset(config, sources.load_series(config))
    assert made.notes["padding"]["share"] < 0.2
    assert len(made.notes["padding"]["lengths"]) <= MAX_SHAPES
    # And so are the batches themselves, filled up and mixed as they are.
    for split, examples in made.examples.items():
        real = int(made.windows[split].real.sum())
        calls = training_calls(examples.lengths, config.train.batch_size, config.train.steps_per_call, 0, 0)
        trained = sum(int((call.rows >= 0).sum()) * call.length for call in calls)
        batches = scoring_batches(examples.lengths, config.score.batch_size)
        scored = sum(int((batch.rows >= 0).sum()) * batch.length for batch in batches)
        assert 1 - real / trained < 0.2, split
        assert 1 - real / scored < 0.2, split


@pytest.mark.slow
def test_twenty_million_rows_are_streamed_in_bounded_memory(release: Path) -> None:
    rng = np.random.default_rng(0)
    items = np.array([220045, 220210, 220277, 220179, 220180, 226512, 223900, 224639])
    stays = np.arange(30_000_000, 30_000_000 + 20_000)
    zipped(release / mimic_iv_parser.STAYS, "subject_id,hadm_id,stay_id", *(f"{s % 9000},1,{s}" for s in stays))
    with gzip.open(release / mimic_iv_parser.EVENTS, "wt", compresslevel=1) as file:
        file.write(HEADER + "\n")
        for block in range(40):
            n = 500_000
            stay, item, value = rng.choice(stays, n), rng.choice(items, n), rng.integers(40, 100, n)
            hour, minute = rng.integers(0, 24, n), rng.integers(0, 60, n)
            day = 1 + block % 28
            file.writelines(
                f"1,1,{s},,2150-01-{day:02d} {h:02d}:{m:02d}:00,,{i},{v},{v},bpm,0\n"
                for s, h, m, i, v in zip(stay, hour, minute, item, value, strict=True)
            )
    # In a process of its own, so that its peak is its own.
    code = (
        "import resource, sys; from spear_jax.data.sources.mimic_iv.mimic_iv_parser import parse_mimic_iv\n"
        "rows = sum(len(stay.value) for stay in parse_mimic_iv(sys.argv[1]))\n"
        "print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(release)], capture_output=True, text=True, check=True)
    rows, peak_kib = map(int, done.stdout.split())
    assert rows > 10_000_000
    assert resource.RUSAGE_SELF is not None and peak_kib / 2**20 < 4, f"{peak_kib / 2**20:.2f} GiB"
    print(f"{rows:,} measurements of 20 million rows, peak {peak_kib / 2**20:.2f} GiB")
