"""What there is: the models and the datasets of params.yaml, and how far each has come."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.commands.departures import docstring
from pipeline.config import yaml_file

FOLDERS = ("raw", "interim", "processed", "runs", "reports")  # of data/, in the order of the stages


def models(root: Path) -> str:
    """Return a line per model and variant of params.yaml: whether it runs, its name, what it is."""
    values = yaml_file.read(root / "params.yaml")[1]
    runs = {*values["models"], *values["variants"]}
    rows = []
    for name, block in values["model"].items():
        base = block.get("base")
        words = f"variant of {base}" if base else docstring(name).splitlines()[0].rstrip(".")
        rows.append((_mark(name, runs), name, words))
    return _aligned(rows)


def datasets(root: Path) -> str:
    """Return a line per dataset entry of params.yaml: whether it runs, name, source, what is there."""
    values = yaml_file.read(root / "params.yaml")[1]
    rows = []
    for name, entry in values["data"].items():
        there = [folder for folder in FOLDERS if (root / "data" / folder / name).exists()]
        rows.append((_mark(name, values["datasets"]), name, entry["source"], " ".join(there) or "-"))
    return _aligned(rows)


def _mark(name: str, running: Sequence[str] | set[str] | Mapping[str, Any]) -> str:
    return "*" if name in running else " "


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*(line.rstrip() for line in lines), "", "*: runs, by the lists in params.yaml"])
