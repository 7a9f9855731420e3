"""Neighbour fields: what a row's user met in the train rows, and who met its item.

Two derived fields follow those of the schema. They have vectors of their own in every table, but no column
of ids: a value is the pooled vector of a set that is looked up in a memory of the train rows.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.common.ranges import CountOrZero
from pipeline.data.batches import Batch
from pipeline.layers.columns import column_of
from pipeline.layers.lookup import Bags, lookup, sum_bags
from pipeline.layers.memory import Memory
from pipeline.layers.prepared import Prepared
from pipeline.schema import EMPTY, Field, Schema

MEMORY = "neighbours_memory"  # the attribute of a model that has neighbour fields
LENT = "neighbours_lent"  # ... and of another one, which such a model trains before its first step
_MIX, _SHIFT = 0x5851F42D4C957F2D, 29  # an odd 63-bit number


class Neighbours(Prepared):
    """Pairs (user, item) of the train rows, whatever their labels, and vectors pooled over them.

    x_u = sum_{j in N(u) - i} y_j / sqrt|N(u) - i|, and x_i likewise over the users who met i: SVD++ (Koren,
    "Factorization Meets the Neighborhood", KDD 2008) on both sides. The row's own pair is left out, in
    training as in prediction: otherwise a train row would see itself, and no other row would. Ids that
    training did not see have no neighbours, and are nobody's.

    Args:
        limit: the largest number of neighbours; of more, so many are drawn, always the same.
        earlier: whether a row has only the neighbours that were met strictly before its time, the last
            `limit` of them. A pair counts from its first row on.

    Attributes:
        moment: the times of the rows (B,) that are looked up next, in seconds; needed with `earlier`.
        users, items: with `earlier`, what a user met and when, and who met an item.
        of_users, of_items: each pair as one number, key * (largest value + 1) + value, ascending; keys and
            values are positions in their fields. The first is a sentinel.
    """

    of_users: Tensor
    of_items: Tensor

    def __init__(self, limit: int, *, earlier: bool = False) -> None:
        super().__init__()
        self.limit, self.earlier = limit, earlier
        self.moment: Int[Tensor, " B"] | None = None
        self._last: tuple[tuple[int, ...], int | None, object, list[_Pool]] | None = None
        if earlier:
            self.users, self.items = Memory(), Memory()
            return
        for name in ("of_users", "of_items"):
            self.register_buffer(name, torch.tensor([-1]))

    def remember(self, rows: Batch, schema: Schema) -> None:
        """Replace all pairs by those of these rows."""
        user, item = places(schema, rows.ids)
        known = (user > 0) & (item > 0)
        user, item = user[known], item[known]
        users, items = sizes(schema)
        if self.earlier:
            assert rows.time is not None
            user, item, time = _first_meetings(user, item, rows.time[known], items)
            self.users.remember(user, item, time)
            self.items.remember(item, user, time)
            return
        for name, key, value, size in (("of_users", user, item, items), ("of_items", item, user, users)):
            pairs = _limited((key * size + value).unique(), size, self.limit)
            setattr(self, name, torch.cat([pairs.new_tensor([-1]), pairs]))

    def pool(
        self, schema: Schema, ids: Int[Tensor, "B S"], table: Float[Tensor, "V D"], *, sparse: bool
    ) -> Float[Tensor, "B 2 D"]:
        """Return the vectors of the two fields, which are the last ones of `schema`."""
        return torch.stack([pool.of(table, sparse=sparse) for pool in self._pools(schema, ids)], 1)

    def _pools(self, schema: Schema, ids: Int[Tensor, "B S"]) -> "list[_Pool]":
        """Return what the two fields pool in each row: found once for all tables of a model."""
        known = self.users.keys if self.earlier else self.of_users
        state = ids, known, self.moment
        version = None if ids.is_inference() else ids._version
        if self._last and self._last[:2] == (tuple(map(id, state)), version):
            return self._last[3]
        (user, item), (users, items) = places(schema, ids), sizes(schema)
        first, second = schema.row_offsets[-2:]
        if self.earlier:
            time = self.moment
            assert time is not None and len(time) == len(ids), "the rows have no times: see `moment`"
            pools = [
                _before(self.users, user, item, time, first, self.limit),
                _before(self.items, item, user, time, second, self.limit),
            ]
        else:
            pools = [
                _others(self.of_users, user, item, items, first),
                _others(self.of_items, item, user, users, second),
            ]
        # `state` is kept so that no other tensor gets its address
        self._last = (tuple(map(id, state)), version, state, pools)
        return pools


@dataclass(frozen=True)
class NeighbourSchema(Schema):
    """A schema whose last two fields are neighbour fields, and the memory that its layers look into."""

    neighbours: Neighbours = field(compare=False, kw_only=True)


def with_neighbours(
    schema: Schema,
    *,
    neighbour_limit: CountOrZero = 0,
    neighbour_times: Literal["any", "earlier"] = "any",
) -> Schema:
    """Return the schema with neighbour fields, if a limit is given; see `Neighbours`.

    Args:
        neighbour_limit: the largest number of neighbours that a field pools (0: no such fields).
        neighbour_times: which of them: `any` of the train rows, or those `earlier` than the row, which needs
            times. The first is for logs that are split at random, where it is what the split promises.

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
    memory = Neighbours(neighbour_limit, earlier=neighbour_times == "earlier")
    return NeighbourSchema((*schema.fields, *derived), vectors=schema.vectors, neighbours=memory)


def memory_of(model: nn.Module) -> Neighbours | None:
    """Return the memory that a model's neighbour fields look into, its own or a lent one, if any."""
    found: Neighbours | None = getattr(model, MEMORY, None) or getattr(model, LENT, None)
    return found


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


def _first_meetings(
    user: Int[Tensor, " N"], item: Int[Tensor, " N"], time: Int[Tensor, " N"], size: int
) -> tuple[Int[Tensor, " C"], Int[Tensor, " C"], Int[Tensor, " C"]]:
    """Return each pair once, with its first time; `size` is more than the largest item."""
    pairs, place = (user * size + item).unique(return_inverse=True)
    first = torch.full_like(pairs, torch.iinfo(pairs.dtype).max)
    return pairs // size, pairs % size, first.scatter_reduce_(0, place, time.long(), "amin")


@dataclass(frozen=True)
class _Pool:
    """What one field pools in each row of a batch.

    Attributes:
        bags: bags of rows of a table.
        bag: of each row (B,).
        own: the row of the table (B,) that is taken out of the bag, EMPTY for none.
        count: of the neighbours of each row (B,).
    """

    bags: Bags
    bag: Int[Tensor, " B"]
    own: Int[Tensor, " B"]
    count: Int[Tensor, " B"]

    def of(self, table: Float[Tensor, "V D"], *, sparse: bool) -> Float[Tensor, "B D"]:
        """Return the vectors."""
        total = sum_bags(table, self.bags, sparse=sparse).index_select(0, self.bag)
        minus = lookup(table, self.own.unsqueeze(1), sparse=sparse).squeeze(1)
        return (total - minus) / self.count.clamp(min=1).to(table.dtype).sqrt().unsqueeze(1)


def _before(
    memory: Memory,
    key: Int[Tensor, " B"],
    value: Int[Tensor, " B"],
    time: Int[Tensor, " B"],
    first: int,
    limit: int,
) -> _Pool:
    """Pool the last `limit` values that a key met before a time, but for the row's own: a bag a row.

    Args:
        first: the row of the table of value 0.
    """
    start, end = memory.before(key, time)
    start = start.maximum(end - limit)
    count = end - start
    row = torch.arange(len(key), device=key.device).repeat_interleave(count)
    begin = count.cumsum(0) - count
    met = memory.values[torch.arange(len(row), device=key.device) + (start - begin)[row]].long()
    is_own = torch.zeros_like(key).index_add_(0, row, (met == value[row]).long())
    own = torch.where(is_own > 0, value + first, EMPTY)
    each = torch.arange(len(key), device=key.device)
    return _Pool(Bags(met + first, begin, {}), each, own, count - is_own)


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


def _others(
    pairs: Int[Tensor, " C"], key: Int[Tensor, " B"], value: Int[Tensor, " B"], size: int, first: int
) -> _Pool:
    """Pool the values that a key is paired with, but for the row's own.

    Each key of the batch has one bag, so that the cost is bounded by the pairs of its keys.

    Args:
        first: the row of the table of value 0.
    """
    pairs = pairs.to(key.device)
    keys, place = key.unique(return_inverse=True)
    start, end = torch.searchsorted(pairs, torch.stack([keys, keys + 1]) * size)
    count = end - start
    bag = count.cumsum(0) - count
    index = torch.arange(int(count.sum()), device=key.device) + (start - bag).repeat_interleave(count)
    own = key * size + value
    at = torch.searchsorted(pairs, own).clamp(max=len(pairs) - 1)
    is_own = pairs[at] == own
    rows = pairs[index] % size + first
    minus = torch.where(is_own, value + first, EMPTY)
    return _Pool(Bags(rows, bag, {}), place, minus, count[place] - is_own.long())
