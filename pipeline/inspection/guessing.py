"""What a column seems to be: a guess from its name and its values."""

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets.tabular import Feature
from pipeline.inspection.profiling import DIGIT_TIMES, Profile
from pipeline.preprocess import parse
from pipeline.preprocess.timestamps import DatePart
from pipeline.schema import Domain, Role

MIN_ROWS = 50  # below, values that never repeat or always agree mean nothing
TEXT_LENGTH = 40  # mean characters of a value, from which on it is free text
UNIQUE = "unique in every row"
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
SPLITS = _words("train training valid validation val test dev eval holdout")
_TIMES = _words("time timestamp ts date day hour datetime dt at when created")
_PAST = _words("birth born birthday birthdate release released registered signup joined")
_LISTS = _words("tags genres categories keywords interests topics list items ids labels")


@dataclass(frozen=True)
class Guess:
    """What a column seems to be."""

    kind: str  # in words
    feature: Feature | None = None  # None if it cannot be a field
    left_out: str = ""  # why it is not proposed as a field, though it could be one
    warning: str = ""  # what will happen to some of its records
    marks: tuple[str, ...] = ()  # texts that stand for a missing number


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
        return Guess("bag, a list", Feature(domain=domain, type="bag"))
    category = Feature(domain=domain)
    if profile.values is not None and profile.distinct == 1 and not profile.missing:
        return Guess("constant", category, left_out="constant")
    if profile.values is not None and SPLITS.issuperset(pc.utf8_lower(profile.values[:9]).to_pylist()):
        return Guess("names of splits", category, left_out="names of splits; to split by it, see `keep`")
    if found := _time(profile, domain) or _bag(profile, sample, domain):
        return found
    if _is_amount(profile, named):
        return _number(profile, domain)
    if profile.unique and profile.rows >= MIN_ROWS:
        return Guess(UNIQUE, category, left_out=UNIQUE)
    if profile.mean_length > TEXT_LENGTH:
        return Guess("free text", category, left_out="free text")
    return Guess("category", category)


def domain_of(name: str) -> Domain:
    """Guess whose property a column is."""
    hits = [domain for word in words(name) for domain, known in _DOMAINS.items() if word in known]
    return hits[0] if hits else "context"


def is_id_of(role: Role, name: str) -> bool:
    """Whether a column of this name seems to contain the ids of users, or of items."""
    found, known = words(name), USERS if role == "user" else _ITEMS - _SEVERAL_ITEMS
    return not known.isdisjoint(found) and (len(found) == 1 or "id" in found)


def is_past(name: str) -> bool:
    """Whether times in a column of this name precede the record, such as dates of birth."""
    return not _PAST.isdisjoint(words(name))


def words(name: str) -> list[str]:
    """Return the words in a name, in lower case.

    >>> words("userID"), words("Book-Rating"), words("price_EUR_30d")
    (['user', 'id'], ['book', 'rating'], ['price', 'eur', '30', 'd'])
    """
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+", name)]


def _time(profile: Profile, domain: Domain) -> Guess | None:
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
    parts: list[DatePart] = ["hour"] if times.last - times.first < 86400 else ["hour", "weekday"]
    feature = Feature(
        domain=domain,
        type="timestamp",
        format=None if time_format == "iso" else time_format,
        parts=["weekday"] if times.midnight else parts,
    )
    first, last = (np.datetime64(second, "s").astype("datetime64[D]") for second in (times.first, times.last))
    warning = _malformed(profile, times.malformed, f"no time ({time_format})")
    for other, its in fitting.items():
        if not warning and (its.first, its.last) != (times.first, times.last):
            warning = f"its times could be {other} as well as {time_format}: check the format"
    return Guess(f"time, {first} to {last}", feature, warning=warning)


def _bag(profile: Profile, sample: pa.DictionaryArray, domain: Domain) -> Guess | None:
    """Find the separator of a multi-valued field: single values repeat more than whole ones."""
    texts = sample.dictionary[:20_000]
    if parse.kind(profile.type) != "text" or not len(texts) or profile.mean_length >= 5 * TEXT_LENGTH:
        return None
    named_list = not _LISTS.isdisjoint(words(profile.name))
    if pc.mean(pc.match_substring_regex(texts, r"^\[(?s:.*)\]$")).as_py() > 0.99:
        return Guess("bag, a list in brackets", Feature(domain=domain, type="bag", separator=","))
    ids = pc.mean(pc.match_substring_regex(texts, "^[0-9]+( [0-9]+)*$")).as_py() > 0.99
    for separator in (*BAG_SEPARATORS, *[","] * named_list, *[" "] * ids):
        split = pc.split_pattern(texts, separator)
        several = pc.mean(pc.greater(pc.list_value_length(split), 1)).as_py()
        single = pc.count_distinct(pc.utf8_trim_whitespace(pc.list_flatten(split))).as_py()
        if several >= 0.2 and (named_list or single < len(texts)):
            feature = Feature(domain=domain, type="bag", separator=separator)
            return Guess(f"bag, separator {'space' if separator == ' ' else separator}", feature)
    return None


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
    repeats = profile.values is not None and profile.distinct * 5 <= profile.filled
    return named and not repeats and not profile.unique


def _number(profile: Profile, domain: Domain) -> Guess:
    span = f"{profile.low:.6g} to {profile.high:.6g}" if profile.low <= profile.high else "infinite"
    return Guess(
        f"number, {span}" + (", decimal comma" if profile.decimal_comma else ""),
        Feature(domain=domain, type="number"),
        warning=_malformed(profile, profile.not_numbers, "no number"),
        marks=tuple(dict.fromkeys(profile.marks)),
    )


def _malformed(profile: Profile, count: int, what: str) -> str:
    if not count:
        return ""
    return f"{count:,} of {profile.filled:,} values are {what}; these records will be rejected"
