"""What sealed files cost: seconds of a processor for digests in each stage, `python -m benchmarks.seals`.

The synthetic log of `make repro`, with trainings of one epoch: what a stage hashes does not depend on how
long it trains. Every stage runs in a process of its own, as under DVC.
"""

import time
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from benchmarks import chaos
from pipeline.common import files
from pipeline.common.errors import exit_with_message

SPENT = "seconds of digests:"


def main() -> None:
    """Run the stages one by one, print what their digests took."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["lr", "fiinet"])
    models = parser.parse_args().models
    short = {"train": {"epochs": 1, "seeds": [1, 2, 3]}, "tune": {"trials": 1}}
    spent, sizes = 0.0, 0

    def sha256(path: Path, known: Any = files.sha256) -> str:
        nonlocal spent, sizes
        start = time.process_time()
        result: str = known(path)
        spent, sizes = spent + time.process_time() - start, sizes + path.stat().st_size
        return result

    def timed(stage: Any) -> None:
        start = time.process_time()
        exit_with_message(stage)
        print(f"\n{SPENT} {spent:.3f} of {time.process_time() - start:.1f}, {sizes / 2**20:.1f} MiB")

    with (
        TemporaryDirectory() as temporary,
        mock.patch.object(files, "sha256", sha256),
        mock.patch.object(chaos, "exit_with_message", timed),
    ):
        folder = chaos.make_project(Path(temporary, "project"), rows=60_000, settings=short, models=models)
        stages: list[tuple[str, ...]] = [(stage,) for stage in ("download", "preprocess", "split")]
        stages += [(stage, "--model", model) for stage in ("train", "tune") for model in models]
        for stage, *words in [*stages, ("evaluate",)]:
            code, said = chaos.warm(folder, f"stages.{stage}", "--dataset", "synthetic", *words)
            if code:
                raise SystemExit(said)
            print(stage, *words, said.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
