"""The last words of a run: who won, by how much, where the report is and how to look further."""

from pathlib import Path
from typing import Any

from pipeline.common.errors import PipelineError, unknown
from pipeline.common.files import read_json
from pipeline.config.metric import NAMES
from pipeline.evaluate.results import leader

Block = dict[str, Any]
REPORTS = Path("data/reports")
PAGES = ("report.html", "leaderboard.md")  # the first that is there is the one to read
BROWSE = "browse:   make ui (MLflow), optuna-dashboard studies/journal.jsonl (the searches)"


def outcome(root: Path, datasets: list[str]) -> str:
    """Return a few lines on the reports of these datasets.

    Raises:
        PipelineError: one has no report.
    """
    lines = []
    for name in datasets:
        path = root / REPORTS / name / "report.json"
        if not path.exists():
            made = [each.parent.name for each in (root / REPORTS).glob("*/report.json")]
            raise PipelineError(f"{unknown('report', name, made)}; `make repro` writes those of `datasets`")
        page = next((page for page in PAGES if (path.parent / page).exists()), PAGES[-1])
        lines += [*_lines(name, read_json(path)), f"report:   {REPORTS / name / page}", ""]
    return "\n".join([*lines, BROWSE])


def _lines(name: str, report: Block) -> list[str]:
    winner = leader(report)
    metric = report["champion"].get("metric", "auc")
    value = f"{NAMES[metric]} {winner[f'valid_{metric}']:.4f}"
    error = report["champion"].get("valid_auc_error") if metric == "auc" else None
    if error is not None:
        value += f" (standard error {error:.4f})"
    best = max(report["results"], key=lambda r: (r["mean"]["auc"], r is winner))
    return [
        f"{name}: {len({r['model'] for r in report['results']})} models on {report['rows']:,} test rows",
        f"champion: {_row(winner)}, valid {value}, by which it was chosen",
        "best row: " + ("the champion" if best is winner else _row(best) + _distance(best, winner)),
    ]


def _row(result: Block) -> str:
    spread = f" ± {result['std']['auc']:.4f}" if result["std"] else ""
    return f"{result['model']} ({result['variant']}), test AUC {result['mean']['auc']:.4f}{spread}"


def _distance(best: Block, winner: Block) -> str:
    """Whether the best row is really better than the champion; nothing where they were not compared."""
    if best["model"] == winner["model"] or best["p_holm"] is None:
        return ""
    return ", cannot be told from the champion" if best["p_holm"] >= 0.05 else f" (p = {best['p_holm']:.1g})"
