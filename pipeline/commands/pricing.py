"""`ctr costs`: what the models of a leaderboard cost to train and to score, on this machine."""

import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline.common.errors import PipelineError
from pipeline.common.files import make_folder, read_json, require_file, write_text
from pipeline.config import params
from pipeline.costs import measure, picture, report
from pipeline.data.batches import Split
from pipeline.evaluate import plot_style
from pipeline.evaluate.runs import better, load_runs
from pipeline.schema import SPLITS
from pipeline.train.device import pick_device, reproducible

PICTURE = "costs.png"


def costs(root: Path, dataset: str, models: Sequence[str], rounds: int, out: Path | None) -> str:
    """Measure the models of a dataset's report; return the table, and write it with a picture.

    Args:
        models: some of the report, or none for all.
        rounds: how often each is measured.
        out: the folder for costs.md, costs.csv and a picture, if any.

    Raises:
        PipelineError: a stage has to run first, or a model is not in the report.
    """
    settings = params.load(root / "params.yaml")
    train = settings.config(dataset, settings.models[0]).train
    made = read_json(require_file(root / "data/reports" / dataset / "report.json", f"evaluate@{dataset}"))
    known = dict.fromkeys(result["model"] for result in made["results"])
    if unknown := [name for name in models if name not in known]:
        raise PipelineError(f"{unknown[0]} is not in the report of {dataset}, which has {', '.join(known)}")
    processed = root / "data/processed" / dataset
    reproducible(train.threads)
    device = pick_device(train.device)
    splits = [Split.load(processed, name, device, rows_in_memory=train.rows_in_memory) for name in SPLITS]
    runs = better(load_runs(root / "data/runs", dataset, list(models or known), processed))
    found = measure.measure(runs, *splits, rounds=rounds, progress=lambda line: print(line, file=sys.stderr))
    rows, on = report.rows(found, made), _named(device, train.threads)
    text = report.to_markdown(rows, dataset, rounds, on)
    if out is not None:
        make_folder(out)
        write_text(out / "costs.md", f"{text}\n![costs]({PICTURE})\n")
        write_text(out / "costs.csv", report.to_csv(rows))
        plot_style.save(picture.prices(rows, dataset), out / PICTURE)
    return text


def _named(device: torch.device, threads: int) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    count = f"{threads} thread" + "s" * (threads > 1)
    return (
        f"{count} of {platform.machine()} (seconds of the processor)" if device.type == "cpu" else str(device)
    )
