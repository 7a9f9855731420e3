"""Fetch the raw files of a dataset, from its publisher or a mirror, and check them."""

from pathlib import Path

from pipeline.common.errors import exit_with_message
from pipeline.common.files import read_json
from pipeline.datasets import DATASETS
from pipeline.download.manifest import differences, origin
from pipeline.download.obtain import mirror_of
from stages import dataset_entry, new_folder


def main() -> None:
    name, item, settings = dataset_entry(__doc__)
    raw = Path("data/raw", name)
    with new_folder(raw) as folder:
        DATASETS[item.source].download(
            folder,
            Path("data/downloads", item.source),
            mirror=mirror_of(settings.mirror),
            **item.download,
        )
    content = read_json(raw / "manifest.json")
    size = sum(entry["bytes"] for entry in content["files"].values())
    known = {True: "as the publisher has them", False: "not as the publisher has them", None: ""}
    kind = known[content["matches_publisher"]]
    amount = f"{len(content['files'])} files, {size / 1e6:,.1f} MB"
    parts = [amount, kind, differences(origin(content))]
    print(f"{name}: {', '.join(part for part in parts if part)}")


if __name__ == "__main__":
    exit_with_message(main)
