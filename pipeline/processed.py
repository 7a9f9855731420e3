"""Encoded rows on their way to the disk: one file of ids and one of labels per part, written in row order."""

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import encode
from pipeline.encode import Ids
from pipeline.schema import PARTS, Schema
from pipeline.splitting import Parts


def write_rows(folder: Path, rows: pa.Table, parts: Parts) -> dict[str, Any]:
    """Write what each row has besides its ids; return the counts of every part."""
    extra = {
        name: rows[name].to_numpy()
        for name in ("label", "group", "time", "truth")
        if name in rows.column_names
    }
    report: dict[str, Any] = {}
    for number, part in enumerate(PARTS):
        row = np.flatnonzero(parts == number)
        np.save(folder / f"{part}.row.npy", row)
        for key, values in extra.items():
            np.save(folder / f"{part}.{key}.npy", values[row])
        report[part] = {"rows": len(row), "clicks": int(extra["label"][row].sum())}
    return report


class PartWriter:
    """Appends ids to `<part>.ids.npy` (N, S) of every part; on leaving, adds the unseen ids to the report.

    Args:
        report: of `write_rows`; says how many rows each part will have.
    """

    def __init__(self, folder: Path, schema: Schema, report: dict[str, Any]) -> None:
        self._schema, self._report = schema, report
        self._left = [report[part]["rows"] for part in PARTS]
        none = dict.fromkeys((field.name for field in schema.fields), 0)
        self._unseen: list[Counter[str]] = [Counter(none) for _ in PARTS]
        self._open = ExitStack()
        paths = [folder / f"{part}.ids.npy" for part in PARTS]
        self._files = [self._open.enter_context(path.open("wb")) for path in paths]
        for part, file in zip(PARTS, self._files, strict=True):
            shape = (report[part]["rows"], schema.slots)
            header = {"descr": "<i4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)

    def write(self, ids: Iterable[Ids], parts: Parts) -> None:
        """Append rows; `parts` (N,) says where each goes."""
        start = 0
        for some in ids:
            part = parts[start : start + len(some)]
            start += len(some)
            for number, file in enumerate(self._files):
                chosen = some[part == number]
                file.write(chosen.data)
                self._left[number] -= len(chosen)
                self._unseen[number].update(encode.unseen(self._schema, chosen))

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        assert error or not any(self._left), f"rows that were not written: {self._left}"
        for part, unseen in zip(PARTS, self._unseen, strict=True):
            self._report[part]["unseen"] = dict(unseen)
