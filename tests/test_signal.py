"""On data whose truth is known: models learn what can be learnt, and nothing where there is nothing."""

from pathlib import Path

import numpy as np
import pytest

from pipeline import metrics
from pipeline.common.files import read_json
from pipeline.data.batches import Split
from pipeline.models import build
from pipeline.train.loop import fit
from pipeline.train.predict import predict
from tests import project

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

MODELS = ["lr", "fm", "deepfm"]


def prepared(folder: Path, dataset: str) -> tuple[Path, dict[str, float]]:
    """Run the data stages at full size; return the encoded splits and each model's test AUC."""
    values = project.small_params(datasets=[dataset])
    values["data"][dataset]["download"]["rows"] = 80_000
    project.make_project(folder, **{key: values[key] for key in ("datasets", "data")})
    project.prepare(folder, dataset)
    processed = folder / "data/processed" / dataset
    train, valid, test = (Split.load(processed, part) for part in ("train", "valid", "test"))
    found = {}
    for name in MODELS:
        options = {} if name == "lr" else {"embedding_size": 8}
        if name == "deepfm":
            options |= {"hidden": [64], "dropout": 0.0}
        model = build(name, train.schema, options, seed=1)
        fit(model, train, valid, seed=1, epochs=6, lr=0.01, embedding_l2=1e-3, lr_patience=2, patience=3)
        found[name] = metrics.auc(test.label.numpy(), predict(model, test).numpy())
    return processed, found


def test_planted_orders_are_found_by_the_models_that_can_see_them(tmp_path: Path) -> None:
    processed, found = prepared(tmp_path, "synthetic")
    label, truth = (np.load(processed / f"test.{name}.npy") for name in ("label", "truth"))
    bayes = metrics.auc(label, truth)
    learnt = {name: (value - 0.5) / (bayes - 0.5) for name, value in found.items()}
    assert 0.78 < bayes < 0.82
    assert learnt["lr"] < 0.80, "a linear model sees the first order only"
    assert learnt["lr"] + 0.05 < learnt["fm"] < 0.93, "FM sees pairs but no triples"
    assert learnt["deepfm"] >= 0.95


def test_shuffled_labels_teach_nothing(tmp_path: Path) -> None:
    """A leak anywhere between the raw file and the test split would show here."""
    processed, found = prepared(tmp_path, "synthetic-shuffled")
    assert found == {name: pytest.approx(0.5, abs=0.01) for name in MODELS}
    assert not (processed / "test.truth.npy").exists()
    rows = read_json(processed / "report.json")
    assert rows["train"]["rows"] == 57_600
