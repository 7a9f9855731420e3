"""Clean table -> encoded train, valid and test parts; all that is fitted is fitted on train rows."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import encode, splitting
from pipeline.errors import exit_with_message
from pipeline.files import read_json, write_json
from pipeline.schema import PARTS, Column
from stages import dataset_item, new_folder

BATCH = 1 << 18  # rows held at a time


def write_rows(folder: Path, rows: pa.Table, parts: splitting.Parts) -> dict[str, Any]:
    """Write what each row has besides its ids; return the counts of every part."""
    extra = {"label": rows["label"].to_numpy()}
    if "group" in rows.column_names:
        extra["group"] = rows["group"].combine_chunks().dictionary_encode().indices.to_numpy()
    if "truth" in rows.column_names:
        extra["truth"] = rows["truth"].to_numpy()
    report: dict[str, Any] = {}
    for number, part in enumerate(PARTS):
        row = np.flatnonzero(parts == number)
        np.save(folder / f"{part}.row.npy", row)
        for key, values in extra.items():
            np.save(folder / f"{part}.{key}.npy", values[row])
        report[part] = {"rows": len(row), "clicks": int(extra["label"][row].sum())}
    return report


def main() -> None:
    name, item, _ = dataset_item(__doc__)
    interim = Path("data/interim", name)
    columns = [Column(**column) for column in read_json(interim / "columns.json")]
    source = pq.ParquetFile(interim / "table.parquet")
    # what is no field: label, group, time, truth, and the column of a given split
    rows = source.read([c for c in source.schema_arrow.names if c not in {column.name for column in columns}])
    if item.split.get("column") in {column.name for column in columns}:
        rows = rows.append_column(item.split["column"], source.read([item.split["column"]])[0])
    parts = splitting.assign(rows, name, **item.split)

    def batches() -> Iterator[tuple[pa.Table, splitting.Parts]]:
        start = 0
        for batch in source.iter_batches(BATCH, columns=[column.name for column in columns]):
            yield pa.table(batch), parts[start : start + len(batch)]
            start += len(batch)

    train_rows = (table.filter(pa.array(part == splitting.TRAIN)) for table, part in batches())
    vocabulary = encode.fit(train_rows, columns, **item.encode)
    schema = encode.schema(vocabulary)
    truncated: Counter[str] = Counter()
    with new_folder(Path("data/processed", name)) as folder:
        write_json(folder / "vocabulary.json", vocabulary)
        write_json(folder / "schema.json", schema.to_json())
        report = write_rows(folder, rows, parts)
        ids = [
            np.lib.format.open_memmap(
                folder / f"{part}.ids.npy", "w+", np.int32, (report[part]["rows"], schema.slots)
            )
            for part in PARTS
        ]
        done = [0] * len(PARTS)
        for table, block_parts in batches():
            block = encode.apply(vocabulary, table, truncated=truncated)
            for number in range(len(PARTS)):
                some = block[block_parts == number]
                ids[number][done[number] : done[number] + len(some)] = some
                done[number] += len(some)
        for number, part in enumerate(PARTS):
            ids[number].flush()
            report[part]["unseen"] = encode.unseen(schema, ids[number])
        write_json(folder / "report.json", {"dataset": name, **report, "truncated": dict(truncated)})
    print(", ".join([f"{name}: {schema.rows} ids", *(f"{report[p]['rows']} {p} rows" for p in PARTS)]))


if __name__ == "__main__":
    exit_with_message(main)
