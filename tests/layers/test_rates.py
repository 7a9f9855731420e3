"""Click rates against counting by hand."""

import math

import torch
from rows import SCHEMAS, every_schema, random_ids
from torch import Tensor

from pipeline.layers.rates import FOLDS, ClickRates
from pipeline.schema import EMPTY, Field, Schema

SCHEMA = SCHEMAS["three-domains"]
SMOOTHING = 3.0


def counted(schema: Schema, ids: Tensor, label: Tensor) -> ClickRates:
    rates = ClickRates(schema, SMOOTHING)
    rates.count(ids, label)
    return rates


def coin(n: int, p: float = 0.4) -> Tensor:
    return (torch.rand(n) < p).float()


def folds(rates: ClickRates, ids: Tensor) -> Tensor:
    return rates.pairs(ids)[:, 0] - ids[:, 0] * FOLDS


def described(
    schema: Schema, train: list[list[int]], label: list[float], prior: float, row: list[int]
) -> list[float]:
    """The numbers of one row: of each field the mean over its values, zeros where there is none."""
    found = []
    for index in range(len(schema.fields)):
        values = [
            v for v, field in zip(row, schema.field_of_slot, strict=True) if field == index and v != EMPTY
        ]
        rate = count = 0.0
        for value in values:
            clicks = [y for other, y in zip(train, label, strict=True) for v in other if v == value]
            shown = len(clicks)
            rate += (sum(clicks) + SMOOTHING * prior) / (shown + SMOOTHING) - prior
            count += math.log(1 + shown)
        found += [rate / max(1, len(values)), count / max(1, len(values))]
    return found


@every_schema
def test_a_row_is_scored_by_all_train_rows(schema: Schema) -> None:
    train, label, ids = random_ids(schema, 15), coin(15), random_ids(schema, 20, seed=9)
    prior = label.mean().item()
    expected = [described(schema, train.tolist(), label.tolist(), prior, row) for row in ids.tolist()]
    numbers = counted(schema, train, label)(ids)
    torch.testing.assert_close(numbers, torch.tensor(expected).double(), rtol=0, atol=1e-6)


@every_schema
def test_out_of_fold_a_row_is_described_by_the_other_folds(schema: Schema) -> None:
    train, label = random_ids(schema, 60), coin(60)
    rates = counted(schema, train, label)
    fold, prior = folds(rates, train), label.double().mean().item()
    expected = []
    for row, own in zip(train.tolist(), fold.tolist(), strict=True):
        others = fold != own
        expected.append(described(schema, train[others].tolist(), label[others].tolist(), prior, row))
    numbers = rates(train, out_of_fold=True)
    torch.testing.assert_close(numbers, torch.tensor(expected).double(), rtol=0, atol=1e-6)


def test_out_of_fold_a_row_does_not_know_its_own_click() -> None:
    train, label = random_ids(SCHEMA, 100), coin(100)
    rates = counted(SCHEMA, train, label)
    mine = folds(rates, train) == folds(rates, train)[0]
    clicked, other = (mine & (label == 1)).nonzero()[0], (mine & (label == 0)).nonzero()[0]
    pair = torch.cat([clicked, other])
    before, scored = rates(train, out_of_fold=True)[pair], rates(train)[pair]
    label[pair] = label[pair.flip(0)]  # as many clicks in all
    rates.count(train, label)
    assert torch.equal(rates(train, out_of_fold=True)[pair], before)
    assert not torch.equal(rates(train)[pair], scored)


def test_a_new_value_has_the_rate_of_all_rows_and_no_count() -> None:
    train = random_ids(SCHEMA, 50)
    train[:, 0] = SCHEMA.offsets[0] + 1
    rates, row = counted(SCHEMA, train, coin(50)), train[:1].clone()
    row[0, 0] = SCHEMA.offsets[0]
    assert rates(train)[0, 1] > 0
    for numbers in (rates(row), rates(row, out_of_fold=True), rates(torch.zeros_like(row))):
        assert not numbers[0, :2].any()


def test_a_row_keeps_its_fold_however_its_bags_are_written() -> None:
    torch.manual_seed(3)
    rates, ids = ClickRates(SCHEMA, SMOOTHING), random_ids(SCHEMA, 40)
    torch.manual_seed(3)
    *fields, liked = SCHEMA.fields
    wide = ClickRates(Schema((*fields, Field("liked", liked.size, 6, "user"))), SMOOTHING)
    padded = torch.cat([ids[:, :-4], torch.zeros(40, 2, dtype=torch.int32), ids[:, -4:].flip(1)], 1)
    assert torch.equal(folds(rates, ids), folds(wide, padded))


def test_the_folds_are_of_one_size_for_every_value() -> None:
    """Also where ids are consecutive numbers."""
    schema = Schema((Field("user", 201, 1, "user"), Field("item", 301, 1, "item")))
    ids = torch.cartesian_prod(torch.arange(2, 202), torch.arange(203, 503))
    fold = folds(ClickRates(schema, SMOOTHING), ids)
    share = fold.bincount(minlength=FOLDS) / len(ids)
    assert (share - 1 / FOLDS).abs().max() < 0.02
    for column in (0, 1):
        for value in ids[:, column].unique()[:20]:
            share = fold[ids[:, column] == value].bincount(minlength=FOLDS) / (ids[:, column] == value).sum()
            assert (share - 1 / FOLDS).abs().max() < 0.12


def test_the_seed_decides_the_folds() -> None:
    ids = random_ids(SCHEMA, 40)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(folds(ClickRates(SCHEMA, SMOOTHING), ids))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
