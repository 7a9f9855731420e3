"""Clean table -> encoded train, valid and test parts; all that is fitted is fitted on train rows."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.common.errors import exit_with_message
from pipeline.common.files import file_digests, write_json
from pipeline.data.storage import SplitWriter, write_rows
from pipeline.preprocess.clean_table import CleanTable
from pipeline.schema import SPLITS
from pipeline.split import assign
from pipeline.split.vocabulary import Encoder, fit_vocabulary
from stages import dataset_entry, new_folder


def main() -> None:
    name, item, _ = dataset_entry(__doc__)
    table = CleanTable(Path("data/interim", name))
    given = item.split.get("column")
    rows = table.load_extra(*([given] if given else []))
    parts = assign.assign(rows, name, **item.split)
    blocks = np.split(parts, np.cumsum(table.block_rows)[:-1])

    def train_rows(column: str) -> Iterator[pa.Array]:
        for values, part in zip(table.column_blocks(column), blocks, strict=True):
            yield values.filter(pa.array(part == assign.TRAIN))

    vocabulary = fit_vocabulary(train_rows, table.columns, **item.encode)
    encoder = Encoder(vocabulary, table.column_blocks)
    truncated: Counter[str] = Counter()
    with new_folder(Path("data/processed", name)) as folder:
        write_json(folder / "vocabulary.json", vocabulary)
        write_json(folder / "schema.json", encoder.schema.to_json())
        report = write_rows(folder, rows, parts)
        with SplitWriter(folder, encoder.schema, report) as writer:
            for block, columns in enumerate(table.field_blocks()):
                writer.write(encoder.ids(block, columns, truncated), blocks[block])
        told = {"dataset": name, "origin": table.origin, **report, "truncated": dict(truncated)}
        write_json(folder / "report.json", {**told, "files": file_digests(folder)})
    print(
        f"{name}: {encoder.schema.vocabulary_size} ids, "
        + ", ".join(f"{report[part]['rows']} {part} rows" for part in SPLITS)
    )


if __name__ == "__main__":
    exit_with_message(main)
