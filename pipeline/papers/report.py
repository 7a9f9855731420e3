"""An exhibit as a page and as a table: what was published, what we find, which claims hold."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipeline.common.names import stem
from pipeline.common.text import counted
from pipeline.papers.exhibit import Block, Claim, Exhibit, Figures
from pipeline.papers.results import CONDITIONS, optima

OWN = "tabular"  # the source of one's own logs
FEW = 4  # splits below which a t-test over them has next to no power
COLUMNS = (
    "log", "model", "value", "condition", "splits", "seeds", "valid_auc", "auc", "low", "high", "logloss",
    "weights", "published_auc", "published_logloss",
)  # fmt: skip
STATEMENTS = (
    "log", "splits", "condition", "better", "worse", "published", "difference", "low", "high", "p", "p_holm",
    "verdict",
)  # fmt: skip
OPTIMA = (
    "log",
    "splits",
    "condition",
    "model",
    "chosen",
    "paper",
    "difference",
    "low",
    "high",
    "p",
    "verdict",
)
LATER = "these results were made before the table had it; `dvc repro` of the table makes them again"
OURS = "\N{DAGGER}"
VERDICTS = {1: "holds", -1: "**the reverse**", 0: "not distinguishable"}


def to_csv(exhibit: Exhibit, joined: Block) -> str:
    """Return one line per log, condition, model and value."""
    published = {"published_auc": "auc", "published_logloss": "logloss"}
    return _csv(
        COLUMNS,
        (
            row | _named(log) | {column: row["published"][key] for column, key in published.items()}
            for log in joined["logs"]
            for row in _in_order(exhibit, log["rows"])
        ),
    )


def _in_order(exhibit: Exhibit, rows: Sequence[Block]) -> list[Block]:
    """Return rows in the order of the page: by settings, and models and values as the paper has them."""
    labels = [row.label for row in exhibit.rows]
    values = (None,) if exhibit.sweep is None else exhibit.sweep.names
    kinds = list(CONDITIONS)
    return sorted(
        rows,
        key=lambda r: (kinds.index(r["condition"]), labels.index(r["model"]), values.index(r["value"])),
    )


def statements_csv(exhibit: Exhibit, joined: Block) -> str | None:
    """Return one line per statement of the paper, or per value that a figure finds best; None if it has none.

    `verdict` is 1 or -1 where the difference is significant after Holm's correction, by its sign.
    """
    if exhibit.sweep is not None:
        return _csv(OPTIMA, (of | _named(log) for log in joined["logs"] for of in optima(exhibit, log)))
    if not any(log["claims"] for log in joined["logs"]):
        return None
    return _csv(STATEMENTS, (claim | _named(log) for log in joined["logs"] for claim in log["claims"]))


def _named(log: Block) -> Block:
    """Return the columns that say which log a line is about."""
    return {"log": log["log"] if len(log["splits"]) == 1 else stem(log["log"]), "splits": len(log["splits"])}


def _csv(columns: Sequence[str], rows: Iterable[Block]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_plain(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def to_markdown(exhibit: Exhibit, joined: Block, picture: str) -> str:
    """Return the page."""
    lines = [f"# {exhibit.title}", "", f"{exhibit.paper}.", "", f"![{exhibit.title}]({picture})", ""]
    for log in joined["logs"]:
        lines += [f"## {title(log)}", "", *_over(exhibit, log), ""]
        lines += [log["note"], ""] if log.get("note") else []
        lines += [*(_sweep_table(exhibit, log) if exhibit.sweep else _table(exhibit, log)), ""]
        lines += [*(_optima_table(exhibit, log) if exhibit.sweep else []), *_unfinished(log), *_dead(log)]
        if log["claims"]:
            lines += ["Which of the paper's statements hold on these rows:", ""]
            lines += [*_claims_table(exhibit, log), "", _method(exhibit, log), ""]
    conditions = {row["condition"] for log in joined["logs"] for row in log["rows"]}
    of_paper = any(log["source"] in exhibit.sources for log in joined["logs"])
    own = [exhibit.ours.why] if exhibit.ours is not None and conditions - {"published"} else []
    assumed = exhibit.assumed if "published" in conditions else ()
    notes = [*own, *(exhibit.notes if of_paper else ()), *assumed]
    if notes:
        lines += ["## What to know", "", *(f"- {note}" for note in notes), ""]
    return "\n".join(lines).rstrip() + "\n"


def title(log: Block) -> str:
    """Return what a log is called: its entry, or how many splits of it there are."""
    named = _named(log)
    return f"{named['log']}, {named['splits']} splits" if named["splits"] > 1 else str(named["log"])


def _over(exhibit: Exhibit, log: Block) -> list[str]:
    split = "test" if exhibit.sweep is None else exhibit.sweep.rows
    over = counted(log["rows"][0]["seeds"], "seed")
    over += f" and {counted(len(log['splits']), 'split')}" if len(log["splits"]) > 1 else ""
    which = _which(exhibit, log["source"], log["splits"])
    return [f"{split.capitalize()} rows of {which[0]}; mean over {over}.{which[1]}"]


def _which(exhibit: Exhibit, source: str, splits: Sequence[str]) -> tuple[str, str]:
    """Return which log it is, and a sentence where the paper does not have it."""
    other = "" if splits[0].startswith(source) or source == OWN else f", which is {source}"
    elsewhere = "" if source in exhibit.sources else " **The paper does not show this dataset here.**"
    return f"{', '.join(splits)}{other}", elsewhere


def _conditions(log: Block) -> list[str]:
    found = {row["condition"] for row in log["rows"]}
    return [condition for condition in CONDITIONS if condition in found]


def _table(exhibit: Exhibit, log: Block) -> list[str]:
    """Return AUC and logloss, published and ours, a line for each model in the paper's order."""
    conditions = _conditions(log)
    found = {(row["model"], row["condition"]): row for row in log["rows"]}
    sized = any(f.megabytes for row in exhibit.rows for f in row.published.values())
    figures: dict[str, Callable[[Block], str]] = {
        "AUC": lambda r: f"{r['auc']:.4f}",
        "logloss": lambda r: f"{r['logloss']:.4f}",
        **({"MB": lambda r: f"{r['megabytes']:.2f}"} if sized else {}),
    }
    head = [f"{name}, {CONDITIONS[c]}" for c in conditions for name in figures]
    is_printed = any(row["published"]["auc"] for row in log["rows"])
    columns = {"auc": "AUC", "logloss": "logloss", **({"megabytes": "MB"} if sized else {})}
    published = [f"published {name}" for name in columns.values()] if is_printed else []
    lines = [_line(["model", *published, *head]), _line(["---", *["---:"] * (len(published) + len(head))])]
    known = {label for label, _ in found}
    absent = {row.label: LATER for row in exhibit.rows if row.label not in known} | log.get("absent", {})
    for row in exhibit.rows:
        ours = [
            show(found[row.label, c]) if (row.label, c) in found else "-"
            for c in conditions
            for show in figures.values()
        ]
        theirs = row.published.get(log["source"], Figures())._asdict()
        cells = (
            [
                "" if theirs[key] is None else f"{theirs[key]:.{2 if key == 'megabytes' else 4}f}"
                for key in columns
            ]
            if is_printed
            else []
        )
        lines.append(_line([row.label, *cells, *ours]))
    for label, why in absent.items():
        if not (missing := [c for c in conditions if (label, c) not in found]):
            continue
        where = "here" if missing == conditions else f"with {' and '.join(CONDITIONS[c] for c in missing)}"
        lines.append(f"\n{label} is not trained {where}: {why}.")
    return lines


def _sweep_table(exhibit: Exhibit, log: Block) -> list[str]:
    """Return the AUC at each value, a line for each model and condition, the chosen one in bold."""
    assert exhibit.sweep is not None
    names = exhibit.sweep.names
    lines = [
        _line([exhibit.sweep.what, "settings", *names]),
        _line(["---", "---", *["---:"] * len(names)]),
    ]
    found = {(row["model"], row["condition"], row["value"]): row[exhibit.sweep.key] for row in log["rows"]}
    chosen = {(test["model"], test["condition"]): test["chosen"] for test in optima(exhibit, log)}
    for row in exhibit.rows:
        for condition in _conditions(log):
            values = {name: found.get((row.label, condition, name)) for name in names}
            best = chosen.get((row.label, condition))
            cells = [
                "-" if auc is None else f"**{auc:.4f}**" if name == best else f"{auc:.4f}"
                for name, auc in values.items()
            ]
            lines.append(_line([row.label, CONDITIONS[condition], *cells]))
    found_best = "" if exhibit.sweep.best is None else f"The paper finds {names[exhibit.sweep.best]} best. "
    return [*lines, "", f"AUC on {exhibit.sweep.rows} rows. {found_best}Bold: what validation rows choose."]


def _optima_table(exhibit: Exhibit, log: Block) -> list[str]:
    """Return the values that validation rows choose, and what the paper's gain or lose beside them."""
    assert exhibit.sweep is not None
    found, best = optima(exhibit, log), exhibit.sweep.best
    head = ["model", "settings", "best on validation rows"]
    if best is not None:
        head += [f"test AUC, {exhibit.sweep.names[best]} less that one", "95 % interval"]
    lines = [_line(head), _line(["---", "---", *["---:"] * (len(head) - 2)])]
    lines += [
        _line([test["model"], CONDITIONS[test["condition"]], test["chosen"], *_beside(test)])
        for test in found
    ]
    if any("p" in test for test in found):
        bold = "bold: significant at 5 % after Holm's correction"
        lines += ["", f"Intervals by {_by(log)}, each of one difference alone; {bold}.{_few(log)}"]
    return [*lines, ""]


def _beside(test: Block) -> list[str]:
    """Return the cells of what the paper's value has less than the chosen one."""
    if "paper" not in test:
        return []
    if test["chosen"] == test["paper"]:
        return ["the same", ""]
    bold = "**" if test.get("verdict") else ""
    return [
        f"{bold}{signed(test['difference'])}{bold}",
        _interval(test) if "p" in test else "not known",
    ]


def _claims_table(exhibit: Exhibit, log: Block) -> list[str]:
    lines = [
        _line(["statement", "settings", "published", "ours", "95 % interval", "verdict"]),
        _line(["---", "---", "---:", "---:", "---:", "---"]),
    ]
    for test in log["claims"]:
        published = "-" if test["published"] is None else signed(test["published"])
        ours = f" {OURS}" if exhibit.is_ours(Claim(test["better"], test["worse"])) else ""
        lines.append(
            _line([
                f"{test['better']} > {test['worse']}{ours}",
                CONDITIONS[test["condition"]],
                published,
                signed(test["difference"]),
                _interval(test),
                VERDICTS[test["verdict"]],
            ])
        )  # fmt: skip
    return lines


def _unfinished(log: Block) -> list[str]:
    """Say which trainings were cut off by `epochs`; the papers' own settings have no early stopping."""
    rows = [row for row in log["rows"] if row["condition"] != "published"]
    if not any(row["capped"] for row in rows):
        return []
    capped, trained = sum(r["capped"] for r in rows), sum(r["seeds"] * len(log["splits"]) for r in rows)
    told = (
        f"**{capped} of {counted(trained, 'training')} ended at the last of `epochs` and might have become "
        "better: what is compared here is how far they came, not how good the models are.**"
    )
    return [told, ""]


def _dead(log: Block) -> list[str]:
    """Name the models of whose networks nothing is left, and those that were not asked.

    See `mechanisms.dead_networks`; results of older code do not say it.
    """
    found: dict[str, list[str]] = {}
    unasked: dict[str, dict[str, None]] = {}
    for row in log["rows"]:
        if "dead" not in row:
            unasked.setdefault(CONDITIONS[row["condition"]], {})[row["model"]] = None
        elif row["dead"]:
            of = f"{row['dead']} of {row['seeds'] * len(log['splits'])}"
            value = f"{row['value']} ({of})" if row["value"] else of
            found.setdefault(f"{row['model']}, {CONDITIONS[row['condition']]}", []).append(value)
    lines = []
    if found:
        named = "; ".join(f"{who}: {', '.join(values)}" for who, values in found.items())
        told = "Their output is the same for every row, so that what is compared is the rest of these models."
        lines += [f"**Networks that training switched off, or never got to ({named}).** {told}", ""]
    if unasked:
        named = "; ".join(f"{', '.join(models)} ({settings})" for settings, models in unasked.items())
        told = "Not checked for networks that training switched off, being older than that check"
        lines += [f"{told}: {named}.", ""]
    return lines


def _by(log: Block) -> str:
    """Say by what the intervals of a log are."""
    if len(log["splits"]) > 1:
        return "the corrected resampled t-test over the splits (Nadeau and Bengio 2003)"
    by = "test rows, clustered by user where the log has users"
    many = log["rows"][0]["seeds"] > 1
    return by + (", and seeds" if many else " (one seed says nothing of how trainings vary)")


def _method(exhibit: Exhibit, log: Block) -> str:
    number = len(log["claims"])
    told = f"a verdict other than {VERDICTS[0]!r} is significant at 5 %"
    if number > 1:
        told += f" after Holm's correction for all {number} statements, where an interval is of one alone"
    any_of_ours = any(exhibit.is_ours(Claim(test["better"], test["worse"])) for test in log["claims"])
    ours = f" {OURS}: ours, not a statement of the paper." if any_of_ours else ""
    return f"Differences in test AUC; intervals by {_by(log)}; {told}.{_few(log)}{ours}"


def _few(log: Block) -> str:
    """Say that a test over so few splits has next to no power."""
    if not 1 < len(log["splits"]) < FEW:
        return ""
    return f" With {len(log['splits'])} splits this test can hardly tell anything: five are a good number."


def _interval(test: Block) -> str:
    """Return the ends of an interval, with as many digits as say on which side of 0 they are."""
    return " to ".join(_end(test[key]) for key in ("low", "high"))


def _end(value: float) -> str:
    digits = next((n for n in range(4, 9) if round(value, n)), 4)
    return signed(value) if digits == 4 else f"{value:+.{digits}f}"


def signed(difference: float) -> str:
    """Return a difference of AUCs as the pages and the article show it."""
    return f"{round(difference, 4) + 0:+.4f}"  # + 0: there is no -0.0000


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(value: Any) -> Any:
    return "" if value is None else f"{value:.6f}" if isinstance(value, float) else value


def attention_page(exhibit: Exhibit, found: Block, picture: str) -> str:
    """Return the page of FiiNet's attention before and after training."""
    lines = [f"# {exhibit.title}", "", f"{exhibit.paper}.", "", f"![{exhibit.title}]({picture})", ""]
    for log, weights in found["logs"].items():
        which, elsewhere = _which(exhibit, weights["source"], [log])
        over = f"Mean over the validation rows of {which}; one training with {CONDITIONS[found['condition']]}"
        lines += [f"## {log}", "", f"{over}.{elsewhere}", ""]
        if weights["capped"] and found["condition"] != "published":
            lines += ["**It ended at the last of `epochs`, where it still became better.**", ""]
        lines += [*_attention_table(weights), ""]
    lines += ["## What to know", "", *(f"- {note}" for note in exhibit.notes)]
    return "\n".join(lines) + "\n"


def _attention_table(weights: Block) -> list[str]:
    """Return the weights of each channel, a column for each order of crosses before and after training."""
    columns = {
        f"{crosses(order)}, {when}": weights[when][order]
        for order in weights["after"]
        for when in ("before", "after")
    }
    names = weights["channels"] or range(1, len(next(iter(columns.values()))) + 1)
    head = ["field" if weights["channels"] else "channel", *columns]
    lines = [_line(head), _line(["---", *["---:"] * len(columns)])]
    for name, *of in zip(names, *columns.values(), strict=True):
        lines.append(_line([str(name), *(f"{weight:.3f}" for weight in of)]))
    return lines


def crosses(order: str) -> str:
    """Return what crosses of so many fields are called."""
    return {"2": "pairs", "3": "triples"}.get(order, f"crosses of {order}")


def attention_csv(found: dict[str, Block]) -> str:
    """Return a line for each log, order and channel."""
    rows = [
        f"{log},{order},{channel},{before:.6f},{after:.6f}"
        for log, weights in found.items()
        for order in weights["after"]
        for channel, (before, after) in enumerate(
            zip(weights["before"][order], weights["after"][order], strict=True)
        )
    ]
    return "\n".join(["log,order,channel,before,after", *rows]) + "\n"
