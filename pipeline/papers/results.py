"""An exhibit as values: each model's figures on each log, and which claims hold."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from pipeline.common.errors import PipelineError
from pipeline.common.names import stem
from pipeline.papers.exhibit import Block, Claim, Exhibit, Figures
from pipeline.papers.experiment import Cell
from pipeline.statistics.significance import LEVEL, Test, compare, corrected_resampled_t, holm

CONDITIONS = {"published": "their settings", "default": "our defaults", "tuned": "tuned alike"}
ENOUGH = 3  # splits that are compared over the splits where they come from several places
AGAIN = "it is damaged, or of another version; make it again by `dvc repro paper@<name>`"
TEST = ("difference", "low", "high", "p")
OPTIMUM = ("condition", "model", "chosen", "paper")
Part = tuple[str, Block]  # where a log's results lie, and the log


def join(
    exhibit: Exhibit,
    logs: dict[str, tuple[str, list[Cell]]],
    ratios: dict[str, float],
    absent: dict[str, dict[str, str]] | None = None,
) -> Block:
    """Return what the page, the table and the picture show.

    Args:
        logs: by name, the source and the cells of all its splits.
        ratios: test over train rows of each log.
        absent: of each log the rows without cells, by label, and why (`experiment.absent`).
    """
    shown = []
    for name, (source, cells) in logs.items():
        rows = [_row(exhibit, source, list(group)) for _, group in groupby(sorted(cells, key=_key), key=_key)]
        log: Block = {
            "log": name,
            "source": source,
            "splits": sorted({cell.dataset for cell in cells}),
            "test_over_train": ratios[name],
            "rows": rows,
        }
        tested: dict[tuple[str, Claim], Test] = {}
        for condition in CONDITIONS:
            estimates = {cell.row.label: cell.estimate for cell in cells if cell.condition == condition}
            for claim in _told(exhibit, estimates):
                tested[condition, claim] = (
                    compare(estimates[claim.better], estimates[claim.worse])
                    if len(log["splits"]) == 1
                    else _by_splits(log, condition, claim)
                )
        log["claims"] = _claims(exhibit, source, tested)
        if exhibit.sweep is not None and len(log["splits"]) == 1 and (by := _by_rows(exhibit, log, cells)):
            log["optima"] = by
        shown.append(log | ({"absent": reasons} if (reasons := (absent or {}).get(name)) else {}))
    return _result(exhibit, shown)


def _result(exhibit: Exhibit, logs: Sequence[Block]) -> Block:
    return {"exhibit": exhibit.name, "paper": exhibit.paper, "title": exhibit.title, "logs": logs}


def _key(cell: Cell) -> tuple[str, str, int]:
    return cell.condition, cell.row.label, -1 if cell.value is None else cell.value


def _row(exhibit: Exhibit, source: str, cells: Sequence[Cell]) -> Block:
    """Return the mean of a model over the splits of a log, with its interval."""
    first = cells[0]
    means = [float(np.mean(cell.auc)) for cell in cells]
    low, high = first.estimate.interval() if len(cells) == 1 else (None, None)
    value = None if first.value is None or exhibit.sweep is None else exhibit.sweep.names[first.value]
    return {
        "model": first.row.label,
        "value": value,
        "condition": first.condition,
        "seeds": len(first.auc),
        "valid_auc": float(np.mean([cell.valid for cell in cells])),
        "auc": float(np.mean(means)),
        "of_splits": means,
        "low": low,
        "high": high,
        "logloss": float(np.mean([np.mean(cell.logloss) for cell in cells])),
        "weights": first.weights,
        "capped": sum(cell.capped for cell in cells),
        "dead": sum(cell.dead for cell in cells),
        "megabytes": first.megabytes,
        "published": first.row.published.get(source, Figures())._asdict(),
    }


def _told(exhibit: Exhibit, labels: Mapping[str, object]) -> list[Claim]:
    """Return the claims about these rows alone."""
    return [claim for claim in exhibit.claims if {claim.better, claim.worse} <= labels.keys()]


def _by_splits(log: Block, condition: str, claim: Claim) -> Test:
    of = {row["model"]: row["of_splits"] for row in log["rows"] if row["condition"] == condition}
    pairs = zip(of[claim.better], of[claim.worse], strict=True)
    return corrected_resampled_t([better - worse for better, worse in pairs], log["test_over_train"])


def _claims(exhibit: Exhibit, source: str, tested: Mapping[tuple[str, Claim], Test]) -> list[Block]:
    """Return the claims by condition, with the verdicts after Holm's correction for all of them."""
    published = {row.label: row.published.get(source, Figures()).auc for row in exhibit.rows}
    corrected = holm([test["p"] for test in tested.values()])
    found: list[Block] = []
    for ((condition, claim), test), p in zip(tested.items(), corrected, strict=True):
        better, worse = published[claim.better], published[claim.worse]
        difference = None if better is None or worse is None else better - worse
        verdict = _verdict(test, p)
        about = {"condition": condition, **vars(claim), "published": difference}
        found.append({**about, **test, "p_holm": p, "verdict": verdict})
    return found


def optima(exhibit: Exhibit, log: Block) -> list[Block]:
    """Return, for each model and condition of a figure, the best value: ours beside that of the paper.

    Ours is chosen on validation rows, so that its test AUC is no luckier than that of the paper's value.

    Returns:
        In the order of the models: model, condition, `chosen`, and if the paper names a value `paper` and the
        `difference` in test AUC, the paper's less ours; where the two are not the same, its test, over the
        splits if they are enough, by the test rows if there is one, with the verdict after Holm's correction:
        -1 where the paper's is worse.
    """
    assert exhibit.sweep is not None, exhibit.name
    by_rows = {tuple(test[key] for key in OPTIMUM): test for test in log.get("optima", [])}
    best = None if exhibit.sweep.best is None else exhibit.sweep.names[exhibit.sweep.best]
    found: list[Block] = []
    for condition in CONDITIONS:
        for model in (row.label for row in exhibit.rows):
            of = {r["value"]: r for r in log["rows"] if (r["model"], r["condition"]) == (model, condition)}
            if not of:
                continue
            chosen = max(of.values(), key=lambda row: row["valid_auc"])
            found.append({"model": model, "condition": condition, "chosen": chosen["value"]})
            if best in of:
                apart = np.subtract(of[best]["of_splits"], chosen["of_splits"]).tolist()
                found[-1] |= {"paper": best, "difference": float(np.mean(apart))}
                if best == chosen["value"]:
                    continue
                if len(apart) >= ENOUGH:
                    found[-1] |= corrected_resampled_t(apart, log["test_over_train"])
                elif test := by_rows.get((condition, model, chosen["value"], best)):
                    found[-1] |= {key: test[key] for key in TEST}
    tested = [test for test in found if "p" in test]
    for test, p in zip(tested, holm([test["p"] for test in tested]), strict=True):
        test["verdict"] = _verdict(test, p)
    return found


def _by_rows(exhibit: Exhibit, log: Block, cells: Sequence[Cell]) -> list[Block]:
    """Return the tests by the test rows of one split of what `optima` compares, which has scores no more."""
    assert exhibit.sweep is not None
    estimates = {
        (cell.condition, cell.row.label, exhibit.sweep.names[cell.value]): cell.estimate
        for cell in cells
        if cell.value is not None
    }
    return [
        {key: test[key] for key in OPTIMUM}
        | compare(*(estimates[test["condition"], test["model"], test[key]] for key in ("paper", "chosen")))
        for test in optima(exhibit, log)
        if test.get("paper", test["chosen"]) != test["chosen"]
    ]


def _verdict(test: Mapping[str, Any], p: float) -> int:
    return (1 if test["difference"] > 0 else -1) if p < LEVEL else 0


def union(exhibit: Exhibit, found: Mapping[str, Block]) -> Block:
    """Return results that were made in several places as one: the splits of a log, or several logs.

    Splits of a log are put together by condition, if there are three at least: with two, a test over the
    splits tells nothing, and each keeps the test by its rows. A table over some of the splits that another
    table of the same place has all of is left out. What two conditions have the same splits of is one table;
    a condition that has others has a table of its own. A row that some of the splits lack is left out, and
    named. What was noted of a part is noted of the whole. Claims over splits that come from several places
    are tested by the splits, Holm's correction is made again.

    Args:
        found: what `join` returned, or this function, by where it lies.

    Raises:
        PipelineError: two places have the same split, or results that cannot be one.
    """
    parts: dict[tuple[str, str], list[Part]] = {}
    for where, result in found.items():
        for log in result["logs"]:
            for condition in dict.fromkeys(row["condition"] for row in log["rows"]):
                if not any(_has(other, log, condition) for other in result["logs"]):
                    parts.setdefault((stem(log["log"]), condition), []).append((where, log))
    tables: dict[tuple[str, tuple[str, ...]], dict[str, list[Part]]] = {}
    for (name, condition), of in parts.items():
        splits = _splits(of)
        for together in [of] if len(splits) >= ENOUGH else [[one] for one in of]:
            tables.setdefault((name, _splits(together)), {})[condition] = together
    names = list(dict.fromkeys(name for name, _ in parts))
    order = sorted(tables, key=lambda table: (names.index(table[0]), -len(table[1])))
    return _result(exhibit, [_table(exhibit, list(splits), tables[name, splits]) for name, splits in order])


def _has(other: Block, log: Block, condition: str) -> bool:
    """Whether another table of the same place has all splits of a log in a condition, and more."""
    conditions = {row["condition"] for row in other["rows"]}
    return set(log["splits"]) < set(other["splits"]) and condition in conditions


def _splits(parts: Sequence[Part]) -> tuple[str, ...]:
    """Return the splits of all parts.

    Raises:
        PipelineError: one is in two, or they were not cut alike.
    """
    shares = [log["test_over_train"] for _, log in parts]
    if max(shares) > 1.01 * min(shares):
        raise PipelineError(
            f"test rows over train rows are {shares[0]:.3f} in {parts[0][0]} and not so in another: splits "
            "of one log are cut alike, so make one of them again, or name its entry otherwise"
        )
    places: dict[str, str] = {}
    for where, log in parts:
        for split in log["splits"]:
            if split in places:
                raise PipelineError(f"{split} is in {places[split]} and in {where}: give one of them")
            places[split] = where
    return tuple(sorted(places))


def _table(exhibit: Exhibit, splits: list[str], conditions: Mapping[str, Sequence[Part]]) -> Block:
    (_, first), *_ = next(iter(conditions.values()))
    ratios = [log["test_over_train"] for parts in conditions.values() for _, log in parts]
    table: Block = {
        "log": splits[0],
        "source": first["source"],
        "splits": splits,
        "test_over_train": float(np.mean(ratios)),
        "rows": [],
    }
    absent: dict[str, str] = {}
    notes: list[str] = []
    for condition in sorted(conditions):
        parts = conditions[condition]
        for _, log in parts:
            absent |= log.get("absent", {})
            notes.append(log.get("note", ""))
        for key, rows in _grouped(exhibit, condition, parts).items():
            trained = [split for _, log in rows for split in log["splits"]]
            if len(trained) < len(splits):
                absent.setdefault(key[0], f"its trainings are of {' and '.join(sorted(trained))} alone")
            else:
                table["rows"].append(_mean(rows))
    tested: dict[tuple[str, Claim], Test] = {}
    for condition in (condition for condition in CONDITIONS if condition in conditions):
        labels = {row["model"]: row for row in table["rows"] if row["condition"] == condition}
        for claim in _told(exhibit, labels):
            tested[condition, claim] = (
                _known(*conditions[condition][0], condition, claim)
                if len(conditions[condition]) == 1
                else _by_splits(table, condition, claim)
            )
    table["claims"] = _claims(exhibit, first["source"], tested)
    note = " ".join(dict.fromkeys(note for note in notes if note))
    if len(splits) == 1:  # each condition is of one place then
        parts_of = {condition: log for condition, ((_, log),) in conditions.items()}
        by_rows = [t for c, log in parts_of.items() for t in log.get("optima", []) if t["condition"] == c]
        table |= {"optima": by_rows} if by_rows else {}
    return table | ({"absent": absent} if absent else {}) | ({"note": note} if note else {})


def _grouped(
    exhibit: Exhibit, condition: str, parts: Sequence[Part]
) -> dict[tuple[str, str | None], list[tuple[Block, Block]]]:
    """Return by model and value the rows of a condition, each with its log.

    Raises:
        PipelineError: they have different numbers of seeds, or are no rows of this table.
    """
    labels = [row.label for row in exhibit.rows]
    names = (None,) if exhibit.sweep is None else exhibit.sweep.names
    found: dict[tuple[str, str | None], list[tuple[Block, Block]]] = {}
    for where, log in parts:
        for row in (row for row in log["rows"] if row["condition"] == condition):
            if row["model"] not in labels or row["value"] not in names:
                told = f"{row['model']} {row['value'] or ''}".rstrip()
                raise PipelineError(f"{where}: {exhibit.name} has no row {told}: {AGAIN}")
            rows = found.setdefault((row["model"], row["value"]), [])
            if rows and rows[0][0]["seeds"] != row["seeds"]:
                raise PipelineError(
                    f"{where}: {row['model']} has {row['seeds']} seeds on {log['splits'][0]}, and "
                    f"{rows[0][0]['seeds']} on {rows[0][1]['splits'][0]}: train both with the same seeds"
                )
            rows.append((row, log))
    return dict(sorted(found.items(), key=lambda each: (each[0][0], names.index(each[0][1]))))


def _mean(rows: Sequence[tuple[Block, Block]]) -> Block:
    """Return the row of a model over the splits of several logs, or that of one as it is."""
    (first, _), *others = rows
    if not others:
        return first
    of_splits = sorted(
        (split, auc) for row, log in rows for split, auc in zip(log["splits"], row["of_splits"], strict=True)
    )
    weights = [len(row["of_splits"]) for row, _ in rows]
    means = {
        key: float(np.average([row[key] for row, _ in rows], weights=weights))
        for key in ("valid_auc", "auc", "logloss")
    }
    return {
        **first,
        **means,
        "of_splits": [auc for _, auc in of_splits],
        "low": None,
        "high": None,
        "capped": sum(row["capped"] for row, _ in rows),
        "dead": sum(row.get("dead", 0) for row, _ in rows),
    }


def _known(where: str, log: Block, condition: str, claim: Claim) -> Test:
    """Return the test of a claim that has been made where all its splits were.

    Raises:
        PipelineError: it has not.
    """
    about = {"condition": condition, **vars(claim)}
    test = next((test for test in log["claims"] if about.items() <= test.items()), None)
    if test is None:
        raise PipelineError(f"{where}: {claim.better} > {claim.worse} has no test ({condition}): {AGAIN}")
    return {key: test[key] for key in TEST}
