"""Raw files -> one clean table: row-wise cleaning, joins and the label; nothing is fitted here."""

from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.datasets import DATASETS
from pipeline.errors import exit_with_message
from pipeline.files import write_json
from pipeline.raw import Ledger, verify
from stages import dataset_item, new_folder


def main() -> None:
    name, item, _ = dataset_item(__doc__)
    options = dict(item.preprocess)
    max_rejected = options.pop("max_rejected", 0.001)
    source, ledger, rows, clicks = DATASETS[item.source], Ledger(), 0, 0
    verify(Path("data/raw", name))
    with new_folder(Path("data/interim", name)) as folder:
        writer = None
        try:
            for table in source.read(Path("data/raw", name), ledger, **options):
                writer = writer or pq.ParquetWriter(folder / "table.parquet", table.schema)
                writer.write_table(table)
                rows, clicks = rows + len(table), clicks + int(table["label"].to_numpy().sum())
        finally:
            if writer:
                writer.close()
        report = ledger.check(rows, max_rejected=max_rejected, name=name)
        write_json(folder / "columns.json", [asdict(column) for column in source.COLUMNS])
        write_json(folder / "report.json", {"dataset": name, "clicks": clicks, **report})
    print(f"{name}: {report['rows_in']} rows in, {rows} out, {report['rejected']} corrupted, {clicks} clicks")


if __name__ == "__main__":
    exit_with_message(main)
