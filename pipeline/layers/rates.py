"""Categories as numbers: the CTR and the count of a row's values in the train rows."""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from pipeline.layers.prepared import Prepared
from pipeline.schema import EMPTY, Schema

FOLDS = 8
_GRID = 2.0**20
_MIX = 0x5851F42D4C957F2D  # an odd 63-bit number


class ClickRates(Prepared):
    """Two numbers per field: the smoothed CTR of its value, and how often the value was shown.

    Shapes: ids (B, S) -> (B, 2 F) in float64: rate and count of field 1, then those of field 2, ...

    A value shown n times with c clicks has the rate (c + a p) / (n + a) - p = (c - p n) / (n + a), with
    p the CTR of all train rows, and the count log(1 + n): target encoding, as in Micci-Barreca, SIGKDD
    Explorations 3(1), 2001, https://doi.org/10.1145/507533.507538. A bag has the means over its values. An
    unseen value has n = 0, hence the count 0 and the rate 0, that of all rows; so has an empty bag.

    Rates that include a train row's own click leak its label, and what is learnt from them generalises
    worse. So each row belongs to one of `FOLDS` folds, and its `out_of_fold` rates are computed from the
    other folds alone. New rows are encoded with all train rows. A row's fold is a hash of its ids, salted by
    the seed: it depends on the ids alone, and equal rows share a fold.

    Args:
        schema: the fields.
        smoothing: a, the weight of p in rows.
    """

    salt: Tensor
    prior: Tensor
    seen: Tensor
    pair: Tensor
    inside: Tensor
    slot_field: Tensor

    def __init__(self, schema: Schema, smoothing: float) -> None:
        super().__init__()
        self.smoothing, self.fields = smoothing, len({*schema.field_of_slot})
        self.register_buffer("salt", torch.randint(2**62, ()) * 2 + 1)
        self.register_buffer("prior", torch.zeros((), dtype=torch.float64))
        # rows and clicks of each id, and of each (id, fold) pair that occurs, sorted
        self.register_buffer("seen", torch.zeros(schema.vocabulary_size, 2, dtype=torch.int32))
        self.register_buffer("pair", torch.zeros(1, dtype=torch.long))
        self.register_buffer("inside", torch.zeros(1, 2, dtype=torch.int32))
        self.register_buffer("slot_field", torch.tensor(schema.field_of_slot), persistent=False)

    def pairs(self, ids: Int[Tensor, "B S"]) -> Int[Tensor, "B S"]:
        """Return id * FOLDS + fold; the fold depends neither on the order of slots nor on empty ones."""
        mixed = ids.long() * self.salt  # wraps around
        fold = ((mixed ^ (mixed >> 29)) * _MIX).sum(1, keepdim=True) >> 33
        return ids.long() * FOLDS + fold % FOLDS

    def count(self, ids: Int[Tensor, "N S"], label: Float[Tensor, " N"]) -> None:
        """Count rows and clicks in all train rows."""
        pair, place = self.pairs(ids).cpu().unique(return_inverse=True)
        clicks = label.cpu().double().repeat_interleave(ids.shape[1])
        inside = torch.stack([place.flatten().bincount(), place.flatten().bincount(clicks)], 1).int()
        inside[pair // FOLDS == EMPTY] = 0
        device = self.seen.device
        seen = torch.zeros_like(self.seen, device="cpu").index_add_(0, pair // FOLDS, inside)
        self.seen, self.pair, self.inside = seen.to(device), pair.to(device), inside.to(device)
        self.prior = label.double().mean()

    def forward(self, ids: Int[Tensor, "B S"], *, out_of_fold: bool = False) -> Float64[Tensor, "B _"]:
        counts = self.seen[ids.long()]
        if out_of_fold:
            pairs = self.pairs(ids)
            place = torch.searchsorted(self.pair, pairs).clamp(max=len(self.pair) - 1)
            known = self.pair[place] == pairs
            counts = counts - self.inside[place] * known.unsqueeze(2)
        shown, clicked = counts.double().unbind(2)
        rate = (clicked - self.prior * shown) / (shown + self.smoothing)
        # rounded to a grid, so that the sum over a bag is exact in any order
        slots = (torch.stack([rate, shown.log1p()], 2) * _GRID).round() / _GRID
        total = slots.new_zeros(ids.shape[0], self.fields, 2).index_add(1, self.slot_field, slots)
        filled = (ids != EMPTY).double().unsqueeze(2)
        values = slots.new_zeros(ids.shape[0], self.fields, 1).index_add(1, self.slot_field, filled)
        return (total / values.clamp(min=1)).flatten(1)
