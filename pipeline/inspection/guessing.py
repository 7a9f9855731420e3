"""What a column seems to be: a guess from its name and its values."""

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets.tabular import Feature
from pipeline.inspection.profiling import DIGIT_TIMES, Profile
from pipeline.preprocess import parse
from pipeline.preprocess.tables import LIST_SEPARATOR
from pipeline.preprocess.timestamps import OFFSET, DatePart, offset_seconds
from pipeline.schema import Domain, Role
from pipeline.split.assign import Part

MIN_ROWS = 50  # below, values that never repeat or always agree mean nothing
FRACTION = r"^[\s\[]*[+-]?([0-9]*\.[0-9]+([eE][+-]?[0-9]+)?|[0-9]+[eE]-[0-9]+)[\s\]]*$"
TEXT_LENGTH = 40  # mean characters of a value, from which on it is free text
MIN_COUNTS = 20  # distinct integers, below which it does not matter whether they count something
NUMERIC = 0.9  # share of the distinct texts that look like numbers, from which on the column is told to
GROUPING = "' \u00a0\u202f"  # between thousands, besides points and commas
UNIQUE = "unique in every row"
NUMBERS = "list of numbers"
BAG_SEPARATORS = ("|", ";", "^")  # commas and spaces also occur in ordinary text


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


USERS = _words(
    "user users uid userid member memberid customer customerid visitor visitorid viewer reader client person"
)
_ITEMS = _words(
    "item items iid itemid movie movieid film video vid ad adid ads adgroup campaign creative advertiser "
    "product productid sku goods article news book isbn song track listing shop seller merchant"
)
_SEVERAL_ITEMS = _words("campaign adgroup advertiser shop listing seller merchant")
_DOMAINS: dict[Domain, frozenset[str]] = {
    "user": USERS
    | _words("age gender sex occupation job zip zipcode income education city country location"),
    "item": _ITEMS
    | _words(
        "brand price category categories cate genre genres title author artist album tag tags keyword "
        "keywords release publisher length duration"
    ),
}
_IDENTIFIERS = (  # in the name of a column whose integers are categories
    USERS
    | _ITEMS
    | _words(
        "id ids code zip zipcode type class category cate brand city country device hour day weekday month "
        "year gender sex group level flag pos position slot channel source version"
    )
)
_AMOUNTS = _words(  # in the name of a column whose integers count something
    "age price cost amount count counts cnt num number total sum avg mean duration length size score rate "
    "ratio rating income salary ms distance seconds minutes hours days views impressions weight height width"
)
SPLITS: dict[str, Part] = {  # words of a column that says to which split a row belongs
    **dict.fromkeys(_words("train training"), "train"),
    **dict.fromkeys(_words("valid validation val dev"), "valid"),
    **dict.fromkeys(_words("test testing eval holdout"), "test"),
}
_WRITTEN_OFFSET = r":[0-9]{2}(?:[.,][0-9]+)? ?(?P<offset>[+-][0-9]{2}:?[0-9]{2})(?: [0-9]{4})?$"
_TIMES = _words("time timestamp ts date day hour datetime dt at when created")
_PAST = _words("birth born birthday birthdate release released registered signup joined")
_LISTS = _words(
    "hist history seq sequence tags genres categories keywords interests topics list items ids labels"
)


@dataclass(frozen=True)
class Guess:
    """What a column seems to be."""

    kind: str  # in words
    feature: Feature | None = None  # None if it cannot be a field
    left_out: str = ""  # why it is not proposed as a field, though it could be one
    warning: str = ""  # what will happen to some of its records
    marks: tuple[str, ...] = ()  # texts that stand for a missing number
    parts: Mapping[str, Part] | None = None  # of a column of splits: what its values stand for


def guess(profile: Profile, sample: pa.DictionaryArray, *, named: bool = True) -> Guess:
    """Guess what a column is.

    Args:
        sample: its first values.
        named: the file has a header, so that the column's name means something.
    """
    kind = parse.kind(profile.type)
    if kind == "something else":
        return Guess(f"{' '.join(str(profile.type).split())}, cannot be used")
    if not profile.filled:
        return Guess("empty")
    domain = domain_of(profile.name)
    if kind == "list":
        return _list("bag, a list", Feature(domain=domain, type="bag"), sample, LIST_SEPARATOR)
    category = Feature(domain=domain)
    if profile.values is not None and profile.distinct == 1 and not profile.missing:
        return Guess("constant", category, left_out="constant")
    if (parts := _parts(profile)) is not None:
        return Guess("names of splits", category, left_out="names of splits", parts=parts)
    if found := _time(profile, sample, domain) or _bag(profile, sample, domain):
        return found
    if _is_amount(profile, named):
        return _number(profile, domain)
    grouped = _grouped(sample) if kind == "text" else ""
    if profile.unique and profile.rows >= MIN_ROWS:
        return Guess(UNIQUE, category, left_out=UNIQUE, warning=grouped)
    if profile.mean_length > TEXT_LENGTH:
        return Guess("free text", category, left_out="free text")
    return Guess("category", category, warning=grouped)


def _parts(profile: Profile) -> dict[str, Part] | None:
    """Return what the values stand for if they name splits, at least train and test, and no row has none."""
    if profile.values is None or profile.missing or len(profile.values) > len(SPLITS):
        return None
    texts = profile.values.to_pylist()
    known = SPLITS
    if "split" in words(profile.name) and set(texts) <= {"0", "1", "2"}:
        known = {"0": "train", "1": "valid", "2": "test"}
    parts = {text: known[text.lower()] for text in texts if text.lower() in known}
    return parts if len(parts) == len(texts) and {"train", "test"} <= set(parts.values()) else None


def part_of(file: str) -> Part | None:
    """Guess to which split a file belongs by its name, such as `train_01.csv`; None if it names none."""
    found = {SPLITS[word] for word in words(file) if word in SPLITS}
    return found.pop() if len(found) == 1 else None


def domain_of(name: str) -> Domain:
    """Guess whose property a column is."""
    hits = [domain for word in words(name) for domain, known in _DOMAINS.items() if word in known]
    return hits[0] if hits else "context"


def is_id_of(role: Role, name: str) -> bool:
    """Whether a column of this name seems to contain the ids of users, or of items."""
    return _is_id(name, USERS if role == "user" else _ITEMS - _SEVERAL_ITEMS)


def is_id(name: str) -> bool:
    """Whether a column of this name seems to contain ids of users, or of items, several or one."""
    return _is_id(name, USERS | _ITEMS)


def _is_id(name: str, known: Set[str]) -> bool:
    found = words(name)
    return not known.isdisjoint(found) and (len(found) == 1 or "id" in found)


def is_plain_id(name: str) -> bool:
    """Whether a name says that it is an id: `userid` rather than `customer`."""
    return words(name)[-1].endswith("id")


def is_past(name: str) -> bool:
    """Whether times in a column of this name precede the record, such as dates of birth."""
    return not _PAST.isdisjoint(words(name))


def words(name: str) -> list[str]:
    """Return the words in a name, in lower case.

    >>> words("userID"), words("Book-Rating"), words("price_EUR_30d")
    (['user', 'id'], ['book', 'rating'], ['price', 'eur', '30', 'd'])
    """
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+", name)]


def _time(profile: Profile, sample: pa.DictionaryArray, domain: Domain) -> Guess | None:
    fitting = {
        time_format: times
        for time_format, times in (profile.times or {}).items()
        if times.malformed <= profile.tolerated
    }
    if parse.kind(profile.type) != "time" and _TIMES.isdisjoint(words(profile.name)):
        fitting = {
            time_format: times for time_format, times in fitting.items() if time_format not in DIGIT_TIMES
        }
    if not fitting:
        return None
    time_format, times = next(iter(fitting.items()))
    # the newest rows of less than two weeks, which a model is tested on, are of weekdays that it never saw
    parts: list[DatePart] = ["hour"] if times.last - times.first < 14 * 86400 else ["hour", "weekday"]
    offset, clock = _offset(profile, sample)
    feature = Feature(
        domain=domain,
        type="timestamp",
        utc_offset=offset,
        format=None if time_format == "iso" else time_format,
        parts=["weekday"] if times.midnight else parts,
    )
    first, last = (np.datetime64(second, "s").astype("datetime64[D]") for second in (times.first, times.last))
    warning = _malformed(profile, times.malformed, f"no time ({time_format})")
    for other, its in fitting.items():
        if not warning and (its.first, its.last) != (times.first, times.last):
            warning = f"its times could be {other} as well as {time_format}: check the format"
    warning = "; ".join(filter(None, (warning, clock)))
    return Guess(f"time, {first} to {last}", feature, warning=warning)


def _offset(profile: Profile, sample: pa.DictionaryArray) -> tuple[str | None, str]:
    """Return the offset from UTC that all times are written with, and what becomes of it, in words."""
    zone = getattr(profile.type, "tz", None)
    found = pc.struct_field(pc.extract_regex(sample.dictionary[:1000], _WRITTEN_OFFSET), "offset")
    offsets = pc.unique(found.drop_null()).to_pylist() if zone is None else [zone]
    if len(offsets) == 1 and re.fullmatch(OFFSET, offsets[0]) and offset_seconds(offsets[0]):
        return offsets[0], f"its hours and weekdays are those of its own clock, {offsets[0]} (utc_offset)"
    away = [offset for offset in offsets if not re.fullmatch("[+-]00:?00|UTC|GMT|Etc/UTC", offset)]
    if not away:
        return None, ""
    some = f"{', '.join(away[:3])}{', ...' if len(away) > 3 else ''}"
    return None, f"its times are written at {some}; its hours and weekdays are those of UTC (see utc_offset)"


def _bag(profile: Profile, sample: pa.DictionaryArray, domain: Domain) -> Guess | None:
    """Find the separator of a multi-valued field: single values repeat more than whole ones."""
    texts = sample.dictionary[:20_000]
    if parse.kind(profile.type) != "text" or not len(texts) or profile.mean_length >= 5 * TEXT_LENGTH:
        return None
    named_list = not _LISTS.isdisjoint(words(profile.name))
    if pc.mean(pc.match_substring_regex(texts, r"^\[(?s:.*)\]$")).as_py() > 0.99:
        feature = Feature(domain=domain, type="bag", separator=",")
        return _list("bag, a list in brackets", feature, sample, ",")
    digits = r"[0-9]+(\.[0-9]+)?"
    ids = pc.mean(pc.match_substring_regex(texts, f"^{digits}( {digits})*$")).as_py() > 0.99
    for separator in (*BAG_SEPARATORS, *[","] * named_list, *[" "] * (named_list or ids)):
        split = pc.split_pattern(texts, separator)
        several = pc.mean(pc.greater(pc.list_value_length(split), 1)).as_py()
        single = pc.count_distinct(pc.utf8_trim_whitespace(pc.list_flatten(split))).as_py()
        if several >= 0.2 and ((named_list and separator != " ") or single < len(texts)):
            feature = Feature(domain=domain, type="bag", separator=separator)
            shown = "space" if separator == " " else separator
            return _list(f"bag, separator {shown}", feature, sample, separator)
    return None


def _list(kind: str, feature: Feature, sample: pa.DictionaryArray, separator: str) -> Guess:
    """Return a bag; one of fractions, such as an embedding, is not proposed: each would be a category."""
    values = pc.list_flatten(pc.split_pattern(sample.dictionary[:1000], separator))
    if (pc.mean(pc.match_substring_regex(values, FRACTION)).as_py() or 0) > 0.5:
        return Guess(NUMBERS, feature, left_out="a list of numbers, each of which would be a category")
    return Guess(kind, feature)


def _is_amount(profile: Profile, named: bool) -> bool:
    """Whether the values are numbers, and amounts rather than identifiers."""
    if profile.not_numbers > profile.tolerated or 2 * profile.marked >= profile.filled:
        return False
    found = set(words(profile.name)) if named else set()
    if not profile.integers:
        return True
    if profile.identifiers or (found & _IDENTIFIERS and not found & _AMOUNTS):
        return False
    if found & _AMOUNTS:
        return profile.distinct > 2
    if profile.values is None:
        return named and not profile.unique
    repeats = profile.distinct * 5 <= profile.filled
    return named and not profile.unique and (not repeats or _is_skewed(profile))


def _is_skewed(profile: Profile) -> bool:
    """Whether integers look counted: small ones are frequent, and they become rare the larger they are."""
    if profile.distinct < MIN_COUNTS or profile.low < 0:
        return False
    assert profile.values is not None
    values = parse.numbers(profile.values)[0]
    order = np.argsort(values)
    values, rows = values[order], profile.counts[order]
    smaller, larger = np.array_split(rows, 2)
    return bool(4 * np.median(values) < values[-1] and smaller.sum() > 4 * larger.sum())


def _number(profile: Profile, domain: Domain) -> Guess:
    span = f"{profile.low:.6g} to {profile.high:.6g}" if profile.low <= profile.high else "infinite"
    return Guess(
        f"number, {span}" + (", decimal comma" if profile.decimal_comma else ""),
        Feature(domain=domain, type="number"),
        warning=_malformed(profile, profile.not_numbers, "no number"),
        marks=tuple(dict.fromkeys(profile.marks)),
    )


def _grouped(sample: pa.DictionaryArray) -> str:
    """Say that texts look like numbers with a sign between thousands, which no option reads."""
    texts = sample.dictionary[:20_000]
    for decimal, others in ((",", f".{GROUPING}"), (".", f",{GROUPING}")):
        groups, end = f"^[+-]?[0-9]{{1,3}}([{others}][0-9]{{3}})+", rf"(\{decimal}[0-9]+)?$"
        odd = pc.match_substring_regex(
            texts, "[,'\u00a0\u202f]"
        )  # points and blanks alone may be other things
        grouped = pc.and_(pc.match_substring_regex(texts, groups + end), odd)
        fine = pc.or_(grouped, pc.match_substring_regex(texts, f"^[+-]?[0-9]+{end}"))
        if not pc.any(grouped).as_py() or pc.mean(fine).as_py() < NUMERIC:
            continue
        example = texts.filter(grouped)[0].as_py()
        plain = re.sub(f"[{others}]", "", example)
        ways = plain.replace(",", ".") + (f", or as {plain} with `decimal: ','`" if "," in plain else "")
        return (
            "its values look like numbers, but cannot be read with a sign between thousands, as in "
            f"{example}; if it is an amount, write them as {ways}, and inspect again"
        )
    return ""


def _malformed(profile: Profile, count: int, what: str) -> str:
    if not count:
        return ""
    return f"{count:,} of {profile.filled:,} values are {what}; these records will be rejected"
