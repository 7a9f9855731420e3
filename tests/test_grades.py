"""Grades behind the label: one score, taught by every threshold; its logit stays that of the label."""

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from rows import SCHEMAS, random_ids
from torch import Tensor

from pipeline.common.errors import PipelineError
from pipeline.common.files import seal, write_json
from pipeline.data import storage
from pipeline.data.batches import Batch, Split
from pipeline.data.storage import SplitWriter
from pipeline.models import build
from pipeline.preprocess.clean_table import CleanTable, ClickLog, write
from pipeline.preprocess.parse import grades
from pipeline.preprocess.rejects import RejectLog
from pipeline.schema import Column
from pipeline.split.assign import TEST, TRAIN, VALID
from pipeline.split.vocabulary import Encoder, fit_vocabulary
from pipeline.train import refit
from pipeline.train.grades import Thresholds
from pipeline.train.loop import fit
from pipeline.train.loss import training_loss
from pipeline.train.predict import evaluate

SCHEMA = SCHEMAS["no-bags"]


def graded(n: int, seed: int, noise: float = 1.0) -> Split:
    """Rows of five grades, of which the upper two are clicks: a latent amount of two ids, and noise."""
    ids = random_ids(SCHEMA, n, seed)
    draw = torch.Generator().manual_seed(seed + 1)
    amount = (ids[:, 0] % 3 - 1.0) + (ids[:, 1] % 3 - 1.0) + noise * torch.randn(n, generator=draw)
    grade = torch.bucketize(amount, torch.tensor([-2.0, -1.0, 0.5, 2.0])).to(torch.uint8)
    return Split(SCHEMA, ids, (grade >= 3).float(), grade=grade)


def bce(logit: Tensor, label: Tensor) -> Tensor:
    return -(label * logit.sigmoid().log() + (1 - label) * (-logit).sigmoid().log()).mean()


@pytest.mark.parametrize("name", ["fm", "finalnet"])
def test_the_loss_is_a_mean_over_thresholds_and_the_logloss_that_of_the_label(name: str) -> None:
    rows = graded(60, 1)
    model, thresholds = build(name, SCHEMA, {}, seed=1).eval(), Thresholds(rows, 0.75)
    assert thresholds.levels == [1, 2, 4]
    with torch.no_grad():
        thresholds.cuts.copy_(torch.tensor([2.0, 1.0, -1.5]))
    loss, logloss = training_loss(model, rows.whole(), nullcontext(), thresholds)
    _, same = training_loss(model, rows.whole(), nullcontext())
    assert torch.equal(logloss, same)
    cuts = {1: 2.0, 2: 1.0, 3: 0.0, 4: -1.5}
    assert rows.grade is not None
    if name == "fm":
        expected = sum(bce(model(rows.ids) + c, (rows.grade >= g).float()) for g, c in cuts.items()) / 4
        torch.testing.assert_close(loss, expected)
    else:  # a loss of its own, of which each threshold has one
        heads = model.heads(rows.ids)
        each = [model.loss(heads + c, (rows.grade >= g).float())[0] for g, c in cuts.items()]
        torch.testing.assert_close(loss, sum(each) / 4)
    loss.backward()
    assert thresholds.cuts.grad is not None
    assert bool((thresholds.cuts.grad != 0).all())


def test_cuts_start_where_the_thresholds_are() -> None:
    rows = graded(500, 1)
    assert rows.grade is not None
    shares = [(rows.grade >= level).double().mean().item() for level in (3, 1)]
    label, first = (math.log(share / (1 - share)) for share in shares)
    assert Thresholds(rows, 0.5).cuts[0].item() == pytest.approx(first - label, abs=1e-6)


@pytest.mark.slow
def test_grades_teach_more_than_the_label_alone_and_nobody_reads_those_of_validation() -> None:
    """Few rows, a latent amount: finer labels halve nothing, but they must help on the label itself."""
    train, valid = graded(300, 2), graded(4000, 3)
    hidden = replace(valid, grade=None)
    found = {}
    for share in (0.0, 0.75):
        model = build("fm", SCHEMA, {"embedding_size": 4}, seed=1)
        fit(model, train, hidden, seed=1, epochs=30, batch_size=64, lr=0.01, grades=share, monitor="logloss")
        found[share] = evaluate(model, hidden)
        assert not any("cuts" in key for key in model.state_dict())
    assert found[0.75]["logloss"] < found[0.0]["logloss"]
    assert found[0.75]["auc"] > found[0.0]["auc"]
    assert found[0.75]["mean_prediction"] == pytest.approx(valid.label.mean().item(), abs=0.04)


def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    train, valid = graded(300, 2), graded(200, 3)
    settings = {"seed": 1, "epochs": 4, "batch_size": 64, "lr": 0.02, "grades": 0.75, "average_epochs": 0.5}

    def trained(**more: object) -> dict[str, Tensor]:
        model = build("fm", SCHEMA, {}, seed=1)
        fit(model, train, valid, **settings, **more)  # type: ignore[arg-type]
        return model.state_dict()

    class Killed(BaseException):
        pass

    def kill(row: dict[str, float], _step: int) -> None:
        if row["epoch"] == 2:
            raise Killed

    whole = trained()
    with pytest.raises(Killed):
        trained(checkpoint=tmp_path / "c", log=kill)
    resumed = trained(checkpoint=tmp_path / "c")
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_without_grades_or_with_one_threshold_the_option_is_refused() -> None:
    rows = graded(60, 1)
    model = build("lr", SCHEMA, {}, seed=1)
    with pytest.raises(PipelineError, match="no grades behind their labels"):
        fit(model, replace(rows, grade=None), rows, seed=1, grades=0.5)
    binary = replace(rows, grade=rows.label.to(torch.uint8))
    with pytest.raises(PipelineError, match="no threshold but the label's"):
        fit(model, binary, rows, seed=1, grades=0.5)


def test_a_grade_is_the_number_of_cuts_below_a_value() -> None:
    found = grades(np.array([1.0, 2.0, 2.5, 9.0, np.nan]), 2, 1, 8, 2)
    assert found == pa.array([0, 1, 2, 3, 0], pa.uint8())


def table(label: list[int], grade: list[int]) -> pa.Table:
    columns = {"label": pa.array(label, pa.uint8()), "grade": pa.array(grade, pa.uint8())}
    return pa.table({"city": ["a"] * len(label), **columns})


COLUMNS = (Column("city", "category", "user"),)


def test_grades_go_to_the_train_rows_and_in_a_refit_to_those_of_validation(
    tmp_path: Path,
) -> None:
    rows = table([0, 1, 0, 1, 1, 0], [1, 3, 2, 4, 3, 0])
    rejects = RejectLog()
    rejects.count("log", 6)
    write(tmp_path, ClickLog(COLUMNS, iter([rows.slice(0, 2), rows.slice(2)])), rejects, "log")
    clean = CleanTable(tmp_path)
    extra = clean.load_extra()
    vocabulary = fit_vocabulary(clean.column_blocks, COLUMNS)
    encoder = Encoder(vocabulary, clean.column_blocks)
    parts = np.array([TRAIN, TRAIN, VALID, TEST, TRAIN, TRAIN], np.uint8)
    folder = tmp_path / "processed"
    folder.mkdir()
    with SplitWriter(folder, encoder.schema, extra, parts) as writer:
        writer.write(clean.field_blocks(), encoder)
    write_json(folder / "schema.json", encoder.schema.to_json())
    seal(folder)
    assert storage.open_column(folder, "train", "grade").tolist() == [1, 3, 3, 0]
    assert not storage.has_column(folder, "test", "grade")
    for limit in (100, 1):  # resident, streamed
        train = Split.load(folder, "train", rows_in_memory=limit)
        assert train.whole().grade is not None
        read = [batch.grade for batch in train.batches(3)]
        assert torch.cat([grade for grade in read if grade is not None]).tolist() == [1, 3, 3, 0]
    train, valid = Split.load(folder, "train"), Split.load(folder, "valid")
    assert valid.grade is None
    rows = refit.both(folder, train, valid)  # after every choice
    assert rows.grade is not None
    assert rows.grade.tolist() == [1, 3, 3, 0, 2]
    assert rows.label.tolist() == [0, 1, 1, 0, 0]


def test_a_label_that_is_no_threshold_of_the_grade_is_an_error(tmp_path: Path) -> None:
    rejects = RejectLog()
    rejects.count("log", 2)
    tables = iter([table([0], [3]), table([1], [3])])
    with pytest.raises(PipelineError, match="a row with a click has the grade 3, one without 3"):
        write(tmp_path, ClickLog(COLUMNS, tables), rejects, "log")


def test_rows_take_their_grades_along() -> None:
    rows = Batch(torch.arange(3)[:, None], torch.zeros(3), None, torch.tensor([5, 6, 7], dtype=torch.uint8))
    picked = rows.rows(torch.tensor([2, 0])).grade
    assert picked is not None
    assert picked.tolist() == [7, 5]
