"""The report as a table: CSV for programs, Markdown and plain text for people.

Rows are ordered by mean test AUC. The champion is marked; the report chose it by validation metrics.
"""

import csv
import io
from collections.abc import Sequence
from typing import Any

from pipeline.common.text import counted
from pipeline.download.manifest import differences
from pipeline.evaluate import mechanisms

Block = dict[str, Any]
TOLD_COPIES = 0.01  # share of test rows that are copies of train rows, above which the page says so
METRICS = {
    "auc": "AUC",
    "logloss": "logloss",
    "normalised_entropy": "NE",
    "gauc": "gAUC",
    "ece": "ECE",
}


def to_csv(report: Block) -> str:
    """Return every metric of every model and variant to six decimals; a missing one is an empty cell."""
    header = ["model", "variant", "champion", "seeds", "trials", "weights", "valid_auc", "valid_logloss"]
    header += [column for key in METRICS for column in (key, f"{key}_std")]
    header += ["auc_standard_error", "relaimpr", "learned", "key"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for result in _ordered(report):
        values = {
            **result,
            **result["mean"],
            **{f"{key}_std": value for key, value in (result["std"] or {}).items()},
            "champion": int(_same(result, report["champion"])),
            "seeds": len(result["seeds"]),
        }
        writer.writerow([_cell(values.get(column)) for column in header])
    return text.getvalue()


def to_markdown(report: Block, pictures: Sequence[str] = ()) -> str:
    """Return the leaderboard for people: the table, what it means, and which differences are significant.

    Args:
        report: the values of report.json.
        pictures: file names of plots in the same folder, shown at the end.
    """
    header, rows = _metrics_table(report)
    lines = [f"# {report['dataset']}: results on the test split", "", *_markdown(header, rows, bold=0)]
    lines += ["", explanation(report), ""]
    origin = report.get("origin") or {}
    if origin.get("matches_publisher") is False:
        what = f"Not the data of {origin['source']} as its publisher has them"
        lines += [f"**{what}: {differences(origin)}.**", ""]
    if report.get("copies", 0) > TOLD_COPIES * report["rows"]:
        share, equal = report["copies"] / report["rows"], "all fields, label, group and time"
        lines += [f"**{share:.1%} of the test rows equal a train row in {equal} (`split.repeated`).**", ""]
    lines += ["## Are the differences real?", ""]
    lines += _markdown(*_comparisons_table(report))
    lines += ["", significance(report), ""]
    if found := report.get("mechanisms"):
        lines += ["## Mechanisms", "", *_markdown(*mechanisms.table(found)), "", mechanisms.explanation(), ""]
    lines += [f"![{name.removesuffix('.png').replace('_', ' ')}]({name})\n" for name in pictures]
    return "\n".join(lines).rstrip() + "\n"


def to_text(report: Block) -> str:
    """Return the table for a terminal, columns aligned, the champion marked with a star."""
    header, rows = _metrics_table(report)
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [f"{report['dataset']}: {report['rows']:,} test rows, mean ± std over seeds", ""]
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [
            cell.ljust(w) if i < 2 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    best = report["champion"]
    lines += ["", f"champion by validation AUC: {best['model']} ({best['variant']}), seed {best['seed']}"]
    return "\n".join(lines)


def explanation(report: Block) -> str:
    """Explain in two short paragraphs where the figures come from, which run won and how to read them."""
    results, best = report["results"], report["champion"]
    seeds = [row["seed"] for row in results[0]["seeds"]]
    trials = sorted({r["trials"] for r in results if r["variant"] == "tuned"})
    budget = " to ".join(map(str, dict.fromkeys((trials[0], trials[-1]))))
    chosen = next(r for r in results if _same(r, best))
    name = "{model} ({variant})".format(**best)
    origin = (
        f"{'Mean ± standard deviation' if len(seeds) > 1 else 'Metrics'} over {counted(len(seeds), 'seed')} "
        f"({', '.join(map(str, seeds))}) on {report['rows']:,} test rows, {report['base_rate']:.1%} of them "
        "positive; each training predicted them once. Tuned rows are the best of "
        f"{budget} trials on validation data, the default configuration being the first trial, trained again "
        f"on the same seeds. **The champion (★) is {name}, seed {best['seed']}**, "
        f"by its mean AUC on validation data, {chosen['valid_auc']:.4f}; test metrics played no role in "
        "that. The row with the best test AUC is bold."
    )
    reading = "Higher is better for AUC (0.5 is random)"
    if "gauc" in results[0]["mean"]:
        reading += " and gAUC (AUC within each user, weighted by the user's rows)"
    reading += (
        "; lower is better for logloss (nats), NE (logloss over the entropy of the base rate; a constant "
        "reaches 1) and ECE (mean gap between predicted and observed rate)."
    )
    if any(result["relaimpr"] is not None for result in results):
        reading += " RelaImpr is the gain in AUC - 0.5 over LR of the same variant."
    if report["bayes"]:
        reading += (
            " The data is generated and the true click probabilities are known: on these rows they reach AUC "
            f"{report['bayes']['auc']:.4f} and logloss {report['bayes']['logloss']:.4f}. *Learnable* is the "
            "share of that AUC - 0.5 which a model reached."
        )
    return f"{origin}\n\n{reading}"


def significance(report: Block) -> str:
    """Explain what the intervals cover."""
    error = next(r["auc_standard_error"] for r in report["results"] if _same(r, report["champion"]))
    return (
        "Differences in test AUC (mean over seeds) with 95 % intervals by the paired test of DeLong et al. "
        "(1988), both sides on the same rows; in bold where the interval excludes zero. The champion is "
        "compared with the better variant (on validation data) of each other model. The intervals cover the "
        f"sampling of the test rows, which gives a single AUC here a standard error of {error:.4f}, and not "
        "the variation of the training, which the ± over seeds in the first table shows; they are not "
        "corrected for the number of comparisons."
    )


def _metrics_table(report: Block) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the first table."""
    results = _ordered(report)
    metrics = [key for key in METRICS if key in results[0]["mean"]]
    header = ["model", "variant", *(METRICS[key] for key in metrics), "RelaImpr", "valid AUC", "parameters"]
    if report["bayes"]:
        header.insert(-2, "learnable")
    rows = []
    for result in results:
        star = " ★" if _same(result, report["champion"]) else ""
        row = [result["model"], result["variant"] + star]
        row += [_mean_std(result, key) for key in metrics]
        row.append("" if result["relaimpr"] is None else f"{result['relaimpr']:+.2%}")
        if report["bayes"]:
            row.append(f"{result['learned']:.1%}")
        rows.append([*row, f"{result['valid_auc']:.4f}", f"{result['weights']:,}"])
    return header, rows


def _comparisons_table(report: Block) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the second table, one row per model."""
    best = report["champion"]
    found = {(_entry(c["first"]), _entry(c["second"])): c for c in report["comparisons"]}
    rows = []
    for model in dict.fromkeys(result["model"] for result in _ordered(report)):
        tuned, default = (model, "tuned"), (model, "default")
        gap = ""
        if model != best["model"]:
            other = next(v for v in (tuned, default) if (_entry(best), v) in found)
            gap = _interval(found[_entry(best), other]) + f" ({other[1]})"
        rows.append([model, _interval(found[tuned, default]), gap])
    return ["model", "tuned - default", f"{best['model']} ({best['variant']}) - this model"], rows


def _markdown(header: list[str], rows: list[list[str]], bold: int | None = None) -> list[str]:
    align = ["---" if name in ("model", "variant", "mechanism") else "---:" for name in header]
    lines = [header, align, *rows]
    if bold is not None:
        lines[2 + bold] = [f"**{cell}**" if cell else cell for cell in rows[bold]]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _interval(comparison: Block) -> str:
    text = "{difference:+.4f} [{low:+.4f}, {high:+.4f}]".format(**comparison)
    return f"**{text}**" if comparison["low"] > 0 or comparison["high"] < 0 else text


def _mean_std(result: Block, key: str) -> str:
    mean = f"{result['mean'][key]:.4f}"
    return f"{mean} ± {result['std'][key]:.4f}" if result["std"] else mean


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _ordered(report: Block) -> list[Block]:
    """Results by mean test AUC, best first; ties by name."""
    return sorted(report["results"], key=lambda r: (-r["mean"]["auc"], r["model"], r["variant"]))


def _entry(block: Block) -> tuple[str, str]:
    return block["model"], block["variant"]


def _same(result: Block, other: Block) -> bool:
    return _entry(result) == _entry(other)
