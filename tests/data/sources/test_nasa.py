"""NASA telemetry: a synthetic copy in every layout, damaged copies, and the real data."""

import hashlib
import io
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Mirror, OnlyMirror

from spear_jax.data.series import Series
from spear_jax.data.sources import prepared
from spear_jax.data.sources.nasa import nasa_parser, nasa_source
from spear_jax.errors import InputError

# channel: train steps, test steps, columns
SHAPES = {
    "P-1": (30, 80, 25),
    "P-2": (20, 60, 25),
    "S-9": (20, 30, 25),
    "M-6": (15, 50, 55),
    "T-8": (25, 40, 55),
    "T-10": (12, 20, 55),
}
CSV = """chan_id,spacecraft,anomaly_sequences,class,num_values
P-1,SMAP,"[[20, 24], [60, 79], [40, 44]]","[contextual, contextual, point]",80
P-2,SMAP,"[[30, 45]]",[point],60
M-6,MSL,"[[0, 9]]",[point],50
S-9,SMAP,[],[],30
T-8,MSL,"[[5, 5]]",[point],40
P-2,SMAP,"[[25, 40]]",[point],60
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy in the mirrors' layout: train/, test/ and the csv."""
    root = tmp_path / "nasa"
    rng = np.random.default_rng(0)
    for name, (past, steps, columns) in SHAPES.items():
        for part, length in (("train", past), ("test", steps)):
            array = rng.integers(0, 2, (length, columns)).astype(float)
            array[:, 0] = rng.uniform(-1, 1, length)
            if name == "M-6":
                array[:, 0] = -1
                array[length // 2, 0] = 258.1 if part == "test" else -1
            (root / part).mkdir(parents=True, exist_ok=True)
            np.save(root / part / f"{name}.npy", array)
    (root / nasa_parser.LABELS).write_text(CSV)
    return root


def zipped(copy: Path, archive: Path, prefix: str = "data/") -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(copy.rglob("*.npy")):
            file.write(path, prefix + path.relative_to(copy).as_posix())
    return archive


def assert_equal(loaded: list[Series], expected: list[Series]) -> None:
    assert [s.name for s in loaded] == [s.name for s in expected]
    for a, b in zip(loaded, expected, strict=True):
        for field in ("values", "labels", "reference"):
            assert getattr(a, field).dtype == getattr(b, field).dtype
            assert getattr(a, field).flags.writeable
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


# Reading


def test_series(copy: Path) -> None:
    series = {s.name: s for s in nasa_source.load_nasa(str(copy))}
    assert list(series) == ["M-6", "P-1", "P-2", "S-9", "T-8"]  # No T-10: it has no labels.
    for name, channel in series.items():
        past, steps, _ = SHAPES[name]
        assert channel.values.shape == channel.labels.shape == (steps,)
        assert channel.reference.shape == (past,)
        assert channel.values.dtype == channel.reference.dtype == np.float32
        stored = np.load(copy / "test" / f"{name}.npy")[:, 0]
        np.testing.assert_array_equal(channel.values, stored.astype(np.float32))
    assert series["M-6"].values.max() == np.float32(258.1)
    assert np.ptp(series["M-6"].reference) == 0

    def anomalous(name: str) -> list[int]:
        return np.flatnonzero(series[name].labels).tolist()

    assert anomalous("P-1") == [*range(20, 25), *range(40, 45), *range(60, 80)]  # Inclusive ends.
    assert anomalous("P-2") == list(range(25, 46))  # Two rows, merged.
    assert anomalous("T-8") == [5]
    assert anomalous("S-9") == []


def test_train_and_test(copy: Path) -> None:
    for both, test in zip(
        nasa_source.load_nasa(str(copy), parts="train+test"), nasa_source.load_nasa(str(copy)), strict=True
    ):
        past = len(test.reference)
        np.testing.assert_array_equal(both.values, np.r_[test.reference, test.values])
        np.testing.assert_array_equal(both.labels[past:], test.labels)
        np.testing.assert_array_equal(both.reference, test.reference)
        assert not both.labels[:past].any()


def test_other_column(copy: Path) -> None:
    for series in nasa_source.load_nasa(str(copy), column=24):
        stored = np.load(copy / "test" / f"{series.name}.npy")
        np.testing.assert_array_equal(series.values, stored[:, 24])
    assert nasa_source.load_nasa(str(copy), column=54, spacecraft="msl")
    with pytest.raises(InputError, match=r"config\.data\.nasa\.column=54: channel 'P-1' has columns 0 to 24"):
        nasa_source.load_nasa(str(copy), column=54)


@pytest.mark.parametrize(
    ("spacecraft", "limit", "names"),
    [
        ("smap", 0, ["P-1", "P-2", "S-9"]),
        ("msl", 0, ["M-6", "T-8"]),
        ("both", 2, ["P-2", "T-8"]),  # Shortest of each that has anomalies: not S-9.
        ("both", 4, ["M-6", "P-1", "P-2", "T-8"]),
        ("smap", 2, ["P-1", "P-2"]),
        ("msl", 1, ["T-8"]),
        ("both", 99, ["M-6", "P-1", "P-2", "S-9", "T-8"]),
    ],
)
def test_choice(copy: Path, spacecraft: str, limit: int, names: list[str]) -> None:
    series = nasa_source.load_nasa(str(copy), spacecraft=spacecraft, limit=limit)
    assert [s.name for s in series] == names


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"column": -1}, "config.data.nasa.column=-1: channel 'M-6' has columns 0 to 54"),
    ],
)
def test_impossible_argument(copy: Path, argument: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        nasa_source.load_nasa(str(copy), **argument)


def test_nan_is_kept(copy: Path) -> None:
    array = np.load(copy / "test" / "T-8.npy")
    array[3:5, 0] = np.nan
    np.save(copy / "test" / "T-8.npy", array)
    (series,) = nasa_source.load_nasa(str(copy), spacecraft="msl", limit=1)
    assert np.flatnonzero(np.isnan(series.values)).tolist() == [3, 4]


# Locations


def test_layouts(copy: Path, tmp_path: Path) -> None:
    expected = nasa_source.load_nasa(str(copy))

    folder = tmp_path / "folder"
    shutil.copytree(copy, folder / "data")
    assert_equal(nasa_source.load_nasa(str(folder)), expected)  # csv within data/
    (folder / "data" / nasa_parser.LABELS).rename(folder / nasa_parser.LABELS)
    assert_equal(nasa_source.load_nasa(str(folder)), expected)
    assert_equal(nasa_source.load_nasa(str(folder / "data")), expected)  # csv beside it

    kaggle = tmp_path / "kaggle"
    shutil.copytree(copy, kaggle / "data" / "data")
    (kaggle / "data" / "data" / nasa_parser.LABELS).rename(kaggle / nasa_parser.LABELS)
    assert_equal(nasa_source.load_nasa(str(kaggle)), expected)

    for prefix in ("data/", ""):
        packed = tmp_path / f"zip{len(prefix)}"
        packed.mkdir()
        archive = zipped(copy, packed / "data.zip", prefix)
        (packed / nasa_parser.LABELS).write_text(CSV)
        assert_equal(nasa_source.load_nasa(str(packed)), expected)
        assert_equal(nasa_source.load_nasa(str(archive)), expected)  # csv beside it
        (packed / nasa_parser.LABELS).unlink()
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr(nasa_parser.LABELS, CSV)
        assert_equal(nasa_source.load_nasa(str(archive)), expected)  # csv within
    assert_equal(nasa_source.load_nasa(str(archive.rename(packed / "any name.zip"))), expected)


def test_environment(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEAR_DATA_DIR", str(copy.parent))
    assert len(nasa_source.load_nasa()) == 5
    assert str(nasa_source.NASA.prepare("")) == str(copy)
    assert str(nasa_source.NASA.prepare(str(copy))) == str(copy)


@pytest.fixture
def mirror(copy: Path, only_mirror: OnlyMirror) -> Mirror:
    from spear_jax.data.sources.nasa.nasa_builder import NasaTelemetry  # TFDS is slow to import

    return only_mirror(NasaTelemetry, copy)


def test_download_gives_the_same_series(copy: Path, tfds_folder: Path, mirror: Mirror) -> None:
    place = nasa_source.NASA.prepare("")
    assert str(place) == str(tfds_folder / "nasa_telemetry" / "1.0.0")
    assert mirror.requests == 2 * len(SHAPES) + 1
    for column in (0, 7):
        assert_equal(nasa_source.load_nasa(column=column), nasa_source.load_nasa(str(copy), column=column))
    shutil.rmtree(place)
    assert len(nasa_source.load_nasa()) == 5
    assert mirror.requests == 2 * len(SHAPES) + 1  # Prepared anew from the downloaded files.
    assert "tensorflow" not in sys.modules

    records = next(Path(place).glob("*.array_record*"))
    records.write_bytes(b"damaged")
    with pytest.raises(InputError, match=re.escape(f"{records}: damaged; delete the folder to prepare the data again")):
        nasa_source.load_nasa()


def test_failed_download_leaves_nothing_prepared(copy: Path, mirror: Mirror) -> None:
    array = (copy / "test" / "P-1.npy").rename(copy.parent / "P-1.npy")
    with pytest.raises(InputError, match=r"^test/P-1\.npy: no mirror provided it .*data\.dir can name a local copy$"):
        nasa_source.load_nasa()
    array.rename(copy / "test" / "P-1.npy")
    assert len(nasa_source.load_nasa()) == 5


def test_tfds_folder_that_cannot_be_made(tfds_folder: Path) -> None:
    tfds_folder.write_text("a file")
    with pytest.raises(InputError, match=f"{tfds_folder}: cannot store the prepared data"):
        nasa_source.load_nasa()


def test_remote_tfds_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPEAR_DATA_DIR", raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", "gs://bucket/tfds")
    with pytest.raises(InputError, match="TFDS_DATA_DIR='gs://bucket/tfds' must be a local folder"):
        nasa_source.load_nasa()


def test_pinned_checksums() -> None:
    pinned = prepared.pinned_checksums("nasa")
    assert len(pinned) == 165
    assert {path.split("/")[0] for path in pinned} == {"train", "test", nasa_parser.LABELS}
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in pinned.values())


# Damaged copies


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def truncate(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def save(array: object) -> Callable[[Path], None]:
    return lambda root: np.save(root / "test" / "M-6.npy", np.asarray(array))


def in_csv(old: str, new: str) -> Callable[[Path], None]:
    return lambda root: rewrite(root / nasa_parser.LABELS, old, new)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda root: shutil.rmtree(root), "nasa: no such folder; expected telemanom's"),
    "no test": (lambda root: shutil.rmtree(root / "test"), "nasa: no arrays test/"),
    "no csv": (lambda root: (root / nasa_parser.LABELS).unlink(), "labeled_anomalies.csv: no such file"),
    "empty csv": (lambda root: (root / nasa_parser.LABELS).write_text(""), "csv: not a readable CSV file"),
    "binary csv": (
        lambda root: (root / nasa_parser.LABELS).write_bytes(b"chan_id,\xff\xfe\x00"),
        "csv: not a readable CSV file",
    ),
    "header only": (lambda root: truncate(root / nasa_parser.LABELS, 54), "csv: no rows"),
    "no column": (
        in_csv("anomaly_sequences", "ranges"),
        "csv: no column 'anomaly_sequences'; found chan_id, spacecraft, ranges, class, num_values",
    ),
    "short row": (in_csv("[],[],30\n", "\n"), "csv: channel 'S-9': num_values is ''"),
    "spacecraft": (in_csv("M-6,MSL", "M-6,ISS"), "csv: channel 'M-6': spacecraft is 'ISS'"),
    "not json": (
        in_csv("[[0, 9]]", "[[0, 9]"),
        "csv: channel 'M-6': anomaly_sequences is '[[0, 9]",
    ),
    "no pairs": (in_csv("[[0, 9]]", "[0, 9]"), "csv: channel 'M-6': anomaly_sequences is '[0, 9]"),
    "text": (
        in_csv("[[0, 9]]", "[[0, 9.5]]"),
        "csv: channel 'M-6': anomaly_sequences is '[[0, 9.5",
    ),
    "object": (in_csv('"[[0, 9]]"', "{}"), "csv: channel 'M-6': anomaly_sequences is '{}'"),
    "beyond": (
        in_csv("[[0, 9]]", "[[40, 50]]"),
        "csv: channel 'M-6': anomaly range [40, 50] does not fit 50 steps",
    ),
    "reversed": (
        in_csv("[[0, 9]]", "[[9, 0]]"),
        "csv: channel 'M-6': anomaly range [9, 0] does not",
    ),
    "negative": (in_csv("[[0, 9]]", "[[-1, 9]]"), "csv: channel 'M-6': anomaly range [-1, 9] does"),
    "length": (in_csv("[point],50", "[point],51"), "csv: channel 'M-6': num_values is '51', but"),
    "no array": (lambda root: (root / "test/M-6.npy").unlink(), "test/M-6.npy: no such file"),
    "no train": (lambda root: (root / "train/M-6.npy").unlink(), "train/M-6.npy: no such file"),
    "half": (lambda root: truncate(root / "test/M-6.npy", 900), "test/M-6.npy: not a complete .npy"),
    "head": (lambda root: truncate(root / "test/M-6.npy", 20), "test/M-6.npy: not a complete .npy"),
    "empty file": (
        lambda root: truncate(root / "test/M-6.npy", 0),
        "test/M-6.npy: not a complete .npy",
    ),
    "npy header": (
        lambda root: (root / "test/M-6.npy").write_bytes((root / "test/M-6.npy").read_bytes().replace(b"}", b"{", 1)),
        "test/M-6.npy: not a complete .npy",
    ),
    "is a folder": (
        lambda root: ((root / "test/M-6.npy").unlink(), (root / "test/M-6.npy").mkdir()),
        "test/M-6.npy: cannot be read",
    ),
    "npz": (
        lambda root: np.savez((root / "test/M-6.npy").open("wb"), a=np.zeros((50, 55))),
        "test/M-6.npy: not a complete .npy",
    ),
    "pickle": (save(np.array([[None]])), "test/M-6.npy: not a complete .npy file"),
    "1-d": (save(np.zeros(50)), "test/M-6.npy: float64 array of shape (50,); expected"),
    "no steps": (save(np.zeros((0, 55))), "test/M-6.npy: float64 array of shape (0, 55)"),
    "words": (save([["a"]]), "test/M-6.npy: <U1 array of shape (1, 1); expected numbers"),
    "infinite": (save(np.full((50, 55), 1e300)), "test/M-6.npy: infinite value"),
    "columns": (save(np.zeros((50, 54))), "train/M-6.npy: 55 columns, but "),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_refused_in_one_line(copy: Path, case: str) -> None:
    damage, expected = DAMAGES[case]
    damage(copy)
    with pytest.raises(InputError) as raised:
        nasa_source.load_nasa(str(copy))
    message = str(raised.value)
    assert expected in message
    assert message.startswith(str(copy))
    assert "\n" not in message


def test_damaged_zip(copy: Path, tmp_path: Path) -> None:
    whole = zipped(copy, tmp_path / "data.zip").read_bytes()
    (tmp_path / nasa_parser.LABELS).write_text(CSV)
    archive = tmp_path / "data.zip"
    assert len(nasa_source.load_nasa(str(archive))) == 5

    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=re.escape(f"{archive}: not a complete zip file (")):
        nasa_source.load_nasa(str(archive))

    # Any flipped byte is either harmless (a time stamp) or one line; CRC catches the data.
    messages = set()
    for position in range(0, len(whole), 211):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        archive.write_bytes(damaged)
        try:
            nasa_source.load_nasa(str(archive))
        except InputError as case:
            assert str(case).startswith(str(archive)) or nasa_parser.LABELS in str(case)
            messages.add(str(case).partition(".npy: ")[2])
    assert any("Bad CRC-32" in message for message in messages)


def test_labelled_channel_missing_in_zip(copy: Path, tmp_path: Path) -> None:
    (copy / "test" / "M-6.npy").unlink()
    archive = zipped(copy, tmp_path / "data.zip")
    (tmp_path / nasa_parser.LABELS).write_text(CSV)
    with pytest.raises(InputError, match=re.escape(f"{archive}/data/test/M-6.npy: no such file")):
        nasa_source.load_nasa(str(tmp_path))


# The real data

REAL = Path(os.environ.get("SPEAR_DATA_DIR", "")) / "nasa"
needs_data = pytest.mark.skipif(
    "SPEAR_DATA_DIR" not in os.environ or not REAL.exists(),
    reason="the NASA data are not in $SPEAR_DATA_DIR/nasa",
)


@pytest.fixture(scope="module")
def channels() -> dict[str, nasa_parser.Channel]:
    return {c.name: c for c in nasa_parser.parse_nasa(REAL)}


@needs_data
def test_real_counts(channels: dict[str, nasa_parser.Channel]) -> None:
    counts = {
        spacecraft: (
            len(chosen),
            sum(len(c.train) for c in chosen),
            sum(len(c.labels) for c in chosen),
            sum(int(c.labels.sum()) for c in chosen),
        )
        for spacecraft in ("SMAP", "MSL")
        if (chosen := [c for c in channels.values() if c.spacecraft == spacecraft])
    }
    assert counts == {"SMAP": (54, 138_004, 435_826, 55_972), "MSL": (27, 58_317, 73_729, 7_766)}
    assert sum(steps for _, _, steps, _ in counts.values()) == 509_555
    assert sum(anomalous for *_, anomalous in counts.values()) == 63_738
    rates = [anomalous / steps for _, _, steps, anomalous in counts.values()]
    assert rates == pytest.approx([0.1284, 0.1053], abs=5e-5)


@needs_data
def test_real_quirks(channels: dict[str, nasa_parser.Channel]) -> None:
    assert "T-10" not in channels
    assert {c.test.shape[1] for c in channels.values()} == {25, 55}
    assert channels["M-6"].test[:, 0].max() == pytest.approx(258.1, abs=0.05)
    assert np.ptp(channels["M-6"].train[:, 0]) == 0
    anomalous = np.flatnonzero(channels["P-2"].labels)
    np.testing.assert_array_equal(anomalous, np.arange(5300, 6576))
    constant = [c.spacecraft for c in channels.values() if np.ptp(c.train[:, 0]) == 0]
    assert (constant.count("SMAP"), constant.count("MSL")) == (11, 5)


@needs_data
def test_real_files_have_the_pinned_checksums() -> None:
    with zipfile.ZipFile(io.BytesIO((REAL / "data.zip").read_bytes())) as archive:
        checksums = {
            name.removeprefix("data/"): hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()
        }
    checksums[nasa_parser.LABELS] = hashlib.sha256((REAL / nasa_parser.LABELS).read_bytes()).hexdigest()
    assert checksums == prepared.pinned_checksums("nasa")
