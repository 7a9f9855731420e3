"""DeepFM with tables sharded over 1, 2 and 4 processes by TorchRec: memory of a process, learning curve.

    python -m benchmarks.sharded                                        tables of 2 x 10^6 rows
    python -m benchmarks.sharded --processes 1 2 4 --sharding table_wise --ids 200000

Each number of processes trains the same rows from the same start, by `fit`, with a checkpoint; rank 0 writes
the weights, and one process reads them into the plain model and a package. `tables` is what the largest rank
holds of tables and their optimizer (the plain model's: the tables alone); `RSS` the largest resident set of a
rank after training, `grown by` what of it came with model and training, and `peak` the same of the most it
ever had; `difference` the largest of any value of the learning curve from that of one process; `alone` the
same of the metrics that one process finds, and of the probabilities of a thousand raw rows that a package
scores. Above stands the plain model with Adam.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from pipeline.data.batches import Split
from pipeline.models import build
from pipeline.schema import Field, Schema
from pipeline.scoring import load
from pipeline.scoring.package import Package
from pipeline.scoring.reading import of_clean_table
from pipeline.train import parts, ranks, sharded
from pipeline.train.device import reproducible
from pipeline.train.loop import fit
from pipeline.train.predict import evaluate, predict

OPTIONS = {"embedding_size": 16, "hidden": [64, 64], "dropout": 0.0}
SETTINGS = {"epochs": 2, "batch_size": 4096, "lr": 1e-3, "evaluations_per_epoch": 4, "patience": 99}
SETTINGS |= {"clip_norm": 0.0}  # which sharded tables cannot have
KEYS = ("train_logloss", "valid_auc", "valid_logloss")
MIB = 2**20


def schema(ids: int) -> Schema:
    """Two large fields and two small ones."""
    half = ids // 2
    return Schema(
        (
            Field("user", half, domain="user", role="user"),
            Field("item", ids - half, domain="item", role="item"),
            Field("city", 50, domain="user"),
            Field("hour", 25, domain="context"),
        )
    )


def rows(of: Schema, count: int, seed: int) -> Split:
    """Draw rows whose clicks follow from effects of their ids; popular ids are frequent."""
    generator = torch.Generator().manual_seed(seed)
    columns, score = [], torch.zeros(count)
    for first, field in zip(of.offsets, of.fields, strict=True):
        own = (torch.rand(count, generator=generator) ** 4 * field.size).long().clamp(max=field.size - 1)
        columns.append(first + own)
        score += torch.sin(own.double() * 12.9898).float()  # an effect of each id, the same in every split
    label = (score + torch.randn(count, generator=generator) > 0).float()
    return Split(of, torch.stack(columns, 1).int(), label)


def train(options: Namespace) -> None:
    """Be one process: train, gather, write what was measured."""
    reproducible(1)
    of = schema(options.ids)
    splits = rows(of, options.rows, 1), rows(of, options.rows // 10, 2)
    process, out = psutil.Process(), Path(options.out)
    tables = sharded.Tables(options.sharding, options.table_lr)
    with ranks.group(torch.device("cpu"), always=not options.plain):  # one process shards, too
        if not options.plain:  # what the libraries take is no part of the model
            sharded.build("deepfm", schema(200), OPTIONS, seed=1, tables=tables)
        before = process.memory_info().rss
        if options.plain:
            model = build("deepfm", of, OPTIONS, seed=1)
            held = sum(layer.table.nbytes for layer in (model.embedding, model.linear))
        else:
            model = sharded.build("deepfm", of, OPTIONS, seed=1, tables=tables)
            held = sum(table.nbytes() for table in sharded.sharded_tables(model).values())
        began = time.process_time()
        state = fit(model, *splits, seed=1, checkpoint=out / "checkpoint", **SETTINGS)
        seconds = time.process_time() - began
        after = process.memory_info().rss
        valid = evaluate(model, splits[1])
        with parts.writing(out / "weights") as file:
            parts.write(file, sharded.weights(model))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        each = ranks.gathered((held, after, after - before, peak - before, seconds))
        if ranks.rank() == 0:
            found = {"curve": state.curve, "each": each, "valid": valid}
            (out / "found.json").write_text(json.dumps(found), encoding="utf-8")


def measured(options: Namespace, count: int, *, plain: bool = False) -> dict[str, Any]:
    """Train in so many processes; then read the weights here and score."""
    with tempfile.TemporaryDirectory() as out:
        words = ["--ids", options.ids, "--rows", options.rows, "--sharding", options.sharding, "--out", out]
        words += ["--table-lr", options.table_lr, *(["--plain"] if plain else [])]
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
        command = [*(start if count > 1 else [sys.executable]), "-m", "benchmarks.sharded", *words]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        subprocess.run([str(word) for word in command], check=True, env=env)
        found: dict[str, Any] = json.loads(Path(out, "found.json").read_text(encoding="utf-8"))
        of = schema(options.ids)
        model = build("deepfm", of, OPTIONS, seed=0)
        base = torch.zeros(())
        model.register_buffer("base_logit", base)
        model.load_state_dict(load_file(Path(out, "weights")))
        valid = rows(of, options.rows // 10, 2)
        found["alone"] = evaluate(model, valid)
        scored = packaged(of, Path(out, "weights").read_bytes(), Path(out, "package"), valid.ids[:1000])
        gap = scored - predict(model, valid)[:1000].numpy()
        found["packaged"] = float(abs(gap).max())
    return found


def packaged(of: Schema, weights: bytes, folder: Path, ids: Tensor) -> NDArray[np.float32]:
    """Write a package with the gathered weights; return the raw probabilities of raw rows that it reads."""
    vocabulary = [
        {
            "name": field.name,
            "kind": "category",
            "domain": field.domain,
            "role": field.role,
            "rare": 0,
            "values": [str(number) for number in range(1, field.size)],
        }
        for field in of.fields
    ]
    reading = {key: value for key, value in of_clean_table(vocabulary).items() if key != "time"}
    head = {"dataset": "generated", "model": "deepfm", "variant": "default"}
    Package("deepfm", OPTIONS, vocabulary, reading, {"method": "none"}, weights, head).write(folder)
    raw = {field.name: (ids[:, i] - of.offsets[i]).numpy().astype(str) for i, field in enumerate(of.fields)}
    return load(folder).predict(raw)["raw_probability"].to_numpy()


def difference(found: dict[str, Any], first: dict[str, Any]) -> float:
    """Return the largest difference between two learning curves."""
    pairs = zip(found["curve"], first["curve"], strict=True)
    return max(abs(one[key] - other[key]) for one, other in pairs for key in KEYS)


def main() -> None:
    """Print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--ids", type=int, default=2_000_000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--sharding", choices=("row_wise", "table_wise"), default="row_wise")
    parser.add_argument("--table-lr", type=float, default=0.02)
    parser.add_argument("--plain", action="store_true", help="one process with Adam, unsharded")
    parser.add_argument("--out", help="of a process that trains: its folder")
    options = parser.parse_args()
    if options.out:
        train(options)
        return
    print(
        "| processes | tables MiB | RSS MiB | grown by | peak "
        "| CPU s a rank | AUC | logloss | difference | alone |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---|")
    first = None
    for count, plain in [(1, True), *((count, False) for count in options.processes)]:
        found = measured(options, count, plain=plain)
        first = first if plain else first or found
        held, rss, grown, peak, seconds = (max(values) for values in zip(*found["each"], strict=True))
        last = found["curve"][-1]
        gap = difference(found, first) if first else float("nan")
        alone = max(abs(found["alone"][key] - found["valid"][key]) for key in found["valid"])
        print(
            f"| {'1, plain, Adam' if plain else count} | {held / MIB:.1f} | {rss / MIB:.0f} | "
            f"{grown / MIB:.0f} | {peak / MIB:.0f} | {seconds:.1f} | "
            f"{last['valid_auc']:.5f} | {last['valid_logloss']:.5f} | {gap:.1e} | "
            f"{alone:.0e}, {found['packaged']:.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
