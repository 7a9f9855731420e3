"""Saved views of an experiment's page, in the format that MLflow's page writes when a user saves one.

Each is a tag of the experiment and opens at `.../runs?viewStateShareKey=<name>`.
"""

import base64
import zlib
from collections.abc import Sequence
from typing import Any

from pipeline.common.files import canonical

Block = dict[str, Any]
TAG = "mlflow.sharedViewState."
CHARTS = ("curves", "size", "trials")  # the views that open with charts instead of a table
SECTION = "charts"


def views(mark: str, axes: Sequence[str]) -> dict[str, str]:
    """Return the saved views of a report by the tags that hold them.

    Args:
        mark: the tag of a report's runs, `true`, and of its trials, `trial`.
        axes: settings that every search of the report has tried; without any there is no view of trials.
    """
    board = _metrics("best/valid_auc", "test/auc", "test/auc_std", "test/logloss", "model/weights")
    runs = {
        "searchFilter": f"tags.`{mark}` = 'true'",
        "orderByKey": "metrics.`test/auc`",
        "orderByAsc": False,
    }
    found = {
        "leaderboard": {**runs, "selectedColumns": [*_params("model", "variant"), *board]},
        "curves": {
            **runs,
            "selectedColumns": board[:2],
            **_charts(*(_line(name) for name in ("valid/auc", "valid/logloss", "train/logloss"))),
        },
        "size": {
            **runs,
            "selectedColumns": [board[1], board[-1]],
            **_charts(
                _scatter("model/weights", "test/auc"),
                _scatter("best/valid_auc", "test/auc"),
            ),
        },
    }
    if axes:
        found["trials"] = {
            "searchFilter": f"tags.`{mark}` = 'trial'",
            "orderByKey": "metrics.`best/valid_auc`",
            "orderByAsc": False,
            "selectedColumns": ["tags.`pipeline.model`", *_params(*axes), *board[:1]],
            **_charts(
                {"type": "PARALLEL", "selectedParams": list(axes), "selectedMetrics": ["best/valid_auc"]}
                | {"showAllRuns": True}
            ),
        }
    return {f"{TAG}{name}": _packed(name, state) for name, state in found.items()}


def _metrics(*names: str) -> list[str]:
    return [f"metrics.`{name}`" for name in names]


def _params(*names: str) -> list[str]:
    return [f"params.`{name}`" for name in names]


def _line(metric: str) -> Block:
    return {"type": "LINE", "metricKey": metric, "selectedMetricKeys": [metric], "xAxisKey": "step"} | {
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "lineSmoothness": 0,
    }


def _scatter(x: str, y: str) -> Block:
    axes = {name: {"key": key, "type": "METRIC"} for name, key in (("xaxis", x), ("yaxis", y))}
    return {"type": "SCATTER", "runsCountToCompare": 100, **axes}


def _charts(*cards: Block) -> Block:
    """Return the state of a page that shows these charts first; it adds the metrics that they lack below."""
    own = {"metricSectionId": SECTION, "deleted": False, "isGenerated": False}
    section = {"uuid": SECTION, "name": "Charts", "display": True, "isReordered": True}
    return {
        "compareRunCharts": [{**card, "uuid": f"chart-{i}", **own} for i, card in enumerate(cards)],
        "compareRunSections": [section],
        "isAccordionReordered": True,
        "runsHiddenMode": "SHOW_ALL",
    }


def _packed(name: str, state: Block) -> str:
    packed = base64.b64encode(zlib.compress(canonical(state).encode())).decode()
    title = name.capitalize()
    return canonical({"name": title, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"})
