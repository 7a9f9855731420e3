"""What a column of somebody's table seems to be: a guess from its name and its values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.datasets.tabular import NO, YES
from pipeline.inspection.profiling import DIGIT_TIMES, Profile
from pipeline.preprocess import parse
from pipeline.preprocess.cleaning import equals
from pipeline.preprocess.parse import recode
from pipeline.schema import Domain

Flags = NDArray[np.bool_]

ENOUGH = 50  # records below which nothing is said about values that never repeat or always agree
LONG = 40  # mean characters of a value from which on it is a text that somebody wrote
FEW = 50  # values that a column of the label may have
BAGS = ("|", ";", "^", ",")  # separators of values within a value
CLICKS = ("click", "clicked", "clk", "purchase", "purchased", "buy", "bought", "order", "conversion", "like")

_LABELS = {
    *("label", "click", "clicked", "clk", "target", "y", "purchase", "purchased", "buy", "bought", "install"),
    *("conversion", "converted", "like", "liked", "response", "watched", "subscribed", "isclick"),
}
_RATINGS = {"rating", "ratings", "score", "stars", "rate", "grade"}
_EVENTS = {"event", "action", "behavior", "behaviour", "feedback", "interaction"}
_PEOPLE = {
    *("user", "users", "uid", "userid", "member", "memberid", "customer", "customerid", "visitor"),
    *("visitorid", "viewer", "reader", "client", "person"),
}
_THINGS = {
    *("item", "items", "iid", "itemid", "movie", "movieid", "film", "video", "vid", "ad", "adid", "ads"),
    *("adgroup", "campaign", "creative", "advertiser", "product", "productid", "sku", "goods", "article"),
    *("news", "book", "isbn", "song", "track", "listing", "shop", "seller", "merchant"),
}
_TRAITS: dict[Domain, set[str]] = {
    "user": {
        *_PEOPLE,
        *("age", "gender", "sex", "occupation", "job", "zip", "zipcode", "income", "education", "city"),
        *("country", "location"),
    },
    "item": {
        *_THINGS,
        *("brand", "price", "category", "categories", "cate", "genre", "genres", "title", "author", "artist"),
        *("album", "tag", "tags", "keyword", "keywords", "release", "publisher", "length", "duration"),
    },
}
_NAMES = {  # in the name of a column whose numbers stand for something
    *(_PEOPLE | _THINGS),
    *("id", "ids", "code", "zip", "zipcode", "type", "class", "category", "cate", "brand", "city", "country"),
    *("device", "hour", "day", "weekday", "month", "year", "gender", "sex", "group", "level", "flag", "pos"),
    *("position", "slot", "channel", "source", "version"),
}
_AMOUNTS = {  # in the name of a column whose numbers count something
    *("age", "price", "cost", "amount", "count", "counts", "cnt", "num", "number", "total", "sum", "avg"),
    *("mean", "duration", "length", "size", "score", "rate", "ratio", "rating", "income", "salary", "ms"),
    *("distance", "seconds", "minutes", "hours", "days", "views", "impressions", "weight", "height", "width"),
}
_TIMES = {"time", "timestamp", "ts", "date", "day", "hour", "datetime", "dt", "at", "when", "created"}
_PAST = {"birth", "born", "birthday", "birthdate", "release", "released", "registered", "signup", "joined"}
_LISTS = {"tags", "genres", "categories", "keywords", "interests", "topics", "list", "items", "ids", "labels"}


@dataclass(frozen=True)
class Guess:
    """What a column seems to be.

    Attributes:
        kind: in words.
        type: of a field; None where it can be none.
        options: further keys of the field.
        out: why it is left out of the fields, though it could be one.
        warning: what will happen to some of its records.
        marks: texts that stand for a missing number.
    """

    kind: str
    type: str | None = "category"
    options: Mapping[str, Any] = field(default_factory=dict)
    out: str = ""
    warning: str = ""
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """A label.

    Attributes:
        column: it is made of this one.
        rule: key and value that `label` has besides, none for a column of 0 and 1.
        rate: share of clicks among its values.
        doubt: 0 for the likeliest.
    """

    column: str
    rule: Mapping[str, Any]
    rate: float
    doubt: int


def guess(profile: Profile, sample: pa.DictionaryArray, *, named: bool = True) -> Guess:
    """Say what a column seems to be.

    Args:
        sample: its first values.
        named: its name is the file's own, so it says something.
    """
    kind = parse.kind(profile.type)
    if kind == "something else":
        return Guess(f"{profile.type}, cannot be used", None)
    if not profile.filled:
        return Guess("empty", None)
    if kind == "list":
        return Guess("bag, a list", "bag")
    if profile.values is not None and profile.at_least == 1 and not profile.missing:
        return Guess("constant", out="constant")
    found = _time(profile) or _bag(profile, sample)
    if found is not None:
        return found
    if _holds_numbers(profile) and _counts(profile, named):
        return _number(profile)
    if profile.unique and profile.rows >= ENOUGH:
        return Guess("unique in every row", out="unique in every row")
    if profile.size > LONG * profile.written:
        return Guess("text", out="a text, which hardly repeats")
    return Guess("category")


def domain(name: str) -> Domain:
    """Say whose property a column seems to be."""
    for word in words(name):
        for which, traits in _TRAITS.items():
            if word in traits:
                return which
    return "context"


def names_a_person(name: str) -> bool:
    """Whether a column seems to hold the ids of users."""
    found = words(name)
    return bool(_PEOPLE & set(found)) and (len(found) == 1 or "id" in found)


def is_past(name: str) -> bool:
    """Whether the times of a column are not those of the records, such as dates of birth."""
    return bool(_PAST & set(words(name)))


def words(name: str) -> list[str]:
    """Return the words in a name, in small letters.

    >>> words("userID"), words("Book-Rating"), words("price_EUR_30d")
    (['user', 'id'], ['book', 'rating'], ['price', 'eur', '30', 'd'])
    """
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+", name)]


def label(profile: Profile, *, named: bool = True, chosen: bool = False) -> Rule | None:
    """Return how a column makes a label, or None if it does not.

    Args:
        named: its name is the file's own.
        chosen: the user says that it is the label.
    """
    if profile.values is None or not profile.filled or parse.kind(profile.type) == "list":
        return None
    if len(profile.values) > (1000 if chosen else FEW):
        return None
    name, values = profile.name, profile.values
    found = set(words(name))
    hinted = 0 if name.lower().replace("_", "") in _LABELS else 1 if found & _LABELS else None
    lower = pc.utf8_lower(values)
    yes, no = equals(lower, *YES), equals(lower, *NO)
    rate, others = _rate(profile, yes), int(profile.counts[~(yes | no)].sum())
    # a few damaged values, whose records will be refused, do not make it another column
    if others <= profile.stray:
        return Rule(name, {}, rate, 3 if hinted is None else hinted) if 0 < rate < 1 else None
    numbers, bad = parse.numbers(values)
    if profile.counts[bad].sum() <= profile.stray:
        levels = int((~bad).sum())
        contiguous = profile.whole and profile.low in (0, 1) and profile.high - profile.low + 1 == levels > 2
        doubt = None if hinted is None or levels > 2 else hinted + 1
        doubt = 2 if found & _RATINGS and levels <= 21 else doubt
        doubt = 4 if doubt is None and not named and contiguous and levels <= 11 else doubt
        return _threshold(profile, numbers, 0 if chosen else doubt)
    doubt = hinted + 1 if hinted is not None else 2 if found & _EVENTS else 0 if chosen else None
    if doubt is not None and yes.any() and no.any() and 2 * others < profile.filled:
        return Rule(name, {}, rate, doubt)  # and words for the others: the report warns of them
    return None if doubt is None else _event(profile, lower, doubt)


def clicks(values: pa.DictionaryArray, rule: Rule) -> tuple[Flags, Flags]:
    """Return which values are clicks by a rule, and which are labels at all."""
    known = values.is_valid().to_numpy(zero_copy_only=False)
    if not rule.rule:
        lower = recode(values, pc.utf8_lower)
        return equals(lower, *YES), known & equals(lower, *YES, *NO)
    if "equals" in rule.rule:
        return equals(values, rule.rule["equals"]), known
    numbers, _ = parse.numbers(values)
    return numbers >= rule.rule["at_least"], known & ~np.isnan(numbers)


def _time(profile: Profile) -> Guess | None:
    fitting = {style: bad for style, bad in (profile.times or {}).items() if bad <= profile.stray}
    typed = parse.kind(profile.type) == "time"
    if not typed and not set(words(profile.name)) & _TIMES:
        fitting = {style: bad for style, bad in fitting.items() if style not in DIGIT_TIMES}
    if not fitting:
        return None
    style, bad = next(iter(fitting.items()))
    first, last = profile.span[style]
    days = [str(np.datetime64(second, "s").astype("datetime64[D]")) for second in (first, last)]
    parts = ["weekday"] if style in profile.midnight else ["hour", "weekday"]
    parts = ["hour"] if last - first < 86400 and style not in profile.midnight else parts
    others = [other for other in fitting if other != style and profile.span[other] != profile.span[style]]
    unsure = f"its times could be {others[0]} as well as {style}: check the format" if others else ""
    return Guess(
        f"time, {days[0]} to {days[1]}",
        "timestamp",
        {**({} if style == "iso" else {"format": style}), "parts": parts},
        warning=_stray(profile, bad, f"no time ({style})") or unsure,
    )


def _bag(profile: Profile, sample: pa.DictionaryArray) -> Guess | None:
    """Find the separator of several values in one: the single values repeat more than the whole ones."""
    texts = sample.dictionary[:20_000]
    if parse.kind(profile.type) != "text" or not len(texts) or profile.size > 5 * LONG * profile.written:
        return None
    named_list = bool(_LISTS & set(words(profile.name)))
    bracketed = np.mean(pc.match_substring_regex(texts, r"^\[(?s:.*)\]$").to_numpy(zero_copy_only=False))
    if bracketed > 0.99:
        return Guess("bag, a list in brackets", "bag", {"separator": ","})
    for separator in BAGS:
        if separator == "," and not named_list:
            continue
        split = pc.split_pattern(texts, separator)
        several = np.mean(pc.list_value_length(split).to_numpy(zero_copy_only=False) > 1)
        single = pc.count_distinct(pc.utf8_trim_whitespace(pc.list_flatten(split))).as_py()
        if (
            several >= 0.2
            and (named_list or single < len(texts))
            and profile.size < 5 * LONG * profile.written
        ):
            return Guess(f"bag, separator {separator}", "bag", {"separator": separator})
    return None


def _holds_numbers(profile: Profile) -> bool:
    return profile.no_number <= profile.stray and 2 * profile.marked < profile.filled


def _counts(profile: Profile, named: bool) -> bool:
    """Whether numbers are amounts, and do not stand for something."""
    found = set(words(profile.name)) if named else set()
    if not profile.whole:
        return True
    if profile.code or (found & _NAMES and not found & _AMOUNTS):
        return False
    if found & _AMOUNTS:
        return profile.at_least > 2
    repeats = profile.values is not None and profile.at_least * 5 <= profile.filled
    return named and not repeats and not profile.unique


def _number(profile: Profile) -> Guess:
    span = f"{profile.low:.6g} to {profile.high:.6g}" if profile.low <= profile.high else "infinite"
    return Guess(
        f"number, {span}" + (", decimal comma" if profile.comma else ""),
        "number",
        warning=_stray(profile, profile.no_number, "no number"),
        marks=tuple(dict.fromkeys(profile.marks)),
    )


def _stray(profile: Profile, count: int, what: str) -> str:
    return f"{count} of {profile.filled} values are {what}: their records will be refused" if count else ""


def _rate(profile: Profile, hit: Flags) -> float:
    return float(profile.counts[hit].sum() / profile.filled)


def _threshold(profile: Profile, numbers: NDArray[np.float64], doubt: int | None) -> Rule | None:
    """Cut numbers where clicks and others are most alike in number."""
    steps = np.unique(numbers[np.isfinite(numbers)])[1:]
    if doubt is None or not len(steps):
        return None
    rates = [_rate(profile, numbers >= step) for step in steps]
    far = np.round(np.abs(np.array(rates) - 0.5), 3)
    best = int(np.flatnonzero(far == far.min())[-1])  # of two the stricter
    step = float(steps[best])
    return Rule(profile.name, {"at_least": int(step) if step.is_integer() else step}, rates[best], doubt)


def _event(profile: Profile, lower: pa.Array, doubt: int) -> Rule | None:
    """Take the value that is called a click, or of two values the rarer."""
    assert profile.values is not None
    named = [word for word in CLICKS if word in lower.to_pylist()]
    if named:
        place = lower.to_pylist().index(named[0])
    elif len(lower) == 2:
        place = int(np.argmin(profile.counts))
    else:
        return None
    rate = float(profile.counts[place] / profile.filled)
    return Rule(profile.name, {"equals": profile.values[place].as_py()}, rate, doubt) if rate < 1 else None
