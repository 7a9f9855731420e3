"""Does `watch` find what has changed, and is it silent where nothing has?

    python -m benchmarks.watch [--seeds 200] [--rows 300 2000] [--folder FOLDER]

A model is trained on a log of 30,000 rows; new logs are other samples of it, as they are or with a planted
drift. Counted are logs with any alarm, and those with a drift whose own figure raised one.
"""

import os
import subprocess
import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from ruamel.yaml import YAML

from pipeline.common.errors import PipelineError
from pipeline.config import params
from pipeline.scoring import Model, pack
from pipeline.watch import reference, report

DATASET = "mine"
ENTRY: dict[str, Any] = {
    "source": "tabular",
    "download": {"path": "log.csv"},
    "preprocess": {
        "label": {"column": "event", "equals": "buy"},
        "fields": {
            "user": "user",
            "city": "user",
            "item": "item",
            "price": {"domain": "item", "type": "number"},
            "tags": {"domain": "item", "type": "bag"},
            "device": "context",
        },
    },
    "split": {"method": "random", "seed": 3, "test": 0.3, "valid": 0.1},
    "encode": {"min_count": 2},
    "settings": {
        "train": {"epochs": 3, "seeds": [1], "threads": 1},
        "tune": {"trials": 1, "paper_start": False},
    },
}


def log(rows: int, seed: int) -> pd.DataFrame:
    """Draw rows of one and the same log: some prices and cities are missing, two rows in five are bought."""
    draw = np.random.default_rng(seed)
    user, item = draw.zipf(1.3, rows) % 500, draw.zipf(1.2, rows) % 2000
    price = draw.gamma(2, 20, rows)
    sale = draw.random(rows) < 0.3
    score = (user % 7 - 3) / 2 + (item % 5 - 2) / 2 - (price - 40) / 40 + sale - 0.4
    tags = np.where(sale, "sale", "") + np.where(sale & (item % 2 > 0), "|new", "")
    return pd.DataFrame(
        {
            "user": user.astype(str),
            "city": np.where(draw.random(rows) < 0.05, "", (user % 12).astype(str)),
            "item": item.astype(str),
            "price": np.where(draw.random(rows) < 0.1, "", np.round(price, 2).astype(str)),
            "tags": tags,
            "device": draw.choice(["phone", "desktop", "tablet"], rows, p=[0.6, 0.3, 0.1]),
            "event": np.where(draw.random(rows) < 1 / (1 + np.exp(-score)), "buy", "view"),
        }
    )


def shifted(frame: pd.DataFrame, _draw: np.random.Generator) -> pd.DataFrame:
    """Prices are half as high again."""
    price = np.round(1.5 * pd.to_numeric(frame["price"]), 2)
    return frame.assign(price=price.map("{:g}".format).replace("nan", ""))


def new_category(frame: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    """One row in five comes from a device that training did not see."""
    return frame.assign(device=np.where(draw.random(len(frame)) < 0.2, "watch", frame["device"]))


def twice_the_rate(frame: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    """Other rows buy, too, until twice as many do."""
    bought = (frame["event"] == "buy").to_numpy()
    more = draw.random(len(frame)) < bought.mean() / (1 - bought.mean())
    return frame.assign(event=np.where(bought | more, "buy", "view"))


def renamed(frame: pd.DataFrame, _draw: np.random.Generator) -> pd.DataFrame:
    """The column of cities has another name."""
    return frame.rename(columns={"city": "town"})


# the drift, and the figure that must raise the alarm
DRIFTS: dict[str, tuple[Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame], str]] = {
    "a field's distribution shifted": (shifted, "psi price"),
    "a new category at 20 %": (new_category, "unseen device"),
    "label rate doubled": (twice_the_rate, "label_rate"),
    "a column renamed": (renamed, "no column 'city', which the model reads"),
}


def make(folder: Path, rows: int, model: str) -> None:
    """Run all stages on a log of so many rows."""
    values = YAML(typ="safe", pure=True).load(Path("params.yaml").read_text(encoding="utf-8"))
    values |= {"datasets": [DATASET], "models": [model], "variants": [], "data": {DATASET: ENTRY}}
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "params.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(values, file)
    log(rows, 0).to_csv(folder / "log.csv", index=False)
    for stage in ("download", "preprocess", "split", "train", "tune", "evaluate"):
        words = [sys.executable, "-m", f"stages.{stage}", "--dataset", DATASET]
        words += ["--model", model] if stage in ("train", "tune") else []
        subprocess.run(words, cwd=folder, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=True)


def alarms(
    root: Path, settings: params.Params, model: Model, compared: reference.Block, frame: pd.DataFrame
) -> list[str]:
    """Write a new log and watch it; return the alarms, or the error."""
    path = root / "new.csv"
    frame.to_csv(path, index=False)
    try:
        return report.alarms(report.watch(model, compared, path, settings.watch))
    except PipelineError as error:
        return [str(error)]


def main() -> None:
    """Print the table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--rows", type=int, nargs="+", default=[300, 2000])
    parser.add_argument("--folder", type=Path, help="of the project, kept there (default: a temporary one)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as scratch:
        root = arguments.folder or Path(scratch)
        if not (root / "data/reports" / DATASET).exists():
            make(root, 30_000, "deepfm")
        settings = params.load(root / "params.yaml")
        model = Model(pack.pack(root, DATASET, "deepfm", "default"))
        compared = reference.of_test_rows(root, model, settings.evaluate.bins)
        print("| new log | rows | logs | with an alarm | with its own | alarms |")
        print("|---|---:|---:|---:|---:|---|")
        for rows in arguments.rows:
            for name, (change, own) in {"as it was": (lambda frame, _: frame, ""), **DRIFTS}.items():
                found = []
                for seed in range(1, arguments.seeds + 1):
                    frame = change(log(rows, seed), np.random.default_rng(seed))
                    found.append(alarms(root, settings, model, compared, frame))
                which = Counter(alarm.split(";")[0].split(": ")[-1] for each in found for alarm in each)
                hits = sum(any(own in alarm for alarm in each) for each in found) if own else "-"
                named = ", ".join(f"{alarm} {count}" for alarm, count in which.most_common(4))
                some = sum(map(bool, found))
                print(f"| {name} | {rows:,} | {len(found)} | {some} | {hits} | {named} |", flush=True)


if __name__ == "__main__":
    main()
