"""The encoded format on disk: what a processed folder holds, and both ends of it."""

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.common.errors import PipelineError
from pipeline.common.files import file_digests, how_to_recreate, read_json, require_file, verify_file
from pipeline.schema import SPLITS, Schema

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.split.assign import Parts
    from pipeline.split.vocabulary import Ids


def unseen(schema: Schema, ids: "Ids") -> dict[str, int]:
    """Count, per field, the unseen ids in (N, S) ids."""
    first = np.array([schema.offsets[field] for field in schema.field_of_slot], np.int32)
    per_slot = (ids == first).sum(0)
    counts = Counter(dict.fromkeys((field.name for field in schema.fields), 0))
    for slot, field in enumerate(schema.field_of_slot):
        counts[schema.fields[field].name] += int(per_slot[slot])
    return dict(counts)


def write_rows(folder: Path, rows: "pa.Table", parts: "Parts") -> dict[str, Any]:
    """Write what each row has besides its ids; return the counts of every part."""
    extra = {
        name: rows[name].to_numpy()
        for name in ("label", "group", "time", "truth")
        if name in rows.column_names
    }
    report: dict[str, Any] = {}
    for number, part in enumerate(SPLITS):
        row = np.flatnonzero(parts == number)
        np.save(folder / f"{part}.row.npy", row)
        for key, values in extra.items():
            np.save(folder / f"{part}.{key}.npy", values[row])
        report[part] = {"rows": len(row), "clicks": int(extra["label"][row].sum())}
    return report


class SplitWriter:
    """Appends ids to `<part>.ids.npy` (N, S) of every part; on leaving, adds the unseen ids to the report.

    Args:
        report: of `write_rows`; says how many rows each part will have.
    """

    def __init__(self, folder: Path, schema: Schema, report: dict[str, Any]) -> None:
        self._schema, self._report = schema, report
        self._left = [report[part]["rows"] for part in SPLITS]
        none = dict.fromkeys((field.name for field in schema.fields), 0)
        self._unseen: list[Counter[str]] = [Counter(none) for _ in SPLITS]
        self._open = ExitStack()
        paths = [folder / f"{part}.ids.npy" for part in SPLITS]
        self._files = [self._open.enter_context(path.open("wb")) for path in paths]
        for part, file in zip(SPLITS, self._files, strict=True):
            shape = (report[part]["rows"], schema.slots)
            header = {"descr": "<i4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)

    def write(self, ids: "Iterable[Ids]", parts: "Parts") -> None:
        """Append rows; `parts` (N,) says where each goes."""
        start = 0
        for some in ids:
            part = parts[start : start + len(some)]
            start += len(some)
            for number, file in enumerate(self._files):
                chosen = some[part == number]
                file.write(chosen.data)
                self._left[number] -= len(chosen)
                self._unseen[number].update(unseen(self._schema, chosen))

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        assert error or not any(self._left), f"rows that were not written: {self._left}"
        for part, unseen in zip(SPLITS, self._unseen, strict=True):
            self._report[part]["unseen"] = dict(unseen)


REPORT = "report.json"


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a processed folder, by its name, but for the report's.

    The report tells of the rows and is no part of them: whose they are, their counts, these digests.

    Raises:
        PipelineError: a file is missing, or has other bytes than the split stage gave it.
    """
    path = require_file(folder / REPORT, "split")
    recorded: dict[str, str] | None = read_json(path).get("files")
    if recorded is None:
        raise PipelineError(f"{path} does not say the digests of its rows; {how_to_recreate(path, 'split')}")
    found = {name: content for name, content in file_digests(folder).items() if name != REPORT}
    for name, content in recorded.items():
        path = require_file(folder / name, "split")
        verify_file(path, content, "split", found=found[name])
    return found


def open_array(path: Path) -> NDArray[Any]:
    """Return a memory map of a file's array.

    It is shared and read-only: nothing may write to it, and unlike a writable map it may be larger than
    the memory there is.

    Raises:
        PipelineError: the file is damaged.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise PipelineError(f"{path} is damaged ({error}); {how_to_recreate(path, 'split')}") from None
    return array
