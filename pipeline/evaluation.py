"""From run folders and the test part to stored predictions, figures and a champion.

The test part is predicted once per trained model; the probabilities go to Parquet as float32, and every
figure is computed from what stands there, so anyone can recompute it exactly. Nothing is chosen by the
test part: the champion and the better variant of a model are decided by validation figures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipeline import metrics
from pipeline.data import ROWS_IN_MEMORY, Split
from pipeline.errors import PipelineError
from pipeline.files import folder_digest, read_json
from pipeline.training import predict
from pipeline.zoo import build

Array = NDArray[Any]
Block = dict[str, Any]
Entry = tuple[str, str]  # model and variant
Placements = tuple[Array, Array]
Scores = dict[tuple[str, int], Array]  # by variant and seed: probabilities (N,) float32

STAGES = {"default": "train", "tuned": "tune"}  # the stage that makes each variant
BASELINE = "lr"  # the model that RelaImpr counts from
COLUMNS = pa.schema(
    {
        "model": pa.string(),
        "variant": pa.string(),
        "seed": pa.int32(),
        "row": pa.int64(),
        "label": pa.uint8(),
        "probability": pa.float32(),
    }
)


@dataclass(frozen=True)
class Holdout:
    """The test part and what the figures need beside ids.

    Attributes:
        split: ids and labels on the device to predict on.
        label: 0 or 1, (N,) uint8.
        row: each row's number in the cleaned table, (N,) int64, ascending.
        group: the user of each row for gAUC, (N,) int32; None if the dataset has no such column.
        truth: the true click probability, (N,) float64; None unless the data was generated.
        origin: where the raw files come from (`pipeline/origin.py`); None if the folder does not say.
    """

    split: Split
    label: Array
    row: Array
    group: Array | None
    truth: Array | None
    origin: Block | None = None

    @classmethod
    def load(
        cls, processed: Path, device: torch.device | str = "cpu", *, rows_in_memory: int = ROWS_IN_MEMORY
    ) -> "Holdout":
        """Read the test part of a processed folder; see `Split.load`.

        Raises:
            PipelineError: the folder is not there, or its test part has fewer than two rows of a class.
        """
        if not (processed / "test.label.npy").exists():
            raise PipelineError(f"{processed} holds no test part; run `dvc repro split@{processed.name}`")
        label = np.load(processed / "test.label.npy")
        clicks = int(label.sum())
        if min(clicks, len(label) - clicks) < 2:
            raise PipelineError(
                f"{processed}: the test part has {clicks} positive rows of {len(label)}, but AUC and its "
                f"error need at least two of each class; change data.{processed.name}.split in params.yaml"
            )
        return cls(
            split=Split.load(processed, "test", device, rows_in_memory=rows_in_memory),
            label=label,
            row=np.load(processed / "test.row.npy"),
            group=_load_if_there(processed / "test.group.npy"),
            truth=_load_if_there(processed / "test.truth.npy"),
            origin=read_json(said).get("origin") if (said := processed / "report.json").exists() else None,
        )


@dataclass(frozen=True)
class Run:
    """One folder of `data/runs`: `info` is its run.json."""

    folder: Path
    info: Block

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.info["model"])

    @property
    def variant(self) -> str:
        """`default` or `tuned`."""
        return str(self.info["variant"])

    @property
    def seeds(self) -> list[Block]:
        """Seed, best evaluation and curve of every training, by seed."""
        return sorted(self.info["seeds"], key=lambda result: result["seed"])

    def valid(self, figure: str) -> float:
        """Mean over the seeds of `auc` or `logloss` on the validation part."""
        return float(np.mean([result["best"][f"valid_{figure}"] for result in self.seeds]))

    @property
    def rank(self) -> tuple[float, float, str, str]:
        """What runs are ordered by, best first: validation AUC, then logloss, then name."""
        return -self.valid("auc"), self.valid("logloss"), self.model, self.variant


@dataclass(frozen=True)
class Curves:
    """What the plots of one model and variant draw.

    Attributes:
        tpr: true positive rate at the false positive rates `GRID`, mean over seeds.
        predicted, observed: mean probability and share of positives per bin of equally many rows, over the
            rows of all seeds.
        histogram: share of rows per fortieth of [0, 1].
    """

    tpr: Array
    predicted: Array
    observed: Array
    histogram: Array


GRID = np.linspace(0, 1, 101)


def load_runs(folder: Path, dataset: str, models: Sequence[str], processed: Path) -> list[Run]:
    """Read the default and the tuned run of every model, in the order of `models`.

    Args:
        folder: `data/runs`.
        processed: the folder of encoded rows that the runs must have been trained on.

    Raises:
        PipelineError: a run is not there, is incomplete or was trained on other data.
    """
    current = folder_digest(processed)
    runs = []
    for model in models:
        for variant, stage in STAGES.items():
            path = folder / dataset / model / variant
            remedy = f"run `dvc repro {stage}@{dataset}-{model}`"
            if not (path / "run.json").exists():
                raise PipelineError(f"{path} holds no finished run; {remedy}")
            run = Run(path, read_json(path / "run.json"))
            if run.info["input"] != current:
                raise PipelineError(
                    f"{path} was trained on other data (digest {run.info['input']}) than {processed} holds "
                    f"now ({current}); {remedy}"
                )
            for result in run.seeds:
                if not _weights(run, result["seed"]).exists():
                    raise PipelineError(f"{_weights(run, result['seed'])} is not there; {remedy}")
            runs.append(run)
    return runs


def probabilities(run: Run, seed: int, test: Split) -> Array:
    """Return the click probability of every test row (N,) float32, by the weights of one seed.

    Raises:
        PipelineError: the weights cannot be read, do not fit the model, or predict no number.
    """
    path = _weights(run, seed)
    remedy = f"run `dvc repro --force {STAGES[run.variant]}@{run.info['dataset']}-{run.model}`"
    try:
        network = build(run.info["architecture"], test.schema, run.info["params"]["model"], seed=seed)
        network.load_state_dict(load_file(path))
    except (PipelineError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise PipelineError(f"{path} does not fit {run.model} as it is now ({reason}); {remedy}") from None
    result = predict(network.to(test.device), test).float().cpu().numpy()
    if not np.isfinite(result).all():
        raise PipelineError(f"{path}: {run.model} predicts values that are no numbers; {remedy}")
    return result


def write_predictions(path: Path, runs: Sequence[Run], holdout: Holdout) -> None:
    """Predict the test part with every variant and seed of one model and store it as Parquet.

    One row group holds one variant and seed, so a large test part is never in memory more than once.
    """
    codings: Any = {"row": "DELTA_BINARY_PACKED", "probability": "BYTE_STREAM_SPLIT"}
    with pq.ParquetWriter(
        path,
        COLUMNS,
        compression="zstd",
        use_dictionary=["model", "variant", "seed", "label"],
        column_encoding=codings,
    ) as writer:
        for run in sorted(runs, key=lambda run: run.variant):
            for result in run.seeds:
                size = len(holdout.row)
                columns = {
                    "model": pa.repeat(run.model, size),
                    "variant": pa.repeat(run.variant, size),
                    "seed": np.full(size, result["seed"], np.int32),
                    "row": holdout.row,
                    "label": holdout.label,
                    "probability": probabilities(run, result["seed"], holdout.split),
                }
                writer.write_table(pa.table(columns, schema=COLUMNS), row_group_size=max(size, 1))


def read_predictions(path: Path) -> Scores:
    """Return the stored probabilities of one model by variant and seed."""
    scores = {}
    with pq.ParquetFile(path) as file:
        for i in range(file.num_row_groups):
            part = file.read_row_group(i, columns=["variant", "seed", "probability"])
            key = part["variant"][0].as_py(), part["seed"][0].as_py()
            scores[key] = part["probability"].to_numpy()
    return scores


def measure(label: Array, probability: Array, group: Array | None, bins: int) -> dict[str, float]:
    """Return the figures of one prediction; `gauc` only if some group has both classes."""
    figures = {
        "auc": metrics.auc(label, probability),
        "logloss": metrics.logloss(label, probability),
        "normalised_entropy": metrics.normalised_entropy(label, probability),
        "ece": metrics.calibration_error(label, probability, bins),
    }
    if group is not None:
        figures["gauc"] = metrics.group_auc(label, probability, group)
    return {key: value for key, value in figures.items() if not math.isnan(value)}


def placements(label: Array, scores: Sequence[Array]) -> Placements:
    """Return the structural components of AUC: (P,) for the positives and (N,) for the negatives.

    For each positive row the share of negative rows that score below it, for each negative row the share
    of positive rows above it, a tie counting one half; both have AUC as their mean. Several scores (one a
    seed) give the components of the mean of their AUCs. Source: DeLong et al., "Comparing the Areas under
    Two or More Correlated ROC Curves", Biometrics 44, 1988, eq. 3-4.
    """
    positive = np.asarray(label) > 0.5
    above, below = np.zeros(positive.sum()), np.zeros((~positive).sum())
    for score in scores:
        x, y = score[positive], score[~positive]
        above += _rank(np.sort(y), x) / len(y)
        below += 1 - _rank(np.sort(x), y) / len(x)
    return above / len(scores), below / len(scores)


def standard_error(values: Placements) -> float:
    """Standard error of the mean of structural components: the noise of drawing the test rows."""
    return math.sqrt(sum(float(part.var(ddof=1)) / len(part) for part in values))


def delong(first: Placements, second: Placements) -> dict[str, float]:
    """Compare two AUCs on the same test rows: difference, 95 % interval and two-sided p.

    The paired test of DeLong et al. 1988. It covers the noise of the test rows, each taken as independent,
    and says nothing on the noise of the training (its seeds).
    """
    gap = first[0] - second[0], first[1] - second[1]
    difference, error = float(gap[0].mean()), standard_error(gap)
    reach = NormalDist().inv_cdf(0.975) * error
    p = math.erfc(abs(difference) / error / math.sqrt(2)) if error else float(difference == 0)
    return {"difference": difference, "low": difference - reach, "high": difference + reach, "p": p}


def champion(runs: Sequence[Run]) -> tuple[Run, int]:
    """Return the run with the best validation AUC (mean over seeds) and its best seed on validation."""
    run = min(runs, key=lambda run: run.rank)
    best = min(run.seeds, key=lambda r: (-r["best"]["valid_auc"], r["best"]["valid_logloss"], r["seed"]))
    return run, int(best["seed"])


def report(
    dataset: str, runs: Sequence[Run], holdout: Holdout, predictions: dict[str, Path], bins: int
) -> tuple[Block, dict[Entry, Curves]]:
    """Compute every figure from the stored predictions.

    Args:
        runs: as `load_runs` gives them.
        predictions: the Parquet file of each model.
        bins: of the calibration error and its plot.

    Returns:
        the values of report.json, and what the plots draw for each model and variant.
    """
    leader, seed = champion(runs)
    leading = placements(holdout.label, _of(leader, read_predictions(predictions[leader.model])))
    results, comparisons, curves = [], [], {}
    for model, variants in groupby(runs, key=lambda run: run.model):
        pair = {run.variant: run for run in variants}
        scores = read_predictions(predictions[model])
        values = {}
        for variant, run in pair.items():
            values[variant] = placements(holdout.label, _of(run, scores))
            results.append(_result(run, scores, holdout, bins, standard_error(values[variant])))
            curves[model, variant] = _curves(holdout.label, _of(run, scores), bins)
        comparisons.append(_compare(pair["tuned"], pair["default"], values["tuned"], values["default"]))
        if model != leader.model:
            better = min(pair.values(), key=lambda run: run.rank)
            comparisons.append(_compare(leader, better, leading, values[better.variant]))
    bayes = _bayes(holdout)
    _relate(results, bayes)
    values_ = {
        "dataset": dataset,
        "origin": holdout.origin,
        "rows": len(holdout.label),
        "base_rate": float(holdout.label.mean()),
        "bayes": bayes,
        "results": results,
        "comparisons": comparisons,
        "champion": {
            "model": leader.model,
            "variant": leader.variant,
            "seed": seed,
            "key": leader.info["key"],
        },
    }
    return values_, curves


def reliability(label: Array, probability: Array, bins: int) -> tuple[Array, Array]:
    """Return mean probability and share of positives in each of `bins` bins of equally many rows."""
    order = np.argsort(probability, kind="stable")
    p = np.array_split(probability[order].astype(np.float64), min(bins, len(order)))
    y = np.array_split(label[order].astype(np.float64), min(bins, len(order)))
    return np.array([part.mean() for part in p]), np.array([part.mean() for part in y])


def roc(label: Array, score: Array, grid: Array = GRID) -> Array:
    """Return the true positive rate at each false positive rate of `grid`; ties are drawn as a slope."""
    order = np.argsort(-score, kind="stable")
    ranked, positive = score[order], label[order] > 0.5
    ends = np.r_[np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1]
    hits, alarms = np.cumsum(positive)[ends], np.cumsum(~positive)[ends]
    return np.interp(grid, np.r_[0, alarms / alarms[-1]], np.r_[0, hits / hits[-1]])


def _result(run: Run, scores: Scores, holdout: Holdout, bins: int, error: float) -> Block:
    seeds = [
        {"seed": seed, **measure(holdout.label, scores[run.variant, seed], holdout.group, bins)}
        for seed in (result["seed"] for result in run.seeds)
    ]
    figures = [key for key in seeds[0] if key != "seed"]
    spread = (
        {key: float(np.std([row[key] for row in seeds], ddof=1)) for key in figures}
        if len(seeds) > 1
        else None
    )
    return {
        "model": run.model,
        "variant": run.variant,
        "key": run.info["key"],
        "weights": run.info["weights"],
        "trials": len(run.info.get("search", {}).get("trials", [])),
        "valid_auc": run.valid("auc"),
        "valid_logloss": run.valid("logloss"),
        "seeds": seeds,
        "mean": {key: float(np.mean([row[key] for row in seeds])) for key in figures},
        "std": spread,
        "auc_standard_error": error,
    }


def _relate(results: list[Block], bayes: dict[str, float] | None) -> None:
    """Add what needs the other rows or the truth: RelaImpr, and the share of the learnable AUC reached."""
    base = {r["variant"]: r["mean"]["auc"] for r in results if r["model"] == BASELINE}
    for result in results:
        auc = result["mean"]["auc"]
        gain = metrics.relative_improvement(auc, base.get(result["variant"], float("nan")))
        result["relaimpr"] = None if math.isnan(gain) else gain
        if bayes is not None:
            result["learned"] = (auc - 0.5) / (bayes["auc"] - 0.5)


def _bayes(holdout: Holdout) -> dict[str, float] | None:
    if holdout.truth is None:
        return None
    return {
        "auc": metrics.auc(holdout.label, holdout.truth),
        "logloss": metrics.logloss(holdout.label, holdout.truth),
    }


def _compare(first: Run, second: Run, a: Placements, b: Placements) -> Block:
    names = [{"model": run.model, "variant": run.variant} for run in (first, second)]
    return {"first": names[0], "second": names[1], **delong(a, b)}


def _curves(label: Array, scores: list[Array], bins: int) -> Curves:
    pooled = np.concatenate(scores)
    predicted, observed = reliability(np.tile(label, len(scores)), pooled, bins)
    histogram = np.histogram(pooled, bins=40, range=(0, 1))[0] / len(pooled)
    return Curves(np.mean([roc(label, s) for s in scores], axis=0), predicted, observed, histogram)


def _of(run: Run, scores: Scores) -> list[Array]:
    return [scores[run.variant, result["seed"]] for result in run.seeds]


def _rank(ordered: Array, values: Array) -> Array:
    """How many of `ordered` lie below each value; equal ones count one half."""
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2


def _weights(run: Run, seed: int) -> Path:
    return run.folder / f"seed-{seed}.safetensors"


def _load_if_there(path: Path) -> Array | None:
    return np.load(path) if path.exists() else None
