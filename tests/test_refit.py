"""Train + validation: each training repeated on the rows of both, by its own epochs and learning rates."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rows import SCHEMAS, random_split

from pipeline.common.errors import PipelineError
from pipeline.data.batches import Batch, Split
from pipeline.data.streaming import StreamedSplit
from pipeline.models import build
from pipeline.train import refit
from pipeline.train.checkpoint import State
from pipeline.train.loop import fit
from pipeline.train.predict import evaluate
from pipeline.train.refit import Refit

pytestmark = pytest.mark.slow
SCHEMA = SCHEMAS["two-domains"]
TRAIN, VALID = random_split(SCHEMA, 400, 1), replace(random_split(SCHEMA, 120, 2), grade=None)
SETTINGS: dict[str, Any] = {"batch_size": 32, "lr": 0.03, "patience": 3, "lr_patience": 1, "lr_factor": 0.5}


def joined(a: Split, b: Split) -> Split:
    ids, label, time = (torch.cat(pair) for pair in ((a.ids, b.ids), (a.label, b.label), (a.time, b.time)))
    return Split(SCHEMA, ids, label, time)


BOTH = joined(TRAIN, VALID)


def trained(name: str = "fm", again: Refit | None = None, **more: Any) -> tuple[torch.nn.Module, State]:
    model = build(name, SCHEMA, {}, seed=1)
    return model, fit(model, TRAIN, VALID, seed=1, refit=again, **{**SETTINGS, **more})


@pytest.mark.parametrize("evaluations", [1, 3])
def test_it_takes_as_many_epochs_at_the_same_rates_and_keeps_the_last_weights(evaluations: int) -> None:
    _, first = trained(evaluations_per_epoch=evaluations)
    kept = first.curve[: first.best + 1]
    assert len({row["lr"] for row in first.curve}) > 1
    # as if a later evaluation had been the best, so that the rates change on the way
    again = Refit(BOTH, first.curve)
    model, state = trained(again=again, evaluations_per_epoch=evaluations)
    assert len(state.curve) == len(first.curve)
    for row, old in zip(state.curve, first.curve, strict=True):
        assert row["epoch"] == pytest.approx(old["epoch"], abs=0.05)
        assert row["lr"] == old["lr"]
        assert "valid_auc" not in row
    shorter, ended = trained(again=Refit(BOTH, kept), evaluations_per_epoch=evaluations)
    assert len(ended.curve) == len(kept)
    assert ended.curve == state.curve[: len(kept)]
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), shorter.parameters(), strict=True))


def test_every_row_of_both_is_trained_on_and_the_validation_rows_are_learnt() -> None:
    """A training on train rows alone is another one; one by hand on both is the same."""
    _, first = trained()
    curve = first.curve[: first.best + 1]
    model, state = trained(again=Refit(BOTH, curve))
    by_hand = build("fm", SCHEMA, {}, seed=1)
    # rows that are as hard to learn in any epoch, so that the last one is kept: chosen by nothing
    hand = fit(by_hand, BOTH, VALID, seed=1, **{**SETTINGS, "epochs": len(curve), "lr_factor": 1.0})
    assert hand.step == state.step == len(curve) * BOTH.count(32)
    assert evaluate(model, VALID)["logloss"] < first.curve[first.best]["valid_logloss"]


def test_killed_at_any_evaluation_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    _, first = trained()
    again = Refit(BOTH, first.curve)
    whole, _ = trained(again=again)
    for number in range(len(first.curve)):

        def stop(_row: dict[str, float], step: int, at: int = number) -> None:
            if step == (at + 1) * BOTH.count(32):
                raise KeyboardInterrupt

        path = tmp_path / f"{number}.pt"
        with pytest.raises(KeyboardInterrupt):
            trained(again=again, checkpoint=path, log=stop)
        model, state = trained(again=again, checkpoint=path)
        assert len(state.curve) == len(first.curve)
        for name, value in whole.state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), (number, name)


def test_what_a_model_records_before_the_first_step_is_of_both_but_another_model_of_train_rows() -> None:
    """The machine that FNN begins from ends by validation rows, so it may not be trained on them."""
    seen: list[tuple[int, int]] = []

    class Curious(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build("lr", SCHEMA, {}, seed=1)

        def prepare(self, rows: Batch, train: Any) -> None:
            state = train(build("lr", SCHEMA, {}, seed=1))
            seen.append((len(rows.label), int(state.curve[0]["step"])))
            assert "valid_auc" in state.curve[0]

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.inner(ids)

    _, first = trained()
    fit(Curious(), TRAIN, VALID, seed=1, refit=Refit(BOTH, first.curve[:1]), **SETTINGS)
    assert seen == [(len(BOTH), TRAIN.count(32))]


def test_splits_that_are_streamed_are_refused(tmp_path: Path) -> None:
    streamed = StreamedSplit(SCHEMA, TRAIN.ids, TRAIN.label, TRAIN.time, target=torch.device("cpu"))
    with pytest.raises(PipelineError, match=r"train\.refit joins .* rows_in_memory"):
        refit.both(tmp_path, streamed, VALID)
