"""What has changed between two samples of rows, beyond what two samples of one log differ by chance.

A check raises an alarm where a change is larger than its limit in params.yaml, and than noise: what chance
exceeds once in a thousand reports, shared among all checks of a report. Rows count as independent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from pipeline import metrics
from pipeline.metrics import Array
from pipeline.schema import EMPTY, Field
from pipeline.statistics.significance import estimate

Entry = Mapping[str, Any]  # of a vocabulary
RISK = 0.001  # of any false alarm in a report, were all limits zero
BANDS = 20  # of a field's values, at most, with about as many rows each
FEWEST = 5  # rows of a band that are expected in the smaller sample


@dataclass(frozen=True)
class Check:
    """One figure of the new log beside that of the reference.

    Attributes:
        what: psi, unseen, missing, year, density, rejected, label_rate, auc, logloss or ece.
        field: whose; None for a figure of the whole log.
        reference, new: of the two samples; for psi what chance gives on average, and what was found.
        limit: the value of `change` above which there is an alarm: that of params.yaml, or more by noise.
        change: how much the figure has changed for the worse.
    """

    what: str
    field: str | None
    reference: float
    new: float
    change: float
    limit: float

    @property
    def alarm(self) -> bool:
        """Whether it changed too much."""
        return not self.change <= self.limit  # NaN is an alarm, too

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "alarm": self.alarm}


@dataclass(frozen=True)
class Noise:
    """How much the figures of n new rows and m rows of the reference differ by chance, in `tests` checks."""

    n: int
    m: int
    tests: int

    @property
    def z(self) -> float:
        """Standard deviations that chance exceeds, to either side, once in 1000 reports."""
        return float(stats.norm.isf(RISK / (2 * self.tests)))

    @property
    def rows(self) -> float:
        """1/n + 1/m."""
        return 1 / max(self.n, 1) + 1 / max(self.m, 1)

    def of_share(self, reference: float, new: float) -> float:
        """Of the difference of two shares."""
        pooled = (reference * self.m + new * self.n) / max(self.m + self.n, 1)
        return self.z * float(np.sqrt(max(pooled * (1 - pooled), 1 / max(self.n, 1)) * self.rows))


def counts(entry: Entry, field: Field, first: int, ids: Array) -> Array:
    """Count the rows by the ids of a field: (size + 1,), of which the last is that of empty bags.

    A row counts once: each value of a bag by its share of the row, a number by its bin.

    Args:
        first: the field's first id.
        ids: its columns (n, slots).
    """
    result = np.zeros(field.size + 1)
    if entry["kind"] == "bag":
        there = ids != EMPTY
        size = there.sum(1)
        weight = np.broadcast_to(1 / np.maximum(size, 1)[:, None], ids.shape)[there]
        result[:-1] = np.bincount(ids[there] - first, weight, field.size)
        result[-1] = (size == 0).sum()
    else:  # of a number in steps the last bin is its own
        result[:-1] = np.bincount(ids.max(1) - first, minlength=field.size)
    return result


def missing_id(entry: Entry) -> int | None:
    """Return where `counts` has the rows without a value; None if training saw no such row."""
    if entry["kind"] == "bag":
        return -1
    if entry["kind"] == "number":
        return 1 if entry["missing"] else None
    return entry["values"].index(None) + 1 if None in entry["values"] else None


def banded(reference: Array, new: Array, apart: Sequence[int]) -> tuple[Array, Array]:
    """Join the counts of ids that follow each other into bands of about as many rows of the reference.

    Neighbours are alike: bins of a number, or values that are about as frequent.

    Args:
        apart: ids that are bands of their own: unseen and missing.
    """
    rest = np.delete(np.arange(len(reference)), apart)
    total, n = reference.sum(), new.sum()
    width = max(total / BANDS, FEWEST * max(1.0, total / max(n, 1)))
    middle = np.cumsum(reference[rest]) - reference[rest] / 2
    band = (middle / width).astype(np.int64)
    both = [np.concatenate([side[list(apart)], np.bincount(band, side[rest])]) for side in (reference, new)]
    used = (both[0] > 0) | (both[1] > 0)
    return both[0][used], both[1][used]


def index(p: Array, q: Array) -> float:
    """Return the population stability index of two distributions (K,), the sum of (p - q) ln(p / q)."""
    return float(np.sum((p - q) * np.log(p / q)))


def stability(reference: Array, new: Array, noise: Noise) -> tuple[float, float, float]:
    """Return the population stability index of two samples by band, its mean by chance, and its noise.

    PSI = sum over bands of (p - q) ln(p / q). Of two samples of one log, n m / (n + m) PSI is nearly
    chi-square with one degree of freedom less than there are bands. Source: Yurdakul and Naranjo,
    "Statistical Properties of the Population Stability Index", Journal of Risk Model Validation, 2020.
    """
    q, p = ((side + 0.5) / (side.sum() + 0.5 * len(side)) for side in (reference, new))
    free = max(len(q) - 1, 1)
    bound = float(stats.chi2.isf(RISK / noise.tests, free)) * noise.rows
    return index(p, q), (len(q) - 1) * noise.rows, bound


def of_field(
    entry: Entry, reference: Array, new: Array, missing: float, limits: Any, noise: Noise
) -> list[Check]:
    """Check one field by its `counts`.

    Args:
        missing: share of new rows without a value, which has the unseen id if training saw none.
        limits: the block `watch` of params.yaml.
    """
    name, absent = entry["name"], missing_id(entry)
    n, m = max(new.sum(), 1), max(reference.sum(), 1)
    apart = [0] if absent is None else [0, absent % len(reference)]
    psi, chance, bound = stability(*banded(reference, new, apart), noise)
    old = [reference[0] / m, 0.0 if absent is None else reference[absent] / m]
    now = [new[0] / n - (missing if absent is None else 0), missing]
    unseen, gone = (noise.of_share(a, b) for a, b in zip(old, now, strict=True))
    return [
        Check("psi", name, chance, psi, psi, max(limits.psi + chance, bound)),
        Check("unseen", name, old[0], now[0], now[0] - old[0], max(limits.unseen, unseen)),
        Check("missing", name, old[1], now[1], abs(now[1] - old[1]), max(limits.missing, gone)),
    ]


def binned(probability: Array) -> dict[str, list[float]]:
    """Return the `edges` of bins of probabilities (m,), about as many in each, and the `counts` in them."""
    edges = np.unique(np.quantile(probability, np.linspace(0, 1, BANDS + 1)[1:-1]))
    return {"edges": edges.tolist(), "counts": _in_bins(edges, probability).tolist()}


def _in_bins(edges: Array, probability: Array) -> Array:
    return np.bincount(np.searchsorted(edges, probability), minlength=len(edges) + 1).astype(float)


def of_predictions(reference: Mapping[str, Any], new: Array, limits: Any, noise: Noise) -> Check:
    """Check the distribution of the predicted probabilities (n,), by the bins of the reference (`binned`)."""
    old, now = np.array(reference["counts"]), _in_bins(np.array(reference["edges"], new.dtype), new)
    psi, chance, bound = stability(*banded(old, now, ()), noise)
    return Check("psi", "prediction", chance, psi, psi, max(limits.psi + chance, bound))


def of_labels(
    label: Array, probability: Array, promise: Mapping[str, float], limits: Any, bins: int, noise: Noise
) -> list[Check]:
    """Check the label rate, and what the model is worth on new rows.

    Args:
        label, probability: of the new rows (n,).
        promise: on the test rows `base_rate`, `auc`, its `auc_standard_error`, `logloss`, the standard
            deviation `logloss_std` of the rows, and `ece`.
        bins: of the calibration error.
    """
    rate, base = float(np.mean(label)), promise["base_rate"]
    share = noise.of_share(base, rate) / base
    found = [Check("label_rate", None, base, rate, abs(rate / base - 1), max(limits.label_rate, share))]
    clicks = int(label.sum())
    if min(clicks, len(label) - clicks) < 2:  # no AUC; the rate says enough
        return found
    auc = estimate(label, [probability], None)
    spread = noise.z * float(np.hypot(auc.error, promise["auc_standard_error"]))
    value = metrics.auc(label, probability)
    found.append(Check("auc", None, promise["auc"], value, promise["auc"] - value, max(limits.auc, spread)))
    loss = metrics.losses(label, probability)
    value = float(loss.mean())
    spread = noise.z * float(np.sqrt(loss.var() / noise.n + promise["logloss_std"] ** 2 / noise.m))
    change = value - promise["logloss"]
    found.append(Check("logloss", None, promise["logloss"], value, change, max(limits.logloss, spread)))
    value = metrics.calibration_error(label, probability, bins)
    # of right probabilities: the mean of |gap| in a bin of n / bins rows, and that of so many bins by chance
    chance = float(np.sqrt(2 / np.pi * np.mean(probability * (1 - probability)) * bins / noise.n))
    most = chance * (1 + noise.z * np.sqrt((np.pi / 2 - 1) / bins))
    change, limit = value - promise["ece"], max(limits.ece + chance, float(most))
    found.append(Check("ece", None, promise["ece"], value, change, limit))
    return found


def of_rejects(rows_in: int, rejected: int, limits: Any, noise: Noise) -> Check:
    """Check the share of rows that could not be read."""
    share = rejected / max(rows_in, 1)
    chance = noise.z * float(np.sqrt(limits.rejected * (1 - limits.rejected) / max(rows_in, 1)))
    return Check("rejected", None, 0.0, share, share, limits.rejected + chance)
