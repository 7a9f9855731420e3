"""Wide & Deep against its equation."""

import math
from itertools import combinations

import pytest
import torch
from loops import embed, exact, flat, linear, mlp, times
from rows import SCHEMAS, every_schema, random_ids
from torch import Tensor

from pipeline.layers.embedding import FieldEmbedding
from pipeline.models import build
from pipeline.models.wide_deep import HashedCrosses, WideDeep
from pipeline.schema import EMPTY, Field, Schema

CHOSEN = {"embedding_size": 3, "hidden": [4, 3], "activation": "tanh"}


def hashed(i: int, j: int, buckets: int) -> int:
    """The bucket's row in the table, in numbers of any length."""
    return 1 + (i * 1_640_531_527 + j * 805_459_861) % 2_147_483_647 % buckets


def crossed(table: Tensor, schema: Schema, ids: list[int], buckets: int) -> float:
    """The weights of all pairs of values that are there and belong to two fields."""
    there = [(f, i) for f, i in zip(schema.field_of_slot, ids, strict=True) if i != EMPTY]
    return sum(table[hashed(i, j, buckets), 0].item() for (f, i), (g, j) in combinations(there, 2) if f != g)


@every_schema
@pytest.mark.parametrize("crosses", [0, 50])
def test_wide_deep(schema: Schema, crosses: int) -> None:
    model, ids = (
        exact(build("wide_deep", schema, {**CHOSEN, "crosses": crosses}, seed=1)),
        random_ids(schema, 20),
    )
    expected = []
    for row in ids.tolist():
        wide = linear(model.linear, row)
        if crosses:
            wide += crossed(model.crossed.table, schema, row, crosses)
        a = mlp(model.mlp, flat(embed(model.embedding.table, schema, row)), math.tanh)
        expected.append(wide + times(model.out.weight, a)[0])
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def test_no_weight_of_the_wide_part_is_the_networks() -> None:
    """What is learnt through one part leaves the other as it is."""
    schema = SCHEMAS["three-domains"]
    model, ids = exact(build("wide_deep", schema, {**CHOSEN, "crosses": 50}, seed=1)), random_ids(schema, 20)
    assert isinstance(model, WideDeep)
    model(ids).sum().backward()
    tables = [model.linear.table, model.crossed.table, model.embedding.table]
    assert len({table.data_ptr() for table in tables}) == 3
    before = [model.linear(ids), model.embedding(ids)]
    model.embedding.table.data.zero_()
    torch.testing.assert_close(model.linear(ids), before[0])
    model.linear.table.data.zero_()
    assert not torch.equal(before[1], model.embedding(ids)), "the table was set to zero"


def test_the_wide_part_starts_at_zero() -> None:
    schema = SCHEMAS["three-domains"]
    model, ids = build("wide_deep", schema, {"crosses": 50}, seed=1), random_ids(schema, 20)
    assert isinstance(model, WideDeep)
    assert not model.crossed.table.any()
    assert torch.equal(model(ids), model.out(model.mlp(model.embedding(ids).flatten(1))).squeeze(1))


def test_crosses_are_of_two_fields_and_never_inside_a_bag() -> None:
    schema = Schema((Field("user", 8, 1, "user"), Field("genres", 6, 3, "item"), Field("age", 4, 1, "user")))
    phi = HashedCrosses(schema, 1000)
    # user x 2 genres, user x age, 2 genres x age: 5 crosses; those of the empty slot are empty
    seen = phi(torch.tensor([[2, 10, EMPTY, 11, 16]], dtype=torch.int32))[0]
    expected = [hashed(*pair, 1000) for pair in [(2, 10), (2, 11), (2, 16), (10, 16), (11, 16)]]
    assert sorted(seen[seen != EMPTY].tolist()) == sorted(expected)
    assert not phi(torch.zeros(2, 5, dtype=torch.int32)).any()


def test_large_ids_are_hashed_without_overflow() -> None:
    schema = Schema((Field("user", 2**30, 1, "user"), Field("item", 2**30 - 2, 1, "item")))
    ids = torch.tensor([[2**30, 2**31 - 1 - k] for k in range(20)], dtype=torch.int32)
    buckets = 2**31 - 1
    assert HashedCrosses(schema, buckets)(ids)[:, 0].tolist() == [
        hashed(*row, buckets) for row in ids.tolist()
    ]


def test_the_hash_spreads_like_chance() -> None:
    """n keys thrown at random into m buckets leave m e^(-n/m) of them empty."""
    schema = Schema((Field("user", 1000, 1, "user"), Field("item", 2000, 1, "item")))
    generator = torch.Generator().manual_seed(1)
    ids = torch.stack(
        [
            1 + torch.randint(1000, (40_000,), generator=generator),
            1001 + torch.randint(2000, (40_000,), generator=generator),
        ],
        1,
    ).unique(dim=0)
    seen = HashedCrosses(schema, 20_000)(ids).unique()
    assert len(seen) == pytest.approx(20_000 * (1 - math.exp(-len(ids) / 20_000)), rel=0.03)
    assert seen.min() >= 1 and seen.max() <= 20_000


def test_the_crosses_weights_are_a_table_of_the_optimizer() -> None:
    """They get the L2 of the tables: one weight an id, however rarely it is seen."""
    model = build("wide_deep", SCHEMAS["no-bags"], {"crosses": 50}, seed=1)
    assert isinstance(model, WideDeep) and isinstance(model.crossed, FieldEmbedding)
    assert model.crossed.table.shape == (51, 1)
