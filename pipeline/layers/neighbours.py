"""Neighbour fields: what a row's user met in the train rows, and who met its item.

Two derived fields follow those of the schema. They have vectors of their own in every table, but no column
of ids: a value is the pooled vector of a set that is looked up in a memory of the train rows.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.common.ranges import CountOrZero
from pipeline.data.batches import Batch
from pipeline.layers.columns import column_of
from pipeline.layers.lookup import lookup, sum_bags
from pipeline.layers.prepared import Prepared
from pipeline.schema import EMPTY, Field, Schema

MEMORY = "neighbours_memory"  # the attribute of a model that has neighbour fields
_MIX, _SHIFT = 0x5851F42D4C957F2D, 29  # an odd 63-bit number


class Neighbours(Prepared):
    """Pairs (user, item) of the train rows, whatever their labels, and vectors pooled over them.

    x_u = sum_{j in N(u) - i} y_j / sqrt|N(u) - i|, and x_i likewise over the users who met i: SVD++ (Koren,
    "Factorization Meets the Neighborhood", KDD 2008) on both sides. The row's own pair is left out, in
    training as in prediction: otherwise a train row would see itself, and no other row would. Ids that
    training did not see have no neighbours, and are nobody's.

    Args:
        limit: the largest number of neighbours; of more, so many are drawn, always the same.

    Attributes:
        of_users, of_items: each pair as one number, key * (largest value + 1) + value, ascending; keys and
            values are positions in their fields. The first is a sentinel.
    """

    of_users: Tensor
    of_items: Tensor

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        for name in ("of_users", "of_items"):
            self.register_buffer(name, torch.tensor([-1]))

    def remember(self, rows: Batch, schema: Schema) -> None:
        """Replace all pairs by those of these rows."""
        user, item = places(schema, rows.ids)
        known = (user > 0) & (item > 0)
        user, item = user[known], item[known]
        users, items = sizes(schema)
        for name, key, value, size in (("of_users", user, item, items), ("of_items", item, user, users)):
            pairs = _limited((key * size + value).unique(), size, self.limit)
            setattr(self, name, torch.cat([pairs.new_tensor([-1]), pairs]))

    def pool(
        self, schema: Schema, ids: Int[Tensor, "B S"], table: Float[Tensor, "V D"], *, sparse: bool
    ) -> Float[Tensor, "B 2 D"]:
        """Return the vectors of the two fields, which are the last ones of `schema`."""
        (user, item), (users, items) = places(schema, ids), sizes(schema)
        first, second = schema.offsets[-2:]
        return torch.stack(
            [
                _pooled(self.of_users, user, item, items, first, table, sparse=sparse),
                _pooled(self.of_items, item, user, users, second, table, sparse=sparse),
            ],
            1,
        )


@dataclass(frozen=True)
class NeighbourSchema(Schema):
    """A schema whose last two fields are neighbour fields, and the memory that its layers look into."""

    neighbours: Neighbours = field(compare=False)


def with_neighbours(schema: Schema, *, neighbour_limit: CountOrZero = 0) -> Schema:
    """Return the schema with neighbour fields, if a limit is given; see `Neighbours`.

    Args:
        neighbour_limit: the largest number of neighbours that a field pools (0: no such fields).

    Raises:
        ValueError: user or item are not declared.
    """
    if not neighbour_limit:
        return schema
    user, item = (schema.fields[schema.field_of_slot[column_of(schema, role)]] for role in ("user", "item"))
    derived = (
        Field(f"{item.name}s met", item.size, 0, "user"),
        Field(f"{user.name}s met", user.size, 0, "item"),
    )
    return NeighbourSchema((*schema.fields, *derived), Neighbours(neighbour_limit))


def refuse_neighbours(schema: Schema, reason: str) -> None:
    """Raise if a model that has no place for neighbour fields is given some.

    Raises:
        ValueError: it is.
    """
    if isinstance(schema, NeighbourSchema):
        raise ValueError(f"neighbour_limit must be 0 here: {reason}")


def narrowed(schema: Schema, fields: list[int]) -> Schema:
    """Return a schema of some fields and the neighbour fields, where there are any."""
    derived = schema.fields[-2:] if isinstance(schema, NeighbourSchema) else ()
    return replace(schema, fields=(*(schema.fields[i] for i in fields), *derived))


def places(schema: Schema, ids: Int[Tensor, "B S"]) -> tuple[Int[Tensor, " B"], Int[Tensor, " B"]]:
    """Return the positions of each row's user and item in their fields; 0 for an unseen one."""
    columns = column_of(schema, "user"), column_of(schema, "item")
    user, item = ((ids[:, c].long() - schema.offsets[schema.field_of_slot[c]]).clamp(min=0) for c in columns)
    return user, item


def sizes(schema: Schema) -> tuple[int, int]:
    """Return the numbers of ids of the user's and of the item's field."""
    columns = column_of(schema, "user"), column_of(schema, "item")
    users, items = (schema.fields[schema.field_of_slot[column]].size for column in columns)
    return users, items


def _limited(pairs: Int[Tensor, " P"], size: int, limit: int) -> Int[Tensor, " C"]:
    """Return at most `limit` pairs of each key, drawn by a hash of the pair; ascending."""
    keys, count = (pairs // size).unique_consecutive(return_counts=True)
    if not len(keys) or int(count.max()) <= limit:
        return pairs
    mixed = pairs * _MIX
    drawn = ((mixed ^ (mixed >> _SHIFT)) * _MIX).argsort(stable=True)
    drawn = drawn[(pairs[drawn] // size).argsort(stable=True)]
    rank = torch.arange(len(pairs), device=pairs.device) - (count.cumsum(0) - count).repeat_interleave(count)
    return pairs[drawn[rank < limit]].sort().values


def _pooled(
    pairs: Int[Tensor, " C"],
    key: Int[Tensor, " B"],
    value: Int[Tensor, " B"],
    size: int,
    first: int,
    table: Float[Tensor, "V D"],
    *,
    sparse: bool,
) -> Float[Tensor, "B D"]:
    """Sum the rows of the values that a key is paired with, without `value`, over the root of their number.

    Each key of the batch is summed once, so that the cost is bounded by the pairs of its keys.

    Args:
        first: the row of the table of value 0.
    """
    pairs = pairs.to(key.device)
    keys, place = key.unique(return_inverse=True)
    start, end = torch.searchsorted(pairs, torch.stack([keys, keys + 1]) * size)
    count = end - start
    bag = count.cumsum(0) - count
    index = torch.arange(int(count.sum()), device=key.device) + (start - bag).repeat_interleave(count)
    rows = pairs[index] % size + first
    total = sum_bags(table, rows, bag, sparse=sparse).index_select(0, place)
    own = key * size + value
    at = torch.searchsorted(pairs, own).clamp(max=len(pairs) - 1)
    is_own = pairs[at] == own
    minus = lookup(table, torch.where(is_own, value + first, EMPTY).unsqueeze(1), sparse=sparse).squeeze(1)
    n = count[place] - is_own.long()
    return (total - minus) / n.clamp(min=1).to(table.dtype).sqrt().unsqueeze(1)
