"""Commands beside the stages: `python -m pipeline <command>`; each says what it did."""

import subprocess
import sys
from argparse import ArgumentParser, Namespace
from io import TextIOWrapper
from pathlib import Path

from pipeline.common.errors import PipelineError, exit_with_message


def main() -> None:
    """Read the command line and run one command."""
    parser = ArgumentParser(prog="python -m pipeline", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="the project's folder (default: this one)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    add = commands.add_parser("sync", help="bring MLflow up to what the files in data/ say")
    add.set_defaults(run=sync)
    again = commands.add_parser("refresh", help="copy your own files again if they changed")
    again.set_defaults(run=refresh)
    look = commands.add_parser("inspect", help="look at a click log and write an item for params.yaml")
    look.add_argument("file", type=Path, help="a text or Parquet file, or a folder of such")
    look.add_argument("--name", help="of the item (default: from the name of the file)")
    look.add_argument("--rows", type=int, help="look only at so many of the first records")
    look.add_argument("--label", metavar="COLUMN", help="the column that says what was clicked")
    look.add_argument("--add", action="store_true", help="put the item into params.yaml")
    look.set_defaults(run=inspect)
    arguments = parser.parse_args()
    arguments.run(arguments)


def sync(arguments: Namespace) -> None:
    """Bring MLflow up to what the files in data/ say."""
    from pipeline import tracking

    print(tracking.sync(arguments.root))


def refresh(arguments: Namespace) -> None:
    """Run the download stage of the datasets whose local source files changed."""
    from pipeline.download.refresh import stale

    for name in stale(arguments.root):
        print(f"{name}: its files have changed since they were copied")
        command = ["dvc", "repro", "--force", "--single-item", f"download@{name}"]
        if subprocess.run(command, cwd=arguments.root, check=False).returncode:
            raise PipelineError(f"{name}: {' '.join(command)} failed")


def inspect(arguments: Namespace) -> None:
    """Look at a click log, print an item for params.yaml, and put it there if asked to."""
    from pipeline import inspection

    for stream in (sys.stdout, sys.stderr):  # names and values may not be in the terminal's encoding
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if arguments.rows is not None and arguments.rows < 1:
        raise PipelineError(f"--rows {arguments.rows}: must be at least 1")
    name = arguments.name or inspection.name_of(arguments.file)
    params = arguments.root / "params.yaml"
    if arguments.add:
        inspection.check_free(params, name)
    found = inspection.inspect(
        arguments.file, name, root=arguments.root, rows=arguments.rows, label=arguments.label
    )
    print(found.report)
    if not found.complete:
        print(f"\nThe item for {params}, as far as it goes:\n\n{found.item}")
        raise PipelineError("the item lacks its label or any field: see above")
    if arguments.add:
        inspection.add(params, name, found.item)
        print(f"\nAdded to {params}, below `data:`. Every line is a guess: read it.\n\n{found.item}")
        print(f"Next: set `datasets: [{name}]` in {params} and run `make repro`.")
    else:
        print(f"\nAn item for {params}, below `data:`. Every line is a guess: read it.\n\n{found.item}")
        print(f"Next: put it there (--add does), set `datasets: [{name}]` and run `make repro`.")


if __name__ == "__main__":
    exit_with_message(main)
