"""NAB: a small copy in its layout, damaged copies, the download, and the real data."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import OnlyMirror, stamp, write_nab

from spear_jax.data.runs import find_runs
from spear_jax.data.sources import prepared
from spear_jax.data.sources.nab import nab_parser, nab_source
from spear_jax.errors import InputError

# file: rows, windows as rows
FILES: dict[str, tuple[int, list[tuple[int, int]]]] = {
    "artificialNoAnomaly/flat.csv": (30, []),
    "realAWSCloudwatch/cpu.csv": (60, [(20, 24), (40, 49)]),
    "realAWSCloudwatch/quiet.csv": (20, []),
    "realTweets/tweets.csv": (40, [(30, 39)]),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return write_nab(tmp_path / "nab", FILES)


def test_series(copy: Path) -> None:
    cpu, quiet = nab_source.load_nab(str(copy))
    assert (cpu.name, quiet.name) == ("realAWSCloudwatch/cpu", "realAWSCloudwatch/quiet")
    assert (len(cpu), len(quiet)) == (60, 20)
    assert np.flatnonzero(cpu.labels).tolist() == [*range(20, 25), *range(40, 50)]  # both ends are in the window
    assert not quiet.labels.any()
    assert str(cpu.timestamps[3]).startswith("2014-02-14T14:45:00")
    assert cpu.timestamps.dtype == "datetime64[ns]"
    text = (copy / "data/realAWSCloudwatch/cpu.csv").read_text().splitlines()
    assert cpu.values[7] == float(text[8].split(",")[1])  # in double precision: 8.6e8 leaves float32 no decimals


def test_points(copy: Path) -> None:
    cpu = nab_source.load_nab(str(copy), labels="points")[0]
    assert np.flatnonzero(cpu.labels).tolist() == [22, 44]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"groups": ()}, ["flat", "cpu", "quiet", "tweets"]),
        ({"groups": (), "unlabelled": "drop"}, ["cpu", "tweets"]),
        ({"groups": ("realTweets", "artificialNoAnomaly")}, ["flat", "tweets"]),
        ({"groups": (), "files": ("tweets", "qui")}, ["quiet", "tweets"]),
        ({"groups": (), "limit": 1}, ["tweets"]),
        ({"groups": (), "limit": 3}, ["cpu", "quiet", "tweets"]),
    ],
)
def test_choice(copy: Path, arguments: dict, names: list[str]) -> None:
    assert [series.name.partition("/")[2] for series in nab_source.load_nab(str(copy), **arguments)] == names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": ("realX",)}, "config.data.nab.groups: no group is named 'realX'; allowed: artificialNoAnomaly, "),
        (
            {"files": ("disk",)},
            "config.data.nab.files: no file name contains 'disk'; allowed: parts of realAWSCloudwatch/cpu, ",
        ),
        ({"files": ("quiet",), "unlabelled": "drop"}, "nab: no file is left with config.data.nab.groups="),
    ],
)
def test_impossible_choice(copy: Path, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        nab_source.load_nab(str(copy), **arguments)


def test_rows_keep_the_order_of_the_file(copy: Path) -> None:
    path = copy / "data/realTweets/tweets.csv"
    lines = path.read_text().splitlines()
    lines[3:5] = [lines[4], lines[4]]  # a repeated timestamp
    lines[11], lines[12] = lines[12], lines[11]  # and a step back
    path.write_text("\n".join(lines))
    (tweets,) = nab_source.load_nab(str(copy), groups=("realTweets",))
    assert len(tweets) == 40
    assert tweets.timestamps[2] == tweets.timestamps[3]
    assert tweets.timestamps[11] < tweets.timestamps[10]


def test_download_gives_the_same_series(copy: Path, tfds_folder: Path, only_mirror: OnlyMirror) -> None:
    from spear_jax.data.sources.nab.nab_builder import NumentaAnomalyBenchmark  # TFDS is slow to import

    mirror = only_mirror(NumentaAnomalyBenchmark, copy)
    place = nab_source.NAB.prepare("")
    assert str(place) == str(tfds_folder / "numenta_anomaly_benchmark" / "1.0.0")
    requests = mirror.requests
    assert requests == len(FILES) + 2
    for labels in ("windows", "points"):
        for series, expected in zip(
            nab_source.load_nab(groups=(), labels=labels),
            nab_source.load_nab(str(copy), groups=(), labels=labels),
            strict=True,
        ):
            assert series.name == expected.name
            for field in ("values", "labels", "timestamps"):
                np.testing.assert_array_equal(getattr(series, field), getattr(expected, field))
                assert getattr(series, field).dtype == getattr(expected, field).dtype
    assert mirror.requests == requests  # a second run downloads nothing
    for file in sorted(Path(place).iterdir()):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 4]) + whole[len(whole) // 2 + 1 :])
        with pytest.raises(InputError) as raised:  # TFDS sees half of this itself, in other words
            nab_source.load_nab(groups=())
        assert str(place) in str(raised.value), file
        file.write_bytes(whole)


def rewrite(name: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))

    return damage


CPU = "data/realAWSCloudwatch/cpu.csv"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda root: shutil.rmtree(root), "nab: no such folder; expected numenta/NAB's layout"),
    "no windows": (lambda root: (root / nab_parser.WINDOWS).unlink(), "combined_windows.json: no such file; expected"),
    "half a json": (lambda root: (root / nab_parser.WINDOWS).write_text('{"a":'), "json cannot be read as JSON"),
    "a list": (lambda root: (root / nab_parser.POINTS).write_text("[]"), "json must contain a JSON object"),
    "other keys": (
        lambda root: (root / nab_parser.POINTS).write_text("{}"),
        "nab: 'artificialNoAnomaly/flat.csv' is in only",
    ),
    "no csv": (lambda root: (root / CPU).unlink(), "cpu.csv: no such file, though"),
    "empty csv": (lambda root: (root / CPU).write_text(""), "cpu.csv: not a readable CSV file"),
    "header only": (lambda root: (root / CPU).write_text("timestamp,value\n"), "cpu.csv: no rows"),
    "no column": (rewrite(CPU, "timestamp,value", "time,value"), "cpu.csv: no column 'timestamp'; found time, value"),
    "no time": (rewrite(CPU, stamp(7), "yesterday"), "cpu.csv: not a readable CSV file (Time data yesterday"),
    "a word": (
        rewrite(CPU, stamp(7) + ",", stamp(7) + ",x"),
        "cpu.csv: not a readable CSV file (Unable to parse string",
    ),
    "infinite": (rewrite(CPU, stamp(7) + ",", stamp(7) + ",inf\n" + stamp(7) + ","), "cpu.csv: row 9: infinite value"),
    "outside": (
        rewrite(nab_parser.WINDOWS, stamp(49), stamp(60)),
        "combined_windows.json: 'realAWSCloudwatch/cpu.csv': window 2014-02-14 17:50:00 to 2014-02-14 19:30:00",
    ),
    "reversed": (rewrite(nab_parser.WINDOWS, stamp(49), stamp(39)), "does not lie within the file"),
    "no window": (
        rewrite(nab_parser.WINDOWS, stamp(49), "soon"),
        "'realAWSCloudwatch/cpu.csv': cannot be read as times",
    ),
    "between rows": (
        rewrite(nab_parser.POINTS, stamp(22), stamp(22)[:-2] + "30"),
        "combined_labels.json: 'realAWSCloudwatch/cpu.csv': no row has the time 2014-02-14 16:20:30",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_refused_in_one_line(copy: Path, case: str) -> None:
    damage, expected = DAMAGES[case]
    damage(copy)
    with pytest.raises(InputError) as raised:
        nab_source.load_nab(str(copy))
    message = str(raised.value)
    assert expected in message
    assert message.startswith(str(copy))
    assert "\n" not in message


# The real data

REAL = Path(os.environ.get("SPEAR_DATA_DIR", "")) / "nab"
needs_data = pytest.mark.skipif(
    "SPEAR_DATA_DIR" not in os.environ or not REAL.exists(), reason="NAB is not in $SPEAR_DATA_DIR/nab"
)


@needs_data
def test_real_counts() -> None:
    counts = {
        group: (len(series), sum(map(len, series)), sum(int(item.labels.sum()) for item in series))
        for group in nab_source.GROUPS
        if (series := nab_source.load_nab(str(REAL), groups=(group,)))
    }
    assert counts == {
        "artificialNoAnomaly": (5, 20_160, 0),
        "artificialWithAnomaly": (6, 24_192, 2_418),
        "realAWSCloudwatch": (17, 67_740, 6_312),
        "realAdExchange": (6, 9_610, 960),
        "realKnownCause": (7, 69_561, 6_594),
        "realTraffic": (7, 15_664, 1_560),
        "realTweets": (10, 158_631, 15_651),
    }
    files = nab_parser.parse_nab(REAL)
    assert (len(files), sum(len(file.values) for file in files)) == (58, 365_558)
    assert (sum(len(file.windows) for file in files), sum(len(file.points) for file in files)) == (116, 120)
    assert sum(int(file.labels("points").sum()) for file in files) == 120
    assert sum(int(file.labels("windows").sum()) for file in files) == 33_495
    assert sum(not len(file.windows) for file in files) == 6


@needs_data
def test_real_windows_are_runs_of_labels() -> None:
    for file in nab_parser.parse_nab(REAL):
        starts, _ = find_runs(file.labels("windows"))
        assert len(starts) == len(file.windows), file.name


@needs_data
def test_real_files_have_the_pinned_checksums() -> None:
    import hashlib

    checksums = {
        path.relative_to(REAL).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in [*(REAL / "data").rglob("*.csv"), REAL / nab_parser.WINDOWS, REAL / nab_parser.POINTS]
    }
    assert checksums == prepared.pinned_checksums("nab")
