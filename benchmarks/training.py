"""Examples a second in training: ours and deepctr-torch side by side, and what the processor would allow.

    python -m benchmarks.training                          every model at batch 128, 1024, 4096
    python -m benchmarks.training --models deepfm --batches 128 --repeats 9
    python -m benchmarks.training --precision bfloat16
    python -m benchmarks.training tables                   a step against the rows of the table
    python -m benchmarks.training rows                     a row against the number of rows

The rows are generated with the sizes of MovieLens-1M's seven fields; both libraries get the same rows,
sizes, learning rate and L2, and train one epoch by their own `fit`, in turn, as often as `--repeats` says.
Their loss is the sum over a batch, ours the mean: with Adam that is the same step, and an L2 of 2 l2 / B
here is their l2. Theirs has no clipping, so ours is off. `ratio` is the median of the ratios of
neighbours in time, since seconds on shared machines mean little; `limit` is the speed at which the model's
own matrix products (counted, forward and backward) would run as fast as one large product does, measured
between the runs: by torch's `@` (a BLAS, mostly MKL), and by the faster of that and oneDNN. xDeepFM is
trained as in its paper, and with the relu and the split of public code. With
`tables` a step of FM is timed with the table moved whole and row by row.
"""

import contextlib
import io
import math
import statistics
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.flop_counter import FlopCounterMode

from pipeline.data.batches import Split
from pipeline.kernels.product import product
from pipeline.models import build
from pipeline.schema import Field, Schema
from pipeline.train.device import reproducible
from pipeline.train.loop import fit

DIM, HIDDEN, L2 = 16, [200, 200, 200], 1e-5
MOVIELENS = Schema(
    (
        Field("user", 6041, domain="user", role="user"),
        Field("item", 3707, domain="item", role="item"),
        Field("gender", 3, domain="user"),
        Field("age", 8, domain="user"),
        Field("occupation", 22, domain="user"),
        Field("zip", 3440, domain="user"),
        Field("genre", 302, domain="item"),
    )
)
NETWORK = {"embedding_size": DIM, "hidden": HIDDEN, "dropout": 0.0}
OURS: dict[str, dict[str, Any]] = {
    "deepfm": NETWORK,
    "nfm": NETWORK,
    "dcn": {**NETWORK, "cross_layers": 2},
    "xdeepfm": {**NETWORK, "cin": [64, 64]},
    "xdeepfm, relu": {**NETWORK, "cin": [64, 64], "split_half": True, "cin_activation": "relu"},
    "fibinet": {**NETWORK, "kind": "interaction"},
    "autoint": {**NETWORK, "attention_size": DIM // 2, "heads": 2, "attention_layers": 3},
}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "deepfm": ("DeepFM", {}),
    "nfm": ("NFM", {}),
    "dcn": ("DCN", {"cross_num": 2}),
    "xdeepfm": (
        "xDeepFM",
        {"cin_layer_size": (64, 64), "cin_split_half": False, "cin_activation": "linear"},
    ),
    "xdeepfm, relu": ("xDeepFM", {"cin_layer_size": (64, 64), "cin_split_half": True}),
    "fibinet": ("FiBiNET", {"bilinear_type": "interaction"}),
    "autoint": ("AutoInt", {"att_layer_num": 3, "att_head_num": 2}),
}


def generated(schema: Schema, rows: int) -> Split:
    """Rows whose ids are as unevenly frequent as a log's, and coins for labels."""
    draw = np.random.default_rng(1)
    columns = [
        first
        + 1
        + np.minimum(((field.size - 1) * draw.random(rows) ** 3).astype(int), max(field.size - 2, 0))
        for first, field in zip(schema.offsets, schema.fields, strict=True)
    ]
    ids = torch.from_numpy(np.stack(columns, 1).astype(np.int32))
    return Split(schema, ids, torch.from_numpy((draw.random(rows) < 0.5).astype(np.float32)))


def epoch(model: nn.Module, train: Split, batch: int, **settings: Any) -> float:
    """Train one epoch by `fit`; rows a second. The validation part is too small to matter."""
    valid = Split(train.schema, train.ids[:256], train.label[:256])
    start = time.perf_counter()
    fit(model, train, valid, seed=1, epochs=1, batch_size=batch, clip_norm=0.0, **settings)
    return len(train) / (time.perf_counter() - start)


def theirs(name: str, train: Split) -> tuple[nn.Module, dict[str, np.ndarray]]:
    """Their model and the rows in their terms."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    import deepctr

    kind, options = THEIRS[name]
    columns = deepctr.columns(train.schema, DIM)
    with contextlib.redirect_stdout(io.StringIO()):
        model = getattr(deepctr.models, kind)(columns, columns, dnn_hidden_units=tuple(HIDDEN), **options)
        model.compile("adam", "binary_crossentropy", metrics=[])
    values = deepctr.features(train.schema, train.ids).float().numpy()
    return model, {field.name: values[:, i] for i, field in enumerate(train.schema.fields)}


def rate(multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float:
    """Floating point operations a second of a large product of matrices."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    start = time.perf_counter()
    for _ in range(4):
        multiply(a, b)
    return 4 * 2 * 2048**3 / (time.perf_counter() - start)


def operations(model: nn.Module, inputs: torch.Tensor, label: torch.Tensor) -> float:
    """Floating point operations of the matrix products for one row, forward and backward."""
    onednn = {torch.ops.mkldnn._linear_pointwise: lambda x, w, *_, **__: 2 * math.prod(x) * w[0]}
    with FlopCounterMode(display=False, custom_mapping=onednn) as counter, torch.enable_grad():
        score = model(inputs).reshape(-1)
        binary_cross_entropy_with_logits(score, label).backward()
    return counter.get_total_flops() / len(label)


def compare(names: list[str], batches: list[int], rows: int, repeats: int, precision: str) -> None:
    """Print the table of models against batches."""
    train = generated(MOVIELENS, rows)
    print(
        "| model | batch | ours, rows/s | deepctr-torch | ratio | kflop a row, ours / theirs "
        "| of `@` | of the limit |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    for name in names:
        for batch in batches:
            rates: list[tuple[float, float, float, float]] = []
            for repeat in range(repeats + 1):
                model = build(name.split(",")[0], MOVIELENS, OURS[name], seed=1)
                mine = epoch(model, train, batch, embedding_l2=2 * L2 / batch, precision=precision)
                torch.use_deterministic_algorithms(False)  # as their users have it
                other, columns = theirs(name, train)
                start = time.perf_counter()
                with contextlib.redirect_stdout(io.StringIO()):
                    other.fit(columns, train.label.numpy(), batch_size=batch, epochs=1, verbose=0)
                their = len(train) / (time.perf_counter() - start)
                torch.use_deterministic_algorithms(True)
                if repeat:  # the first warms up
                    blas = rate(torch.matmul)
                    rates.append((mine, their, blas, max(blas, rate(product))))
            few = slice(0, 256)
            model = build(name.split(",")[0], MOVIELENS, OURS[name], seed=1)
            flops = operations(model, train.ids[few], train.label[few])
            values = torch.from_numpy(np.stack([columns[f.name][few] for f in MOVIELENS.fields], 1))
            their_flops = operations(other, values, train.label[few])
            mine, their, *_ = (statistics.median(column) for column in zip(*rates, strict=True))
            ratio = statistics.median(a / b for a, b, *_ in rates)
            of_blas = statistics.median(a * flops / c for a, _, c, _ in rates)
            of_limit = statistics.median(a * flops / d for a, _, _, d in rates)
            print(
                f"| {name} | {batch} | {mine:,.0f} | {their:,.0f} | {ratio:.2f} "
                f"| {flops / 1e3:.0f} / {their_flops / 1e3:.0f} | {of_blas:.0%} | {of_limit:.0%} |",
                flush=True,
            )


def step(model: nn.Module, train: Split, batch: int, repeats: int, **settings: Any) -> float:
    """Median time of a step in microseconds: of the later half of an epoch, against its first half."""
    half = Split(train.schema, train.ids[: len(train) // 2], train.label[: len(train) // 2])
    times = [
        len(train) / epoch(model, train, batch, **settings)
        - len(half) / epoch(model, half, batch, **settings)
        for _ in range(repeats)
    ]
    return statistics.median(times) / (len(half) / batch) * 1e6


def tables(repeats: int, batch: int = 256, dim: int = 32) -> None:
    """Print the time of a step against the rows of the table, moved whole and row by row."""
    print(f"FM, embedding size {dim}, batch {batch}: microseconds a step")
    print("| table rows | moved whole | row by row |\n|---:|---:|---:|", flush=True)
    for size in (10**4, 10**5, 10**6, 10**7):
        schema = Schema((Field("user", size // 2), Field("item", size // 2)))
        count = 400 if size <= 10**6 else 3000  # whose copies of the best weights take seconds
        ids = torch.randint(1, size, (batch * count, 2), dtype=torch.int32)
        train = Split(schema, ids, generated(MOVIELENS, len(ids)).label)
        few = Split(schema, ids[: batch * 60], train.label[: batch * 60]) if size > 10**5 else train
        model = build("fm", schema, {"embedding_size": dim}, seed=1)
        whole = f"{step(model, few, batch, repeats, lazy_rows=10**12):,.0f}" if size <= 10**6 else "-"
        print(f"| {size:,} | {whole} | {step(model, train, batch, repeats, lazy_rows=1):,.0f} |", flush=True)


def lengths(repeats: int, batch: int = 1024) -> None:
    """Print the time of a row against the number of rows."""
    print(f"DeepFM, batch {batch}")
    print("| rows | rows/s |\n|---:|---:|", flush=True)
    for rows in (10**4, 10**5, 10**6):
        train = generated(MOVIELENS, rows)
        rates = [
            epoch(build("deepfm", MOVIELENS, OURS["deepfm"], seed=1), train, batch) for _ in range(repeats)
        ]
        print(f"| {rows:,} | {statistics.median(rates):,.0f} |", flush=True)


def main() -> None:
    """Read the arguments and print the tables asked for."""
    parser = ArgumentParser(description="speed of training")
    parser.add_argument("what", nargs="?", default="models", choices=["models", "tables", "rows"])
    parser.add_argument("--models", nargs="+", default=list(OURS), choices=list(OURS))
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 1024, 4096])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    arguments = parser.parse_args()
    reproducible(arguments.threads)
    print(
        f"torch {torch.__version__}, {arguments.threads} threads, {torch.backends.cpu.get_cpu_capability()}"
    )
    if arguments.what == "tables":
        tables(arguments.repeats)
    elif arguments.what == "rows":
        lengths(arguments.repeats)
    else:
        compare(arguments.models, arguments.batches, arguments.rows, arguments.repeats, arguments.precision)


if __name__ == "__main__":
    main()
