"""What there is: the models and the datasets of params.yaml, and how far each has come."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.commands.departures import docstring
from pipeline.config import yaml_file

FOLDERS = ("raw", "interim", "processed", "runs", "reports")  # of data/, in the order of the stages


def models(root: Path) -> str:
    """Return a line per model and variant of params.yaml: whether it runs, its name, what it is."""
    values, rows = yaml_file.read(root / "params.yaml")[1], []
    with _checked(root):
        runs = {*values["models"], *values.get("variants", ())}
        for name, block in values["model"].items():
            base = block.get("base")
            words = f"variant of {base}" if base else docstring(name).splitlines()[0].rstrip(".")
            rows.append((_mark(name, runs), name, words))
    return _aligned(rows)


def datasets(root: Path) -> str:
    """Return a line per dataset entry of params.yaml: whether it runs, name, source, what is there."""
    values, rows = yaml_file.read(root / "params.yaml")[1], []
    with _checked(root):
        for name, entry in values["data"].items():
            there = [folder for folder in FOLDERS if (root / "data" / folder / name).exists()]
            rows.append((_mark(name, values["datasets"]), name, entry["source"], " ".join(there) or "-"))
    return _aligned(rows)


@contextmanager
def _checked(root: Path) -> Iterator[None]:
    """Say what is wrong with params.yaml as `ctr check` does, where it is not what a list takes it to be.

    It is not checked before: that takes seconds, and a list of what can be read is of use, too.
    """
    try:
        yield
    except (FileNotFoundError, KeyError, AttributeError, TypeError):
        from pipeline.config import params

        params.Params(yaml_file.read(root / "params.yaml")[1])
        raise


def _mark(name: str, running: Sequence[str] | set[str] | Mapping[str, Any]) -> str:
    return "*" if name in running else " "


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*(line.rstrip() for line in lines), "", "*: runs, by the lists in params.yaml"])
