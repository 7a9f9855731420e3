"""Fetch the raw files of a dataset, from its publisher or a mirror, and check them."""

from pathlib import Path

from pipeline.datasets import DATASETS
from pipeline.download import mirror_of
from pipeline.errors import exit_with_message
from stages import dataset_item, new_folder


def main() -> None:
    name, item, settings = dataset_item(__doc__)
    with new_folder(Path("data/raw", name)) as folder:
        DATASETS[item.source].download(
            folder,
            Path("data/downloads", item.source),
            mirror=mirror_of(settings.mirror),
            **item.download,
        )


if __name__ == "__main__":
    exit_with_message(main)
