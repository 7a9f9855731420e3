"""Which column could be the label, and by which rule."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.datasets.tabular import Label, Mask, clicks_of
from pipeline.inspection.guessing import words
from pipeline.inspection.profiling import MAX_OF_PART, Profile, shown
from pipeline.preprocess import parse
from pipeline.preprocess.cleaning import equals

MAX_VALUES = 50  # distinct values of a label
MAX_SPELLINGS = 12  # of yes and no, a few malformed values among them
MAX_VALUES_CHOSEN = MAX_OF_PART  # of one that the user names
CLICKS = ("click", "clicked", "clk", "purchase", "purchased", "buy", "bought", "order", "conversion", "like")
_LABELS = {
    *("label", "click", "clicked", "clk", "target", "y", "purchase", "purchased", "buy", "bought", "install"),
    *("conversion", "converted", "like", "liked", "response", "watched", "subscribed", "isclick"),
}
_RATINGS = {"rating", "ratings", "score", "stars", "rate", "grade"}
_EVENTS = {"event", "action", "behavior", "behaviour", "feedback", "interaction"}


@dataclass(frozen=True)
class Candidate:
    """A column that could be the label."""

    label: Label
    rate: float  # fraction of clicks among its values
    doubt: int  # 0: its name is that of a label, 1 and 2: it hints at one, 3 and 4: only its values do


def candidates(profiles: Iterable[Profile], *, named: bool, chosen: bool) -> list[Candidate]:
    """Return what could be the label, the likeliest first.

    Args:
        named: the file has a header, so that the columns' names mean something.
        chosen: the user says that the label is one of these columns.
    """
    found = [_candidate(profile, named, chosen) for profile in profiles]
    return sorted((one for one in found if one), key=lambda one: one.doubt)


def constant(profile: Profile) -> str:
    """Say that a column has one value, where it does: no rule makes a label of it."""
    if profile.values is None or len(profile.values) != 1:
        return ""
    value = shown(profile.values[0].as_py())
    if profile.missing:
        return f"is {value} in {profile.filled:,} rows and missing in {profile.missing:,}"
    return f"is {value} in every row"


def is_called_label(name: str) -> bool:
    """Whether a column has a name of labels."""
    return _hint(name) is not None


def _hint(name: str) -> int | None:
    """Return 0 if a name is that of a label, 1 if it hints at one."""
    return 0 if name.lower().replace("_", "") in _LABELS else None if _LABELS.isdisjoint(words(name)) else 1


def _candidate(profile: Profile, named: bool, chosen: bool) -> Candidate | None:
    if profile.values is None or not profile.filled or parse.kind(profile.type) == "list":
        return None
    if len(profile.values) > (MAX_VALUES_CHOSEN if chosen else MAX_VALUES):
        return None
    found = set(words(profile.name))
    hint = _hint(profile.name)
    told = hint is not None or chosen or not named or found & (_RATINGS | _EVENTS)
    if not told and len(profile.values) > MAX_SPELLINGS:
        return None  # its values alone would have to say it, and they are not yes and no
    lower = pc.utf8_lower(profile.values)
    yes, valid = clicks_of(profile.values.dictionary_encode(), Label(column=profile.name))
    no, others = valid & ~yes, int(profile.counts[~valid].sum())
    # a few malformed values, whose records will be rejected, do not rule a column out
    if others <= profile.tolerated:
        return _checked(profile, yes, 3 if hint is None else hint)
    numbers, malformed = parse.numbers(profile.values)
    if profile.counts[malformed].sum() <= profile.tolerated:
        levels = int((~malformed).sum())
        contiguous = profile.integers and profile.low in (0, 1) and profile.high - profile.low + 1 == levels
        doubt = None
        if hint is not None and levels <= 2:
            doubt = hint + 1
        elif levels <= 21 and (hint == 0 or found & _RATINGS):
            doubt = 2
        elif not named and contiguous and 2 < levels <= 11:
            doubt = 4
        return _threshold(profile, numbers, 0 if chosen else doubt)
    doubt = hint + 1 if hint is not None else 2 if found & _EVENTS else 0 if chosen else None
    if doubt is not None and yes.any() and no.any() and 2 * others < profile.filled:
        return _checked(profile, yes, doubt)  # the report warns of the other values
    return None if doubt is None else _event(profile, lower, doubt)


def _checked(profile: Profile, clicks: Mask, doubt: int, **rule: Any) -> Candidate | None:
    """Return a candidate, or None if all of its values or none are clicks."""
    rate = _rate(profile, clicks)
    return Candidate(Label(column=profile.name, **rule), rate, doubt) if 0 < rate < 1 else None


def _rate(profile: Profile, clicks: Mask) -> float:
    return float(profile.counts[clicks].sum() / profile.filled)


def _threshold(profile: Profile, numbers: NDArray[np.float64], doubt: int | None) -> Candidate | None:
    """Cut numbers where the classes are most balanced."""
    steps = np.unique(numbers[np.isfinite(numbers)])[1:]
    if doubt is None or not len(steps):
        return None
    imbalance = np.round([abs(_rate(profile, numbers >= step) - 0.5) for step in steps], 3)
    step = float(steps[np.flatnonzero(imbalance == imbalance.min())[-1]])  # of two the stricter
    at_least = int(step) if step.is_integer() else step
    return _checked(profile, numbers >= step, doubt, at_least=at_least)


def _event(profile: Profile, lower: pa.Array, doubt: int) -> Candidate | None:
    """Take the value that is called a click, or else the rarer one of two."""
    assert profile.values is not None
    names = lower.to_pylist()
    named = [names.index(word) for word in CLICKS if word in names]
    if not named and len(names) != 2:
        return None
    place = named[0] if named else int(np.argmin(profile.counts))
    event = profile.values[place].as_py()
    return _checked(profile, equals(profile.values, event), doubt, equals=event)
