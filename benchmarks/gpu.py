"""What a GPU gives: is it right, does it repeat, how fast is a step, and what holds it up.

    python -m benchmarks.gpu                    at most five minutes, one Markdown report
    python -m benchmarks.gpu --seconds 120      what comes last is left out, and the report says so
    python -m benchmarks.gpu --device cpu       the same on the processor, in sizes for one

It needs torch, numpy, annotated-types, jaxtyping, psutil and tqdm, no dvc, mlflow or optuna, no files and no
network. The rows are generated with the sizes of MovieLens-1M's fields, or of Criteo's (`--schema criteo`).

- **right**: `fit` on a planted signal gives the learning curve of the processor, up to rounding that grows
  with the steps, and the AUC computed on the device has the bits of the one computed on the processor.
- **repeats**: `fit` twice gives the same bits.
- **step**: `eager` is the step of `fit`; `graph` is forward, backward, clipping and torch's fused Adam (which
  has no L2 by row) as one CUDA graph; `compiled` is the step of `fit` with the model compiled.
- **host**: the share of a step's time that the host needs to launch it. Near 1 the step is launch-bound: the
  device waits for the host, a graph helps, and larger batches cost nothing. The memory is the step's peak.
- **seeds at once**: several seeds of DeepFM as one model whose weights have one more dimension, by
  `torch.func`, beside one seed.

A case that fails is a line of the report with its reason, and makes the command end with 1.
"""

import copy
import platform
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.training import L2, MOVIELENS, NETWORK, epoch, generated
from pipeline import metrics
from pipeline.data.batches import Batch, Split
from pipeline.models import build
from pipeline.schema import Field, Schema
from pipeline.train.adam import Adam, clip, parameter_groups
from pipeline.train.device import pick_device, reproducible
from pipeline.train.loop import fit
from pipeline.train.loss import training_loss
from pipeline.train.predict import metrics_on_device, predict

MODELS = {
    "deepfm": NETWORK,
    "dcnv2": {**NETWORK, "cross_layers": 3},
    "xdeepfm": {**NETWORK, "cin": [64, 64]},
    "fibinet": {**NETWORK, "kind": "interaction"},
    "fiinet": {**NETWORK, "hidden": [200, 200]},
}
CRITEO_CATEGORIES = [
    1400, 550, 200_000, 100_000, 300, 20, 12_000, 630, 4, 50_000, 5200, 180_000, 3200, 27, 11_000, 150_000,
    11, 4700, 2000, 4, 170_000, 18, 16, 60_000, 90, 40_000,
]  # fmt: skip
CRITEO = Schema(  # 13 numbers in bins and 26 categories, the large ones cut as in common benchmarks
    tuple(Field(f"I{i}", 40) for i in range(13))
    + tuple(Field(f"C{i}", size) for i, size in enumerate(CRITEO_CATEGORIES))
)
SCHEMAS = {"movielens": MOVIELENS, "criteo": CRITEO}
BATCHES = (128, 1024, 4096, 16_384, 65_536)
PRECISIONS = ("float32", "tf32", "bfloat16")
SEEDS = 8
LAUNCH_BOUND = 0.8  # share of a step from which on the host, which launches it, decides its time
CURVE_TOLERANCE = 2e-3  # of valid_logloss and valid_auc; a GPU adds in another order
Step = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Row:
    """What is known of a case: rows a second, milliseconds of a step, and more in words."""

    finding: str
    speed: float | None = None
    milliseconds: float | None = None
    host: float | None = None
    mebibytes: float | None = None

    def __str__(self) -> str:
        formats = (
            (self.speed, ",.0f"),
            (self.milliseconds, ",.3f"),
            (self.host, ".2f"),
            (self.mebibytes, ",.0f"),
        )
        values = ("-" if value is None else format(value, how) for value, how in formats)
        return " | ".join([*values, self.finding])


@dataclass
class Report:
    """The table, the time left, and what failed."""

    deadline: float
    failures: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def case(self, name: str, measure: Callable[..., Row], *arguments: Any) -> None:
        """Print the line of a case; keep its failure, so that the next one runs, and leave it out if late."""
        if time.monotonic() > self.deadline:
            self.left_out.append(name)
            return
        try:
            line = str(measure(*arguments))
        except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch's own among them
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            self.failures.append(f"{name}: {reason}")
            line = str(Row(f"FAILED: {reason[:150]}"))
        print(f"| {name} | {line} |", flush=True)

    def end(self) -> None:
        """Say what was left out and what failed.

        Raises:
            SystemExit: a case failed.
        """
        if self.left_out:
            print(f"\nLeft out for want of time: {'; '.join(self.left_out)}")
        if self.failures:
            print("\nFAILED:\n", *self.failures, sep="\n- ")
            sys.exit(1)
        print("\nAll cases that ran are right.")


def synchronize(device: torch.device) -> None:
    """Wait for what was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def precision(name: str, device: torch.device) -> Iterator[AbstractContextManager[object]]:
    """Set how matrices are multiplied; yield the autocast of the step."""
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    try:
        yield torch.autocast(device.type, torch.bfloat16) if name == "bfloat16" else nullcontext()
    finally:
        torch.set_float32_matmul_precision("highest")


# ---- is it right ----


def planted(rows: int) -> tuple[Split, Split]:
    """Rows whose clicks depend on pairs of fields, as train and valid rows on the processor."""
    split = generated(MOVIELENS, rows)
    stream = torch.Generator().manual_seed(7)
    table = torch.randn(MOVIELENS.vocabulary_size, 4, generator=stream)
    vectors = table[split.ids.long()]
    logit = (vectors[:, 0] * vectors[:, 1]).sum(1) + vectors[:, 2:].sum((1, 2)) / 3 - 1
    label = (torch.rand(rows, generator=stream) < logit.sigmoid()).float()
    cut = rows * 4 // 5
    return Split(MOVIELENS, split.ids[:cut], label[:cut]), Split(MOVIELENS, split.ids[cut:], label[cut:])


def moved(split: Split, device: torch.device) -> Split:
    """Return the rows on a device."""
    return Split(split.schema, split.ids.to(device), split.label.to(device))


def trained(name: str, rows: int, device: torch.device) -> tuple[list[dict[str, float]], nn.Module, Split]:
    """Train two epochs by `fit`, without dropout, whose draws differ between devices; return the curve."""
    train, valid = (moved(split, device) for split in planted(rows))
    model = build(name, MOVIELENS, {**MODELS[name], "embedding_std": 0.1}, seed=1).to(device)
    state = fit(
        model, train, valid, seed=1, epochs=2, batch_size=1024, evaluations_per_epoch=2, embedding_l2=L2
    )
    return state.curve, model, valid


def right(name: str, rows: int, device: torch.device) -> Row:
    """Compare curve and AUC with the processor's."""
    curve, model, valid = trained(name, rows, device)
    expected, *_ = trained(name, rows, torch.device("cpu"))
    keys = ("valid_logloss", "valid_auc")
    apart = max(abs(a[key] - b[key]) for a, b in zip(curve, expected, strict=True) for key in keys)
    assert apart < CURVE_TOLERANCE, f"the curves differ by {apart:.1e}"
    score = predict(model, valid)
    on_device = metrics_on_device(valid.label, score.to(device))[0].item()
    on_host = metrics.auc(valid.label.cpu().numpy(), score.cpu().numpy())
    assert on_device == on_host, f"AUC {on_device} on the device, {on_host} on the processor"
    return Row(f"curve {apart:.0e} beside the processor's, AUC {on_device:.4f}, its bits the processor's")


def repeats(name: str, rows: int, device: torch.device) -> Row:
    """Train twice and compare every bit of curve and weights."""
    (first, a, _), (second, b, _) = trained(name, rows, device), trained(name, rows, device)
    weights = [torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True)]
    assert first == second and all(weights), "two trainings of one seed differ"
    return Row("two trainings of one seed have the same bits")


# ---- how fast is a step ----


def eager(model: nn.Module, narrow: AbstractContextManager[object]) -> Step:
    """Return the step of `fit`."""
    parameters = list(model.parameters())
    optimizer = Adam(parameter_groups(model, L2, L2, 0.0), 1e-3)

    def step(batch: Batch) -> Tensor:
        loss, logloss = training_loss(model, batch, narrow)
        optimizer.zero_grad()
        loss.backward()
        clip(parameters, 10.0)
        optimizer.step()
        return logloss

    return step


def compiled(model: nn.Module, narrow: AbstractContextManager[object], device: torch.device) -> Step:
    """Return the step of `fit` with a compiled model; without Inductor on a processor."""
    model.compile(backend="inductor" if device.type == "cuda" else "aot_eager")
    return eager(model, narrow)


def graph(model: nn.Module, narrow: AbstractContextManager[object], example: Batch) -> Step:
    """Return a step that copies a batch to a fixed place and replays a CUDA graph."""
    fixed = example.each(torch.clone)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True, capturable=True)
    parameters = list(model.parameters())

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss, logloss = training_loss(model, fixed, narrow)
        loss.backward()
        clip(parameters, 10.0)
        optimizer.step()
        return logloss

    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):  # what is made lazily is made before the capture
            step()
    torch.cuda.current_stream().wait_stream(beside)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        logloss = step()

    def replay(batch: Batch) -> Tensor:
        fixed.ids.copy_(batch.ids)
        fixed.label.copy_(batch.label)
        captured.replay()
        return logloss

    return replay


def timed(step: Callable[[Batch], object], batch: Batch, seconds: float) -> tuple[float, float]:
    """Return the seconds of a step, and the share of them that the host needs to launch it.

    Launching is timed over few steps after a pause: with some thousand launches ahead of the device the host
    has to wait, however slow the device is.
    """
    device, few = batch.ids.device, 3

    def run(count: int) -> tuple[float, float]:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(count):
            step(batch)
        launched = time.perf_counter() - start
        synchronize(device)
        return (time.perf_counter() - start) / count, launched / count

    run(few)
    whole, launched = run(few)
    whole, _ = run(max(few, min(500, int(seconds / whole))))
    return whole, min(1.0, launched / whole)


def speed(name: str, rows: Split, size: int, how: str, mode: str, seconds: float) -> Row:
    """Measure a step of a model."""
    device = rows.device
    batch = next(rows.batches(size))
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    torch.manual_seed(1)
    model = build(name, rows.schema, MODELS[name], seed=1).to(device).train()
    with precision(how, device) as narrow:
        if mode == "graph":
            step = graph(model, narrow, batch)
        else:
            step = eager(model, narrow) if mode == "eager" else compiled(model, narrow, device)
        time_of_step, host = timed(step, batch, seconds)
        assert step(batch).isfinite().item(), "the loss is not finite"
    if device.type != "cuda":
        return Row("", size / time_of_step, time_of_step * 1e3)
    memory = torch.cuda.max_memory_allocated(device) / 2**20
    bound = "launch-bound" if host > LAUNCH_BOUND else ""
    return Row(bound, size / time_of_step, time_of_step * 1e3, host, memory)


# ---- eight seeds as one model ----


def stacked(models: list[nn.Module]) -> Step:
    """Return a step of several models at once; ids (K, B, S), label (K, B)."""
    frame = copy.deepcopy(models[0]).to("meta")
    weights, buffers = stack_module_state(models)
    optimizer = torch.optim.Adam(weights.values(), 1e-3, fused=True)

    def loss(weights: dict[str, Tensor], buffers: dict[str, Tensor], ids: Tensor, label: Tensor) -> Tensor:
        logit = functional_call(frame, (weights, buffers), (ids,))
        return binary_cross_entropy_with_logits(logit, label)

    all_losses = torch.vmap(loss, randomness="different")

    def step(batch: Batch) -> Tensor:
        losses = all_losses(weights, buffers, batch.ids, batch.label)
        optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        optimizer.step()
        return losses.detach()

    return step


def one_by_one(model: nn.Module) -> Step:
    """Return the step that `stacked` is compared with: one model, the same optimizer."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def step(batch: Batch) -> Tensor:
        loss = binary_cross_entropy_with_logits(model(batch.ids), batch.label)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def seeds_at_once(rows: Split, size: int, count: int, seconds: float) -> Row:
    """Compare `count` seeds of DeepFM in one step with one seed."""
    options = {**MODELS["deepfm"], "dropout": 0.0}

    def made() -> list[nn.Module]:
        each = [build("deepfm", rows.schema, options, seed=seed) for seed in range(1, count + 1)]
        return [model.to(rows.device).train() for model in each]

    batches = [batch for _, batch in zip(range(count), rows.batches(size), strict=False)]
    together = Batch(torch.stack([b.ids for b in batches]), torch.stack([b.label for b in batches]))
    alone = [one_by_one(model) for model in made()]
    step = stacked(made())
    apart = 0.0
    torch.set_deterministic_debug_mode("warn")  # not every operation has a stacked form that repeats
    try:
        for _ in range(3):
            expected = torch.stack([one(batch) for one, batch in zip(alone, batches, strict=True)])
            apart = max(apart, (step(together) - expected).abs().max().item())
        assert apart < 1e-4, f"the losses of a seed differ by {apart:.1e} alone and stacked"
        many, one = timed(step, together, seconds)[0], timed(alone[0], batches[0], seconds)[0]
    finally:
        torch.set_deterministic_debug_mode("error")
    words = f"{many / one:.2f} times the time of one seed, {count * one / many:.2f} times as fast"
    return Row(f"{words}, losses {apart:.0e} apart", count * size / many, many * 1e3)


# ---- all of it ----


def card(device: torch.device) -> str:
    """Say what it runs on."""
    if device.type == "cuda":
        of = torch.cuda.get_device_properties(device)
        return (
            f"{of.name}, {of.total_memory / 2**30:.0f} GiB, {of.multi_processor_count} multiprocessors, "
            f"CUDA {torch.version.cuda}"
        )
    return f"{platform.machine()} processor, {torch.get_num_threads()} threads"


def whole_epoch(size: int, device: torch.device) -> Row:
    """Train an epoch of as many rows as MovieLens-1M's train part has by `fit`."""
    train = moved(generated(MOVIELENS, 720_151), device)
    model = build("deepfm", MOVIELENS, MODELS["deepfm"], seed=1).to(device)
    found = epoch(model, train, size, embedding_l2=L2)
    return Row(f"the epoch {len(train) / found:.2f} s, evaluation included", found, size / found * 1e3)


def compiled_cases(
    models: list[str], batches: Sequence[int], *, large: bool
) -> list[tuple[str, int, str, str]]:
    """Return what is compiled: that takes half a minute a case, so it is little, the most telling first."""
    first = [
        ("deepfm", batches[0]),
        ("dcnv2", batches[-1]),
        ("deepfm", batches[-1]),
        ("xdeepfm", batches[-1]),
    ]
    found = [(name, size, "float32", "compiled") for name, size in first if name in models]
    return found if large else found[:1]


def main() -> None:
    """Measure and print; end with 1 if a case failed."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--schema", choices=sorted(SCHEMAS), default="movielens")
    parser.add_argument("--seconds", type=float, default=240.0, help="after which no case begins")
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=list(MODELS))
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    reproducible(torch.get_num_threads())
    large = device.type == "cuda"  # on a processor the same in small: there it is a test, and no measurement
    report = Report(time.monotonic() + arguments.seconds)
    batches, seconds = (BATCHES, 0.25) if large else (BATCHES[:1], 0.01)
    checked, seeds = (100_000, SEEDS) if large else (2_000, 3)
    rows = moved(generated(SCHEMAS[arguments.schema], max(batches) * SEEDS), device)
    words = f"{arguments.schema}, torch {torch.__version__}, Python {platform.python_version()}"
    print(f"# {card(device)}\n\n{words}\n")
    print("| case | rows/s | ms a step | host | memory, MiB | finding |\n|---|---:|---:|---:|---:|---|")
    for name in arguments.models:
        report.case(f"{name}, right", right, name, checked, device)
        report.case(f"{name}, repeats", repeats, name, checked, device)
    for size in batches:
        report.case(f"deepfm, {size}, {seeds} seeds at once", seeds_at_once, rows, size, seeds, seconds)
    for size in (128, 4096) if large else ():
        report.case(f"deepfm, {size}, an epoch of MovieLens-1M", whole_epoch, size, device)
    precisions = PRECISIONS if large else ("float32", "bfloat16")  # TF32 is a GPU's
    modes = ("eager", "graph") if large else ("eager",)
    cases = list(product(arguments.models, batches, precisions, modes))
    for case in cases + compiled_cases(arguments.models, batches, large=large):
        report.case(", ".join(map(str, case)), speed, case[0], rows, *case[1:], seconds)
    report.end()


if __name__ == "__main__":
    main()
