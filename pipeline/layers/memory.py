"""Histories: the train rows of a user or item before a given time, those with a click or those without."""

import torch
from jaxtyping import Int
from torch import Tensor

from pipeline.data.batches import Batch
from pipeline.layers.prepared import Prepared
from pipeline.schema import EMPTY, Schema


def clicks(
    rows: Batch, schema: Schema, user: int, item: int, *, label: bool = True
) -> tuple[Int[Tensor, " C"], Int[Tensor, " C"], Int[Tensor, " C"]]:
    """Return users, items and times of the positive rows, or of the negative ones.

    The unseen id stands for many users, or items, at once: rows with it are excluded from histories.

    Args:
        rows: must have times.
        schema: of their ids.
        user: column of ids of the user field.
        item: column of ids of the item field.
        label: which rows.
    """
    assert rows.time is not None
    clicked = (rows.label > 0) == label
    for column in (user, item):
        clicked = clicked & (rows.ids[:, column] != schema.offsets[schema.field_of_slot[column]])
    return rows.ids[clicked, user], rows.ids[clicked, item], rows.time[clicked]


class Memory(Prepared):
    """Events (key, value, time), and a search for the last ones of a key before a given time.

    Events are sorted by one number, key * span + (time - origin), so that one binary search finds those
    before a time. Before the first `remember` there are none.

    Attributes:
        keys: these numbers (1 + C,); the first is a sentinel below all others, the result of a search
            without a match.
        values: the events' values (1 + C,).
        origin: the first time.
        span: more than the time from the first event to the last.
    """

    keys: Tensor
    values: Tensor
    origin: Tensor
    span: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.tensor([-1]))
        self.register_buffer("values", torch.tensor([EMPTY], dtype=torch.int32))
        self.register_buffer("origin", torch.tensor(0))
        self.register_buffer("span", torch.tensor(2))

    def remember(self, key: Int[Tensor, " C"], value: Int[Tensor, " C"], time: Int[Tensor, " C"]) -> None:
        """Replace all events by these. Among events at the same time, the larger value counts as later."""
        if not len(key):
            return
        self.origin, self.span = time.min(), time.max() - time.min() + 2
        keys = key.long() * self.span + (time - self.origin)
        order = value.argsort(stable=True)
        order = order[keys[order].argsort(stable=True)]
        self.keys = torch.cat([keys.new_tensor([-1]), keys[order]])
        self.values = torch.cat([value.new_tensor([EMPTY]), value[order]]).int()

    def before(
        self, key: Int[Tensor, "*A"], time: Int[Tensor, "*A"]
    ) -> tuple[Int[Tensor, "*A"], Int[Tensor, "*A"]]:
        """Return where a key's events begin in `values`, and where those strictly before a time end."""
        start = key.long() * self.span
        moment = (time - self.origin).minimum(self.span - 1).clamp(min=0)
        first, end = torch.searchsorted(self.keys, torch.stack([start, start + moment]))
        return first, end

    def recent(
        self, key: Int[Tensor, "*A"], time: Int[Tensor, "*A"], n: int
    ) -> tuple[Int[Tensor, "*A n"], Int[Tensor, "*A n"]]:
        """Return values and times of a key's last `n` events strictly before a time, the latest first.

        Missing events have the value EMPTY and the time of the query.
        """
        start = (key.long() * self.span).unsqueeze(-1)
        moment = (time - self.origin).minimum(self.span - 1).clamp(min=0).unsqueeze(-1)
        steps = torch.arange(1, n + 1, device=key.device)
        position = (torch.searchsorted(self.keys, start + moment) - steps).clamp(min=0)
        found = self.keys[position]
        is_own = found >= start
        values = torch.where(is_own, self.values[position], EMPTY)
        return values, torch.where(is_own, found - start + self.origin, time.unsqueeze(-1))
