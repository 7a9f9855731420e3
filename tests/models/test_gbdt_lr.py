"""GBDT+LR against its equation, with LightGBM to say where a row ends."""

from typing import Any

import pytest
import torch
from loops import exact, linear
from rows import SCHEMAS, every_schema, random_ids, random_split
from torch import Tensor

from pipeline.data.batches import Batch, Split
from pipeline.layers.forest import Forest, boost
from pipeline.models import build
from pipeline.schema import Field, Schema
from pipeline.train.loop import fit
from pipeline.train.start import prepare

CHOSEN = {"trees": 6, "leaves": 5, "tree_lr": 0.3, "smoothing": 2.0}


def grown(split: Split, **options: Any) -> Any:
    model = build("gbdt_lr", split.schema, {**CHOSEN, **options}, seed=1)
    prepare(model, split, split, fit, seed=1)
    return model


def own_trees(model: Any, split: Split, *, out_of_fold: bool = True) -> Any:
    numbers = model.rates(split.ids, out_of_fold=out_of_fold)
    return boost(numbers, split.label, trees=6, leaves=5, lr=0.3)


def expected(model: Any, booster: Any, numbers: Tensor, ids: Tensor) -> Tensor:
    logits = []
    for row, ends in zip(ids.tolist(), booster.predict(numbers.numpy(), pred_leaf=True), strict=True):
        leaves = sum(model.u[tree, leaf].item() for tree, leaf in enumerate(ends))
        logits.append(leaves + (linear(model.linear, row) if model.linear else model.bias.item()))
    return torch.tensor(logits).double()


@every_schema
@pytest.mark.parametrize("values", [True, False], ids=["values", "leaves alone"])
def test_gbdt_lr(schema: Schema, values: bool) -> None:
    """Grown on rates without a row's own fold, scored by the rates of all train rows."""
    train, ids = random_split(schema, 400), random_ids(schema, 50, seed=7)
    model = exact(grown(train, ids=values))
    booster = own_trees(model, train)
    assert booster.num_trees() == 6
    torch.testing.assert_close(model(ids), expected(model, booster, model.rates(ids), ids))


@pytest.mark.parametrize("held_out", ["trees", "both"])
def test_with_both_the_weights_learn_from_rows_without_their_own_fold_too(held_out: str) -> None:
    train = random_split(SCHEMAS["two-domains"], 400)
    model = exact(grown(train, held_out=held_out))
    booster = own_trees(model, train)
    scored = expected(model, booster, model.rates(train.ids), train.ids)
    apart = expected(model, booster, model.rates(train.ids, out_of_fold=True), train.ids)
    assert not torch.equal(scored, apart)
    torch.testing.assert_close(model(train.ids), scored)
    torch.testing.assert_close(model.train()(train.ids), apart if held_out == "both" else scored)


def rare(n: int) -> Split:
    """Clicks of chance, by users of whom each is there twice: nothing can be learnt."""
    schema = Schema((Field("user", n, 1, "user"), Field("item", 9, 1, "item"), Field("hour", 5, 1)))
    ids = random_ids(schema, n)
    ids[:, 0] = 2 + torch.arange(n) // 2
    return Split(schema, ids, (torch.rand(n) < 0.5).float())


def test_the_trees_do_not_learn_that_a_rate_holds_a_rows_own_click() -> None:
    train = rare(3000)
    model = grown(train)
    leaky, kept = Forest(6, 5), Forest(6, 5)
    leaky.load_booster(own_trees(model, train, out_of_fold=False))
    kept.load_booster(own_trees(model, train))

    def gap(forest: Forest, numbers: Tensor) -> float:
        """How far apart the leaves of the first tree are in their shares of clicks."""
        ends = forest(numbers)[0].double()
        shares = (ends @ train.label.double())[ends.any(1)] / ends.sum(1)[ends.any(1)]
        return (shares.max() - shares.min()).item()

    assert gap(leaky, model.rates(train.ids)) == 1.0
    assert gap(kept, model.rates(train.ids, out_of_fold=True)) < 0.5
    assert torch.equal(model.forest.threshold, kept.threshold)


def test_only_train_rows_are_counted() -> None:
    train = random_split(SCHEMAS["two-domains"], 200)
    model, once = grown(train), build("gbdt_lr", train.schema, CHOSEN, seed=1)
    valid = random_split(SCHEMAS["two-domains"], 100, seed=8)
    prepare(once, train, valid, fit, seed=1)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in once.state_dict().items())
    assert model.rates.seen[train.schema.offsets[0] :][:8, 0].sum() == 200


def test_a_single_row_is_enough_to_prepare() -> None:
    schema = SCHEMAS["three-domains"]
    model: Any = build("gbdt_lr", schema, CHOSEN, seed=1)
    model.prepare(Batch(random_ids(schema, 1), torch.ones(1)), lambda _: None)
    assert model(random_ids(schema, 5)).isfinite().all()
