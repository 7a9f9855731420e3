"""Predict the test split with every trained model of a dataset and write the report."""

from contextlib import ExitStack
from pathlib import Path

from pipeline import tracking
from pipeline.common.errors import exit_with_message
from pipeline.common.files import replacing, seal, write_json
from pipeline.config import params
from pipeline.evaluate import dvc_views, leaderboard, page, plot_style, plots, slices
from pipeline.evaluate.predictions import Holdout, write_predictions
from pipeline.evaluate.report import build_report, champion
from pipeline.evaluate.runs import load_model, load_runs
from pipeline.explain import picture, summary
from pipeline.train.device import pick_device, reproducible
from stages import alone, arguments, only_writer


def main() -> None:
    (dataset,) = arguments(__doc__, "dataset")
    alone()

    settings = params.load()
    train = settings.config(dataset, settings.models[0]).train
    processed = Path("data/processed", dataset)
    predictions, reports = Path("data/predictions", dataset), Path("data/reports", dataset)
    reproducible(train.threads)
    device = pick_device(train.device)
    holdout = Holdout.load(processed, device, rows_in_memory=train.rows_in_memory)
    runs = load_runs(Path("data/runs"), dataset, settings.models, processed)

    written = set()
    with only_writer(predictions):
        with ExitStack() as outputs:

            def new(path: Path) -> Path:
                """Return where to write an output; all are replaced at the end, the first one last."""
                written.add(path)
                return outputs.enter_context(replacing(path))

            report_file = new(reports / "report.json")
            files = {model: new(predictions / f"{model}.parquet") for model in settings.models}
            blends = settings.evaluate.blend
            valids = {model: new(predictions / f"{model}.valid.parquet") for model in files if blends}
            validations = {}
            for model, path in files.items():
                own = [run for run in runs if run.model == model]
                own += [again for run in own if (again := run.again)]
                validations[model] = write_predictions(path, own, holdout, valids.get(model))
            kept, bins = settings.entry(dataset).negatives_kept, settings.evaluate.bins
            report, curves = build_report(
                dataset,
                runs,
                holdout,
                files,
                validations,
                bins,
                kept,
                blends,
                valids,
                slices.train_rows(processed),
            )
            best, seed = champion(runs)
            network = load_model(best, holdout.split.schema, seed).to(device)
            report["learnt"] = summary.summarise(network, holdout.split, holdout.group)
            who = f"{best.model} ({best.variant})"
            figures, pictures = plots.draw(report, curves, runs), {}
            figures["learnt.png"] = picture.learnt(report["learnt"], dataset, who)
            for name, figure in figures.items():
                plot_style.save(figure, path := new(reports / name))
                pictures[name] = path.read_bytes()
            new(reports / "leaderboard.csv").write_text(leaderboard.to_csv(report), encoding="utf-8")
            learnt = summary.to_markdown(report["learnt"], who)
            text = leaderboard.to_markdown(report, list(figures), {"What the champion has learnt": learnt})
            new(reports / "leaderboard.md").write_text(text, encoding="utf-8")
            new(reports / "report.html").write_text(page.to_html(text, pictures), encoding="utf-8")
            write_json(report_file, report)
        dvc_views.write(Path("data"), report, runs)
        for path in (*predictions.iterdir(), *reports.iterdir()):
            if path not in written:  # of a model that is no longer on the list
                path.unlink()
        seal(predictions)
        seal(reports)
    print(leaderboard.to_text(report))
    tracking.publish_report(reports)


if __name__ == "__main__":
    exit_with_message(main)
