"""Train, tune and compare click-through-rate models: `ctr <command>`, or `python -m pipeline <command>`.

One definition of the command line for both. What is slow to import is imported by the command that needs it,
so that help and typing errors are answered at once.
"""

import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands import __version__
from pipeline.commands.checkout import require_project, warn_of_other_code
from pipeline.common.command_line import Parser
from pipeline.common.errors import PipelineError, exit_with_message

if TYPE_CHECKING:
    from pipeline.scoring import Model
    from pipeline.scoring.package import Package


def main() -> None:
    """Parse the command line and run one command."""
    arguments = parser().parse_args()
    warn_of_other_code(arguments.root)
    arguments.run(arguments)


def console() -> None:
    """Start the console script `ctr`."""
    exit_with_message(main)


def parser(name: str | None = None) -> ArgumentParser:
    """Return the command line's definition, under a name or that by which it was called."""
    name = name or ("ctr" if Path(sys.argv[0]).name == "ctr" else "python -m pipeline")
    top = Parser(prog=name, description=(__doc__ or "").splitlines()[0])
    top.add_argument(
        "--root", type=Path, default=Path(), metavar="FOLDER", help="the project (default: this folder)"
    )
    top.add_argument("--version", action="version", version=f"ctr-pipeline {__version__}")
    commands = top.add_subparsers(required=True, metavar="command")

    def command(act: Callable[[Namespace], None], words: str) -> ArgumentParser:
        added: ArgumentParser = commands.add_parser(act.__name__, help=words, description=act.__doc__)
        added.set_defaults(run=act)
        return added

    added = command(run, "run the whole pipeline, or what has changed in it")
    added.add_argument(
        "targets", nargs="*", metavar="target", help="of DVC, such as tune@synthetic-fm (default: all)"
    )
    added = command(report, "say which model won and where its report is")
    added.add_argument(
        "datasets", nargs="*", metavar="dataset", help="with a report (default: those that run)"
    )
    added = command(ui, "browse the runs in MLflow")
    added.add_argument(
        "--host", default="127.0.0.1", help="to listen on (default: 127.0.0.1, this machine alone)"
    )
    added.add_argument("--port", type=int, default=5000, help="of this machine (default: 5000)")
    command(models, "list the models and variants of params.yaml")
    command(datasets, "list the datasets of params.yaml and what is there of each")
    added = command(inspect, "profile a click log and write a dataset entry for params.yaml")
    added.add_argument("file", type=Path, help="a text or Parquet file, or a folder of them")
    added.add_argument("--name", help="of the dataset (default: from the file's name)")
    added.add_argument("--rows", type=int, help="read only the first ROWS records")
    added.add_argument("--label", metavar="COLUMN", help="the column that says what was clicked")
    added.add_argument("--add", action="store_true", help="append the entry to params.yaml")
    added = command(package, "write a trained model with its preprocessing into a folder")
    _add_model(added, required=False)
    added.add_argument("--package", type=Path, metavar="FOLDER", help="one to which --vectors are added")
    added.add_argument(
        "--vectors",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="of values that are new since training",
    )
    added.add_argument("--out", "-o", type=Path, required=True, metavar="FOLDER", help="new folder")
    _add_predict(command(predict, "score raw rows with a trained model"))
    added = command(export, "write the network of a trained model for other runtimes")
    _add_model(added, required=True)
    added.add_argument("--format", choices=("onnx", "torch"), default="onnx", help="default: onnx")
    added.add_argument("--out", "-o", type=Path, required=True, metavar="FOLDER", help="new folder")
    added = command(watch, "compare a new log with the test rows of a dataset, and a model with its report")
    added.add_argument("dataset", nargs="?", help="an entry of params.yaml that was evaluated")
    added.add_argument("rows", type=Path, help="a file of raw rows, or a folder of them")
    _add_choice(added)
    added.add_argument("--package", type=Path, metavar="FOLDER", help="what `package` wrote, for a dataset")
    added.add_argument("--registered", metavar="NAME@ALIAS", help="a model in MLflow's registry")
    added.add_argument("--out", "-o", type=Path, metavar="FOLDER", help="for watch.json and watch.png")
    added = command(join, "train trials of a search that is on a server (docs/scale.md)")
    for name in ("dataset", "model"):
        added.add_argument(f"--{name}", required=True, help="as of the search, in params.yaml")
    added = command(importance, "tell which fields and pairs of fields a trained model lives by")
    added.add_argument(
        "rows", type=Path, nargs="?", help="raw rows that training did not see (default: the test rows)"
    )
    _add_model(added, required=False)
    added.add_argument("--package", type=Path, metavar="FOLDER", help="what `package` wrote; needs rows")
    added.add_argument("--label", metavar="COLUMN", help="of the rows, 0 and 1")
    added.add_argument(
        "--together", default="", metavar="A+B,C+D", help="fields that are shuffled as one (default: none)"
    )
    added.add_argument(
        "--predictions", type=int, default=200_000, metavar="ROWS",
        help="rows to predict for the fields, and for the pairs, at most (default: 200000)",
    )  # fmt: skip
    added.add_argument("--out", "-o", type=Path, metavar="FOLDER", help="for Markdown, CSV and a picture")
    added = command(explain, "tell what the score of one row is made of")
    added.add_argument("rows", type=Path, help="a file of raw rows")
    added.add_argument("--row", type=int, required=True, help="which, as `predict` numbers them")
    _add_model(added, required=False)
    added.add_argument("--package", type=Path, metavar="FOLDER", help="what `package` wrote")
    added = command(costs, "tell what the models of a leaderboard cost to train and to score here")
    added.add_argument("dataset", help="an entry of params.yaml that was evaluated")
    added.add_argument("--models", default="", metavar="A,B", help="of its report (default: all)")
    added.add_argument("--rounds", type=int, default=3, help="measurements of each (default: 3)")
    added.add_argument("--out", "-o", type=Path, metavar="FOLDER", help="for Markdown, CSV and a picture")
    added = command(check, "check params.yaml, and mend what a kill left of DVC's own files")
    added.add_argument("--files", action="store_true", help="also every file in data/, byte by byte")
    added.add_argument("--quiet", action="store_true", help="say nothing if all is well")
    command(refresh, "copy your own files again if they have changed")
    command(sync, "rebuild the MLflow view from the files in data/")
    added = command(compare, "compare models over several splits or datasets, from their reports")
    added.add_argument(
        "datasets", nargs="+", metavar="dataset", help="an entry of params.yaml that was evaluated"
    )
    added.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the files go")
    added = command(paper, "put a paper's table together whose splits or logs were made in several folders")
    added.add_argument("folders", nargs="+", type=Path, metavar="folder", help="data/papers/<name> somewhere")
    added.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the files go")
    command(departures, "write docs/departures.md: where each model differs from its paper")
    added = command(completion, "print what a shell needs to complete these commands")
    added.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="which one")
    return top


def run(arguments: Namespace) -> None:
    """Do what has changed since the last run, from the data to the report, and say which model won."""
    from pipeline.commands import project

    project.run(arguments.root, arguments.targets)


def report(arguments: Namespace) -> None:
    """Say which model won, by how much, and where its report is."""
    from pipeline.commands import outcome, project

    print(outcome.outcome(arguments.root, arguments.datasets or project.datasets(arguments.root)))


def ui(arguments: Namespace) -> None:
    """Bring MLflow up to date, print the addresses of its pages and serve them until Ctrl-C."""
    from pipeline.commands import project

    project.ui(arguments.root, arguments.host, arguments.port)


def models(arguments: Namespace) -> None:
    """List the models and variants of params.yaml."""
    from pipeline.commands import listing

    print(listing.models(arguments.root))


def datasets(arguments: Namespace) -> None:
    """List the datasets of params.yaml and what is there of each."""
    from pipeline.commands import listing

    print(listing.datasets(arguments.root))


def completion(arguments: Namespace) -> None:
    """Print a script for a shell: `eval "$(ctr completion bash)"`."""
    import shtab

    print(shtab.complete(parser("ctr"), arguments.shell))


def _add_model(parser: ArgumentParser, *, required: bool) -> None:
    """Add the options that name a trained model."""
    parser.add_argument("--dataset", required=required, help="an entry of params.yaml that was evaluated")
    _add_choice(parser)


def _add_choice(parser: ArgumentParser) -> None:
    parser.add_argument("--model", help="of that dataset, or `blend` (default: the champion of its report)")
    kinds = ("default", "tuned", "equal", "greedy")
    parser.add_argument(
        "--variant", choices=kinds, help="default: tuned, or the champion's; of a blend equal"
    )
    parser.add_argument("--refit", action="store_true", help="as trained again on train + validation rows")


def _add_predict(parser: ArgumentParser) -> None:
    parser.add_argument(
        "rows", help="CSV, TSV or Parquet, compressed or not, a folder of them, or - for stdin"
    )
    _add_model(parser, required=False)
    parser.add_argument("--package", type=Path, metavar="FOLDER", help="what `package` wrote")
    parser.add_argument("--registered", metavar="NAME@ALIAS", help="a model in MLflow's registry")
    parser.add_argument(
        "--out", "-o", required=True, metavar="FILE", help=".parquet or .csv, or - for CSV to stdout"
    )
    parser.add_argument("--keep", default="", metavar="A,B", help="columns to copy beside the probabilities")
    parser.add_argument("--separator", help="between the fields of a text (default: as in training)")
    parser.add_argument("--encoding", help="of a text, such as latin-1 (default: as in training)")
    parser.add_argument("--names", metavar="A,B", help="of the columns of a text without a header")
    parser.add_argument(
        "--max-rejected",
        type=float,
        metavar="SHARE",
        help="of bad rows (default: what training allowed, 0.001 if params.yaml does not say)",
    )


def sync(arguments: Namespace) -> None:
    """Bring MLflow up to date with the files in data/."""
    from pipeline import tracking

    require_project(arguments.root)
    print(tracking.sync(arguments.root))


def check(arguments: Namespace) -> None:
    """Check params.yaml and the columns of your own logs before DVC starts; mend DVC's files after a kill.

    With --files also every byte that a stage has written: DVC hashes a file again only if its time or size
    has changed, so that it calls one that a disk has damaged up to date.
    """
    from pipeline.commands import checks
    from pipeline.common import leftovers
    from pipeline.config import params

    for line in leftovers.heal(arguments.root):
        print(line)

    settings = params.load(arguments.root / "params.yaml")
    checks.own_logs(arguments.root, settings)
    checks.tables(arguments.root, settings)
    if not arguments.quiet:
        print(checks.all_well(settings))
    if arguments.files:
        print(checks.files(arguments.root))


def compare(arguments: Namespace) -> None:
    """Compare models over the splits of each log, and over several logs: Markdown, CSV and a picture.

    Entries with the same source, rows and clicks count as splits of one log.
    """
    from pipeline.common.files import make_folder, write_text
    from pipeline.config import plan
    from pipeline.evaluate import compare as joining
    from pipeline.evaluate import plot_style, plots

    if not (arguments.root / "data/reports").exists():  # reports are all that it takes
        require_project(arguments.root)
    for name in arguments.datasets:
        if not (arguments.root / "data/reports" / name).exists():
            plan.require_dataset(arguments.root, name)
    reports = joining.read_reports(arguments.root / "data/reports", arguments.datasets)
    joined, out, picture = joining.join(reports), arguments.out, "critical_difference.png"
    make_folder(out)
    write_text(out / "comparison.csv", joining.to_csv(joined))
    write_text(out / "comparison.md", joining.to_markdown(joined, picture))
    (out / picture).unlink(missing_ok=True)
    if joined["ranks"]:
        plot_style.save(plots.critical_difference(joined["ranks"]), out / picture)
    print(joining.to_markdown(joined))


def refresh(arguments: Namespace) -> None:
    """Run download of the datasets whose local source files changed, and split where a package did."""
    from pipeline.download import refresh
    from pipeline.split import warm

    for stage, what, module in (("download", "files", refresh), ("split", "packages to start from", warm)):
        for name in module.stale(arguments.root):
            print(f"{name}: its {what} have changed since they were copied")
            command = ["dvc", "repro", "--force", "--single-item", f"{stage}@{name}"]
            if subprocess.run(command, cwd=arguments.root, check=False).returncode:
                raise PipelineError(f"{name}: {' '.join(command)} failed")


def paper(arguments: Namespace) -> None:
    """Put one table or figure of a paper together from folders that `dvc repro paper@...` made elsewhere.

    Splits of one log become one table, tested over all of them; logs stand beside each other.
    """
    from pipeline.papers import pages

    print(pages.unite(arguments.folders, arguments.out))


def departures(arguments: Namespace) -> None:
    """Write docs/departures.md from the docstrings of the models."""
    from pipeline.commands.departures import table
    from pipeline.common import files

    path = arguments.root / "docs/departures.md"
    files.write_text(path, table())
    print(path)


def package(arguments: Namespace) -> None:
    """Write a trained model with its vocabulary and all that is needed to score raw rows into a folder.

    With --vectors it also knows values that training did not see, by the vectors that files give them; where
    the model comes from a package, it needs no project.
    """
    if (arguments.dataset is None) == (arguments.package is None):
        raise PipelineError("name the model by either --dataset or --package")
    if arguments.package is not None:
        from pipeline.scoring.package import Package

        found = Package.read(arguments.package)
    else:
        from pipeline.config import params
        from pipeline.watch import reference

        require_project(arguments.root)
        bins = params.load(arguments.root / "params.yaml").evaluate.bins
        found = reference.added(arguments.root, _packed(arguments), bins)
    if arguments.vectors:
        from pipeline.scoring import grow

        found, added = grow.grown(found, arguments.vectors)
        for field, values in added.items():
            print(f"{field}: vectors of {values:,} values that training did not have")
    found.write(arguments.out)
    print(arguments.out)


def predict(arguments: Namespace) -> None:
    """Score raw rows block by block: the line of each row, its raw and its calibrated probability.

    Malformed rows are left out, counted and listed. For a public dataset the columns are those of its clean
    table, data/interim/<dataset>/table.parquet. With `-o -` the scores go to the standard output as CSV, and
    all else to the standard error. Where the files of the stages are incomplete, as after one that failed, a
    dataset's champion is taken from MLflow's registry.
    """
    from pipeline.commands import packing
    from pipeline.scoring import Model, load, score

    if sum(value is not None for value in (arguments.dataset, arguments.package, arguments.registered)) != 1:
        raise PipelineError("name the model by one of --dataset, --package and --registered")
    to_stdout = arguments.out == "-"
    if not to_stdout:
        score.check_output(Path(arguments.out))
    if arguments.dataset is None:
        model = load(_package_folder(arguments))
    else:
        require_project(arguments.root)
        of = arguments.root, arguments.dataset, arguments.model, arguments.variant
        model = Model(packing.packed_or_registered(*of, refit=arguments.refit))
    names = arguments.names and arguments.names.split(",")
    layout = score.with_changes(
        model.reading.layout, separator=arguments.separator, encoding=arguments.encoding, names=names
    )
    with score.source(arguments.rows) as rows, score.destination(arguments.out) as out:
        found = score.run(
            model,
            rows,
            out,
            layout=layout,
            keep=[name for name in arguments.keep.split(",") if name],
            max_rejected=arguments.max_rejected,
        )
    print(found, file=sys.stderr if to_stdout else sys.stdout)


def export(arguments: Namespace) -> None:
    """Write the network of a trained model as ONNX or a graph of torch.export, its vocabulary beside it.

    It maps ids, and the times of a model that needs them, to logits; export.json says how to call it.
    """
    from pipeline.scoring import export as exporting

    print(exporting.write(_packed(arguments), arguments.out, arguments.format))


def watch(arguments: Namespace) -> None:
    """Compare a new log with the test rows of a dataset, and a model with its report.

    Rows that cannot be read, unseen and missing values, distribution (PSI) of each field and of predictions;
    with labels their rate, AUC, logloss and calibration error. Ends with 1 if a figure changed beyond its
    limit in params.yaml (`watch`), or a column is not there. A package needs no project: it says what its
    test rows were like, and without a params.yaml the limits are its defaults.
    """
    from pipeline.common.files import make_folder, write_json
    from pipeline.config import params
    from pipeline.config.settings import Watch
    from pipeline.evaluate import plot_style
    from pipeline.scoring import Model, load
    from pipeline.watch import picture, reference, report

    ways = arguments.dataset, arguments.package, arguments.registered
    if sum(way is not None for way in ways) != 1:
        raise PipelineError("name the model by one of a dataset before the rows, --package and --registered")
    path, limits = arguments.root / "params.yaml", Watch()
    if arguments.dataset is not None:
        require_project(arguments.root)
        settings = params.load(path)
        model, limits = Model(_packed(arguments)), settings.watch
        compared = reference.of_test_rows(arguments.root, model, settings.evaluate.bins)
    else:
        model = load(_package_folder(arguments))
        compared = reference.of_package(model, str(arguments.package or arguments.registered))
        if path.exists():
            limits = params.load(path).watch
    found = report.watch(model, compared, arguments.rows, limits)
    print(report.to_text(found))
    if arguments.out:
        make_folder(arguments.out)
        write_json(arguments.out / "watch.json", found)
        plot_style.save(picture.changes(found), arguments.out / "watch.png")
    if alarms := report.alarms(found):
        raise PipelineError(f"{arguments.rows} is not like the test rows: " + ", ".join(alarms))


def join(arguments: Namespace) -> None:
    """Take trials of a search from the server that `studies` or CTR_STUDIES names, until all are finished.

    The search itself, `dvc repro tune@<dataset>-<model>`, runs on this machine or another one, from the same
    settings and the same encoded rows; it ends alike with or without this.
    """
    from pipeline.commands import joining

    require_project(arguments.root)
    joining.join(arguments.root, arguments.dataset, arguments.model)


def importance(arguments: Namespace) -> None:
    """Tell which fields and pairs of fields a trained model lives by.

    Fields by the AUC that is lost when their values are shuffled among rows, pairs by double differences of
    the logit.
    """
    from pipeline.commands import explaining

    if arguments.package is not None and arguments.rows is None:
        raise PipelineError("a package has no rows: name a file of rows that training did not see")
    if arguments.predictions < 1:
        raise PipelineError(f"--predictions {arguments.predictions}: must be at least 1")
    model = _dataset_or_package(arguments)
    found, text = explaining.importance(
        model, arguments.root, arguments.rows, arguments.label, arguments.together, arguments.predictions
    )
    print(text, end="")
    if arguments.out:
        explaining.write(arguments.out, found, text, model)


def explain(arguments: Namespace) -> None:
    """Tell what the score of one row is made of, by the Shapley values of its fields.

    They sum up to the row's logit less the mean logit of other rows: the test rows or, of a package, those of
    the file.
    """
    from pipeline.commands import explaining

    model = _dataset_or_package(arguments)
    from_file = arguments.package is not None
    print(explaining.explain(model, arguments.root, arguments.rows, arguments.row, from_file=from_file))


def costs(arguments: Namespace) -> None:
    """Tell what the models of a leaderboard cost: time of a training, time of scoring, parameters.

    They are measured in turn on this machine. A price is compared with the others of the same call.
    """
    from pipeline.commands import pricing

    if arguments.rounds < 1:
        raise PipelineError(f"--rounds {arguments.rounds}: must be at least 1")
    require_project(arguments.root)
    models = [name for name in arguments.models.split(",") if name]
    print(pricing.costs(arguments.root, arguments.dataset, models, arguments.rounds, arguments.out), end="")


def _dataset_or_package(arguments: Namespace) -> "Model":
    """Return the model that the options name, one way or the other."""
    from pipeline.scoring import Model, load

    if (arguments.dataset is None) == (arguments.package is None):
        raise PipelineError("name the model by either --dataset or --package")
    return Model(_packed(arguments)) if arguments.package is None else load(arguments.package)


def _package_folder(arguments: Namespace) -> Path:
    """Return the package that --package names, or that of --registered."""
    if arguments.package is not None:
        return Path(arguments.package)
    from pipeline.tracking.models import registered_package

    return registered_package(arguments.root, arguments.registered)


def _packed(arguments: Namespace) -> "Package":
    """Return the package that the options name."""
    from pipeline.commands import packing

    require_project(arguments.root)
    of = arguments.root, arguments.dataset, arguments.model, arguments.variant
    return packing.packed(*of, refit=arguments.refit)


def inspect(arguments: Namespace) -> None:
    """Print a profile of every column of a click log, and a dataset entry for params.yaml."""
    from pipeline import inspection

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
    console()
