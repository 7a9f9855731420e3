"""The only loop: what it computes, what it remembers, and that nothing of it depends on being killed."""

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rows import SCHEMAS, random_ids, random_split, times, wake
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline import metrics
from pipeline.common.errors import Diverged, PipelineError
from pipeline.common.files import seal, write_json
from pipeline.data import streaming
from pipeline.data.batches import Split
from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.layers.mlp import MLP
from pipeline.models import MODELS, build
from pipeline.schema import EMPTY
from pipeline.train import course, loop
from pipeline.train.adam import parameter_groups
from pipeline.train.base_rate import LEAST_ROWS, MOST_ROWS, BaseRate
from pipeline.train.checkpoint import State
from pipeline.train.device import pick_device, reproducible
from pipeline.train.loop import fit
from pipeline.train.loss import training_loss
from pipeline.train.predict import METRICS, evaluate, metrics_on_device, predict
from pipeline.train.start import LEAST_BATCH, effective_batch_size

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SCHEMA = SCHEMAS["three-domains"]
TRAIN, VALID = random_split(SCHEMA, 420, seed=1), random_split(SCHEMA, 150, seed=5)
# everything that has a state: dropout of both kinds, batch norm, plateau, evaluations inside an epoch
DEEPFM = {"embedding_size": 4, "hidden": [6], "dropout": 0.3, "embedding_dropout": 0.2, "batch_norm": True}
CHOSEN: dict[str, Any] = {
    "seed": 3,
    "epochs": 5,
    "batch_size": 64,
    "lr": 0.02,
    "embedding_l2": 1e-4,
    "network_l2": 1e-3,
    "average_epochs": 0.5,
    "evaluations_per_epoch": 3,
    "patience": 9,
    "lr_patience": 2,
    "lr_factor": 0.5,
}


def deepfm(seed: int = 1, device: str = "cpu") -> nn.Module:
    return build("deepfm", SCHEMA, DEEPFM, seed=seed).to(device)


def on(device: str) -> tuple[Split, Split]:
    return tuple(Split(s.schema, s.ids.to(device), s.label.to(device)) for s in (TRAIN, VALID))  # type: ignore[return-value]


def bits(model: nn.Module) -> str:
    total = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        total.update(key.encode() + value.cpu().numpy().tobytes())
    return total.hexdigest()


def mean_prediction(model: nn.Module, split: Split) -> float:
    return predict(model, split).mean(dtype=torch.float64).item()


def scripted(monkeypatch: pytest.MonkeyPatch, auc: list[float], logloss: list[float] | None = None) -> None:
    """Let the evaluations of a training give these values, one after the other."""
    rows = iter(zip(auc, logloss or [0.5] * len(auc), strict=True))
    monkeypatch.setattr(course, "evaluate", lambda *_: dict(zip(("auc", "logloss"), next(rows), strict=True)))


def with_rate(split: Split, rate: float) -> Split:
    """The same rows with their times and, evenly spread, so many clicks."""
    label = ((torch.arange(1, len(split) + 1) * rate).floor().diff(prepend=torch.zeros(1)) > 0).float()
    label[0] = 1 - label[-1]  # both classes
    return replace(split, label=label, time=times(split.ids))


def base_rate_logit() -> float:
    rate = TRAIN.label.double().mean().item()
    return math.log(rate / (1 - rate))


# ---- same seed, same bits ----


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_the_seed_decides_every_bit(device: str) -> None:
    results = []
    for seed in (3, 3, 4):
        model = deepfm(device=device)
        torch.manual_seed(len(results))  # the world outside must not matter
        state = fit(model, *on(device), **{**CHOSEN, "seed": seed})
        results.append((bits(model), state))
    assert results[0] == results[1]
    assert results[0][0] != results[2][0]
    assert results[0][1].curve != results[2][1].curve


@pytest.mark.slow
def test_a_log_a_checkpoint_and_a_bar_change_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, watched = deepfm(), deepfm()
    state = fit(plain, TRAIN, VALID, **CHOSEN)
    assert state == fit(
        watched,
        TRAIN,
        VALID,
        **CHOSEN,
        log=lambda *_: None,
        checkpoint=tmp_path / "checkpoint",
        progress="deepfm",
    )
    assert bits(plain) == bits(watched)
    assert capsys.readouterr() == ("", ""), "a bar is for a terminal, not for a log file"


# ---- the step: Adam on the mean logloss, L2 in the gradient, the norm cut ----


class Adam:
    """Kingma and Ba, 2015, algorithm 1, on one array."""

    def __init__(self, lr: float) -> None:
        self.lr, self.m, self.v, self.t = lr, 0.0, 0.0, 0

    def step(self, w: np.ndarray, g: np.ndarray) -> np.ndarray:
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * g
        self.v = 0.999 * self.v + 0.001 * g**2
        m, v = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        return w - self.lr * m / (np.sqrt(v) + 1e-8)


@pytest.mark.parametrize("clip_norm", [0.0, 10.0, 0.05])
@pytest.mark.parametrize(("embedding_l2", "network_l2"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.3), (0.2, 0.4)])
def test_a_step_is_that_of_the_paper(embedding_l2: float, network_l2: float, clip_norm: float) -> None:
    """Three full-batch steps of logistic regression from the base rate, by hand."""
    model = build("lr", SCHEMA, {}, seed=1)
    wake(model)
    base = base_rate_logit() - model(TRAIN.ids).mean().item()
    linear = model.linear
    assert isinstance(linear, FieldLinear)
    table, bias = linear.table.detach().double().numpy()[:, 0].copy(), np.array([linear.bias.item()])
    ids, label = TRAIN.ids.numpy(), TRAIN.label.double().numpy()
    adam_table, adam_bias = Adam(0.1), Adam(0.1)
    expected = []
    for _ in range(3):
        logit = base + bias[0] + (table[ids] * (ids != EMPTY)).sum(1)
        error = (1 / (1 + np.exp(-logit)) - label) / len(label)
        gradient, gradient_bias = np.zeros_like(table), np.array([error.sum()])
        for row, e in zip(ids, error, strict=True):
            for i in row[row != EMPTY]:
                gradient[i] += e
        norm = math.sqrt((gradient**2).sum() + gradient_bias[0] ** 2)
        if clip_norm:
            scale = min(1.0, clip_norm / norm)
            gradient, gradient_bias = gradient * scale, gradient_bias * scale
        table = adam_table.step(table, gradient + embedding_l2 * table)  # every id is in every batch
        bias = adam_bias.step(bias, gradient_bias)  # a bias is never penalised
        expected.append(np.r_[table, bias])

    seen = []

    def log(_row: dict[str, float], _step: int) -> None:
        seen.append(np.r_[linear.table.detach().numpy()[:, 0], linear.bias.item()])

    fit(
        model,
        TRAIN,
        VALID,
        seed=1,
        epochs=3,
        batch_size=1000,
        lr=0.1,
        embedding_l2=embedding_l2,
        network_l2=network_l2,
        clip_norm=clip_norm,
        lr_patience=0,
        patience=9,
        log=log,
    )
    np.testing.assert_allclose(seen, expected, atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
def test_tables_and_matrices_of_networks_have_an_l2_and_nothing_else_has(name: str) -> None:
    model = build(name, SCHEMA, {}, seed=1)
    groups = parameter_groups(model, 0.1, 0.3, 0.2, 0.4)
    l2 = {id(p): group.l2 for group in groups for p in group.params}
    assert {group.decay for group in groups if group.l2 == 0.2} <= {0.4}
    assert not any(group.decay for group in groups if group.l2 != 0.2)
    assert sorted(l2) == sorted(id(p) for p in model.parameters()), "each parameter once"
    assert len(l2) == sum(len(group.params) for group in groups)
    for layer in model.modules():
        for key, p in layer.named_parameters(recurse=False):
            inside = any(layer in list(each) for each in model.modules() if isinstance(each, MLP))
            expected = 0.2 if inside and isinstance(layer, nn.Linear) and key == "weight" else 0.0
            if key == "table":
                expected = {FieldEmbedding: 0.1, FieldLinear: 0.3}.get(type(layer), 0.0)
            assert l2[id(p)] == expected, key


def test_l2_is_scaled_to_the_rows_it_is_meant_for() -> None:
    """With twice the rows in the penalty's reference, it is twice as strong: a prior, not a rate."""

    def weights(**settings: Any) -> Tensor:
        model = build("deepfm", SCHEMA, {"embedding_size": 4, "hidden": [4]}, seed=1)
        fit(model, TRAIN, VALID, seed=1, epochs=2, batch_size=64, patience=9, **settings)
        return nn.utils.parameters_to_vector(model.parameters()).detach()

    kinds = ("embedding_l2", "linear_l2", "network_l2", "network_decay")
    for kind in kinds:
        one = dict.fromkeys(kinds, 0.05) | {kind: 0.1}
        doubled = {key: 2 * value for key, value in one.items()}
        scaled = weights(**one, l2_rows=2 * len(TRAIN))
        assert torch.equal(scaled, weights(**doubled))
        assert not torch.equal(scaled, weights(**{**doubled, kind: 0.1})), kind


def test_l2_of_whole_tables_is_refused_where_only_some_rows_are_updated() -> None:
    model = build("fm", SCHEMA, {"embedding_size": 4}, seed=1)
    with pytest.raises(
        PipelineError, match=r"l2_tables: whole .* `l2_tables: batch`, or a higher `lazy_rows`"
    ):
        fit(model, TRAIN, VALID, seed=1, embedding_l2=0.1, l2_tables="whole", lazy_rows=1)


def test_whole_tables_pay_their_l2_also_for_ids_that_no_row_has() -> None:
    few, size = random_split(SCHEMA, 12, seed=1), {}
    for l2_tables in ("batch", "whole"):
        model = build("lr", SCHEMA, {}, seed=1)
        wake(model)
        unseen = torch.ones(len(model.linear.table), dtype=torch.bool)
        unseen[few.ids.unique()] = False
        unseen[EMPTY] = False
        assert unseen.any()
        before = model.linear.table.detach()[unseen].abs().mean()
        fit(model, few, VALID, seed=1, epochs=2, embedding_l2=0.1, l2_tables=l2_tables)
        size[l2_tables] = (model.linear.table.detach()[unseen].abs().mean() / before).item()
    assert size["batch"] == 1.0 > size["whole"]


# ---- the start and the end: at the base rate ----


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "rate", [0.001, *(pytest.param(rate, marks=pytest.mark.slow) for rate in (0.5, 0.9))]
)
def test_every_model_starts_at_the_log_odds_of_the_train_rows(name: str, rate: float) -> None:
    train = with_rate(TRAIN, rate)
    model = build(name, SCHEMA, {}, seed=1)
    BaseRate(train).start(model)
    clicks = train.label.double().sum().item()
    mean = predict(model, train, logit=True).mean().item()
    assert mean == pytest.approx(math.log(clicks / (len(train) - clicks)), abs=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_ends_there_without_the_dropout_of_its_training(name: str) -> None:
    train, valid = with_rate(TRAIN, 0.1), with_rate(VALID, 0.1)
    takes = signature(MODELS[name]).parameters
    options = {key: 0.5 for key in ("dropout", "embedding_dropout") if key in takes}
    model = build(name, SCHEMA, options, seed=1)
    fit(model, train, valid, seed=1, epochs=2, batch_size=64, lr=0.02, average_epochs=0.5)
    assert mean_prediction(model, train) == pytest.approx(train.label.mean().item(), rel=1e-4)


def test_a_model_of_ones_own_ends_there_too_and_the_constant_is_saved() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(SCHEMA.vocabulary_size))

        def forward(self, ids: Tensor) -> Tensor:
            return nn.functional.dropout(self.w[ids.long()], 0.5, self.training).sum(1)

    train, valid = with_rate(TRAIN, 0.1), with_rate(VALID, 0.1)
    model, again = Own(), Own()
    fit(model, train, valid, seed=1, epochs=3, batch_size=64, lr=0.5)
    assert mean_prediction(model, train) == pytest.approx(train.label.mean().item(), rel=1e-4)
    again.register_buffer("base_logit", torch.zeros(()))
    again.load_state_dict(model.state_dict())
    assert torch.equal(predict(again, valid), predict(model, valid))


def test_steps_have_the_constant_of_the_start_whenever_validation_rows_are_scored() -> None:
    """It is the evaluation that has no dropout: what the steps add stays what it was."""

    def seen(evaluations: int) -> list[float]:
        model, found = deepfm(), []
        model.register_forward_pre_hook(
            lambda m, _: found.append(m.base_logit.item()) if m.training else None
        )
        fit(model, TRAIN, VALID, **{**CHOSEN, "epochs": 2, "evaluations_per_epoch": evaluations})
        assert model.base_logit.item() != found[0]
        return found

    assert len(set(seen(1))) == 1
    assert seen(1) == seen(3)


def test_the_rows_looked_at_are_spread_over_all_train_rows() -> None:
    rows = 3 * LEAST_ROWS
    ids = torch.arange(rows, dtype=torch.int32).unsqueeze(1).expand(-1, SCHEMA.slots)
    sample = BaseRate(Split(SCHEMA, ids, (torch.arange(rows) % 2).float()))._sample
    place = sample.ids[:, 0]
    assert len(place) == LEAST_ROWS
    assert (place.diff() > 0).all()
    assert torch.equal(place // 3, torch.arange(LEAST_ROWS))
    assert len((place % 3).unique()) == 3
    many = BaseRate(Split(SCHEMA, ids, (torch.arange(rows) % 2).float()), rows + 1)._sample
    assert torch.equal(many.ids, ids)


def test_the_rows_looked_at_fit_into_memory_however_many_there_are() -> None:
    rows = 2 * MOST_ROWS
    ids = torch.zeros((1, SCHEMA.slots), dtype=torch.int32).expand(rows, -1)
    sample = BaseRate(Split(SCHEMA, ids, (torch.arange(rows) % 2).float()), rows)._sample
    assert len(sample) == MOST_ROWS


def test_the_constant_of_the_steps_comes_back_even_if_an_evaluation_fails() -> None:
    model = build("fm", SCHEMA, {}, seed=1)
    rate = BaseRate(TRAIN)
    rate.start(model)
    nn.init.normal_(model.linear.table)
    before = model.base_logit.clone()

    def evaluation() -> None:
        with rate.held(model):
            assert predict(model, TRAIN).mean().item() == pytest.approx(TRAIN.label.mean().item(), rel=1e-4)
            assert model.base_logit != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluation()
    assert model.base_logit == before


def test_rows_of_a_single_class_have_no_log_odds() -> None:
    model = build("lr", SCHEMA, {}, seed=1)
    BaseRate(replace(TRAIN, label=torch.zeros(len(TRAIN)))).start(model)
    assert model.base_logit.item() == 0


def test_a_click_in_a_hundred_is_learnt_at_its_rate() -> None:
    """From probability one half, two epochs end at a mean prediction twenty times the base rate."""
    train, valid = (with_rate(each, 0.02) for each in (TRAIN, VALID))
    model = build("lr", SCHEMA, {}, seed=1)
    state = fit(model, train, valid, seed=1, epochs=2, batch_size=64, lr=0.003)
    assert state.curve[-1]["valid_mean_prediction"] == pytest.approx(0.02, rel=0.3)
    assert state.curve[-1]["valid_normalised_entropy"] < 1.1


@pytest.mark.parametrize(
    ("size", "steps", "batch"), [(1024, 0, 1024), (1024, 4, 125), (64, 4, 64), (1024, 100, LEAST_BATCH)]
)
def test_a_small_log_has_as_many_steps_as_it_needs(size: int, steps: int, batch: int) -> None:
    assert effective_batch_size(500, size, steps) == batch


@pytest.mark.slow
def test_l2_pulls_the_named_part_to_zero() -> None:
    def sizes(**l2: float) -> tuple[float, float]:
        model = build("deepfm", SCHEMA, {"embedding_size": 4, "hidden": [6]}, seed=1)
        fit(model, TRAIN, VALID, seed=1, epochs=3, batch_size=64, lr=0.01, patience=9, **l2)
        groups = parameter_groups(model, 0, 0, 0)
        norms = [sum(p.square().sum().item() for p in group.params) for group in groups]
        return norms[0], norms[2]

    plain = sizes()
    tables, network = sizes(embedding_l2=1.0), sizes(network_l2=1.0)
    assert tables[0] < 0.3 * plain[0]
    assert tables[1] > 0.6 * plain[1]
    assert network[1] < 0.6 * plain[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lr", "fm", "deepfm", "fibinet"])
def test_lazy_tables_learn_as_dense_ones_do(name: str) -> None:
    """Without L2 the two differ only in how long a row goes on by its momentum."""

    def curve(lazy_rows: int) -> list[float]:
        model = build(name, SCHEMA, {}, seed=1)
        state = fit(model, TRAIN, VALID, seed=1, epochs=5, batch_size=64, patience=9, lazy_rows=lazy_rows)
        return [row["train_logloss"] for row in state.curve]

    dense, lazy = curve(10**9), curve(0)
    assert dense != lazy
    np.testing.assert_allclose(lazy, dense, atol=0.05)


@pytest.mark.slow
def test_bfloat16_learns_as_float32_does_and_leaves_float32_weights() -> None:
    def curve(precision: str) -> list[float]:
        model = build("deepfm", SCHEMA, {"hidden": [16]}, seed=1)
        state = fit(model, TRAIN, VALID, seed=1, epochs=5, batch_size=64, patience=9, precision=precision)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        return [row["train_logloss"] for row in state.curve]

    exact, rounded = curve("float32"), curve("bfloat16")
    assert exact != rounded
    np.testing.assert_allclose(rounded, exact, atol=0.01)


def test_train_logloss_is_the_mean_over_the_rows_since_the_last_evaluation() -> None:
    """With a rate of nearly nothing the model stands still, so the mean is that of the start."""
    model = build("lr", SCHEMA, {}, seed=1)
    wake(model)
    BaseRate(TRAIN).start(model)
    expected = evaluate(model, TRAIN)["logloss"]
    state = fit(model, TRAIN, VALID, seed=1, epochs=2, batch_size=64, lr=1e-12, patience=9)
    assert [row["train_logloss"] for row in state.curve] == pytest.approx([expected] * 2, rel=1e-5)


class Taught(nn.Module):
    """Two constants as heads: the first is what it predicts, the second is taught alone."""

    def __init__(self, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.logit, self.w = nn.Parameter(torch.tensor([0.5, 0.5])), nn.Parameter(torch.ones(2, 2))
        self.precision = precision

    def heads(self, ids: Tensor) -> Tensor:
        product = torch.ones(len(ids), 2) @ self.w
        assert product.dtype == self.precision
        return (product / 2 * self.logit).T

    def forward(self, ids: Tensor) -> Tensor:
        return self.heads(ids)[0].float()

    def loss(self, heads: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        assert self.training and heads.dtype == torch.float32
        return 1e6 + ((heads[1] - 2) ** 2).mean(), heads[0]


def test_a_model_with_a_loss_of_its_own_trains_on_it_and_reports_the_logloss_of_its_logit() -> None:
    model, label = Taught(), TRAIN.label
    state = fit(model, TRAIN, VALID, seed=1, epochs=3, batch_size=64, lr=0.05, patience=9, lr_patience=0)
    expected = binary_cross_entropy_with_logits(torch.full_like(label, base_rate_logit()), label).item()
    assert [row["train_logloss"] for row in state.curve] == pytest.approx([expected] * 3, rel=1e-5)
    assert model.logit[0] == 0.5, "its loss says nothing about the first head"


def test_the_logits_of_a_loss_are_computed_in_autocast_and_the_loss_in_float32() -> None:
    batch = next(iter(TRAIN.batches(64)))
    model = Taught(torch.bfloat16).train()
    loss, logloss = training_loss(model, batch, torch.autocast("cpu", torch.bfloat16))
    assert loss.dtype == logloss.dtype == torch.float32
    assert loss.requires_grad and not logloss.requires_grad


# ---- evaluations, early stopping, the plateau ----


@pytest.mark.parametrize(
    ("often", "steps"),
    [
        (1, [7, 14]),
        (2, [4, 7, 11, 14]),
        (3, [2, 5, 7, 9, 12, 14]),
        (7, list(range(1, 15))),
        (50, list(range(1, 15))),
    ],
)
def test_evaluations_stand_evenly_in_an_epoch(often: int, steps: list[int]) -> None:
    state = fit(
        deepfm(), TRAIN, VALID, **{**CHOSEN, "epochs": 2, "evaluations_per_epoch": often, "patience": 99}
    )
    assert TRAIN.count(64) == 7
    assert [row["step"] for row in state.curve] == steps
    assert [row["epoch"] for row in state.curve] == pytest.approx([step / 7 for step in steps])
    assert (state.epoch, state.batch, state.step) == (2, 0, 14)


@pytest.mark.parametrize("monitor", ["auc", "logloss"])
def test_it_ends_with_the_best_weights_in_evaluation_mode(monitor: Any) -> None:
    model = deepfm()
    state = fit(model, TRAIN, VALID, **{**CHOSEN, "epochs": 12, "lr": 0.1, "patience": 5, "monitor": monitor})
    best = state.curve[state.best]
    assert state.best < len(state.curve) - 1, "the last weights would not tell the difference"
    assert evaluate(model, VALID) == {key: best[f"valid_{key}"] for key in METRICS}
    values = [row[f"valid_{monitor}"] for row in state.curve]
    assert values[state.best] == (max(values) if monitor == "auc" else min(values))
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("monitor", "auc", "logloss", "best"),
    [
        ("auc", [0.6, 0.7, 0.7, 0.65, 0.9], [0.5] * 5, 1),
        ("auc", [0.6, 0.5, 0.7, 0.65, 0.6], [0.5] * 5, 2),
        ("logloss", [0.5] * 5, [0.6, 0.5, 0.5, 0.55, 0.1], 1),
        ("logloss", [0.5] * 5, [0.6, 0.7, 0.5, 0.55, 0.5], 2),
    ],
)
def test_it_stops_after_patience_evaluations_without_a_gain(
    monitor: Any, auc: list[float], logloss: list[float], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, auc, logloss)
    state = fit(deepfm(), TRAIN, VALID, seed=1, batch_size=64, patience=2, monitor=monitor)
    assert (state.best, len(state.curve)) == (best, best + 3)


def test_it_stops_after_the_last_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.5, 0.6, 0.7, 0.8])
    state = fit(deepfm(), TRAIN, VALID, seed=1, epochs=4, batch_size=64)
    assert (state.best, state.epoch, len(state.curve)) == (3, 4, 4)


@pytest.mark.parametrize(
    ("lr_patience", "rates"),
    [
        (1, [1.0, 1.0, 0.1, 0.01, 0.01, 0.001, 0.0001]),
        (2, [1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.01]),
        (0, [1.0] * 7),
    ],
)
def test_the_rate_is_cut_on_a_plateau(
    lr_patience: int, rates: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row shows the rate that led to it; gains come at evaluations 1 and 4 of 7."""
    scripted(monkeypatch, [0.6, 0.5, 0.5, 0.7, 0.6, 0.6, 0.6])
    state = fit(
        build("lr", SCHEMA, {}, seed=1),
        TRAIN,
        VALID,
        seed=1,
        epochs=7,
        batch_size=64,
        lr=1.0,
        lr_factor=0.1,
        lr_patience=lr_patience,
        patience=9,
    )
    assert [row["lr"] for row in state.curve] == pytest.approx(rates)


def test_the_log_gets_the_curve() -> None:
    seen: list[tuple[dict[str, float], int]] = []
    state = fit(deepfm(), TRAIN, VALID, **CHOSEN, log=lambda row, step: seen.append((dict(row), step)))
    assert [row for row, _ in seen] == state.curve
    assert [step for _, step in seen] == [row["step"] for row in state.curve]
    keys = {"step", "epoch", "lr", "train_logloss", *(f"valid_{key}" for key in METRICS)}
    assert all(row.keys() == keys for row in state.curve)


class Stop(Exception):
    """What a log may raise, as a pruner does."""


def stop_at(evaluation: int) -> Callable[[dict[str, float], int], None]:
    remaining = iter(range(evaluation))

    def log(_row: dict[str, float], _step: int) -> None:
        if next(remaining, None) is None:
            raise Stop

    return log


def test_a_model_that_prepares_trains_another_one_with_the_same_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {name: p.default for name, p in signature(fit).parameters.items() if p.default is not p.empty}
    for name in ("log", "checkpoint", "progress", "refit"):
        del settings[name]
    for name, value in settings.items():  # none of them at its default
        other = {"auc": "logloss", "float32": "bfloat16", "batch": "whole", None: 0.5}
        settings[name] = other[value] if value in other else value + 1
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(loop, "prepare", lambda *_, **given: seen.append(given))
    fit(deepfm(), TRAIN, VALID, seed=7, **{**settings, "epochs": 1})
    assert seen == [{**settings, "epochs": 1, "seed": 7, "rows": TRAIN}]


def test_what_the_log_raises_ends_the_training() -> None:
    with pytest.raises(Stop):
        fit(deepfm(), TRAIN, VALID, **CHOSEN, log=stop_at(2))


# ---- parts on the disk ----


def on_disk(folder: Path, **parts: Split) -> Path:
    for name, split in parts.items():
        assert split.time is not None
        np.save(folder / f"{name}.ids.npy", split.ids.numpy())
        np.save(folder / f"{name}.label.npy", split.label.numpy().astype(np.uint8))
        np.save(folder / f"{name}.time.npy", split.time.numpy())
    write_json(folder / "schema.json", SCHEMA.to_json())
    seal(folder)
    return folder


@pytest.fixture(name="streamed")
def _streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Split, Split]:
    """The same rows, read in windows of 96."""
    monkeypatch.setattr(streaming, "ROWS_PER_BLOCK", 8)
    monkeypatch.setattr(streaming, "ROWS_PER_WINDOW", 96)
    folder = on_disk(tmp_path, train=TRAIN, valid=VALID)
    return tuple(Split.load(folder, part, rows_in_memory=9) for part in ("train", "valid"))  # type: ignore[arg-type, return-value]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lr", {}),
        ("fm", {}),
        ("fnn", {"dropout": 0.0}),
        ("din", {}),
        ("disenctr", {"neighbours": 2}),
        ("gbdt_lr", {"trees": 5}),
    ],
)
def test_in_one_batch_a_streamed_part_trains_what_a_resident_one_does(
    streamed: tuple[Split, Split], name: str, options: dict[str, Any]
) -> None:
    """Where an epoch is one batch, its order is that of a sum."""
    losses, scores = [], []
    for train, valid in ((TRAIN, VALID), streamed):
        model = build(name, SCHEMA, options, seed=1)
        wake(model)
        state = fit(model, train, valid, seed=1, epochs=3, batch_size=1000, lr=0.01, patience=9)
        losses.append(state.curve[-1]["valid_logloss"])
        scores.append(predict(model, valid))
        assert evaluate(model, VALID)["logloss"] == pytest.approx(evaluate(model, streamed[1])["logloss"])
    if name != "disenctr":  # draws its noise in the order of the rows
        # FNN is trained twice, and Adam makes whole steps of a gradient that is rounding
        atol = 1e-2 if name == "fnn" else 5e-3
        torch.testing.assert_close(scores[0], scores[1], atol=atol, rtol=0)
    assert losses[0] == pytest.approx(losses[1], abs=0.02)


@pytest.mark.slow
def test_a_streamed_training_learns_like_a_resident_one(streamed: tuple[Split, Split]) -> None:
    curves = []
    for parts in ((TRAIN, VALID), streamed):
        model = build("deepfm", SCHEMA, {"embedding_size": 4, "hidden": [6]}, seed=1)
        curves.append(fit(model, *parts, seed=1, epochs=12, batch_size=64, lr=0.02, patience=20))
    best = [state.curve[state.best]["valid_auc"] for state in curves]
    assert min(best) > 0.75
    assert best[0] == pytest.approx(best[1], abs=0.03)


@pytest.mark.slow
def test_a_streamed_training_killed_in_an_epoch_ends_with_the_same_bits(
    streamed: tuple[Split, Split], tmp_path: Path
) -> None:
    model = deepfm()
    expected = fit(model, *streamed, **CHOSEN)
    for k in range(0, len(expected.curve), 4):
        checkpoint, other = tmp_path / str(k), deepfm()
        with pytest.raises(Stop):
            fit(deepfm(), *streamed, **CHOSEN, checkpoint=checkpoint, log=stop_at(k))
        assert fit(other, *streamed, **CHOSEN, checkpoint=checkpoint) == expected
        assert bits(other) == bits(model)


# ---- bad input ----


def test_a_training_that_explodes_says_so() -> None:
    with pytest.raises(Diverged, match=r"at step 7.*try a lower lr"):
        fit(build("fm", SCHEMA, {}, seed=1), TRAIN, VALID, seed=1, batch_size=64, lr=1e30)


def test_weights_that_are_no_numbers_say_so() -> None:
    model = build("fm", SCHEMA, {}, seed=1)
    nn.init.constant_(model.embedding.table, float("nan"))  # type: ignore[union-attr, arg-type]
    with pytest.raises(Diverged, match="not a finite number at step 7"):
        fit(model, TRAIN, VALID, seed=1, batch_size=64)


def empty() -> Split:
    return Split(SCHEMA, TRAIN.ids[:0], TRAIN.label[:0])


def test_an_empty_part_or_a_single_class_is_an_error() -> None:
    one_class = Split(SCHEMA, VALID.ids, torch.ones(len(VALID)))
    with pytest.raises(PipelineError, match="the train split has 0"):
        fit(deepfm(), empty(), VALID, seed=1)
    with pytest.raises(PipelineError, match="it has 0 positive rows of 0"):
        fit(deepfm(), TRAIN, empty(), seed=1)
    with pytest.raises(PipelineError, match="it has 150 positive rows of 150"):
        fit(deepfm(), TRAIN, one_class, seed=1)


def test_a_model_that_looks_back_needs_times() -> None:
    model = build("din", SCHEMA, {}, seed=1)
    timeless = Split(SCHEMA, TRAIN.ids, TRAIN.label)
    for rows, other in ((timeless, VALID), (TRAIN, Split(SCHEMA, VALID.ids, VALID.label))):
        with pytest.raises(PipelineError, match=r"DIN needs timestamps, which this dataset does not have"):
            fit(model, rows, other, seed=1, epochs=1)
    with pytest.raises(PipelineError, match="DIN needs timestamps"):
        predict(model, timeless)


def test_a_device_that_is_not_there_is_an_error() -> None:
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu").type == "cpu"
    for name in ("cuda:99", "gpu", "tpu9"):
        with pytest.raises(PipelineError, match=f"device '{name}' cannot be used here"):
            pick_device(name)


@pytest.fixture
def _switches() -> Iterator[None]:
    yield
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_switches")
@pytest.mark.parametrize("before", [True, False])
def test_numbers_that_are_not_normal_are_zero_in_a_training_and_its_threads(before: bool) -> None:
    """A step with them takes many times as long: FiBiNET's epochs became four times as slow on MovieLens."""
    tiny = torch.full((9,), 2e-38)
    torch.set_flush_denormal(before)
    seen = []
    fit(deepfm(), TRAIN, VALID, **CHOSEN, log=lambda *_: seen.append(int((tiny * 0.1).count_nonzero())))
    assert seen
    assert not any(seen)
    assert bool((tiny * 0.1 == 0).all()) == before, "as it was"


@pytest.mark.slow
def test_they_are_zero_in_all_threads_of_a_process() -> None:
    """In a new one, since threads keep what they were started with."""
    lines = (
        "import torch; from pipeline.train.device import reproducible",
        "reproducible(2); print(int((torch.full((10**6,), 2e-38) * .1).count_nonzero()))",
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "0\n"


@pytest.mark.slow
@pytest.mark.usefixtures("_switches")
def test_reproducible_fixes_kernels_and_threads() -> None:
    reproducible(2)
    assert torch.get_num_threads() == 2
    assert torch.are_deterministic_algorithms_enabled()
    model, other = deepfm(), deepfm()
    assert fit(model, TRAIN, VALID, **CHOSEN) == fit(other, TRAIN, VALID, **CHOSEN)
    assert bits(model) == bits(other)


# ---- prediction ----


@pytest.mark.parametrize("size", [1, 7, 149, 150, 8192])
def test_predictions_come_in_the_order_of_the_rows(size: int) -> None:
    model = deepfm()
    wake(model)
    expected = torch.sigmoid(model.eval()(VALID.ids))
    torch.testing.assert_close(predict(model.train(), VALID, batch_size=size), expected)
    assert not predict(model, VALID).requires_grad


@pytest.mark.usefixtures("_switches")
@pytest.mark.parametrize("threads", [1, 2])
def test_each_thread_scores_as_many_rows_at_a_time(threads: int) -> None:
    torch.set_num_threads(threads)
    model, seen = build("lr", SCHEMA, {}, seed=1), []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    rows = Split(SCHEMA, random_ids(SCHEMA, 5000), torch.zeros(5000))
    assert len(predict(model, rows)) == 5000
    assert seen == {1: [2048, 2048, 904], 2: [4096, 904]}[threads]
    assert len(predict(model, empty())) == 0


def test_evaluation_scores_all_rows_at_once() -> None:
    """Not the mean of what each batch would give."""
    model = build("lr", SCHEMA, {}, seed=1)
    wake(model)
    big = Split(SCHEMA, random_ids(SCHEMA, 10_000), (torch.rand(10_000) < 0.3).float())
    probability = model.eval()(big.ids).sigmoid().double()
    wins = probability[big.label == 1][:, None] - probability[big.label == 0][None]
    assert evaluate(model, big)["auc"] == pytest.approx((wins.sign().mean().item() + 1) / 2, abs=1e-6)
    losses = nn.functional.binary_cross_entropy(probability, big.label.double())
    assert evaluate(model, big)["logloss"] == pytest.approx(losses.item(), rel=1e-6)


# scores of N rows: all different, of few values, in order, all the same
SCORES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "random": lambda rng, n: rng.random(n),
    "tied": lambda rng, n: np.round(rng.random(n), 1),
    "certain": lambda rng, n: np.round(rng.random(n)),
    "sorted": lambda rng, n: np.sort(rng.random(n)),
    "constant": lambda _, n: np.full(n, 0.3),
}


@pytest.mark.usefixtures("_switches")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize(
    ("rows", "rate"), [(2, 0.5), (3, 0.9), (1000, 0.03), (1000, 0), (1000, 1), (200_001, 0.5)]
)
def test_evaluation_on_the_device_is_that_on_arrays(rows: int, rate: float, kind: str, device: str) -> None:
    """In the mode that refuses what is not deterministic; pairs of 200,001 rows are more than 2^31."""
    reproducible(1)
    rng = np.random.default_rng(rows)
    label, score = rng.random(rows) < rate, SCORES[kind](rng, rows)
    for label_type, type_ in ((np.uint8, np.float32), (np.float32, np.float32), (np.float32, np.float64)):
        y, q = label.astype(label_type), score.astype(type_)
        y_there, q_there = torch.from_numpy(y).to(device), torch.from_numpy(q).to(device)
        result = metrics_on_device(y_there, q_there)
        assert result.device == q_there.device
        auc, logloss, entropy, mean = values = result.tolist()
        one_class = len(set(y.tolist())) == 1
        assert auc == metrics.auc(y, q) or (math.isnan(auc) and one_class)
        assert logloss == pytest.approx(metrics.logloss(y, q), rel=1e-12, abs=1e-15)
        if not one_class:
            assert entropy == pytest.approx(metrics.normalised_entropy(y, q), rel=1e-9)
        assert mean == pytest.approx(q.mean(dtype=np.float64), rel=1e-12)
        assert metrics_on_device(y_there, q_there).tolist() == pytest.approx(values, abs=0, nan_ok=True)


def test_evaluation_on_the_device_of_scores_that_are_no_numbers_is_none() -> None:
    label, score = torch.tensor([0.0, 1, 0, 1]), torch.tensor([0.1, 0.9, math.nan, 0.3])
    assert metrics_on_device(label, score).isnan().all()
    assert metrics_on_device(label[:0], score[:0]).isnan().all()


def test_evaluation_on_the_device_waits_for_no_value() -> None:
    """Tensors on `meta` have none: whatever asked for one would fail."""
    label, score = torch.empty(5, dtype=torch.uint8, device="meta"), torch.empty(5, device="meta")
    assert metrics_on_device(label, score).shape == (4,)
    with pytest.raises(NotImplementedError):
        score[score > 0.5]


@pytest.mark.parametrize("device", DEVICES)
def test_a_streamed_part_is_evaluated_like_a_resident_one(streamed: tuple[Split, Split], device: str) -> None:
    model = deepfm(device=device)
    wake(model)
    _, valid = on(device)
    other = replace(streamed[1], target=torch.device(device))
    assert other.label.dtype == torch.uint8
    assert evaluate(model, other) == pytest.approx(evaluate(model, valid), rel=1e-6)


# ---- killed and run again ----


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the loop may catch it."""


def whole(device: str) -> tuple[str, State]:
    model = deepfm(device=device)
    state = fit(model, *on(device), **CHOSEN)
    return bits(model), state


def resumed(checkpoint: Path, device: str, **more: Any) -> tuple[str, State]:
    model = deepfm(seed=99 if checkpoint.exists() else 1, device=device)  # it must bring everything
    torch.manual_seed(123)
    state = fit(model, *on(device), **CHOSEN, checkpoint=checkpoint, **more)
    return bits(model), state


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_killed_at_any_evaluation_it_ends_with_the_same_bits(device: str, tmp_path: Path) -> None:
    expected = whole(device)
    evaluations = len(expected[1].curve)
    assert evaluations > 8
    assert len({row["lr"] for row in expected[1].curve}) > 1, "the plateau is part of the story"
    for k in range(evaluations):
        checkpoint = tmp_path / str(k)
        with pytest.raises(Stop):
            fit(deepfm(device=device), *on(device), **CHOSEN, checkpoint=checkpoint, log=stop_at(k))
        assert resumed(checkpoint, device) == expected


@pytest.mark.thorough
@pytest.mark.slow
def test_killed_at_any_step_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    """In the middle of a step or of an evaluation: whatever came after the last checkpoint is redone."""
    expected = whole("cpu")
    for step in range(1, expected[1].step, 3):
        for in_training in (True, False):
            model, calls = deepfm(), iter(range(step))

            def kill(
                module: nn.Module, _args: Any, calls: Iterator[int] = calls, when: bool = in_training
            ) -> None:
                if module.training == when and next(calls, None) is None:
                    raise Killed

            model.register_forward_pre_hook(kill)
            checkpoint = tmp_path / f"{step}-{in_training}"
            try:
                fit(model, TRAIN, VALID, **CHOSEN, checkpoint=checkpoint)
            except Killed:
                assert resumed(checkpoint, "cpu") == expected


@pytest.mark.slow
def test_killed_again_and_again(tmp_path: Path) -> None:
    """Each time after one more evaluation."""
    expected, checkpoint = whole("cpu"), tmp_path / "checkpoint"
    for k in range(len(expected[1].curve)):
        with pytest.raises(Stop):
            resumed(checkpoint, "cpu", log=stop_at(k))
    assert resumed(checkpoint, "cpu") == expected


@pytest.mark.slow
def test_the_log_hears_the_past_again(tmp_path: Path) -> None:
    _, state = whole("cpu")
    checkpoint, seen = tmp_path / "checkpoint", []
    with pytest.raises(Stop):
        fit(deepfm(), TRAIN, VALID, **CHOSEN, checkpoint=checkpoint, log=stop_at(4))
    resumed(checkpoint, "cpu", log=lambda row, step: seen.append((dict(row), step)))
    assert seen == [(row, row["step"]) for row in state.curve]


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    first = resumed(checkpoint, "cpu")
    written = checkpoint.read_bytes()
    assert resumed(checkpoint, "cpu") == first
    assert checkpoint.read_bytes() == written


def test_a_checkpoint_holds_plain_tensors_and_numbers(tmp_path: Path) -> None:
    """It loads without pickle's freedom to run code, and nothing else lies beside it."""
    checkpoint = tmp_path / "deep" / "checkpoint.pt"
    _, state = resumed(checkpoint, "cpu")
    saved = torch.load(checkpoint, weights_only=True)
    assert State(**saved["state"]) == state
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 20, 1000, None], ids=["empty", "short", "cut", "one bit"])
def test_a_damaged_checkpoint_is_named_and_the_training_starts_anew(
    left: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(Stop):
        fit(deepfm(), TRAIN, VALID, **CHOSEN, checkpoint=checkpoint, log=stop_at(3))
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content if left is None else content[:left])
    model = deepfm()
    state = fit(model, TRAIN, VALID, **CHOSEN, checkpoint=checkpoint)
    assert (bits(model), state) == whole("cpu")
    assert f"{checkpoint} was damaged" in capsys.readouterr().err


@pytest.mark.kill
def test_sigkill_at_random_moments(tmp_path: Path) -> None:
    """A real process, really killed, until it got through; see sigkill_child.py."""
    result = subprocess.run(
        [sys.executable, Path(__file__).with_name("sigkill_child.py"), tmp_path],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["kills"] >= 6
    assert len(set(report["results"])) == 1, report
    assert len(report["results"]) >= 2
