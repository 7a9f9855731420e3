"""The package of a finished training, from the files of the stages."""

from pathlib import Path

from pipeline.common.errors import PipelineError, unknown
from pipeline.common.files import read_json, require_file, sha256, target
from pipeline.data.storage import has_column, open_column
from pipeline.evaluate.calibration import with_negatives_kept
from pipeline.evaluate.runs import STAGES, Block, Run, load_runs
from pipeline.scoring import reading
from pipeline.scoring.package import Package
from pipeline.split.vocabulary import Vocabulary

IDENTITY = ("dataset", "model", "variant", "key", "input", "rows", "warm_start")  # of run.json
# of reading.json: how values are read, and what a split goes by; the rest says what a click is
HOW = {*reading.OF_FILES, *reading.OF_VALUES, "keep", "file", "group"}
READING = "reading.json"  # of the preprocess stage: the source, and the arguments of its `read`


def champion(root: Path, dataset: str) -> tuple[str, str]:
    """Return model and variant of the champion of a dataset's report.

    Raises:
        PipelineError: it has no report.
    """
    path = root / "data/reports" / dataset / "report.json"
    if not path.exists():
        raise PipelineError(f"{path}, naming the champion, is missing; {target('evaluate', dataset)}")
    best = read_json(path)["champion"]
    return str(best["model"]), str(best["variant"])


def pack(root: Path, dataset: str, model: str, variant: str) -> Package:
    """Return the package of a model's best seed on validation rows.

    Args:
        root: the project's folder.
        variant: `default` or `tuned`.

    Raises:
        PipelineError: a stage has to run first, or its files do not fit each other.
    """
    if variant not in STAGES:
        raise PipelineError(unknown("variant", variant, STAGES))
    processed = root / "data/processed" / dataset
    (run,) = load_runs(root / "data/runs", dataset, [model], processed, variants=[variant])
    return of_run(root, run)


def of_run(root: Path, run: Run) -> Package:
    """Do what `pack` does, for a run that was read."""
    dataset, best = str(run.info["dataset"]), run.best_seed
    processed, seed = root / "data/processed" / dataset, int(best["seed"])
    vocabulary = read_json(require_file(processed / "vocabulary.json", "split"))
    report = _report(root, run)
    weights = require_file(run.weights(seed), run.target)
    settings = read_json(require_file(root / "data/interim" / dataset / READING, "preprocess"))
    timed = has_column(processed, "train", "time")
    until = {"until": int(open_column(processed, "train", "time").max())} if timed else {}
    return Package(
        architecture=run.info["architecture"],
        options=run.info["params"]["model"],
        vocabulary=vocabulary,
        reading=_reading(settings, vocabulary, timed),
        calibration=_calibration(report, run, seed),
        weights=weights.read_bytes(),
        trained_on={
            **{key: run.info[key] for key in IDENTITY if key in run.info},
            **until,
            "log": {key: value for key, value in settings.items() if key not in HOW},
            "seed": seed,
            "weights_sha256": sha256(weights),
            "valid": {name: best["best"][f"valid_{name}"] for name in ("auc", "logloss")},
            "test": _result(report, run).get("mean", {}),
        },
    )


def _reading(settings: reading.Settings, vocabulary: Vocabulary, has_times: bool) -> reading.Settings:
    if settings["source"] != "tabular":
        settings = reading.of_clean_table(vocabulary)
    kept = {key: value for key, value in settings.items() if key in (*reading.OF_FILES, *reading.OF_VALUES)}
    if not has_times:
        kept.pop("time", None)
    return kept


def _report(root: Path, run: Run) -> Block:
    """Return the dataset's report; nothing if it was not written yet."""
    path = root / "data/reports" / str(run.info["dataset"]) / "report.json"
    report: Block = read_json(path) if path.exists() else {}
    return report


def _result(report: Block, run: Run) -> Block:
    """Return what a report says about a run; nothing if it is not about this one."""
    results = (result for result in report.get("results", ()) if result["key"] == run.info["key"])
    return next(results, {})


def _calibration(report: Block, run: Run, seed: int) -> Block:
    result = _result(report, run)
    if "calibrations" not in result:  # before evaluate, or of an older report
        return {"method": "none"}
    by_seed = [each["seed"] for each in result["seeds"]]
    fitted: Block = result["calibrations"][by_seed.index(seed)]
    return with_negatives_kept(fitted, report.get("negatives_kept", 1.0))
