"""FFM against its double sum over values."""

from itertools import combinations

import torch
from loops import dot, embed, exact, linear
from rows import SCHEMAS, every_schema, random_ids

from pipeline.models import build
from pipeline.schema import EMPTY, Field, Schema

D = 3


def towards(vector: list[float], field: int) -> list[float]:
    return vector[field * D : (field + 1) * D]


@every_schema
def test_ffm_pairs_all_values_each_towards_the_others_field(schema: Schema) -> None:
    model, ids = exact(build("ffm", schema, {"embedding_size": D}, seed=1)), random_ids(schema, 20)
    expected = []
    for row in ids.tolist():
        there = [
            (schema.field_of_slot[slot], model.embedding.table[i].tolist())
            for slot, i in enumerate(row)
            if i != EMPTY
        ]
        pairs = sum(dot(towards(v, g), towards(w, f)) for (f, v), (g, w) in combinations(there, 2))
        expected.append(linear(model.linear, row) + pairs)
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


@every_schema
def test_with_a_transform_the_pairs_run_over_fields(schema: Schema) -> None:
    chosen = {"embedding_size": D, "embedding_transform": "senet"}
    model, ids = exact(build("ffm", schema, chosen, seed=1)), random_ids(schema, 20)
    expected = []
    for row, e in zip(ids.tolist(), model.embedding(ids).tolist(), strict=True):
        both = combinations(range(len(e)), 2)
        pairs = sum(dot(towards(e[i], j), towards(e[j], i)) for i, j in both)
        expected.append(linear(model.linear, row) + pairs)
    torch.testing.assert_close(model(ids), torch.tensor(expected).double())


def test_on_two_fields_it_is_fm_of_the_tables_that_face_each_other() -> None:
    schema = Schema((Field("user", 8, 1, "user"), Field("item", 7, 1, "item")))
    ffm = exact(build("ffm", schema, {"embedding_size": D}, seed=1))
    fm = exact(build("fm", schema, {"embedding_size": D}, seed=2))
    ids, item = random_ids(schema, 20), schema.offsets[1]
    v = ffm.embedding.table.data.view(-1, 2, D)
    fm.embedding.table.data = torch.cat([v[:item, 1], v[item:, 0]])  # users towards items, and back
    fm.linear.load_state_dict(ffm.linear.state_dict())
    torch.testing.assert_close(ffm(ids), fm(ids))


def test_a_pair_of_fields_never_reads_the_vectors_towards_the_own_field() -> None:
    schema = SCHEMAS["no-bags"]
    model, ids = exact(build("ffm", schema, {"embedding_size": D}, seed=1)), random_ids(schema, 20)
    before = model(ids)
    for i, field in enumerate(schema.fields):
        rows = slice(schema.offsets[i], schema.offsets[i] + field.size)
        model.embedding.table.data.view(-1, 4, D)[rows, i] = 7.0
    torch.testing.assert_close(model(ids), before)


def test_the_values_of_a_bag_read_only_those_of_each_other() -> None:
    """A row whose bag alone is filled: the pairs are <v_own, v_own> of its values."""
    schema = Schema((Field("genres", 6, 3, "item"), Field("user", 8, 1, "user")))
    model = exact(build("ffm", schema, {"embedding_size": D}, seed=1))
    ids = torch.tensor([[2, 3, 4, EMPTY]])
    own = [towards(model.embedding.table[i].tolist(), 0) for i in (2, 3, 4)]
    pairs = sum(dot(a, b) for a, b in combinations(own, 2))
    expected = linear(model.linear, ids[0].tolist()) + pairs
    torch.testing.assert_close(model(ids), torch.tensor([expected]).double())
    assert embed(model.embedding.table, schema, ids[0].tolist())[1] == [0.0] * 2 * D
