"""A first look at a click log: a profile of its columns, and a dataset entry for params.yaml.

The entry is a guess from names and values, printed to be read and corrected. The same file gives the same
text. Files are read block by block, in bounded memory.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.common import names
from pipeline.inspection import entry, report
from pipeline.inspection.entry import add, check_free, name_of
from pipeline.inspection.findings import find

__all__ = ["Inspection", "add", "check_free", "inspect", "name_of"]


@dataclass(frozen=True)
class Inspection:
    """What was found."""

    report: str  # for people
    entry: str  # of params.yaml, as below `data:`
    complete: bool  # the entry can be used as it is


def inspect(
    path: Path, name: str, *, root: Path = Path(), rows: int | None = None, label: str | None = None
) -> Inspection:
    """Read a file, or the files of a folder, and describe them.

    Args:
        path: of the file or folder.
        name: of the dataset.
        root: the project's folder, at which a relative path in the entry starts.
        rows: read only the first records, this many.
        label: the column of the label, if it is not to be guessed.

    Raises:
        PipelineError: there is no table, or no such column.
    """
    names.check("dataset", name)
    findings = find(path, rows=rows, label=label)
    complete = bool(findings.labels and findings.fields)
    return Inspection(report.write(findings), entry.write(name, findings, root), complete)
