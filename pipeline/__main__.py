"""Commands beside the stages: `python -m pipeline <command>`; each says what it did."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline.errors import exit_with_message


def main() -> None:
    """Read the command line and run one command."""
    parser = ArgumentParser(prog="python -m pipeline", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="the project's folder (default: this one)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    add = commands.add_parser("sync", help="bring MLflow up to what the files in data/ say")
    add.set_defaults(run=sync)
    arguments = parser.parse_args()
    arguments.run(arguments)


def sync(arguments: Namespace) -> None:
    """Bring MLflow up to what the files in data/ say."""
    from pipeline import tracking

    print(tracking.sync(arguments.root))


if __name__ == "__main__":
    exit_with_message(main)
