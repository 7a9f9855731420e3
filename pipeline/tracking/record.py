"""Run and report as MLflow's params, metrics, tags and texts. Pure functions on plain values."""

from statistics import mean, stdev
from typing import Any

from pipeline.common.text import with_error
from pipeline.config.metric import NAMES, best_row, sign
from pipeline.evaluate.results import leader, ordered

Block = dict[str, Any]
Row = dict[str, float]

AXES = {"step", "epoch"}  # of an evaluation; not metrics
MECHANISM = "mechanism_"  # start of the metrics of a model's mechanisms
# what a metric is about: MLflow's page makes a section of all that has one of these before its `/`
GROUPS = (
    "train",
    "valid",
    "test",
    "best",
    "search",
    "mechanism",
    "bayes",
    "blend",
    "speed",
    "model",
    "refit",
)
RENAMED = {"lr": "train/learning_rate", "weights": "model/weights", "capped": "train/capped"}
DIGITS = 6  # significant ones on the page, which cuts longer numbers; the files have all
# of all seeds of a result together, and not their mean
OF_THE_WHOLE = (
    *("relaimpr", "auc_standard_error", "auc_low", "auc_high", "p", "p_holm"),
    *("valid_normalised_entropy", "valid_mean_prediction_ratio"),
)


def flat(block: Block, prefix: str = "") -> dict[str, str]:
    """Return a nested block as one level of strings.

    >>> flat({"model": {"hidden": [8, 8]}, "train": {"lr": 0.001}})
    {'model.hidden': '[8, 8]', 'train.lr': '0.001'}
    """
    values = dict[str, str]()
    for name, value in block.items():
        if isinstance(value, dict):
            values |= flat(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = str(value)
    return values


def grouped(name: str) -> str:
    """Return what MLflow calls a metric: its group, a slash, the rest. A name of MLflow's stays as it is.

    >>> grouped("valid_auc"), grouped("best_valid_auc"), grouped("lr"), grouped("test/auc")
    ('valid/auc', 'best/valid_auc', 'train/learning_rate', 'test/auc')
    """
    group, _, rest = name.partition("_")
    return RENAMED.get(name) or (f"{group}/{rest}" if rest and group in GROUPS else name)


def rounded(value: float) -> float:
    """Return a number as a person reads it; a count stays whole.

    >>> rounded(0.777605752143), rounded(1234567.0)
    (0.777606, 1234567.0)
    """
    return value if float(value).is_integer() else float(f"{value:.{DIGITS}g}")


def shown(values: Block) -> Row:
    """Return the values that are not None as metrics of MLflow, without those that are an axis."""
    return {
        grouped(name): rounded(value)
        for name, value in values.items()
        if name not in AXES and value is not None
    }


def params(run: Block) -> dict[str, str]:
    """Return the settings of a run, and those of its search except the space; charts can use no tags."""
    search = {
        name: value for name, value in run.get("tune", {}).items() if not isinstance(value, dict | list)
    }
    names = {name: run[name] for name in ("model", "variant")}
    return names | flat({**run["params"], "tune": search})


def child_params(name: str, block: Block) -> dict[str, str]:
    """Return the settings of a child, including the seed in its name.

    >>> child_params("seed-2", {"train": {"lr": 0.001}})
    {'train.lr': '0.001', 'seed': '2'}
    """
    kind, _, number = name.partition("-")
    own = {key: value for key, value in block.items() if key != "seeds"}
    return flat({**own, "seed": number} if kind in ("seed", "refit") else own)


def name(run: Block) -> str:
    """Return the name of a run, which is that of its logged model, too.

    >>> name({"model": "fm", "variant": "tuned"})
    'fm-tuned'
    """
    return f"{run['model']}-{run['variant']}"


def tags(run: Block) -> dict[str, str]:
    """Return the tags by which a run and its children are filtered.

    `pipeline.rows_in_memory` is set if rows were streamed, `pipeline.processes` if several processes trained.
    """
    return {
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": f"stages/{run['stage']}.py",
        **{f"pipeline.{name}": run[name] for name in ("stage", "dataset", "model", "variant")},
        **{f"pipeline.{name}": str(run[name]) for name in ("rows_in_memory", "processes") if name in run},
    }


def children(run: Block) -> list[tuple[str, Block, str, list[Row], Row]]:
    """Return name, settings, state, history and best evaluation of every seed and every trial."""
    found = [
        (f"seed-{seed['seed']}", run["params"], "COMPLETE", seed["curve"], seed["best"] | mechanisms(seed))
        for seed in run["seeds"]
    ]
    settings = {**run["params"], "rows": "train + valid"}
    found += [
        (f"refit-{again['seed']}", settings, "COMPLETE", again["curve"], again["best"])
        for again in run.get("refit", [])
    ]
    search = run.get("search", {"trials": []})
    for trial in search["trials"]:
        best = _kept(trial, search["metric"])
        name = f"trial-{trial['number']:03d}"
        found.append((name, trial["params"], trial["state"], trial["curve"], best))
    return found


def summary(best: Row) -> Row:
    """Return the metrics of the best evaluation as `best_*`; the plain names belong to the history.

    Those of its mechanisms, if any, keep their names.
    """
    named = {f"best_{key}": best[key] for key in ("valid_auc", "valid_logloss", "epoch") if key in best}
    return named | {key: value for key, value in best.items() if key.startswith(MECHANISM)}


def mechanisms(seed: Block) -> Row:
    """Return what a seed of run.json says of its mechanisms as flat metrics; nothing if it has none.

    >>> gate = {"kind": "gate", "per_row": True, "std": 0.2}
    >>> mechanisms({"mechanisms": {"weights": {"cross.0.gate": gate}, "auc": {"frozen": 0.7}}})
    {'mechanism_auc.frozen': 0.7, 'mechanism_cross.0.gate.std': 0.2}
    """
    measured = seed.get("mechanisms", {"auc": {}, "weights": {}})
    values = {f"{MECHANISM}auc.{key}": value for key, value in measured["auc"].items()}
    for name, weights in measured["weights"].items():
        values |= {f"{MECHANISM}{name}.{key}": v for key, v in weights.items() if isinstance(v, float)}
    return values


def mean_and_std(rows: list[Row]) -> Row:
    """Return mean and standard deviation of every metric over the seeds; of the epoch only the mean."""
    means = {key: mean(row[key] for row in rows) for key in rows[0]}
    if len(rows) == 1:
        return means
    return means | {f"{key}_std": stdev(row[key] for row in rows) for key in means if key != "best_epoch"}


def progress(search: Block) -> dict[int, float]:
    """Return the best value up to each trial of a search, from the first complete one on."""
    pick = max if sign(search["metric"]) > 0 else min
    points, best = dict[int, float](), None
    for trial in search["trials"]:
        if trial["state"] == "COMPLETE" and trial["value"] is not None:
            best = trial["value"] if best is None else pick(best, trial["value"])
        if best is not None:
            points[trial["number"]] = best
    return points


def search_steps(search: Block) -> dict[str, dict[int, float]]:
    """Return the metrics of a search that have a value at some of its trials, by trial.

    Best value so far, expected best of so many trials, train rows seen so far, and the mean over all seeds of
    each finalist.
    """
    metric, budget = search["metric"], search.get("budget", {})
    finals = {one["trial"]: one["mean"] for one in search.get("finalists", []) if one["mean"] is not None}
    steps = {
        f"search_best_{metric}": progress(search),
        f"search_expected_{metric}": dict(enumerate(budget.get("expected", []))),
        "search_rows": dict(enumerate(budget.get("rows", []))),
        f"search_final_{metric}": finals,
    }
    return {grouped(name): values for name, values in steps.items() if values}


def search_summary(search: Block) -> Row:
    """Return what a search as a whole has: how many trials, and how many of them came to their end."""
    completed = sum(trial["state"] == "COMPLETE" for trial in search["trials"])
    return {"search_trials": len(search["trials"]), "search_completed": completed}


def description(run: Block) -> str:
    """Return the description of a run: its results seed by seed."""
    head = f"**{run['model']}** on {run['dataset']}, {run['variant']} configuration"
    if search := run.get("search", {}):
        ended = search_summary(search)["search_completed"]
        head += (
            f": trial-{search['best']:03d} of {len(search['trials'])} trials, {ended} of them to their end"
        )
    lines = [head, "", _row("seed", "best epoch", "valid AUC", "valid logloss"), "|---|---|---|---|"]
    for seed in run["seeds"]:
        best = seed["best"]
        figures = (best["valid_auc"], best["valid_logloss"])
        lines.append(_row(seed["seed"], f"{best['epoch']:g}", *(f"{value:.4f}" for value in figures)))
    if capped := sum(seed.get("capped", False) for seed in run["seeds"]):
        lines += ["", f"Trainings that `epochs` ended and not their patience: {capped}."]
    if search and search.get("finalists"):
        default = next((one["mean"] for one in search["finalists"] if one["trial"] == 0), None)
        heads = f"mean valid {NAMES[search['metric']]} over the seeds", "less the default"
        lines += ["", _row("finalist", *heads), "|---|---|---|"]
        for one in search["finalists"]:
            mean_of = "diverged" if one["mean"] is None else f"{one['mean']:.4f}"
            less = ""
            if one["trial"] and None not in (one["mean"], default):
                less = with_error(one["mean"] - default, one.get("error"))
            who = f"trial {one['trial']}{' (default)' if one['trial'] == 0 else ''}"
            lines.append(_row(who, mean_of, less))
    return "\n".join(lines)


def headline(report: Block) -> str:
    """Return one sentence on the champion."""
    best = leader(report)
    return (
        f"Best on validation data: **{best['model']} ({best['variant']})**, "
        f"valid {chosen_by(report, best)}, test AUC {best['mean']['auc']:.4f}"
    )


def chosen_by(report: Block, result: Block) -> str:
    """Return the validation figure of a result by which models are compared: metric and mean."""
    metric = report["champion"].get("metric", "auc")  # a report of older code knows no other
    return f"{NAMES[metric]} {result[f'valid_{metric}']:.4f}"


def metric(name: str) -> str:
    """Return what MLflow calls a metric of a report.

    >>> metric("auc"), metric("valid_normalised_entropy")
    ('test/auc', 'best/valid_normalised_entropy')
    """
    return grouped(f"best_{name}" if name.startswith("valid_") else f"test_{name}")


def refit_metric(name: str) -> str:
    """Return what MLflow calls a test metric of a run's refit, trained on train and validation rows.

    >>> refit_metric("auc")
    'refit/auc'
    """
    return grouped(f"refit_{name}")


def warning_tags(result: Block) -> dict[str, str]:
    """Return what to beware of in a result: probabilities that are wrong on validation rows."""
    return {"pipeline.warning": result["warning"]} if result.get("warning") else {}


def note(report: Block) -> str:
    """Return the description of an experiment: its champion, and its models by test AUC."""
    by = report["champion"]["metric"]
    head = ("model", "variant", "test AUC", "test logloss", f"valid {NAMES[by]}")
    lines = [headline(report), "", _row(*head), "|---" * len(head) + "|"]
    for result in ordered(report["results"]):
        figures = (result["mean"]["auc"], result["mean"]["logloss"], result[f"valid_{by}"])
        lines.append(_row(result["model"], result["variant"], *(f"{value:.4f}" for value in figures)))
    return "\n".join(lines)


def _row(*cells: object) -> str:
    """Return a row of a table: the page writes cells edge to edge, so each ends with a space of its own."""
    return f"| {' | '.join(f'{cell}&emsp;' for cell in cells)} |"


def axes(searches: list[list[dict[str, str]]]) -> list[str]:
    """Return the settings that every one of some searches has tried several values of.

    Args:
        searches: of each, the settings of its trials.

    >>> trials = [{"train.lr": "0.1", "seed": "1"}, {"train.lr": "0.2", "seed": "1"}]
    >>> axes([trials, trials])
    ['train.lr']
    """
    varied = [
        {name for trial in trials for name in trial if len({other.get(name) for other in trials}) > 1}
        for trials in searches
    ]
    return sorted(set.intersection(*varied)) if varied else []


def link(address: str) -> str:
    """Return the line of a description that leads to a report."""
    return f"[The report]({address})"


def linked(note: str, line: str) -> str:
    r"""Return a description with the link to a report at the end of its first line, and no other one.

    >>> linked("fm on toy. [The report](#/old)\n\n| seed |", "[The report](#/new)")
    'fm on toy. [The report](#/new)\n\n| seed |'
    """
    first, *rest = note.split("\n")
    return "\n".join([f"{first.partition('. [The report](')[0]}. {line}", *rest])


def _kept(trial: Block, metric: str) -> Row:
    """Return the evaluation that a trial counts with, that of the weights it kept; without one, the best."""
    key, curve = f"valid_{metric}", trial["curve"]
    kept = next((row for row in curve if row[key] == trial["value"]), None)
    return kept or best_row(curve, metric) or {}
