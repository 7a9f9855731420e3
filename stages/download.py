"""Fetch the raw files of a dataset, from its publisher or a mirror, and check them."""

from pathlib import Path

from pipeline.common.errors import exit_with_message
from pipeline.common.files import read_json, seal
from pipeline.datasets import DATASETS
from pipeline.download.manifest import differences, origin
from pipeline.download.obtain import mirror_of
from stages import dataset_entry, new_folder


def main() -> None:
    name, entry, params = dataset_entry(__doc__)
    raw = Path("data/raw", name)
    with new_folder(raw) as folder:
        DATASETS[entry.source].download(
            folder,
            Path("data/downloads", entry.source),
            mirror=mirror_of(params.mirror),
            **entry.download,
        )
        content = read_json(folder / "manifest.json")
        seal(folder, {name: file["sha256"] for name, file in content["files"].items()})
    size = sum(file["bytes"] for file in content["files"].values())
    amount = f"{len(content['files'])} files, {size / 1e6:,.1f} MB"
    words = {True: "as the publisher has them", False: "not as the publisher has them", None: ""}
    match = words[content["matches_publisher"]]
    print(f"{name}: {', '.join(filter(None, (amount, match, differences(origin(content)))))}")


if __name__ == "__main__":
    exit_with_message(main)
