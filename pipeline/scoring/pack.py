"""The package of a finished training or of a blend, from the files of the stages."""

from dataclasses import replace
from pathlib import Path

from pipeline.common.errors import PipelineError, unknown
from pipeline.common.files import read_json, require_file, sha256, target
from pipeline.config import plan
from pipeline.data.storage import VECTORS, has_column, open_column
from pipeline.evaluate.calibration import with_negatives_kept
from pipeline.evaluate.runs import AGAIN, STAGES, Block, Run, how_to_make, load_runs
from pipeline.scoring import reading
from pipeline.scoring.package import BLEND, Member, Package
from pipeline.split.vocabulary import Vocabulary

IDENTITY = ("dataset", "model", "variant", "key", "input", "rows", "warm_start")  # of run.json
# of reading.json: how values are read, and what a split goes by; the rest says what a click is
HOW = {*reading.OF_FILES, *reading.OF_VALUES, reading.LIMIT, "keep", "file", "group"}
READING = "reading.json"  # of the preprocess stage: the source, the arguments of its `read`, `max_rejected`


def champion(root: Path, dataset: str) -> tuple[str, str]:
    """Return model and variant of the champion of a dataset's report.

    Raises:
        PipelineError: it has no report.
    """
    path = root / "data/reports" / dataset / "report.json"
    if not path.exists():
        plan.require_dataset(root, dataset)
        raise PipelineError(f"{path}, naming the champion, is missing; {target('evaluate', dataset)}")
    best = read_json(path)["champion"]
    return str(best["model"]), str(best["variant"])


def pack(root: Path, dataset: str, model: str, variant: str, *, refit: bool = False) -> Package:
    """Return the package of a model's best seed on validation rows, or of a blend.

    Args:
        root: the project's folder.
        model: in params.yaml, or `blend`.
        variant: `default` or `tuned`; of a blend `equal` or `greedy`.
        refit: take the weights that were trained again on train and validation rows. The seed and the
            calibration stay those that the training before it had on the validation rows, for which there are
            none now.

    Raises:
        PipelineError: a stage has to run first, or its files do not fit each other.
    """
    if model == BLEND:
        return _of_blend(root, dataset, variant, refit)
    if variant not in STAGES:
        raise PipelineError(unknown("variant", variant, STAGES))
    return of_run(root, _run(root, dataset, model, variant, refit))


def _run(root: Path, dataset: str, model: str, variant: str, refit: bool) -> Run:
    processed, folder = root / "data/processed" / dataset, root / "data/runs" / dataset / model / variant
    if not (folder / "run.json").exists():
        remedy = how_to_make(dataset, model, variant)
        raise PipelineError(f"{folder}/run.json is missing, so there is no finished run; {remedy}")
    (run,) = load_runs(root / "data/runs", dataset, [model], processed, variants=[variant])
    if not refit:
        return run
    if run.again is None:
        raise PipelineError(
            f"{run.folder} has no weights of train and validation rows: set `train: {{refit: true}}` in "
            f"params.yaml and {how_to_make(dataset, model, variant)}"
        )
    return run.again


def of_run(root: Path, run: Run) -> Package:
    """Do what `pack` does, for a run that was read."""
    dataset, best = str(run.info["dataset"]), run.best_seed
    report, seed = _report(root, dataset), int(best["seed"])
    vocabulary, read, log = _preprocessing(root, dataset)
    return Package(
        architecture=run.info["architecture"],
        options=run.info["params"]["model"],
        vocabulary=vocabulary,
        reading=read,
        calibration=_calibration(report, run, seed),
        weights=require_file(run.weights(seed), run.target).read_bytes(),
        trained_on={
            **_identity(run, seed),
            **log,
            "valid": {name: best["best"][f"valid_{name}"] for name in ("auc", "logloss")},
            "test": _result(report, run).get("mean", {}),
        },
        vectors=_vectors(root, dataset, vocabulary),
    )


def _of_blend(root: Path, dataset: str, kind: str, refit: bool) -> Package:
    """Return the package of a blend of a dataset's report: every seed of every run in it is a member."""
    report = _report(root, dataset)
    blends = {each["kind"]: each for each in report.get("blends", [])}
    name = f"{kind}{AGAIN if refit else ''}"
    if name not in blends:
        raise PipelineError(
            f"{unknown('blend', name, blends)}; `dvc repro evaluate@{dataset}` makes those of "
            "`evaluate.blend` in params.yaml, and of refits with `train: {refit: true}`"
        )
    found, members = blends[name], []
    total = sum(part["weight"] for part in found["members"])
    for part in found["members"]:
        run = _run(root, dataset, part["model"], part["variant"].removesuffix(AGAIN), refit)
        if run.info["key"] != part["key"]:
            raise PipelineError(
                f"{run.folder} was trained again after the report; {target('evaluate', dataset)}"
            )
        for seed in part["seeds"]:
            weights = require_file(run.weights(seed), run.target).read_bytes()
            share = part["weight"] / total / len(part["seeds"])
            own = run.info["architecture"], run.info["params"]["model"]
            members.append(Member(*own, weights, share, _identity(run, seed)))
    vocabulary, read, log = _preprocessing(root, dataset)
    return Package(
        architecture=BLEND,
        options={},
        vocabulary=vocabulary,
        reading=read,
        calibration=with_negatives_kept(found["calibration"], report.get("negatives_kept", 1.0)),
        weights=b"",
        trained_on={
            "dataset": dataset,
            "model": BLEND,
            "variant": name,
            "key": found["key"],
            **log,
            "valid": {key: blends[kind][f"valid_{key}"] for key in ("auc", "logloss")},
            "test": {key: found[key] for key in ("auc", "logloss")},
        },
        members=tuple(members),
        vectors=_vectors(root, dataset, vocabulary),
    )


def _vectors(root: Path, dataset: str, vocabulary: Vocabulary) -> bytes:
    """Return the file of the vectors that values are given, if any are."""
    if not any(entry.get("given") for entry in vocabulary):
        return b""
    return require_file(root / "data/processed" / dataset / VECTORS, "split").read_bytes()


def _identity(run: Run, seed: int) -> Block:
    named = {key: run.info[key] for key in IDENTITY if key in run.info}
    return {**named, "variant": run.variant, "seed": seed, "weights_sha256": sha256(run.weights(seed))}


def _preprocessing(root: Path, dataset: str) -> tuple[Vocabulary, reading.Settings, Block]:
    """Return the vocabulary, how columns are read, and what `trained_on` says of the log."""
    processed = root / "data/processed" / dataset
    vocabulary = read_json(require_file(processed / "vocabulary.json", "split"))
    settings = read_json(require_file(root / "data/interim" / dataset / READING, "preprocess"))
    timed = has_column(processed, "train", "time")
    span: Block = {}
    if timed:
        times = open_column(processed, "train", "time")
        span = {"since": int(times.min()), "until": int(times.max())}
    log = {**span, "log": {key: value for key, value in settings.items() if key not in HOW}}
    return vocabulary, _reading(settings, vocabulary, timed), log


def _reading(settings: reading.Settings, vocabulary: Vocabulary, has_times: bool) -> reading.Settings:
    if settings["source"] != "tabular":
        settings = reading.of_clean_table(vocabulary)
    kept = {key: value for key, value in settings.items() if key in reading.KEPT}
    if not has_times:
        kept.pop("time", None)
    return kept


def _report(root: Path, dataset: str) -> Block:
    """Return the dataset's report; nothing if it was not written yet."""
    path = root / "data/reports" / dataset / "report.json"
    report: Block = read_json(path) if path.exists() else {}
    return report


def _result(report: Block, run: Run) -> Block:
    """Return what a report says about a run, or its refit; nothing if it is not about this one."""
    kind = "refits" if run.refit else "results"
    results = (result for result in report.get(kind, ()) if result["key"] == run.info["key"])
    return next(results, {})


def _calibration(report: Block, run: Run, seed: int) -> Block:
    result = _result(report, replace(run, refit=False))
    if "calibrations" not in result:  # before evaluate, or of an older report
        return {"method": "none"}
    by_seed = [each["seed"] for each in result["seeds"]]
    fitted: Block = result["calibrations"][by_seed.index(seed)]
    return with_negatives_kept(fitted, report.get("negatives_kept", 1.0))
