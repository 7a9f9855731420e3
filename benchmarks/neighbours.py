"""What neighbour fields cost: the memory and time of a step on a log with the shape of KuaiRec's.

    python -m benchmarks.neighbours
    python -m benchmarks.neighbours --rows 1000000 --limits 0 200 --order earlier

Each line is measured in a new process: train rows are drawn (7,176 users, 10,728 items, popular items, as in
KuaiRec's big matrix), an FM records who met what, and takes steps on them, as in an epoch. `pairs` are those
that the memory keeps; MiB are the highest resident memory after recording, and after the steps, less that of
the rows alone; times are CPU microseconds per row on one thread, those of one run to be compared alone.
"""

import gc
import json
import os
import resource
import subprocess
import sys
import time
from argparse import ArgumentParser
from pathlib import Path

ROOT = Path(__file__).parent.parent
USERS, ITEMS, ROWS = 7176, 10728, 12_500_000
BATCH, STEPS = 4096, 50


def main() -> None:
    """Measure each limit in a new process and print a table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--limits", nargs="+", type=int, default=[0, 200, 1000])
    parser.add_argument("--order", choices=["any", "earlier"], default="any")
    parser.add_argument("--measure", type=int, help="a limit: measure in this process")
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.rows, arguments.measure, arguments.order)))
        return
    print("| neighbour_limit | pairs | recording, MiB | steps, MiB | seconds to record | us per row |")
    print("|---:|---:|---:|---:|---:|---:|")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for limit in arguments.limits:
        command = [sys.executable, "-m", "benchmarks.neighbours", "--measure", str(limit)]
        command += ["--rows", str(arguments.rows), "--order", arguments.order]
        result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        if result.returncode:
            raise SystemExit(f"{' '.join(command[1:])} failed:\n{result.stderr}")
        pairs, recorded, stepped, seconds, micro = json.loads(result.stdout)
        line = f"| {limit} | {pairs:,} | {recorded:.0f} | {stepped:.0f} | {seconds:.1f} | {micro:.1f} |"
        print(line, flush=True)


def measure(rows: int, limit: int, order: str) -> tuple[int, float, float, float, float]:
    """Return the pairs kept, two peaks in MiB, seconds to record and microseconds per row of a step."""
    import torch

    from pipeline.data.batches import Split
    from pipeline.layers.neighbours import MEMORY
    from pipeline.models import build
    from pipeline.schema import Field, Schema
    from pipeline.train.adam import Adam, parameter_groups
    from pipeline.train.loop import fit
    from pipeline.train.loss import training_loss
    from pipeline.train.start import prepare

    torch.set_num_threads(1)
    fields = (Field("user", USERS + 1, 1, "user", "user"), Field("item", ITEMS + 1, 1, "item", "item"))
    schema, draw = Schema(fields), torch.Generator().manual_seed(1)
    ids = torch.empty(rows, 2, dtype=torch.int32)
    # in place, so that the drawing itself has no peak
    for column, (size, skew) in enumerate(((USERS, 1.5), (ITEMS, 3.0))):
        ids[:, column] = torch.rand(rows, generator=draw).pow_(skew).mul_(size).int().add_(1)
        ids[:, column] += schema.offsets[column]
    label = (torch.rand(rows, generator=draw) < 0.4).float()
    time_of = torch.arange(rows)
    split = Split(schema, ids, label, time_of)
    options = {"embedding_size": 16, "neighbour_limit": limit, "neighbour_times": order}
    model = build("fm", schema, options, seed=1)
    gc.collect()
    before, started = _peak(), time.process_time()
    prepare(model, split, split, fit)
    seconds, recorded = time.process_time() - started, _peak() - before
    memory = getattr(model, MEMORY, None)
    pairs = 0 if memory is None else max(len(value) for value in memory.state_dict().values() if value.dim())
    optimizer = Adam(parameter_groups(model, 1e-5, 1e-5, 0.0), 1e-3)
    from contextlib import nullcontext

    batches = [split.whole().rows(torch.randint(rows, (BATCH,), generator=draw)) for _ in range(STEPS)]
    started = time.process_time()
    for batch in batches:
        optimizer.zero_grad()
        loss, _ = training_loss(model, batch, nullcontext())
        loss.backward()
        optimizer.step()
    spent = time.process_time() - started
    return pairs, recorded, _peak() - before, seconds, spent / (STEPS * BATCH) * 1e6


def _peak() -> float:
    """Return the highest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
