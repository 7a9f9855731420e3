"""Do the intervals of the report hold what they promise?

    python -m benchmarks.intervals [tries]      default 500; some minutes

Logs are drawn, with users who click more or less than the fields say, and scores for them; nothing is
trained.

Null: 41 rows of a leaderboard are one model, each trained on three seeds. A training shifts the model a
little in a direction of its own, which costs AUC, and adds noise to each score. Nothing differs, so a table
of 40 comparisons with anything bold is an error, which may happen in 5 % of all tables. Beside the report's
test: what is left of it without each of its parts.

Coverage: two models know the users' tastes with different errors. Their true AUCs are measured on a log of
two million rows. How often do the 95 % intervals of an AUC and of the difference contain the truth?
"""

import sys
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
from scipy import special

from pipeline import metrics
from pipeline.metrics import Array
from pipeline.statistics.significance import LEVEL, Estimate, compare, estimate, holm

Rng = np.random.Generator
DIRECTIONS = 4


def draw_log(rng: Rng, users: int, rows: int) -> tuple[Array, Array, Array, Array]:
    """Return label (N,), user (N,), what the fields say of a row (N, 4), and each user's own taste (U,)."""
    user, taste = rng.integers(users, size=rows), rng.normal(size=users)
    fields = rng.normal(size=(rows, DIRECTIONS))
    click = rng.random(rows) < special.expit(fields.sum(1) / 2 + taste[user] - 0.5)
    return click.astype(np.uint8), user, fields, taste


def train(rng: Rng, user: Array, fields: Array, known: Array, shift: float = 0.06) -> Array:
    """Return the scores (N,) of one training: the fields' weights and each score a little off."""
    weights = 0.5 + shift * rng.normal(size=DIRECTIONS)
    return fields @ weights + known[user] + 0.2 * rng.normal(size=len(user))


def null_tables(rng: Rng, tries: int, *, models: int = 41, seeds: int = 3) -> dict[str, float]:
    """Return the share of null tables in which anything is bold, by the kind of test."""
    found = dict.fromkeys(("report", "one seed", "no seeds in it", "no Holm", "rows only, no Holm"), 0)
    for _ in range(tries):
        label, user, fields, taste = draw_log(rng, 200, 2000)
        known = taste + rng.normal(size=len(taste))
        scores = [[train(rng, user, fields, known) for _ in range(seeds)] for _ in range(models)]
        by_user = [estimate(label, row, user) for row in scores]
        by_row = [estimate(label, row) for row in scores]
        first = [estimate(label, row[:1], user) for row in scores]
        p = [test["p"] for test in _against_first(by_user)]
        found["report"] += min(holm(p)) < LEVEL
        found["no Holm"] += min(p) < LEVEL
        found["one seed"] += min(holm([test["p"] for test in _against_first(first)])) < LEVEL
        found["no seeds in it"] += min(holm(_p_of_rows(by_user))) < LEVEL
        found["rows only, no Holm"] += min(_p_of_rows(by_row)) < LEVEL
    return {name: count / tries for name, count in found.items()}


def coverage(
    rng: Rng, tries: int, *, users: int = 300, rows: int = 9000, true_rows: int = 2_000_000
) -> dict[str, float]:
    """Return how often intervals contain the true AUC and the true difference, by user and by row."""
    errors = 0.7, 1.2  # of what each model knows of a user
    label, user, fields, taste = draw_log(rng, 100_000, true_rows)
    truth = [metrics.auc(label, _score(rng, user, fields, taste, error)) for error in errors]
    found = dict.fromkeys(("AUC, by user", "AUC, by row", "difference, by user", "difference, by row"), 0)
    for _ in range(tries):
        label, user, fields, taste = draw_log(rng, users, rows)
        scores = [_score(rng, user, fields, taste, error) for error in errors]
        for kind, group in (("user", user), ("row", None)):
            a, b = (estimate(label, [score], group) for score in scores)
            low, high = a.interval()
            found[f"AUC, by {kind}"] += low <= truth[0] <= high
            test = compare(a, b)
            found[f"difference, by {kind}"] += test["low"] <= truth[0] - truth[1] <= test["high"]
    return {name: count / tries for name, count in found.items()}


def _score(rng: Rng, user: Array, fields: Array, taste: Array, error: float) -> Array:
    return train(rng, user, fields, taste + error * rng.normal(size=len(taste)), shift=0)


def _against_first(rows: list[Estimate]) -> Iterator[dict[str, float]]:
    return (compare(rows[0], row) for row in rows[1:])


def _p_of_rows(rows: list[Estimate]) -> list[float]:
    """Two-sided p of the normal test without the variance of the seeds, as the report had it once."""
    p = []
    for row in rows[1:]:
        gap = Estimate(
            0, rows[0].positive - row.positive, rows[0].negative - row.negative, row.clusters, None, 1
        )
        p.append(2 * NormalDist().cdf(-abs(rows[0].auc - row.auc) / gap.row_error))
    return p


def main() -> None:
    """Print both tables."""
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    rng = np.random.default_rng(2026)
    print(f"Null: share of {tries} tables of 40 comparisons with anything bold (5 % allowed)")
    for name, share in null_tables(rng, tries).items():
        print(f"  {name:20} {share:6.1%}")
    print(f"Coverage of 95 % intervals in {4 * tries} logs of 300 users and 9,000 rows")
    for name, share in coverage(rng, 4 * tries).items():
        print(f"  {name:20} {share:6.1%}")


if __name__ == "__main__":
    main()
