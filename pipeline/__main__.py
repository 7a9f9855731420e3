"""Commands beside the stages: `python -m pipeline <command>`."""

import re
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.common.errors import PipelineError, exit_with_message

if TYPE_CHECKING:
    from pipeline.scoring.package import Package


def main() -> None:
    """Parse the command line and run one command."""
    parser = ArgumentParser(prog="python -m pipeline", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="the project's folder (default: this one)")
    commands = parser.add_subparsers(required=True, metavar="command")
    for command, words in (
        (sync, "rebuild the MLflow view from the files in data/"),
        (refresh, "copy your own files again if they have changed"),
        (check, "check params.yaml"),
        (compare, "compare models over several splits or datasets, from their reports"),
        (departures, "write docs/departures.md: where each model differs from its paper"),
        (package, "write a trained model with its preprocessing into a folder"),
        (predict, "score raw rows with a trained model"),
        (inspect, "profile a click log and write a dataset entry for params.yaml"),
    ):
        added = commands.add_parser(command.__name__, help=words, description=command.__doc__)
        added.set_defaults(run=command)
        if command is compare:
            added.add_argument("datasets", nargs="+", help="entries of params.yaml that were evaluated")
            added.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the files go")
        if command is package:
            _add_model(added, required=True)
            added.add_argument("--out", "-o", type=Path, required=True, metavar="FOLDER", help="new folder")
        if command is predict:
            _add_predict(added)
    added.add_argument("file", type=Path, help="a text or Parquet file, or a folder of them")
    added.add_argument("--name", help="of the dataset (default: from the file's name)")
    added.add_argument("--rows", type=int, help="read only the first ROWS records")
    added.add_argument("--label", metavar="COLUMN", help="the column that says what was clicked")
    added.add_argument("--add", action="store_true", help="append the entry to params.yaml")
    arguments = parser.parse_args()
    arguments.run(arguments)


def _add_model(parser: ArgumentParser, *, required: bool) -> None:
    """Add the options that name a trained model."""
    parser.add_argument("--dataset", required=required, help="an entry of params.yaml that was evaluated")
    parser.add_argument("--model", help="of that dataset (default: the champion of its report)")
    parser.add_argument("--variant", choices=("default", "tuned"), help="default: tuned, or the champion's")


def _add_predict(parser: ArgumentParser) -> None:
    parser.add_argument(
        "rows", help="CSV, TSV or Parquet, compressed or not, a folder of them, or - for stdin"
    )
    _add_model(parser, required=False)
    parser.add_argument("--package", type=Path, metavar="FOLDER", help="what `package` wrote")
    parser.add_argument("--out", "-o", type=Path, required=True, metavar="FILE", help=".parquet or .csv")
    parser.add_argument("--keep", default="", metavar="A,B", help="columns to copy beside the probabilities")
    parser.add_argument("--separator", help="between the fields of a text (default: as in training)")
    parser.add_argument("--names", metavar="A,B", help="of the columns of a text without a header")
    parser.add_argument(
        "--max-rejected",
        type=float,
        default=0.001,
        metavar="SHARE",
        help="of bad rows (default: 0.001)",
    )


def sync(arguments: Namespace) -> None:
    """Bring MLflow up to date with the files in data/."""
    from pipeline import tracking

    print(tracking.sync(arguments.root))


def check(arguments: Namespace) -> None:
    """Check params.yaml, before DVC reads it: DVC's own messages about its values name no cure."""
    from pipeline.config import params

    params.load(arguments.root / "params.yaml")


def compare(arguments: Namespace) -> None:
    """Compare models over the splits of each log, and over several logs: Markdown, CSV and a picture.

    Entries with the same source, rows and clicks count as splits of one log.
    """
    from pipeline.common.files import write_text
    from pipeline.evaluate import compare as joining
    from pipeline.evaluate import plot_style, plots

    reports = joining.read_reports(arguments.root / "data/reports", arguments.datasets)
    joined, out, picture = joining.join(reports), arguments.out, "critical_difference.png"
    out.mkdir(parents=True, exist_ok=True)
    (out / picture).unlink(missing_ok=True)
    if joined["ranks"]:
        plot_style.save(plots.critical_difference(joined["ranks"]), out / picture)
    write_text(out / "comparison.csv", joining.to_csv(joined))
    write_text(out / "comparison.md", joining.to_markdown(joined, picture))
    print(joining.to_markdown(joined))


def refresh(arguments: Namespace) -> None:
    """Run the download stage of the datasets whose local source files changed."""
    from pipeline.download.refresh import stale

    for name in stale(arguments.root):
        print(f"{name}: its files have changed since they were copied")
        command = ["dvc", "repro", "--force", "--single-item", f"download@{name}"]
        if subprocess.run(command, cwd=arguments.root, check=False).returncode:
            raise PipelineError(f"{name}: {' '.join(command)} failed")


def departures(arguments: Namespace) -> None:
    """Write docs/departures.md from the docstrings of the models."""
    from pipeline.common import files

    path = arguments.root / "docs/departures.md"
    files.write_text(path, departures_table())
    print(path)


def departures_table() -> str:
    """Return a Markdown table of all models, their papers and what differs from them, by their docstrings."""
    from pipeline.models import CLASSES

    lines = [
        "# Where the models differ from their papers\n",
        "Written by `python -m pipeline departures` from the docstrings of the models; change them there.\n",
        "| model | paper | differs from it |",
        "|---|---|---|",
    ]
    for name in CLASSES:
        text = import_module(f"pipeline.models.{name}").__doc__ or ""
        cells = []
        for head in ("Paper", "Differs from the paper"):
            found = re.search(rf"^{head}: (.*?)(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
            assert found, f"pipeline/models/{name}.py: its docstring lacks `{head}:`"
            cells.append(" ".join(found[1].split()).replace("|", r"\|").replace("*", r"\*"))
        lines.append(f"| [`{name}`](../pipeline/models/{name}.py) | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def package(arguments: Namespace) -> None:
    """Write a trained model with its vocabulary and all that is needed to score raw rows into a folder."""
    _packed(arguments).write(arguments.out)
    print(arguments.out)


def predict(arguments: Namespace) -> None:
    """Score raw rows block by block: the line of each row, its raw and its calibrated probability.

    Malformed rows are left out, counted and listed. For a public dataset the columns are those of its clean
    table, data/interim/<dataset>/table.parquet.
    """
    from pipeline.scoring import Model, load, score

    if (arguments.dataset is None) == (arguments.package is None):
        raise PipelineError("name the model by --dataset or by --package")
    score.check_output(arguments.out)
    model = load(arguments.package) if arguments.package else Model(_packed(arguments))
    names = arguments.names and arguments.names.split(",")
    layout = score.with_changes(model.reading.layout, separator=arguments.separator, names=names)
    with score.source(arguments.rows) as rows:
        found = score.run(
            model,
            rows,
            arguments.out,
            layout=layout,
            keep=[name for name in arguments.keep.split(",") if name],
            max_rejected=arguments.max_rejected,
        )
    print(found)


def _packed(arguments: Namespace) -> "Package":
    """Return the package that the options name."""
    from pipeline.scoring import pack

    model, variant = arguments.model, arguments.variant or "tuned"
    if model is None:
        model, best = pack.champion(arguments.root, arguments.dataset)
        variant = arguments.variant or best
    return pack.pack(arguments.root, arguments.dataset, model, variant)


def inspect(arguments: Namespace) -> None:
    """Print a profile of every column of a click log, and a dataset entry for params.yaml."""
    from pipeline import inspection

    for stream in (sys.stdout, sys.stderr):  # names and values may not be in the terminal's encoding
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if arguments.rows is not None and arguments.rows < 1:
        raise PipelineError(f"--rows {arguments.rows}: must be at least 1")
    name, params = arguments.name or inspection.name_of(arguments.file), arguments.root / "params.yaml"
    if arguments.add:
        inspection.check_free(params, name)
    found = inspection.inspect(
        arguments.file, name, root=arguments.root, rows=arguments.rows, label=arguments.label
    )
    print(f"{found.report}\n")
    if not found.complete:
        print(f"An incomplete entry for {params}:\n\n{found.entry}")
        raise PipelineError("the entry lacks its label or any field: see above")
    if arguments.add:
        inspection.add(params, name, found.entry)
    done, first = ("Added to", "") if arguments.add else ("An entry for", "put it there (or use --add), ")
    print(f"{done} {params}, below `data:`. Every line is a guess: check it.\n\n{found.entry}")
    print(f"Next: {first}set `datasets: [{name}]` in {params} and run `make repro`.")


if __name__ == "__main__":
    exit_with_message(main)
