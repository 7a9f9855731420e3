"""Rows per second and peak memory of `predict`, beside pandas and scikit-learn with the same network.

    python -m benchmarks.scoring            1,000,000 rows of 11 fields, DeepFM, from Parquet and CSV
    python -m benchmarks.scoring --rows N

Each way is a process of its own that starts with the rows on disk and ends with the scores there; its time is
without the imports. The other way reads by pandas and encodes by scikit-learn's OrdinalEncoder, numpy's
searchsorted and a dict of tags, into the same ids for the same network. On a machine with other work the CPU
seconds say more than the clock's.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from safetensors.torch import save

from pipeline.common.files import read_json, write_json
from pipeline.models import build
from pipeline.schema import Column
from pipeline.scoring import load, score
from pipeline.scoring.package import Package
from pipeline.split.vocabulary import fit_vocabulary, schema

CATEGORIES = {
    "user": 100_000,
    "item": 20_000,
    "category": 40,
    "city": 300,
    "age": 7,
    "gender": 3,
    "device": 5,
}
CATEGORIES |= {"hour": 24, "weekday": 7}
USER = ("user", "city", "age", "gender")
TAGS = 50
FIELDS: dict[str, Any] = {
    **{name: {"domain": "user" if name in USER else "item"} for name in CATEGORIES},
    "price": {"domain": "item", "type": "number"},
    "tags": {"domain": "item", "type": "bag"},
}
COLUMNS = [Column(name, field.get("type", "category"), field["domain"]) for name, field in FIELDS.items()]
OPTIONS = {"embedding_size": 16, "hidden": [64, 64]}


def rows(count: int, seed: int) -> pa.Table:
    """Draw rows whose values are as skewed as those of logs; one in fifty is missing."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, size in CATEGORIES.items():
        code = np.minimum((size * rng.random(count) ** 2).astype(int), size - 1)
        values = pa.array([f"{name[0]}{value:06d}" for value in range(size)])
        made[name] = values.take(pa.array(code, mask=rng.random(count) < 0.02))
    made["price"] = pa.array(np.round(rng.gamma(2, 20, count), 2), mask=rng.random(count) < 0.02)
    bags = ["|".join(f"t{tag:02d}" for tag in rng.integers(TAGS, size=rng.integers(5))) for _ in range(5000)]
    made["tags"] = pa.array(bags).take(pa.array(rng.integers(len(bags), size=count)))
    return pa.table(made)


def write_package(folder: Path, count: int) -> None:
    """Write a package whose vocabulary is that of so many rows."""
    train = rows(count, seed=1)
    vocabulary = fit_vocabulary(lambda name: train[name].chunks, COLUMNS, min_count=2)
    network = build("deepfm", schema(vocabulary), OPTIONS, seed=1)
    weights = save({name: value.contiguous() for name, value in network.state_dict().items()})
    Package("deepfm", OPTIONS, vocabulary, {"fields": FIELDS}, {"method": "none"}, weights, {}).write(folder)


def prepare(folder: Path, count: int) -> None:
    """Write a package and other rows."""
    write_package(folder / "package", count)
    frame = rows(count, seed=2).to_pandas()
    frame.to_parquet(folder / "rows.parquet")
    frame.to_csv(folder / "rows.csv", index=False)


def ours(folder: Path, file: str) -> None:
    """Score a file as `predict` does."""
    model = load(folder / "package")
    score.run(model, folder / file, folder / "ours.parquet", layout=model.reading.layout)


def theirs(folder: Path, file: str) -> None:
    """Score a file by pandas and scikit-learn, whole."""
    from sklearn.preprocessing import OrdinalEncoder

    torch.set_num_threads(1)  # as in ours
    model = load(folder / "package")
    entries = {entry["name"]: entry for entry in model.package.vocabulary}
    path = folder / file
    types = dict.fromkeys(CATEGORIES, str)
    frame = pd.read_csv(path, dtype=types) if file.endswith("csv") else pd.read_parquet(path)
    parts = []
    for field, first in zip(model.package.schema.fields, model.package.schema.offsets, strict=True):
        entry, column = entries[field.name], frame[field.name]
        if entry["kind"] == "category":
            known = np.array([["" if value is None else value] for value in entry["values"]], object)
            coder = OrdinalEncoder(
                categories=[known[:, 0]], handle_unknown="use_encoded_value", unknown_value=-1, dtype=np.int64
            ).fit(known[:1])
            parts.append(first + 1 + coder.transform(column.fillna("").to_numpy(object)[:, None]))
        elif entry["kind"] == "number":
            bins = np.searchsorted(np.array(entry["edges"]), column.to_numpy(), side="right") + 2
            parts.append((first + np.where(column.isna(), 1, bins))[:, None])
        else:
            place = {value: first + 1 + number for number, value in enumerate(entry["values"])}
            ids = np.zeros((len(frame), field.slots), np.int64)
            for row, text in enumerate(column.fillna("")):
                tags = list(dict.fromkeys(place.get(tag, first) for tag in text.split("|") if tag))
                ids[row, : len(tags)] = tags[: field.slots]
            parts.append(ids)
    ids = torch.from_numpy(np.concatenate(parts, 1).astype(np.int32))
    with torch.inference_mode():
        found = torch.cat([model.network(batch).sigmoid() for batch in ids.split(4096)])
    pd.DataFrame({"probability": found.numpy()}).to_parquet(folder / "theirs.parquet")


def measured(folder: Path, way: str, file: str) -> dict[str, float]:
    """Run one way in a process of its own; return seconds and peak memory in MiB."""
    words = [
        sys.executable,
        "-m",
        "benchmarks.scoring",
        "--way",
        way,
        "--folder",
        str(folder),
        "--file",
        file,
    ]
    subprocess.run(words, check=True)
    result: dict[str, float] = read_json(folder / "result.json")
    return result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    for name in ("way", "folder", "file"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        start, cpu = time.perf_counter(), time.process_time()
        {"ours": ours, "theirs": theirs}[given.way](Path(given.folder), given.file)
        found = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        found["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        write_json(Path(given.folder, "result.json"), found)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder, given.rows)
        print(f"{given.rows:,} rows\n| from | with | rows/s | seconds | CPU seconds | peak MiB |")
        print("|---|---|---:|---:|---:|---:|")
        for file in ("rows.parquet", "rows.csv"):
            for way in ("ours", "theirs"):
                found = measured(folder, way, file)
                figures = (
                    f"{given.rows / found['seconds']:,.0f} | {found['seconds']:.1f} | {found['cpu']:.1f}"
                )
                print(f"| {file} | {way} | {figures} | {found['mib']:,.0f} |", flush=True)
            a, b = (pd.read_parquet(folder / f"{way}.parquet")["probability"] for way in ("ours", "theirs"))
            print(f"largest difference {np.abs(a - b).max():.1e}")


if __name__ == "__main__":
    main()
