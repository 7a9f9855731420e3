"""What was clicked before a moment: the positive train rows, in the order of their time."""

import torch
from jaxtyping import Int
from torch import Tensor

from pipeline.data.batches import Batch
from pipeline.layers.prepared import Prepared
from pipeline.schema import EMPTY, Schema


def clicks(
    rows: Batch, schema: Schema, user: int, item: int
) -> tuple[Int[Tensor, " C"], Int[Tensor, " C"], Int[Tensor, " C"]]:
    """Return users, items and times of the positive rows.

    An unseen id stands for many users, or items, at once: its rows are nobody's past and are left out.

    Args:
        rows: with times.
        schema: of their ids.
        user, item: columns of ids.
    """
    assert rows.time is not None
    keep = rows.label > 0
    for column in (user, item):
        keep = keep & (rows.ids[:, column] != schema.offsets[schema.field_of_slot[column]])
    return rows.ids[keep, user], rows.ids[keep, item], rows.time[keep]


class Memory(Prepared):
    """Events (key, value, time), asked for the last ones of a key before a moment.

    An event is one number, key * span + (time - origin), and they lie in its order, so that one binary
    search finds what came before a moment. Before the first `remember` nothing is found.

    Attributes:
        keys: the numbers (1 + C,); the first is less than any, for it to stand where nothing is found.
        values: what belongs to them.
        origin, span: the first time, and more than the time from the first to the last.
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
        """Take these events and no others. Of events at the same time the larger value counts as later."""
        if not len(key):
            return
        self.origin, self.span = time.min(), time.max() - time.min() + 2
        keys = key.long() * self.span + (time - self.origin)
        order = value.argsort(stable=True)
        order = order[keys[order].argsort(stable=True)]
        self.keys = torch.cat([keys.new_tensor([-1]), keys[order]])
        self.values = torch.cat([value.new_tensor([EMPTY]), value[order]]).int()

    def recent(
        self, key: Int[Tensor, "*A"], time: Int[Tensor, "*A"], n: int
    ) -> tuple[Int[Tensor, "*A n"], Int[Tensor, "*A n"]]:
        """Return values and times of the last `n` events of a key strictly earlier, the latest first.

        Where there are fewer, the value is EMPTY and the time the one that was asked for.
        """
        start = (key.long() * self.span).unsqueeze(-1)
        moment = (time - self.origin).minimum(self.span - 1).clamp(min=0).unsqueeze(-1)
        steps = torch.arange(1, n + 1, device=key.device)
        position = (torch.searchsorted(self.keys, start + moment) - steps).clamp(min=0)
        found = self.keys[position]
        there = found >= start
        values = torch.where(there, self.values[position], EMPTY)
        return values, torch.where(there, found - start + self.origin, time.unsqueeze(-1))
