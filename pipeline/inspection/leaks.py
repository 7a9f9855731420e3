"""Columns that give the label away or repeat another column, and rows that repeat another row."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import metrics
from pipeline.datasets.tabular import Label, Mask, clicks_of
from pipeline.inspection.guessing import MIN_ROWS, UNIQUE, Guess
from pipeline.inspection.profiling import TOLERANCE, shown
from pipeline.preprocess.parse import numbers
from pipeline.preprocess.timestamps import seconds
from pipeline.split import repeats

MIN_MATCHING_ROWS = 500  # in which two columns must agree before one is left out
MIN_PREDICTED = 10  # rows of either label that a column must predict before it is called a leak

Codes = NDArray[np.int64]


def redundant(
    sample: Mapping[str, pa.DictionaryArray], guesses: Mapping[str, Guess], label: Label
) -> dict[str, str]:
    """Return the columns that should not be fields, and why."""
    clicks, valid = clicks_of(sample[label.column], label)
    found: dict[str, str] = {}
    seen: dict[bytes, str] = {}
    for name, guess in guesses.items():
        if guess.feature is None or guess.left_out or name == label.column or len(valid) < MIN_ROWS:
            continue
        values = sample[name]
        # codes in the order of first rows: equal for columns whose values correspond one to one
        codes = values.indices.dictionary_encode(null_encoding="encode").indices.to_numpy()
        key = codes.tobytes()
        if _leaks(values, codes, guess.feature.type, clicks, valid):
            found[name] = f"predicts the label, {shown(label.column)}: a leak, unless known before the click"
        elif guess.feature.type == "vector":  # which is the information of its key, in other words
            continue
        elif key in seen and len(codes) >= MIN_MATCHING_ROWS and codes.max() + 1 < len(codes):
            found[name] = f"same information as {shown(seen[key])}"
        seen.setdefault(key, name)
    return found


def same_times(sample: Mapping[str, pa.DictionaryArray], guesses: Mapping[str, Guess]) -> dict[str, Guess]:
    """Return the columns whose times are those of an earlier column, however either writes them.

    They may differ by a second, since one may be rounded and the other cut off.
    """
    found: dict[str, Guess] = {}
    seen: dict[str, NDArray[np.float64]] = {}
    for name, guess in guesses.items():
        feature = guess.feature
        if feature is None or feature.type != "timestamp" or guess.left_out or len(sample[name]) < MIN_ROWS:
            continue
        times = seconds(sample[name], feature.format or "iso")[0].to_numpy(zero_copy_only=False)
        as_numbers = times.astype(np.float64)  # NaN: no time
        for first, its in seen.items():
            differ = ~((np.abs(as_numbers - its) <= 1) | (np.isnan(as_numbers) & np.isnan(its)))
            if differ.mean() <= TOLERANCE and not np.isnan(its).all():
                clock = f", by the clock of {feature.utc_offset} (utc_offset)" if feature.utc_offset else ""
                found[name] = replace(guess, left_out=f"the same time as {shown(first)}{clock}", warning="")
                break
        else:
            seen[name] = as_numbers
    return found


def copied_rows(sample: Mapping[str, pa.DictionaryArray], guesses: Mapping[str, Guess], label: Label) -> int:
    """Return how many rows are copies of an earlier one; 0 if they may be separate events (`split.repeats`).

    What is different in every row, a row number, does not count.
    """
    clicks, valid = clicks_of(sample[label.column], label)
    names = [name for name in sample if name != label.column and guesses[name].kind != UNIQUE]
    if not names:
        return 0
    rows = pa.table({name: sample[name] for name in names}).filter(pa.array(valid))
    found = repeats.find(repeats.hashes_of([rows]), clicks[valid])
    return len(found.extra) if found.are_copies else 0


def _leaks(values: pa.DictionaryArray, codes: Codes, type_: str, clicks: Mask, valid: Mask) -> bool:
    """Whether a column, or the mere presence of its value, predicts the label."""
    if _predicts(values.is_null().to_numpy(zero_copy_only=False).astype(np.int64), clicks, valid):
        return True
    if type_ == "number":
        amounts = np.nan_to_num(numbers(values)[0], nan=-np.inf, posinf=None)[valid]
        both = min(clicks[valid].sum(), (~clicks[valid]).sum())
        return bool(both >= MIN_PREDICTED and abs(metrics.auc(clicks[valid], amounts) - 0.5) > 0.499)
    return type_ == "category" and _predicts(codes, clicks, valid)


def _predicts(codes: Codes, clicks: Mask, valid: Mask) -> bool:
    """Whether the majority label of each value in the first half of the rows is that of the second half."""
    half = np.arange(len(codes)) < len(codes) // 2
    size = int(codes.max(initial=0)) + 1
    hits = np.bincount(codes[valid & half & clicks], minlength=size)
    misses = np.bincount(codes[valid & half & ~clicks], minlength=size)
    test = valid & ~half & (hits + misses > 0)[codes]
    predicted, actual = (hits > misses)[codes[test]], clicks[test]
    return bool(min(actual.sum(), (~actual).sum()) >= MIN_PREDICTED and (predicted == actual).mean() > 0.9999)
