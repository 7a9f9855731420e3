"""Models over several splits of a log and over several logs, from their report.json files alone.

Entries whose source, rows and clicks are equal are splits of one log. Whatever is chosen (a model's variant,
and the model that the others are compared with) is chosen by mean validation AUC.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json, require_file, target
from pipeline.common.names import stem
from pipeline.common.text import counted, with_interval
from pipeline.evaluate.report import correct, same_scores
from pipeline.statistics.significance import LEVEL, corrected_resampled_t

Block = dict[str, Any]
TEST = ("difference", "low", "high", "p", "p_holm")


def read_reports(folder: Path, names: Sequence[str]) -> list[Block]:
    """Read the reports of dataset entries.

    Args:
        folder: data/reports.

    Raises:
        PipelineError: a report is missing or was written before reports had the rows of each split, or a name
            is given twice.
    """
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PipelineError(f"given twice: {', '.join(twice)}")
    reports = []
    for name in names:
        path = require_file(folder / name / "report.json", "evaluate")
        report = read_json(path)
        if not report.get("splits"):
            raise PipelineError(f"{path} lacks the rows of each split; {target('evaluate', name)}")
        reports.append(report)
    return reports


def join(reports: Sequence[Block]) -> Block:
    """Return what the tables and the picture show: `logs`, each with its `splits`, and `ranks` over the logs.

    `ranks` is None with fewer than two logs or three models that all of them have.

    Raises:
        PipelineError: two reports are of the same test rows, so that they are no two splits.
    """
    by_log: dict[Any, list[Block]] = {}
    for report in reports:
        total = [sum(split[key] for split in report["splits"].values()) for key in ("rows", "clicks")]
        source = (report.get("origin") or {}).get("source")
        by_log.setdefault((source, *total), []).append(report)
    for group in by_log.values():
        _check_rows(group)
    logs = [_over_splits(group) for group in by_log.values()]
    return {"logs": logs, "ranks": _over_logs(logs)}


def _check_rows(reports: Sequence[Block]) -> None:
    seen: dict[str, str] = {}
    for report in reports:
        rows, name = report.get("test_rows"), report["dataset"]
        if rows in seen:
            raise PipelineError(
                f"{seen[rows]} and {name} have the same test rows: they are no two splits of a log, over "
                "which a difference could be tested; leave one of them out, and compare their settings by "
                "their own reports, or by entries that differ in `split: {seed: ...}`"
            )
        if rows is not None:
            seen[rows] = name


def _over_splits(reports: list[Block]) -> Block:
    """Compare the models over the splits of one log."""
    results = [{(r["model"], r["variant"]): r for r in report["results"]} for report in reports]
    models = [model for model, variant in results[0] if variant == "default"]
    common = [
        m for m in models if all((m, "default") in found and (m, "tuned") in found for found in results)
    ]
    ratio = float(np.mean([r["splits"]["test"]["rows"] / r["splits"]["train"]["rows"] for r in reports]))
    rows: list[Block] = []
    for model in common:
        valid = {
            v: float(np.mean([found[model, v]["valid_auc"] for found in results]))
            for v in ("default", "tuned")
        }
        test = {v: [float(found[model, v]["mean"]["auc"]) for found in results] for v in valid}
        variant = max(valid, key=lambda name: valid[name])  # the default where both are equal
        rows.append({"model": model, "variant": variant, "valid_auc": valid[variant], "test": test})
    rows.sort(key=lambda row: (-row["valid_auc"], row["model"]))
    best, tests = rows[0], []
    for row in rows if len(reports) > 1 else []:
        pairs = {"tuning": (row["test"]["tuned"], row["test"]["default"])}
        if row is not best:
            pairs["to_best"] = best["test"][best["variant"]], row["test"][row["variant"]]
        for name, (first, second) in pairs.items():
            row[name] = corrected_resampled_t(list(np.subtract(first, second)), ratio)
            tests.append(row[name])
    correct(tests)
    names = [report["dataset"] for report in reports]
    everyone = {model for found in results for model, _ in found}
    return {
        "log": _name(names),
        "splits": names,
        "ratio": ratio,
        "best": best["model"],
        "rows": rows,
        "left_out": sorted(everyone - {*common}),
    }


def _over_logs(logs: list[Block]) -> Block | None:
    """Rank the models on each log; the test of Friedman and the critical difference of Nemenyi.

    Source: Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, 2006.
    """
    found = [
        {row["model"]: float(np.mean(row["test"][row["variant"]])) for row in log["rows"]} for log in logs
    ]
    models = [model for model in found[0] if all(model in other for other in found)]
    if len(logs) < 2 or len(models) < 3:
        return None
    from scipy import stats

    auc = np.array([[other[model] for model in models] for other in found])  # (D, K)
    mean = stats.rankdata(-auc, axis=1).mean(0)
    D, K = auc.shape
    order = sorted(range(K), key=lambda k: (mean[k], models[k]))
    q = float(stats.studentized_range.ppf(1 - LEVEL, K, np.inf)) / np.sqrt(2)
    return {
        "models": [models[k] for k in order],
        "mean_ranks": [float(mean[k]) for k in order],
        "friedman_p": float(stats.friedmanchisquare(*auc.T).pvalue),
        "critical_difference": float(q * np.sqrt(K * (K + 1) / (6 * D))),
        "logs": [log["log"] for log in logs],
    }


def cliques(ranks: Sequence[float], distance: float) -> list[tuple[int, int]]:
    """Return the longest runs (first, last) of sorted mean ranks that lie within a distance of each other.

    >>> cliques([1.0, 1.5, 2.6, 4.9], 1.2)
    [(0, 1), (1, 2)]
    """
    found: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(i for i in range(first, len(ranks)) if ranks[i] - ranks[first] <= distance)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def to_markdown(joined: Block, picture: str | None = None) -> str:
    """Return the comparison as a page."""
    lines = []
    for log in joined["logs"]:
        lines += [
            f"# {log['log']}: {counted(len(log['splits']), 'split')}",
            "",
            *_table(log),
            "",
            _words(log),
            "",
        ]
    if ranks := joined["ranks"]:
        lines += [
            f"# Mean ranks over {len(ranks['logs'])} logs",
            "",
            "| model | mean rank |",
            "| --- | ---: |",
        ]
        lines += [f"| {m} | {r:.2f} |" for m, r in zip(ranks["models"], ranks["mean_ranks"], strict=True)]
        lines += ["", _rank_words(ranks), ""]
        lines += [f"![critical difference]({picture})", ""] if picture else []
    return "\n".join(lines).rstrip() + "\n"


def to_csv(joined: Block) -> str:
    """Return one row per log and model; a test that was not made has empty cells."""
    names = ("tuning", "to_best")
    header = ["log", "splits", "model", "variant", "best", "valid_auc", "default_auc", "tuned_auc"]
    header += [f"{name}_{key}" for name in names for key in TEST]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for log in joined["logs"]:
        for row in log["rows"]:
            head = [
                log["log"],
                len(log["splits"]),
                row["model"],
                row["variant"],
                int(row["model"] == log["best"]),
            ]
            figures = [row["valid_auc"], *(float(np.mean(row["test"][v])) for v in ("default", "tuned"))]
            tests = [row.get(name, {}).get(key) for name in names for key in TEST]
            writer.writerow(
                [*head, *("" if value is None else f"{value:.6f}" for value in (*figures, *tests))]
            )
    return text.getvalue()


def _table(log: Block) -> list[str]:
    head = ["model", "default", "tuned", "valid AUC"]
    several = len(log["splits"]) > 1
    if several:
        head += ["tuned - default", f"{log['best']} - this model"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in log["rows"]:
        is_best = row["model"] == log["best"]
        close = "to_best" in row and row["to_best"]["p_holm"] >= LEVEL
        cells = [row["model"] + (" ★" if is_best else " ≈" if close else "")]
        for variant, values in row["test"].items():
            text = f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if several else "")
            cells.append(f"{text} ✓" if variant == row["variant"] else text)
        cells.append(f"{row['valid_auc']:.4f}")
        lines.append([*cells, *(_cell(row.get(name)) for name in ("tuning", "to_best") if several)])
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _cell(test: Block | None) -> str:
    if test is None or same_scores(test):
        return "" if test is None else "the same"
    text = with_interval(test)
    return f"**{text}**" if test["p_holm"] < LEVEL else text


def _words(log: Block) -> str:
    if len(log["splits"]) == 1:
        return (
            "Test AUC, mean over seeds; ✓ marks the variant with the higher validation AUC. One split "
            "allows no test over splits; its own report tests over rows."
        )
    missing = ", ".join(log["left_out"])
    left_out = f" Not in all of these reports, and left out: {missing}." if missing else ""
    tests = [row[name] for row in log["rows"] for name in ("tuning", "to_best") if name in row]
    count = sum(not same_scores(test) for test in tests)
    return (
        f"Test AUC, mean ± standard deviation over {', '.join(log['splits'])} (each the mean over its "
        "seeds). ★ has the best mean validation AUC; the others are compared with it, each with the variant "
        "whose mean validation AUC is higher (✓). Intervals of 95 % by the corrected resampled t-test "
        "(Nadeau and Bengio 2003), which allows for the rows that splits share (test / train rows "
        f"{log['ratio']:.3f}); **bold** if significant at 5 % after Holm's correction for all "
        f"{counted(count, 'comparison')}, ≈ if a model cannot be distinguished from ★.{left_out}"
    )


def _rank_words(ranks: Block) -> str:
    return (
        f"Rank 1 is the best test AUC on a log ({', '.join(ranks['logs'])}), each model with its variant "
        "that is better on validation data. The test of Friedman that all models are equal has p = "
        f"{ranks['friedman_p']:.2g}. Two models differ at 5 % (Nemenyi, all pairs) if their mean ranks are "
        f"{ranks['critical_difference']:.2f} apart (Demsar 2006)."
    )


def _name(splits: list[str]) -> str:
    """Return the name of the log that these entries are splits of.

    >>> _name(["ml-100k-s1", "ml-100k-s2"]), _name(["ml-s1"]), _name(["a", "b"])
    ('ml-100k', 'ml-s1', 'a, b')
    """
    stems = {stem(name) for name in splits}
    return stems.pop() if len(splits) > 1 and len(stems) == 1 else ", ".join(splits)
