"""Neighbour fields: what a row's user met in the train rows and who met its item, and no leak by them."""

from dataclasses import replace

import pytest
import torch
from rows import SCHEMAS, random_ids, random_split, times, wake
from torch import Tensor, nn

from pipeline.common.errors import PipelineError
from pipeline.data.batches import Batch, Split
from pipeline.layers.embedding import FieldEmbedding
from pipeline.layers.neighbours import MEMORY, Neighbours, with_neighbours
from pipeline.models import MODELS, build
from pipeline.schema import EMPTY, Field, Schema
from pipeline.train.loop import fit
from pipeline.train.predict import evaluate, logits
from pipeline.train.start import prepare

SCHEMA = SCHEMAS["three-domains"]  # its item stands before its user
ITEM, USER = 1, 4  # their columns
FIRST_ITEM, FIRST_USER = SCHEMA.offsets[1], SCHEMA.offsets[3]


def embedded(rows: Tensor, asked: Tensor, limit: int = 100) -> tuple[FieldEmbedding, Tensor]:
    """A layer that knows these rows, and the vectors of its two last fields for others."""
    schema = with_neighbours(SCHEMA, neighbour_limit=limit)
    torch.manual_seed(1)
    layer = FieldEmbedding(schema, 3).double()
    wake(layer)
    schema.neighbours.remember(Batch(rows, torch.zeros(len(rows))), SCHEMA)  # type: ignore[attr-defined]
    fields = layer(asked)
    assert fields.shape == (len(asked), len(SCHEMA.fields) + 2, 3)
    return layer, fields[:, -2:]


def test_it_is_the_sum_over_the_others_met_by_the_root_of_their_number() -> None:
    rows, asked = random_ids(SCHEMA, 25), random_ids(SCHEMA, 12, seed=3)
    layer, found = embedded(rows, asked)
    first_met = 1 + sum(field.size for field in SCHEMA.fields)  # of the items' block; the users' follows
    first_who = first_met + SCHEMA.fields[1].size
    assert layer.table.shape[0] == first_who + SCHEMA.fields[3].size
    pairs = {
        (user, item)
        for user, item in rows[:, [USER, ITEM]].tolist()
        if user != FIRST_USER and item != FIRST_ITEM  # unseen ids are many users, or items, at once
    }
    for (user, item), vectors in zip(asked[:, [USER, ITEM]].tolist(), found, strict=True):
        met = [first_met + j - FIRST_ITEM for v, j in pairs if v == user and j != item]
        who = [first_who + v - FIRST_USER for v, j in pairs if j == item and v != user]
        for block, vector in ((met, vectors[0]), (who, vectors[1])):
            expected = sum((layer.table[row] for row in block), torch.zeros(3).double())
            torch.testing.assert_close(vector, expected / max(1, len(block)) ** 0.5)


def test_the_own_pair_changes_nothing() -> None:
    rows, asked = random_ids(SCHEMA, 25), random_ids(SCHEMA, 6, seed=3)
    for row in asked:
        _, without = embedded(rows[(rows[:, [USER, ITEM]] != row[[USER, ITEM]]).any(1)], row[None])
        _, once = embedded(torch.cat([rows, row[None]]), row[None])
        _, often = embedded(torch.cat([rows, row[None], row[None]]), row[None])
        torch.testing.assert_close(once, without)
        torch.testing.assert_close(often, without)


def test_of_many_neighbours_so_many_are_drawn_always_the_same() -> None:
    rows = torch.ones(40, SCHEMA.slots, dtype=torch.int32)
    rows[:, USER] = FIRST_USER + 1 + torch.arange(40) % 7
    rows[:, ITEM] = FIRST_ITEM + 1 + torch.arange(40) % 6
    memories = []
    for order in (torch.arange(40), torch.randperm(40)):
        memory = Neighbours(3)
        memory.remember(Batch(rows[order], torch.zeros(40)), SCHEMA)
        memories.append(memory)
        for pairs, size in ((memory.of_users, 7), (memory.of_items, 8)):
            _, count = (pairs[1:] // size).unique(return_counts=True)
            assert count.tolist() == [3] * len(count)
            assert bool((pairs.diff() > 0).all())
    assert torch.equal(memories[0].of_users, memories[1].of_users)
    assert torch.equal(memories[0].of_items, memories[1].of_items)


def embedded_before(rows: Tensor, when: Tensor, asked: Tensor, now: Tensor, limit: int = 100) -> Tensor:
    """The two last fields of rows that are asked for at a time, after these rows at theirs."""
    schema = with_neighbours(SCHEMA, neighbour_limit=limit, neighbour_times="earlier")
    torch.manual_seed(1)
    layer = FieldEmbedding(schema, 3).double()
    wake(layer)
    memory: Neighbours = schema.neighbours  # type: ignore[attr-defined]
    memory.remember(Batch(rows, torch.zeros(len(rows)), when), SCHEMA)
    memory.moment = now
    return layer(asked)[:, -2:]


@pytest.mark.parametrize("limit", [100, 2])
def test_strictly_earlier_neighbours_are_what_was_met_before_the_rows_time(limit: int) -> None:
    draw = torch.Generator().manual_seed(4)
    rows, asked = random_ids(SCHEMA, 60), random_ids(SCHEMA, 40, seed=3)
    when, now = (torch.randint(1000, 1020, (n,), generator=draw) for n in (60, 40))
    found = embedded_before(rows, when, asked, now, limit)
    torch.manual_seed(1)
    layer = FieldEmbedding(with_neighbours(SCHEMA, neighbour_limit=limit), 3).double()
    wake(layer)
    first_met = 1 + sum(field.size for field in SCHEMA.fields)
    first_who = first_met + SCHEMA.fields[1].size
    met: dict[tuple[int, int], int] = {}  # a pair's first time
    for (user, item), time in zip(rows[:, [USER, ITEM]].tolist(), when.tolist(), strict=True):
        if user != FIRST_USER and item != FIRST_ITEM:
            met[user, item] = min(time, met.get((user, item), time))
    for (user, item), time, vectors in zip(asked[:, [USER, ITEM]].tolist(), now.tolist(), found, strict=True):
        items = sorted((at, j - FIRST_ITEM) for (v, j), at in met.items() if v == user and at < time)
        users = sorted((at, v - FIRST_USER) for (v, j), at in met.items() if j == item and at < time)
        own = item - FIRST_ITEM, user - FIRST_USER
        firsts = first_met, first_who
        for events, first, mine, vector in zip((items, users), firsts, own, vectors, strict=True):
            block = [first + value for _, value in events[-limit:] if value != mine]
            expected = sum((layer.table[row] for row in block), torch.zeros(3).double())
            torch.testing.assert_close(vector, expected / max(1, len(block)) ** 0.5)
    assert found.any(2).all(1).sum() > 20  # rows with both kinds of neighbours


def test_rows_at_the_same_time_or_later_change_nothing_of_strictly_earlier_neighbours() -> None:
    rows, asked = random_ids(SCHEMA, 60), random_ids(SCHEMA, 20, seed=3)
    when, now = torch.arange(60) * 10, torch.full((20,), 300)
    whole = embedded_before(rows, when, asked, now)
    assert torch.equal(embedded_before(rows[:30], when[:30], asked, now), whole)
    assert not torch.equal(embedded_before(rows[:29], when[:29], asked, now), whole)
    assert not embedded_before(rows, when, asked, torch.zeros(20).long()).any()


def test_before_any_row_and_for_unknown_ids_there_are_no_neighbours() -> None:
    nobody = torch.full((3, SCHEMA.slots), EMPTY, dtype=torch.int32)
    nobody[1, USER], nobody[2, ITEM] = FIRST_USER, FIRST_ITEM
    assert not embedded(random_ids(SCHEMA, 0), random_ids(SCHEMA, 5))[1].any()
    assert not embedded(random_ids(SCHEMA, 25), nobody)[1].any()


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("disenctr", "autorec")])
def test_every_model_reads_strictly_earlier_ones_by_the_times_of_its_rows(name: str) -> None:
    rows = random_split(SCHEMA, 200)
    assert rows.time is not None
    model = ready(name, SCHEMA, rows, neighbour_times="earlier")
    batch = rows.whole().rows(slice(0, 20))
    first = logits(model, batch)
    assert torch.equal(logits(model, batch), first)
    before = logits(model, batch._replace(time=torch.full((20,), int(rows.time.min()))))
    if name != "gbdt_lr":
        assert not torch.equal(before, first)
    with pytest.raises(PipelineError, match="needs timestamps"):
        logits(model, batch._replace(time=None))


def ready(name: str, schema: Schema, rows: Split, **options: object) -> nn.Module:
    model = build(name, schema, {"neighbour_limit": 2, **options}, seed=1)
    torch.manual_seed(1)
    prepare(model, rows, rows, fit, seed=1, epochs=1)
    wake(model)
    return model.eval()


def score(model: nn.Module, ids: Tensor) -> Tensor:
    return logits(model, Batch(ids, torch.zeros(len(ids)), times(ids)))


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("disenctr", "autorec")])
def test_every_model_reads_them_and_saves_what_they_know(name: str) -> None:
    rows, ids = random_split(SCHEMA, 200), random_ids(SCHEMA, 9, seed=5)
    model = ready(name, SCHEMA, rows)
    before = score(model, ids)
    before.sum().backward()
    base = 1 + sum(field.size for field in SCHEMA.fields)
    if name != "mf":  # whose tables have two of the fields only
        tables = [p for p in model.parameters() if p.dim() == 2 and len(p) == base + 15]
        assert tables
        assert all(bool(table.grad[base:].any()) for table in tables if table.grad is not None)
    loaded = build(name, SCHEMA, {"neighbour_limit": 2}, seed=2).eval()
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(score(loaded, ids), before)
    memory = getattr(loaded, MEMORY)
    memory.remember(random_split(SCHEMA, 30, seed=9).whole(), SCHEMA)
    assert not torch.equal(score(loaded, ids), before)


def test_models_without_a_place_for_them_and_logs_without_roles_refuse_them() -> None:
    for name, options in (("disenctr", {}), ("autorec", {}), ("gbdt_lr", {"ids": False})):
        with pytest.raises(PipelineError, match="neighbour_limit must be 0 here"):
            build(name, SCHEMA, {"neighbour_limit": 2, **options}, seed=1)
    nobody = Schema((Field("ad", 5), Field("site", 4)))
    with pytest.raises(PipelineError, match="needs the user of each row"):
        build("fm", nobody, {"neighbour_limit": 2}, seed=1)


def test_only_train_rows_enter() -> None:
    train = random_split(SCHEMA, 60, seed=1)
    found = []
    for seed in (2, 3):
        valid = random_split(SCHEMA, 60, seed=seed)
        model = build("fm", SCHEMA, {"neighbour_limit": 5}, seed=1)
        fit(model, train, valid, seed=1, epochs=1)
        evaluate(model, valid)
        found.append({key: value for key, value in model.state_dict().items() if MEMORY in key})
    expected = Neighbours(5)
    expected.remember(train.whole(), SCHEMA)
    for state in found:
        for key, value in expected.state_dict().items():
            assert torch.equal(state[f"{MEMORY}.{key}"], value)


@pytest.mark.slow
def test_lazy_tables_get_the_gradient_of_dense_ones() -> None:
    rows = random_split(SCHEMA, 80)
    grads = []
    for lazy in (False, True):
        model = ready("fm", SCHEMA, rows).double()
        for module in model.modules():
            if hasattr(module, "table"):
                module.lazy = lazy  # type: ignore[assignment]
        score(model, rows.ids).square().sum().backward()
        found = [p.grad for p in model.parameters() if p.grad is not None]
        grads.append([g.to_dense() if g.is_sparse else g for g in found])
        assert any(g.is_sparse for g in found) == lazy
    for dense, sparse in zip(*grads, strict=True):
        torch.testing.assert_close(dense, sparse)


@pytest.mark.thorough
@pytest.mark.slow
def test_where_there_is_nothing_to_learn_nothing_is_learnt() -> None:
    """Popular items, busy users, shuffled labels and grades: with all switched on the AUC is .5."""
    schema = Schema((Field("user", 200, 1, "user", "user"), Field("item", 150, 1, "item", "item")))
    draw = torch.Generator().manual_seed(1)

    def rows(n: int) -> Split:
        popular = (torch.rand(n, 2, generator=draw) ** 2 * torch.tensor([199, 149])).int()
        grade = torch.randint(5, (n,), generator=draw).to(torch.uint8)
        ids = popular + 1 + torch.tensor(schema.offsets)
        time = torch.randint(10_000, (n,), generator=draw)
        return Split(schema, ids.int(), (grade > 2).float(), time, grade)

    train, valid = rows(8000), replace(rows(60_000), grade=None)
    for name, seen in (("deepfm", "any"), ("mf", "any"), ("deepfm", "earlier")):
        options = {"neighbour_limit": 50, "neighbour_times": seen, "embedding_size": 8}
        model = build(name, schema, options, seed=1)
        fit(model, train, valid, seed=1, epochs=4, lr=0.01, grades=0.75, average_epochs=1, monitor="logloss")
        assert evaluate(model, valid)["auc"] == pytest.approx(0.5, abs=0.01)
