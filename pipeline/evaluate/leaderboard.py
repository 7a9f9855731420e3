"""The report as a table: CSV for programs, Markdown and plain text for people.

Rows are ordered by mean test AUC. The champion is marked, and the models that cannot be distinguished from
it; the report chose it by validation metrics.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.common.text import counted, with_interval
from pipeline.config.metric import NAMES
from pipeline.download.manifest import differences
from pipeline.evaluate import blend, budget, headline, mechanisms, refits, slices, variants
from pipeline.evaluate.report import is_close, same_scores
from pipeline.evaluate.results import leader, ordered
from pipeline.statistics import chance
from pipeline.statistics.significance import LEVEL
from pipeline.train.mechanisms import CURE_OF_NETWORKS

Block = dict[str, Any]
TOLD_COPIES = 0.01  # share of test rows that are copies of train rows, above which the page says so
METRICS = ("auc", "logloss", "gauc")  # of the first table
PROBABILITIES = ("logloss", "normalised_entropy", "ece")  # raw and calibrated
COLUMNS = (
    *("auc", "logloss", "normalised_entropy", "gauc", "ece", "mean_prediction_ratio"),
    *("calibrated_logloss", "calibrated_normalised_entropy", "calibrated_ece"),
)
CHAMPION, CLOSE = "★", "≈"
DIFFERENCES, RIGHT = "Are the differences real?", "Are the probabilities right?"
TRAININGS, SEARCHES = "The trainings", "The searches"
TOP = "leaderboard.png"  # the picture above the first table
PLACES = {  # the section that a picture ends; what belongs to none that is there comes last
    "roc.png": DIFFERENCES,
    "calibration.png": RIGHT,
    "learning_curves.png": TRAININGS,
    "tuning_history.png": SEARCHES,
    "budget.png": SEARCHES,
    "importances.png": SEARCHES,
    "learnt.png": "What the champion has learnt",
}


def to_csv(report: Block) -> str:
    """Return every metric of every model and variant to six decimals; a missing one is an empty cell."""
    header = ["model", "variant", "champion", "seeds", "trials", "completed", "capped", "weights"]
    header += [
        "valid_auc",
        "valid_logloss",
        "valid_normalised_entropy",
        "valid_mean_prediction_ratio",
        "warning",
    ]
    header += ["calibration", "reads"]
    header += [column for key in COLUMNS for column in (key, f"{key}_std")]
    header += ["auc_standard_error", "auc_low", "auc_high", "p", "p_holm", "relaimpr", "learned", "key"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for result in ordered(report["results"]):
        values = {
            **result,
            **result["mean"],
            **{f"{key}_std": value for key, value in (result["std"] or {}).items()},
            "champion": int(_same(result, report["champion"])),
            "calibration": summary(result["calibrations"]),
            "seeds": len(result["seeds"]),
        }
        writer.writerow([_cell(values.get(column)) for column in header])
    for found in report.get("blends", []):
        seeds = max(len(part["seeds"]) for part in found["members"])
        values = {**found, **found["against_champion"], "model": "blend", "variant": found["kind"]}
        values |= {"seeds": seeds, "champion": 0}
        writer.writerow([_cell(values.get(column)) for column in header])
    for found in report.get("refits", []):
        std = {f"{key}_std": value for key, value in (found["std"] or {}).items()}
        values = {**found, **found["mean"], **std, "champion": 0, "seeds": len(found["seeds"])}
        writer.writerow([_cell(values.get(column)) for column in header])
    return text.getvalue()


def to_markdown(report: Block, pictures: Sequence[str] = (), more: Mapping[str, str] | None = None) -> str:
    """Return the leaderboard for people: who leads, then section by section a table, its words, its pictures.

    Args:
        report: the values of report.json.
        pictures: file names of plots in the same folder; that of the leaderboard comes first.
        more: further sections by their titles, after the others.
    """
    sections = _sections(report) | {title: [text.strip(), ""] for title, text in (more or {}).items()}
    first = [_picture(name) for name in pictures if name == TOP]
    last = [_picture(name) for name in pictures if name != TOP and PLACES.get(name) not in sections]
    lines = [f"# {report['dataset']}: results on the test split", "", f"**{headline.sentence(report)}**", ""]
    lines += [*first, *_markdown(*_metrics_table(report)), "", explanation(report), "", *_remarks(report)]
    for title, body in sections.items():
        own = [_picture(name) for name in pictures if PLACES.get(name) == title]
        lines += [f"## {title}", "", *body, *own] if body or own else []
    return "\n".join([*lines, *last]).rstrip() + "\n"


def _remarks(report: Block) -> list[str]:
    """What must be known of the data and the models before any figure is believed."""
    lines = []
    dead = [
        f"{result['model']} ({variant}: {', '.join(names)})"
        for result, variant in variants.named(ordered(report["results"]), variants.kept_default(report))
        if (names := result.get("dead_networks"))
    ]
    if dead:
        told = (
            f"**Networks that are switched off: {'; '.join(dead)}. What is compared is the rest of these "
            f"models.** Their output is the same for every row: {CURE_OF_NETWORKS}."
        )
        lines += [told, ""]
    origin = report.get("origin") or {}
    if origin.get("matches_publisher") is False:
        what = f"Not the data of {origin['source']} as its publisher has them"
        lines += [f"**{what}: {differences(origin)}.**", ""]
    if report.get("copies", 0) > TOLD_COPIES * report["rows"]:
        share, equal = report["copies"] / report["rows"], "all fields, label, group and time"
        lines += [f"**{share:.1%} of the test rows equal a train row in {equal} (`split.repeated`).**", ""]
    return lines


def _sections(report: Block) -> dict[str, list[str]]:
    """Return the lines of every section that the report has values for, by its title, in their order."""
    found = {DIFFERENCES: _section(_comparisons_table(report), significance(report))}
    if blends := report.get("blends"):
        found["Blends"] = _section(blend.table(blends), blend.explanation())
    if again := report.get("refits"):
        found["Train + validation"] = _section(refits.table(again), refits.explanation())
    found[RIGHT] = _section(_probabilities_table(report), calibration(report))
    if report.get("slices", {}).get("sizes"):
        found["New and rare users and items"] = _section(_slices_table(report), slices.explanation())
    if weighed := report.get("mechanisms"):
        table = mechanisms.table(weighed, variants.kept_default(report))
        found["Mechanisms"] = _section(table, mechanisms.explanation())
    found[TRAININGS] = []  # a picture says it
    if searches := report.get("budget"):
        found[SEARCHES] = _section(budget.table(searches), budget.explanation(report))
    return found


def _section(table: tuple[list[str], list[list[str]]], text: str) -> list[str]:
    return [*_markdown(*table), "", text, ""]


def _picture(name: str) -> str:
    return f"![{name.removesuffix('.png').replace('_', ' ')}]({name})\n"


def to_text(report: Block) -> str:
    """Return the first table for a terminal, columns aligned, and what to beware of."""
    header, rows = _metrics_table(report)
    rows = [[cell.replace("*", "") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [f"{report['dataset']}: {report['rows']:,} test rows, mean ± std over seeds", ""]
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [
            cell.ljust(w) if i < 2 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines += [""] + [f"warning: {name}: {text}" for name, text in _warnings(report)]
    best = report["champion"]
    by = NAMES[best["metric"]]
    lines.append(f"champion by validation {by}: {best['model']} ({best['variant']}), seed {best['seed']}")
    return "\n".join(lines)


def explanation(report: Block) -> str:
    """Explain in two short paragraphs where the figures come from, which run won and how to read them."""
    results, best = report["results"], report["champion"]
    seeds = [row["seed"] for row in results[0]["seeds"]]
    trials = sorted({r["trials"] for r in results if r["variant"] == "tuned"})
    tried = " to ".join(map(str, dict.fromkeys((trials[0], trials[-1]))))
    name, figure = "{model} ({variant})".format(**best), leader(report)[f"valid_{best['metric']}"]
    origin = (
        f"{'Mean ± standard deviation' if len(seeds) > 1 else 'Metrics'} over {counted(len(seeds), 'seed')} "
        f"({', '.join(map(str, seeds))}) on {report['rows']:,} test rows, {report['base_rate']:.1%} of them "
        "positive; each training predicted them once. Tuned rows are the best of "
        f"{tried} trials on validation data, the default configuration being the first trial: "
        f"{_winner(budget.margins(report))}. "
        f"**The champion ({CHAMPION}) is {name}, seed {best['seed']}**, "
        f"by its mean {NAMES[best['metric']]} on validation data, {figure:.4f}{_valid_rows(report)}; "
        f"test metrics played no role in that.{_distance(report)}"
    )
    reading = "Higher is better for AUC (0.5 is random)"
    if "gauc" in results[0]["mean"]:
        reading += (
            " and gAUC (AUC within each user, weighted by the user's rows; the users with both classes, "
            f"whom it is about, have {report['gauc_coverage']:.1%} of the rows)"
        )
    reading += "; lower is better for logloss (nats)."
    if any(result["relaimpr"] is not None for result in results):
        reading += " RelaImpr is the gain in AUC - 0.5 over LR, its better variant on validation data."
    if longer := {r["model"]: r["trainings"] for r in results if r.get("trainings", 1) > 1}:
        listed = ", ".join(f"{model} {n}" for model, n in sorted(longer.items()))
        reading += f" Trainings a run needs, each with the whole budget of epochs (all others one): {listed}."
    if report["bayes"]:
        reading += (
            " The data is generated and the true click probabilities are known: on these rows they reach AUC "
            f"{report['bayes']['auc']:.4f} and logloss {report['bayes']['logloss']:.4f}. *Learnable* is the "
            "share of that AUC - 0.5 which a model reached."
        )
    return f"{origin}\n\n{reading}"


def _winner(margins: Sequence[float]) -> str:
    """Say in short which trial a tuned row is, by the margins of the searches."""
    best, much = "the best mean over these seeds among the best trials", budget.enough(margins)
    if not much:
        return f"{best} and the default"
    return f"{best} whose gain over the default is larger than {much}, else the default"


def _valid_rows(report: Block) -> str:
    """Say how sure the figure is by which the champion was chosen, where that is an AUC."""
    error, splits = report["champion"].get("valid_auc_error"), report["splits"]
    if error is None or splits is None or report["champion"]["metric"] != "auc":
        return ""
    clicks = counted(splits["valid"]["clicks"], "positive row")
    return f" (standard error {error:.4f}, with {clicks} of {splits['valid']['rows']:,})"


def significance(report: Block) -> str:
    """Explain what the intervals cover."""
    best = leader(report)
    if report["clusters"]:
        rows = (
            f"the sampling of the test rows, clustered by their {report['clusters']:,} users (Obuchowski "
            "1997), since rows of one user are alike"
        )
    else:
        rows = "the sampling of the test rows, each taken as independent (DeLong et al. 1988)"
    seeds = len(best["seeds"])
    if seeds > 1:
        covered = f"{rows}, and the variation of the training over {seeds} seeds"
    else:
        covered = f"{rows}, but not the variation of the training, of which a single seed says nothing"
    tests = sum(not same_scores(comparison) for comparison in report["comparisons"])
    return (
        "Differences in test AUC (mean over seeds) with 95 % intervals, both sides on the same rows. They "
        f"cover {covered}; the AUC of the champion alone is {best['mean']['auc']:.4f} "
        f"[{best['auc_low']:.4f}, {best['auc_high']:.4f}], its standard error "
        f"{best['auc_standard_error']:.4f}. The champion is compared with the better variant (on validation "
        "data) of each other model. A difference is **bold** if it is significant at 5 % after Holm's "
        f"correction for all {counted(tests, 'comparison')} of this table; the intervals are not corrected."
    )


def _chance(report: Block) -> float:
    """Return two standard deviations of clicks over expected clicks, where probabilities are right."""
    rate, rows = float(report["base_rate"]), int(report["rows"])
    return 2 * chance.mean_prediction_ratio(rows * rate * (1 - rate), rows * rate)


def calibration(report: Block) -> str:
    """Explain the table of probabilities, and name the models whose probabilities are wrong."""
    text = (
        "AUC above says how well a model *ranks*; this table says whether its number can be taken as a "
        "*probability*. Means over seeds, as the model predicted → calibrated on validation rows, so that "
        "models that stopped at different degrees of over-confidence can be compared; one value where "
        "there was nothing to correct. For each seed, "
        "cross-validation on those rows chooses among none, one temperature (above 1: over-confident), "
        "Platt's line (slope and shift of the logit) and isotonic regression; all keep the order of rows, "
        "and so every AUC. Lower is better for logloss (nats), NE (logloss over the entropy of the base "
        "rate; a constant reaches 1) and ECE (mean gap between predicted and observed rate). *Mean / rate* "
        "is the mean prediction over the base rate of the test rows, before calibration; chance alone moves "
        f"it by ±{_chance(report):.1%}, two standard deviations of so many clicks."
    )
    if (kept := report.get("negatives_kept", 1)) < 1:
        rate = report["base_rate"]
        text += (
            f" The log kept {kept:.4g} of its rows without a click (`negatives_kept`), and all figures are "
            "of it as it is. A model's package corrects its probabilities: where all rows are kept, the base "
            f"rate of {rate:.4g} is {rate / (rate + (1 - rate) / kept):.4g}."
        )
    found = _warnings(report)
    if not found:
        return text
    listed = "; ".join(f"{name}: {what}" for name, what in found)
    return (
        f"**Not to be trusted as probabilities, by validation rows: {listed}.** NE above 1 is worse than the "
        "base rate itself; the mean prediction should be within 10 % of it, or within two standard "
        f"deviations of chance where clicks are few.\n\n{text}"
    )


def summary(calibrations: Sequence[Block]) -> str:
    """Name the methods of a model's seeds, with their mean figures where all have the same.

    >>> summary([{"method": "platt", "slope": 0.5, "intercept": b} for b in (0.1, 0.2)])
    'platt 0.50 +0.15'
    >>> summary([{"method": "none"}, {"method": "isotonic"}, {"method": "none"}])
    '2 none, 1 isotonic'
    """
    methods = [each["method"] for each in calibrations]
    names = sorted(set(methods), key=lambda name: (-methods.count(name), name))
    if len(names) > 1:
        return ", ".join(f"{methods.count(name)} {name}" for name in names)
    keys = {"temperature": ["temperature"], "platt": ["slope", "intercept"]}.get(names[0], [])
    figures = [sum(each[key] for each in calibrations) / len(calibrations) for key in keys]
    signs = ["", "+"]
    return " ".join([names[0], *(f"{x:{sign}.2f}" for x, sign in zip(figures, signs, strict=False))])


def _distance(report: Block) -> str:
    """A sentence on the models that cannot be told from the champion."""
    close, count = headline.not_told_apart(report)
    if not count:
        return ""
    if count == 1:
        can, sign = ("cannot", f"{CLOSE}, ") if close else ("can", "")
        return (
            f" The other model ({sign}with its better variant on validation data) {can} be distinguished "
            "from it on these test rows."
        )
    return (
        f" {close} of the {count} other models ({CLOSE}, each with its better variant on validation "
        "data) cannot be distinguished from it on these test rows."
    )


def _warnings(report: Block) -> list[tuple[str, str]]:
    named = variants.named(ordered(report["results"]), variants.kept_default(report))
    return [(f"{r['model']} ({variant})", r["warning"]) for r, variant in named if r["warning"]]


def _slices_table(report: Block) -> tuple[list[str], list[list[str]]]:
    place = {_entry(result): i for i, result in enumerate(ordered(report["results"]))}
    found = report["slices"]
    ranked = sorted(found["results"], key=lambda of: place[_entry(of)])
    return slices.table(found["sizes"], ranked)


def _metrics_table(report: Block) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the first table; the champion's is bold."""
    results, by = ordered(report["results"]), report["champion"]["metric"]
    metrics = [key for key in METRICS if key in results[0]["mean"]]
    header = ["model", "variant", *(NAMES[key] for key in metrics)]
    header += ["RelaImpr", f"valid {NAMES[by]}", "parameters"]
    if report["bayes"]:
        header.insert(-2, "learnable")
    marked = len({result.get("reads", "ids") for result in results} | {"ids"}) > 1
    if marked:
        header.insert(2, "reads")
    rows = []
    for result, variant in variants.named(results, variants.kept_default(report)):
        best = _same(result, report["champion"])
        mark = f" {CHAMPION}" if best else f" {CLOSE}" if is_close(report, result) else ""
        row = [result["model"], variant + mark, *([result["reads"]] if marked else [])]
        row += [_mean_std(result, key) for key in metrics]
        row.append("" if result["relaimpr"] is None else f"{result['relaimpr']:+.2%}")
        if report["bayes"]:
            row.append(f"{result['learned']:.1%}")
        row += [f"{result[f'valid_{by}']:.4f}", f"{result['weights']:,}"]
        rows.append([f"**{cell}**" if cell and best else cell for cell in row])
    return header, rows


def _probabilities_table(report: Block) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table of probabilities, in the order of the first."""
    rows = []
    for result, variant in variants.named(ordered(report["results"]), variants.kept_default(report)):
        mean, method = result["mean"], summary(result["calibrations"])
        pairs = [f"{mean[key]:.4f}" for key in PROBABILITIES]
        if method != "none":
            after = [f"{mean[f'calibrated_{key}']:.4f}" for key in PROBABILITIES]
            pairs = [f"{a} → {b}" for a, b in zip(pairs, after, strict=True)]
        rows.append([result["model"], variant, *pairs, method, f"{mean['mean_prediction_ratio']:.2f}"])
    return ["model", "variant", *(NAMES[key] for key in PROBABILITIES), "calibration", "mean / rate"], rows


def _comparisons_table(report: Block) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table of differences, one row per model."""
    best = report["champion"]
    found = {(_entry(c["first"]), _entry(c["second"])): c for c in report["comparisons"]}
    rows = []
    for model in dict.fromkeys(result["model"] for result in ordered(report["results"])):
        tuned, default = (model, "tuned"), (model, "default")
        gap = ""
        if model != best["model"]:
            other = next(v for v in (tuned, default) if (_entry(best), v) in found)
            gap = _interval(found[_entry(best), other]) + f" ({other[1]})"
        rows.append([model, _interval(found[tuned, default]), gap])
    return ["model", "tuned - default", f"{best['model']} ({best['variant']}) - this model"], rows


def _markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    align = [
        "---" if name in ("model", "variant", "mechanism", "reads", "blend", "members") else "---:"
        for name in header
    ]
    lines = [f"| {' | '.join(cells)} |" for cells in (header, align, *rows)]
    for sign in "±→":  # a narrow page shall not break a cell there
        lines = [line.replace(f" {sign} ", f"\u00a0{sign}\u00a0") for line in lines]
    return lines


def _interval(comparison: Block) -> str:
    if same_scores(comparison):
        return "the same"
    text = with_interval(comparison)
    return f"**{text}**" if comparison["p_holm"] < LEVEL else text


def _mean_std(result: Block, key: str) -> str:
    mean = f"{result['mean'][key]:.4f}"
    return f"{mean} ± {result['std'][key]:.4f}" if result["std"] else mean


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _entry(block: Block) -> tuple[str, str]:
    return block["model"], block["variant"]


def _same(result: Block, other: Block) -> bool:
    return _entry(result) == _entry(other)
