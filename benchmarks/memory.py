"""Peak memory and time of one training step, for the models with the largest intermediate tensors.

    python -m benchmarks.memory
    python -m benchmarks.memory --models fiinet ffm --fields 25 --batches 1024

A step is forward, loss, backward and Adam. Each line is measured in a new process: its peak is the highest
resident memory after three steps less that before the first, when the library, the model, the optimizer
state and the batch are already in memory. Times are CPU microseconds per row on one thread; compare only
those of one run, since other load on the machine changes them.
"""

import json
import os
import resource
import subprocess
import sys
import time
from argparse import ArgumentParser
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parent.parent
IDS_PER_FIELD = 1000
SMALL = {"embedding_size": 16, "hidden": [64], "dropout": 0.0}
MODELS: dict[str, tuple[str, dict[str, object]]] = {  # label -> model, options
    "fiinet": ("fiinet", SMALL),
    "fiinet align": ("fiinet", {**SMALL, "fusion": "align"}),
    "fiinet concat": ("fiinet", {**SMALL, "fusion": "concat"}),
    "ffm": ("ffm", {"embedding_size": 8}),
    "onn": ("onn", {**SMALL, "embedding_size": 8}),
    "onn hadamard": ("onn", {**SMALL, "embedding_size": 8, "product": "hadamard"}),
    "xdeepfm": ("xdeepfm", {**SMALL, "cin": [64, 64]}),
    "xdeepfm relu": ("xdeepfm", {**SMALL, "cin": [64, 64], "cin_activation": "relu"}),
    "fibinet": ("fibinet", SMALL),
    "autoint": ("autoint", {"embedding_size": 16, "attention_size": 8}),
}


def main() -> None:
    """Measure each combination in a new process and print a table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=list(MODELS))
    parser.add_argument("--fields", nargs="+", type=int, default=[7, 25])
    parser.add_argument("--batches", nargs="+", type=int, default=[1024, 4096])
    parser.add_argument("--measure", nargs=3, help="model, fields, batch: measure in this process")
    arguments = parser.parse_args()
    if arguments.measure:
        name, fields, batch = arguments.measure
        print(json.dumps(measure(name, int(fields), int(batch))))
        return
    print("| model | fields | batch | peak of a step, MiB | us per row |")
    print("|---|---:|---:|---:|---:|")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for name, fields, batch in product(arguments.models, arguments.fields, arguments.batches):
        command = [sys.executable, "-m", "benchmarks.memory", "--measure", name, str(fields), str(batch)]
        result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        if result.returncode:
            raise SystemExit(f"{' '.join(command[1:])} failed:\n{result.stderr}")
        peak, microseconds = json.loads(result.stdout)
        print(f"| {name} | {fields} | {batch} | {peak:.0f} | {microseconds:.1f} |", flush=True)


def measure(name: str, fields: int, batch: int) -> tuple[float, float]:
    """Return the peak memory of a step in MiB and its microseconds per row."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    from pipeline.models import build
    from pipeline.schema import Field, Schema
    from pipeline.train.device import reproducible

    reproducible(1)
    domains = ("user", "item")
    schema = Schema(tuple(Field(f"f{i}", IDS_PER_FIELD, 1, domains[i % 2]) for i in range(fields)))
    model_name, options = MODELS[name]
    model = build(model_name, schema, options, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    ids = torch.stack([first + torch.randint(IDS_PER_FIELD, (batch,)) for first in schema.offsets], 1).int()
    label = (torch.rand(batch) < 0.5).float()

    def step(rows: int) -> None:
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(model(ids[:rows]), label[:rows]).backward()
        optimizer.step()

    step(2)  # load kernels and create the optimizer state, with hardly any activations
    before = _peak()
    for _ in range(3):
        step(batch)
    peak = _peak() - before
    start = time.process_time()
    for _ in range(3):
        step(batch)
    return peak, (time.process_time() - start) / 3 / batch * 1e6


def _peak() -> float:
    """Return the peak resident memory of this process in MiB (macOS reports bytes, Linux KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (20 if sys.platform == "darwin" else 10)


if __name__ == "__main__":
    main()
