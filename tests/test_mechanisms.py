"""Mechanisms that live and can be seen: in models after training, in a run's files, in the report."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_report import both, made_up_report, made_up_runs, write_data
from model_options import options
from rows import SCHEMAS, random_split
from torch import nn

from pipeline.evaluate import leaderboard
from pipeline.evaluate import mechanisms as board
from pipeline.layers import accelerated
from pipeline.layers.mechanism import Mechanism
from pipeline.models import MODELS, build
from pipeline.tracking import record
from pipeline.train import mechanisms, runs
from pipeline.train.course import LogFn
from pipeline.train.loop import fit
from pipeline.train.mechanisms import frozen, mechanisms_of, observed, removed, spread
from pipeline.train.predict import predict

SCHEMA = SCHEMAS["three-domains"]
TRAIN, VALID = random_split(SCHEMA, 800, noise=0.3), random_split(SCHEMA, 300, seed=7, noise=0.3)

# Every model with a mechanism, and the options by which it depends on the row.
WITH: dict[str, dict[str, Any]] = {
    "afm": {},
    "autoint": {},
    "dcnv2": {"low_rank": 3, "experts": 2},
    "din": {"negatives": True},
    "disenctr": {},
    "edcn": {"bridge": "attention"},
    "fcn": {},
    "fibinet": {"reduction": 1},  # 3 leaves one hidden unit, which may close
    "fiinet": {},
    "finalmlp": {"gate1": ["user"], "gate2": ["item"]},
    "finalnet": {"gating": True},
    "flsest": {},
    "gdcn": {},
    "masknet": {},
    "simcen": {},
}
WITHOUT = MODELS.keys() - WITH
QUICK = ("afm", "fiinet", "flsest", "gdcn", "masknet")
CASES = [
    *(
        pytest.param(name, reading, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, reading in WITH.items()
    ),
    pytest.param("fm", {"embedding_transform": "senet"}, id="fm-senet", marks=pytest.mark.slow),
    pytest.param("fm", {"embedding_transform": "sest"}, id="fm-sest", marks=pytest.mark.slow),
]


@cache
def _trained(name: str, reading: str) -> nn.Module:
    chosen = options(name, **{"embedding_std": 0.1, **json.loads(reading)})
    model = build(name, SCHEMA, chosen, seed=1)
    fit(model, TRAIN, VALID, seed=1, epochs=3, batch_size=100, lr=0.03)
    return model


def trained(name: str, reading: dict[str, Any]) -> nn.Module:
    """A copy of a model after a short training without L2."""
    return copy.deepcopy(_trained(name, json.dumps(reading)))


# ---- the contract ----


@pytest.mark.parametrize(("name", "reading"), CASES)
def test_after_a_training_every_mechanism_depends_on_row_and_channel_and_matters(
    name: str, reading: dict[str, Any]
) -> None:
    model = trained(name, reading)
    found = mechanisms_of(model)
    assert found
    values = observed(model, VALID)
    assert values.keys() == found.keys()
    for key, mechanism in found.items():
        figures = spread(values[key])
        if mechanism.per_row:
            assert figures["std_over_rows"] > 1e-4, key
        assert figures["std_over_channels"] > 1e-4, key
    with accelerated.off():
        score = predict(model, VALID)
    with frozen(model, values):
        assert (predict(model, VALID) - score).abs().max() > 1e-4
    with removed(model):
        assert (predict(model, VALID) - score).abs().max() > 1e-4


@pytest.mark.parametrize("name", sorted(WITHOUT))
def test_a_model_whose_mechanisms_are_tested_is_on_the_list(name: str) -> None:
    """A model that passes its weights through a `Mechanism` belongs in WITH."""
    assert not mechanisms_of(build(name, SCHEMA, options(name), seed=1))


# ---- looking, freezing, removing ----


def test_looking_changes_nothing() -> None:
    model = trained("gdcn", {}).train()
    before, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    kernels, score = accelerated.enabled(), predict(model, VALID)
    assert mechanisms.measure(model, VALID) == mechanisms.measure(model, VALID)
    assert model.training
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(predict(model, VALID), score)
    assert accelerated.enabled() == kernels


def test_a_frozen_mechanism_is_its_mean_and_a_removed_one_neutral() -> None:
    model = trained("masknet", {})
    values = observed(model, VALID)
    for state, expected in ((frozen(model, values), None), (removed(model), 1.0)):
        with state:
            seen = observed(model, VALID)
        for name, x in values.items():
            want = x.mean(0) if expected is None else np.full(x.shape[1:], expected)
            np.testing.assert_allclose(seen[name], np.broadcast_to(want, x.shape), rtol=1e-5)
    np.testing.assert_array_equal(observed(model, VALID)["blocks.0.v_mask"], values["blocks.0.v_mask"])


def test_a_sample_is_the_first_rows_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained("finalmlp", {"gate1": ["user"]})
    whole = observed(model, VALID)
    assert {name: len(x) for name, x in whole.items()} == {"gate.0.g": 300, "gate.1.g": 1}
    monkeypatch.setattr(mechanisms, "BATCH_ROWS", 64)
    for name, x in observed(model, VALID, 100).items():
        np.testing.assert_allclose(x, whole[name][:100], rtol=1e-6)


def test_the_empty_places_of_a_history_do_not_count() -> None:
    model = trained("din", {})
    values = observed(model, VALID)["interests.0.attention"]
    is_empty = np.isnan(values)
    assert 0 < is_empty.mean() < 1
    assert np.isfinite(list(spread(values).values())).all()


def test_attention_that_is_removed_keeps_its_sum() -> None:
    model = trained("afm", {})
    with removed(model):
        a = observed(model, VALID)["attention"]
    np.testing.assert_allclose(a, 1 / a.shape[1], rtol=1e-6)


class Twice(nn.Module):
    """A model that uses one mechanism in two places, or in none."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.w, self.gate, self.calls = nn.Parameter(torch.ones(())), Mechanism("gate", 1.0), calls

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = ids.float()
        for _ in range(self.calls):
            x = self.gate(x)
        return self.w * x.sum(1)


@pytest.mark.parametrize(("calls", "message"), [(0, "is it called"), (2, "called twice")])
def test_a_mechanism_is_called_once(calls: int, message: str) -> None:
    assert observed(Twice(1), VALID)["gate"].shape == tuple(VALID.ids.shape)
    with pytest.raises(AssertionError, match=message):
        observed(Twice(calls), VALID)


# ---- the spread, and what is dead ----


def test_the_spread_of_a_few_weights() -> None:
    x = np.array([[[1.0, 3.0]], [[5.0, 3.0]]])
    assert spread(x) == {
        "mean": 3.0,
        "std": 1.414214,
        "std_over_rows": 1.0,  # 2 and 0
        "std_over_channels": 1.0,  # 1 and 1
        "share_of_zeros": 0.0,
    }
    empty = np.full((2, 1, 1), np.nan)
    assert spread(np.concatenate([x, empty], 2)) == spread(x), "a channel that weighs nothing"
    assert spread(np.concatenate([x, np.full((1, 1, 2), np.nan)])) == spread(x), "and a row"
    assert spread(np.array([[0.0, np.nan], [2.0, np.nan]]))["share_of_zeros"] == 0.5
    assert set(spread(np.full((2, 2), np.nan)).values()) == {0.0, 1.0}, "a history that is always empty"


@pytest.mark.parametrize(
    ("name", "weights", "what"),
    [
        ("gdcn", ["cross.0.gate.weight"], "cross.0.information (gate) is dead: every weight is 0.5"),
        (
            "masknet",
            ["blocks.1.mask.2.weight", "blocks.1.mask.2.bias"],
            "blocks.1.v_mask (mask) is dead: every",
        ),
        ("masknet", ["blocks.1.mask.2.weight"], "blocks.1.v_mask (mask) is dead: its weights are the same"),
        ("afm", ["h.weight"], "attention (attention) is dead: every weight is 0.1, for every row and"),
    ],
)
def test_a_dead_mechanism_is_told_with_what_to_do(name: str, weights: list[str], what: str) -> None:
    model = trained(name, {})
    assert mechanisms.remarks(mechanisms.measure(model, VALID)) == []
    parameters = dict(model.named_parameters())
    for key in weights:
        nn.init.zeros_(parameters[key])
    (line,) = mechanisms.remarks(mechanisms.measure(model, VALID))
    assert line.startswith(what)
    assert line.endswith(mechanisms.CURE)


@pytest.mark.parametrize(("name", "of"), [("deepfm", ["mlp"]), ("finalmlp", ["mlp.0", "mlp.1"])])
def test_a_network_that_training_switched_off_is_told(name: str, of: list[str]) -> None:
    """Nothing else tells: FiBiNET and xDeepFM with three layers lived on without theirs."""
    model = trained(name, {})
    assert mechanisms.dead_networks(model, VALID) == []
    for network in of:
        for parameter in model.get_submodule(network).parameters():
            nn.init.zeros_(parameter)
    assert mechanisms.dead_networks(model, VALID) == of
    lines = mechanisms.remarks(None, of)
    dead = "is dead: its output is the same for every row"
    assert lines[0] == f"{of[0]} (network) {dead}; {mechanisms.CURE_OF_NETWORKS}"


def test_an_l2_that_is_too_strong_for_three_layers_is_what_does_it() -> None:
    dead = {}
    for l2 in (0.0, 0.1):
        model = build("deepfm", SCHEMA, options("deepfm", hidden=[16, 16, 16], embedding_std=0.1), seed=1)
        fit(model, TRAIN, VALID, seed=1, epochs=15, patience=15, batch_size=50, lr=0.01, network_l2=l2)
        dead[l2] = mechanisms.dead_networks(model, VALID)
    assert dead == {0.0: [], 0.1: ["mlp"]}


def test_one_weight_for_all_rows_is_not_dead() -> None:
    model = trained("edcn", {})
    measured = mechanisms.measure(model, VALID)
    assert measured is not None
    assert measured["weights"]["gates.0.gates"]["std_over_rows"] == 0
    assert measured["auc"]["frozen"] == measured["auc"]["with"] != measured["auc"]["removed"]
    assert mechanisms.remarks(measured) == []


# ---- in run.json, in MLflow, in the report ----


@contextmanager
def quiet(_name: str, _key: str, _params: runs.Block) -> Iterator[LogFn]:
    yield lambda _row, _step: None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["finalmlp", "fm"])
def test_a_run_tells_its_mechanisms(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    processed = Path("processed")
    write_data(processed)
    # this gate starts at one, and hardly moves at this rate
    params = {
        "model": options(name, gate1=["user"], gate2=["item"]),
        "train": {"epochs": 1, "lr": 1e-10},
    }
    header = runs.RunHeader.of("train", "toy", name, name, params, processed)
    resources = runs.Resources(processed, "cpu", torch.get_num_threads(), 10**9)
    results = [
        runs.train_seeds(header, params, resources.load(), [1], quiet, Path("out"), resources)
        for _ in ("trained", "taken from the cache")
    ]
    torch.use_deterministic_algorithms(False)
    assert results[0] == results[1] == json.loads(json.dumps(results[0]))
    (seed,) = results[0]["seeds"]
    said = capsys.readouterr().out
    if name == "fm":
        assert "mechanisms" not in seed
        assert "dead" not in said
        return
    assert seed["mechanisms"]["weights"].keys() == {"gate.0.g", "gate.1.g"}
    assert seed["mechanisms"]["auc"].keys() == {"with", "frozen", "removed"}
    assert abs(seed["mechanisms"]["auc"]["with"] - seed["best"]["valid_auc"]) < 1e-4
    assert said.count("\n  gate.0.g (gate) is dead: every weight is 1, for") == 2


def measured(run: Any) -> None:
    """Give each seed of a made-up run a gate that lives and one that is dead."""
    for seed in run.info["seeds"]:
        live = {"mean": 0.5, "std": 0.2, "std_over_rows": 0.1 * seed["seed"], "std_over_channels": 0.25}
        dead = dict.fromkeys([*live], 0.0)
        seed["mechanisms"] = {
            "weights": {
                "gate": {"kind": "gate", "per_row": True, **live, "share_of_zeros": 0.0},
                "bridge": {"kind": "attention", "per_row": False, **dead, "share_of_zeros": 1.0},
            },
            "auc": {"with": 0.75, "frozen": 0.74 + 0.001 * seed["seed"], "removed": 0.6},
        }


def test_mlflow_shows_the_mechanisms_of_a_seed() -> None:
    (run,) = made_up_runs({("gdcn", "default"): 0.7}, seeds=2)
    measured(run)
    name, _, _, _, best = record.children({**run.info, "params": {}})[1]
    assert name == "seed-2"
    shown = record.summary(best)
    assert shown["mechanism_gate.std_over_rows"] == 0.2
    assert shown["mechanism_auc.frozen"] == 0.742
    assert shown["best_valid_auc"] == best["valid_auc"]
    assert not [key for key in record.summary(run.seeds[1]["best"]) if key.startswith("mechanism")]


def test_the_report_has_a_table_of_mechanisms() -> None:
    made_up = made_up_runs(both(gdcn=0.7, fm=0.6), seeds=3)
    for run in made_up:
        if run.model == "gdcn":
            measured(run)
    found = board.summarise(made_up)
    assert [(run["model"], run["variant"]) for run in found] == [("gdcn", "default"), ("gdcn", "tuned")]
    assert found[0]["auc"] == pytest.approx({"with": 0.75, "frozen": 0.742, "removed": 0.6})
    header, rows = board.table(found)
    assert len(rows) == 4
    assert dict(zip(header, rows[0], strict=True)) == {
        "model": "gdcn",
        "variant": "default",
        "mechanism": "gate (gate)",
        "mean": "0.5",
        "std over rows": "0.2",
        "std over channels": "0.25",
        "zeros": "0%",
        "AUC with": "0.7500",
        "AUC frozen": "0.7420",
        "AUC removed": "0.6000",
    }
    assert rows[1][2:] == ["bridge (attention)", "0", "-", "0", "100%", "", "", ""]
    kept = [row[1] for row in board.table(found, {"gdcn"})[1]]
    assert kept == ["default = tuned"] * 2
    report = made_up_report(made_up)
    assert "## Mechanisms" not in leaderboard.to_markdown({**report, "mechanisms": []})
    page = leaderboard.to_markdown({**report, "mechanisms": found})
    assert "## Mechanisms" in page
    assert f"| {' | '.join(rows[1])} |" in page
    assert board.explanation() in page
