"""Recognizes times, labels, indices and ids by the names of their columns."""

import re


def _names(*lines: str) -> frozenset[str]:
    """Returns names separated by vertical bars: in lower case, with a space between words."""
    return frozenset("|".join(lines).split("|"))


_TIME_NAMES = _names(
    "timestamp|timestamps|time|datetime|date|ds|ts|date time|time stamp",
    "zeit|datum|zeitstempel|zeitpunkt|datum uhrzeit|uhrzeit",
    "ticks|epoch|epoch time|unix|unix time|unix timestamp|unixtime|utc|time utc|utc time|timestamp utc|datetime utc",
    "elapsed|elapsed time|event time|last changed|last updated|period start time",
)
_UNITS = {
    "s": _names("s|sec|secs|second|seconds"),
    "ms": _names("ms|msec|millis|milliseconds"),
    "us": _names("us|µs|micros|microseconds"),
    "ns": _names("ns|nanos|nanoseconds"),
    "m": _names("min|mins|minutes"),
    "h": _names("h|hr|hrs|hours"),
    "D": _names("d|days"),
}
_UNIT_OF_WORD = {word: unit for unit, words in _UNITS.items() for word in words}

_LABEL_NAMES = _names(
    "label|labels|is anomaly|anomaly|anomalies|anomalous|is outlier|outlier|attack|normal attack|ground truth",
    "anomalie|anomalien|ausreißer",
)
# Single words of a name.
_ANSWERS = _names(
    "label|labels|labelled|labeled|anomaly|anomalies|anomalous|outlier|outliers|inlier|attack|attacks|changepoint",
    "changepoints|truth|score|scores|flag|flags|abnormal|predicted|prediction|predictions|pred|preds|rul",
    "anomalie|anomalien|ausreißer|ausreisser",
)
_ANSWER_PAIRS = frozenset((("change", "point"), ("is", "normal"), ("y", "hat"), ("y", "true"), ("y", "score")))
_PERHAPS_ANSWERS = _names(
    "fault|faults|faulty|failure|failures|alarm|alarms|incident|incidents|class|target|event|error|errors|defect|defects",
    "malfunction|intrusion|outage|warning|warnings|störung|störungen|fehler|ausfall|defekt",
)
_INDICES = _names(
    "|index|idx|row|row number|row id|row nr|level 0|record|record number|record id|id|nr|lfd nr|zeile|seq|sequence",
    "sequence number|sample number|frame number|line number",
)
_ID_ENDINGS = _names("id|ids|uuid|guid")
_NUMBER_ENDINGS = _names("no|nr|number|num|key")
_ENTITIES = _names(
    "machine|device|sensor|unit|asset|station|engine|host|node|tag|channel|series|site|location|entity|metric|variable",
    "instance|field|measurement|item|table",
)


def split_words(name: str) -> list[str]:
    """Returns the words of a column's name in lower case: 'isOutlier [%]' has 'is' and 'outlier'."""
    return re.findall(r"[^\W\d_]+|\d+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())


def is_time_name(name: str) -> bool:
    """Returns whether a name is one of times, whatever their unit."""
    words = split_words(name)
    has_unit = len(words) > 1 and words[-1] in _UNIT_OF_WORD
    base = words[:-1] if has_unit else words
    return " ".join(base) in _TIME_NAMES or (has_unit and base == ["t"])


def time_unit(name: str) -> str:
    """Returns the unit that a name of times gives, such as 'ms'; '' for none."""
    words = split_words(name)
    return _UNIT_OF_WORD.get(words[-1], "") if len(words) > 1 else ""


def is_label_name(name: str) -> bool:
    """Returns whether a name is one of labels."""
    return " ".join(split_words(name)) in _LABEL_NAMES


def is_answer_name(name: str) -> bool:
    """Returns whether a name says that a column holds labels, scores or flags."""
    words = split_words(name)
    pairs = [tuple(words[i : i + 2]) for i in range(len(words))]
    return not _ANSWERS.isdisjoint(words) or not _ANSWER_PAIRS.isdisjoint(pairs) or words in (["gt"], ["normal"])


def may_be_answer_name(name: str) -> bool:
    """Returns whether a name may be one of labels, if the column holds few whole numbers."""
    return not _PERHAPS_ANSWERS.isdisjoint(split_words(name))


def is_index_name(name: str) -> bool:
    """Returns whether a name is one of row numbers; pandas names a column without a name 'Unnamed: 3'."""
    return is_unnamed(name) or name.startswith("__index_level_") or " ".join(split_words(name)) in _INDICES


def is_unnamed(name: str) -> bool:
    """Returns whether a column has no name of its own."""
    return not name.strip() or re.fullmatch(r"Unnamed: \d+(_level_\d+)?", name) is not None


def is_id_name(name: str) -> bool:
    """Returns whether a name says which machine, sensor or series a row belongs to."""
    words = split_words(name)
    if not words:
        return False
    last, before = words[-1], words[:-1]
    if last in _NUMBER_ENDINGS:
        return bool(before) and before[-1] in _ENTITIES
    return last in _ID_ENDINGS or (not before and last in _ENTITIES)
