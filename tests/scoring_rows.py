"""A click log with everything that a log may hold, and a package of an untrained model for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from rows import wake
from safetensors.torch import save

from pipeline.datasets import tabular
from pipeline.models import build
from pipeline.preprocess.rejects import RejectLog
from pipeline.schema import Role
from pipeline.scoring.package import Package
from pipeline.split.vocabulary import apply, fit_vocabulary, schema

FIELDS: dict[str, Any] = {
    "user_id": {"domain": "user"},
    "age": {"domain": "user"},
    "item": {"domain": "item", "column": "item_id"},
    "price": {"domain": "item", "type": "number"},
    "tags": {"domain": "item", "type": "bag"},
    "ts": {"domain": "context", "type": "timestamp", "parts": ["hour", "weekday"]},
}
ENTRY = {"label": "click", "fields": FIELDS, "time": "ts"}
ROLES: dict[str, Role] = {"user_id": "user", "item": "item"}
HEADER = ["user_id", "age", "item_id", "price", "tags", "ts", "click"]


def log(rows: int, seed: int = 1, users: int = 60) -> list[list[str]]:
    """Rows of a CSV, with missing values in all but user and time; clicks depend on user, price and tags."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(rows):
        user, item, price = rng.integers(users), rng.integers(30), rng.gamma(2, 20)
        tags = rng.choice(["new", "sale", "Café", "1+1"], rng.integers(0, 4), replace=False)
        score = user % 5 - 2 + (price < 30) + ("sale" in tags) + rng.normal()
        day, hour = 1 + rng.integers(28), rng.integers(24)
        made.append(
            [
                str(1000 + user),
                "" if rng.random() < 0.1 else str(18 + rng.integers(50)),
                "NA" if rng.random() < 0.05 else f"i{item:02d}",
                "" if rng.random() < 0.1 else f"{price:.2f}",
                "|".join(tags),
                f"2024-03-{day:02d} {hour:02d}:{rng.integers(60):02d}:00",
                str(int(score > 0)),
            ]
        )
    return made


def write_csv(path: Path, rows: list[list[str]], header: list[str] = HEADER) -> Path:
    """Write rows as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n", encoding="utf-8")
    return path


def clean(folder: Path, **more: Any) -> pa.Table:
    """What preprocess makes of the files of a folder."""
    found = tabular.read(folder, RejectLog(), **{**ENTRY, **more})
    return pa.concat_tables(list(found.tables)).unify_dictionaries().combine_chunks()


def package(
    folder: Path, model: str = "deepfm", options: dict[str, Any] | None = None, **more: Any
) -> Package:
    """An untrained model for the log in a folder, which is read as `tabular` reads it."""
    entry = {**ENTRY, **more}
    log = tabular.read(folder, RejectLog(), **entry)
    rows = pa.concat_tables(list(log.tables)).unify_dictionaries().combine_chunks()
    columns = [replace(column, role=ROLES.get(column.name)) for column in log.columns]
    vocabulary = fit_vocabulary(lambda name: rows[name].chunks, columns, bins=5)
    network = build(model, schema(vocabulary), options or {}, seed=1)
    wake(network)
    return Package(
        architecture=model,
        options=options or {},
        vocabulary=vocabulary,
        reading={key: value for key, value in entry.items() if key != "label"},
        calibration={"method": "platt", "slope": 0.5, "intercept": -1.0},
        weights=save({name: value.contiguous() for name, value in network.state_dict().items()}),
        trained_on={"dataset": "mine"},
    )


def expected(package: Package, rows: pa.Table) -> Any:
    """Raw probabilities of clean rows by the parts that training uses."""
    with torch.inference_mode():
        return package.network()(torch.from_numpy(apply(package.vocabulary, rows))).sigmoid().numpy()
