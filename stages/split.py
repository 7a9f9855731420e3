"""Clean table -> encoded train, valid and test parts; all that is fitted is fitted on train rows."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import encode, splitting
from pipeline.errors import exit_with_message
from pipeline.files import file_digests, write_json
from pipeline.interim import Interim
from pipeline.processed import PartWriter, write_rows
from pipeline.schema import PARTS
from stages import dataset_item, new_folder


def main() -> None:
    name, item, _ = dataset_item(__doc__)
    table = Interim(Path("data/interim", name))
    given = item.split.get("column")
    rows = table.rest(*([given] if given else []))
    parts = splitting.assign(rows, name, **item.split)
    blocks = np.split(parts, np.cumsum(table.sizes)[:-1])

    def train_rows(column: str) -> Iterator[pa.Array]:
        for values, part in zip(table.column(column), blocks, strict=True):
            yield values.filter(pa.array(part == splitting.TRAIN))

    vocabulary = encode.fit(train_rows, table.columns, **item.encode)
    encoder = encode.Encoder(vocabulary, table.column)
    truncated: Counter[str] = Counter()
    with new_folder(Path("data/processed", name)) as folder:
        write_json(folder / "vocabulary.json", vocabulary)
        write_json(folder / "schema.json", encoder.schema.to_json())
        report = write_rows(folder, rows, parts)
        with PartWriter(folder, encoder.schema, report) as writer:
            for block, columns in enumerate(table.blocks()):
                writer.write(encoder.ids(block, columns, truncated), blocks[block])
        told = {"dataset": name, "origin": table.origin, **report, "truncated": dict(truncated)}
        write_json(folder / "report.json", {**told, "files": file_digests(folder)})
    print(
        f"{name}: {encoder.schema.rows} ids, "
        + ", ".join(f"{report[part]['rows']} {part} rows" for part in PARTS)
    )


if __name__ == "__main__":
    exit_with_message(main)
