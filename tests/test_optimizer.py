"""The optimizer against dense Adam, written out from the paper's algorithm."""

import copy

import pytest
import torch
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.schema import EMPTY, Field, Schema
from pipeline.train.adam import Adam, clip, mark_lazy, parameter_groups

SCHEMA = Schema((Field("user", 6), Field("item", 4), Field("tags", 5, slots=3)))


class Machine(nn.Module):
    """A table, a linear term and a weight, so that both groups have something."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.embedding = FieldLinear(SCHEMA), FieldEmbedding(SCHEMA, 4, std=0.5)
        self.w = nn.Parameter(torch.randn(4))

    def forward(self, ids: Tensor) -> Tensor:
        return self.linear(ids) + self.embedding(ids).prod(1).add(self.embedding(ids).sum(1)) @ self.w


def machine(lazy_rows: int, *, embedding_l2: float = 0.1, network_l2: float = 0.2) -> tuple[Machine, Adam]:
    torch.manual_seed(0)
    model = Machine().double()
    mark_lazy(model, lazy_rows)
    return model, Adam(parameter_groups(model, embedding_l2, network_l2), lr=0.05)


def adam(w: Tensor, m: Tensor, v: Tensor, g: Tensor, t: int, lr: float = 0.05) -> None:
    """Algorithm 1 of the paper, one row, in place."""
    m.copy_(0.9 * m + 0.1 * g)
    v.copy_(0.999 * v + 0.001 * g * g)
    w.sub_(lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8))


def take(model: Machine, optimizer: Adam, ids: Tensor, *, norm: float = 0.0) -> None:
    optimizer.zero_grad()
    model(ids).square().mean().backward()
    if norm:
        clip(model.parameters(), norm)
    optimizer.step()


def every_id() -> Tensor:
    """A batch in which every id occurs, some more than once."""
    ids = torch.zeros(8, SCHEMA.slots, dtype=torch.long)
    for column, field in enumerate(SCHEMA.field_of_slot):
        size = SCHEMA.fields[field].size
        ids[:, column] = SCHEMA.offsets[field] + (torch.arange(8) + column) % size
    return ids


@pytest.mark.parametrize("norm", [0.0, 0.01])
def test_where_every_batch_holds_every_id_lazy_is_dense(norm: float) -> None:
    (dense, slow), (lazy, fast) = machine(10**9), machine(0, embedding_l2=0.1)
    for _ in range(20):
        take(dense, slow, every_id(), norm=norm)
        take(lazy, fast, every_id(), norm=norm)
    assert lazy.embedding.lazy
    assert not dense.embedding.lazy
    for a, b in zip(dense.parameters(), lazy.parameters(), strict=True):
        # the empty row is in no batch: dense L2 finds it at zero already
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_lazy_row_moves_as_adam_says_in_its_own_steps_and_stands_still_in_others() -> None:
    torch.manual_seed(1)
    model, optimizer = machine(0)
    table = model.embedding.table
    w, m, v = table.detach().clone(), torch.zeros_like(table), torch.zeros_like(table)
    batches = [every_id()[torch.randint(8, (2,))] for _ in range(12)]
    untouched = 0
    for t, ids in enumerate(batches, 1):
        dense = copy.deepcopy(model)
        dense.embedding.lazy = dense.linear.lazy = False
        gradient = torch.autograd.grad(dense(ids).square().mean(), dense.embedding.table)[0]
        take(model, optimizer, ids)
        for row in range(len(w)):
            if row != EMPTY and (ids == row).any():
                adam(w[row], m[row], v[row], gradient[row] + 0.1 * w[row], t)
            else:
                untouched += 1
        torch.testing.assert_close(table.detach(), w, rtol=1e-9, atol=1e-12)
    assert untouched > 50


def test_the_empty_row_stays_zero_in_a_lazy_table() -> None:
    model, optimizer = machine(0)
    ids = every_id()
    ids[:, -1] = EMPTY
    for _ in range(3):
        take(model, optimizer, ids)
    assert not model.embedding.table[EMPTY].any()
    assert not model.linear.table[EMPTY].any()


def test_only_tables_of_so_many_rows_are_lazy() -> None:
    for rows, lazy in ((SCHEMA.vocabulary_size, True), (SCHEMA.vocabulary_size + 1, False)):
        model, _ = machine(rows)
        assert model.embedding.lazy is model.linear.lazy is lazy
        model(every_id()).sum().backward()
        assert model.embedding.table.grad.is_sparse is lazy


def test_a_saved_optimizer_goes_on_as_one_that_was_never_stopped() -> None:
    whole, optimizer = machine(0)
    half, first = machine(0)
    for _ in range(3):
        take(whole, optimizer, every_id()[:3])
        take(half, first, every_id()[:3])
    again, second = machine(0)
    again.load_state_dict(half.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(3):
        take(whole, optimizer, every_id()[2:5])
        take(again, second, every_id()[2:5])
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("norm", [1e-3, 1e3])
def test_clip_is_torchs(norm: float) -> None:
    (ours, _), (theirs, _), (lazy, _) = machine(10**9), machine(10**9), machine(0)
    ids = every_id()[[0, 1, 1, 4]]
    for model in (ours, theirs, lazy):
        model(ids).square().mean().backward()
    clip(ours.parameters(), norm)
    clip(lazy.parameters(), norm)
    nn.utils.clip_grad_norm_(theirs.parameters(), norm)
    for a, b, c in zip(ours.parameters(), theirs.parameters(), lazy.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=0)
        torch.testing.assert_close(c.grad.to_dense(), b.grad, rtol=1e-9, atol=1e-15)


def test_a_dense_step_is_torchs_to_the_last_bit() -> None:
    (ours, optimizer), (theirs, _) = machine(10**9), machine(10**9)
    adam = torch.optim.Adam(
        [
            {"params": group["params"], "weight_decay": group["weight_decay"]}
            for group in parameter_groups(theirs, 0.1, 0.2)
        ],
        lr=0.05,
        fused=True,
    )
    for step in range(10):
        ids = every_id()[step % 4 :]
        take(ours, optimizer, ids)
        adam.zero_grad()
        theirs(ids).square().mean().backward()
        adam.step()
        if step == 5:  # as the loop does on a plateau
            optimizer.lr, adam.param_groups[0]["lr"], adam.param_groups[1]["lr"] = 0.01, 0.01, 0.01
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
