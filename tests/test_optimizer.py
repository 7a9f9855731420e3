"""The optimizer against dense Adam, written out from the paper's algorithm."""

import copy

import pytest
import torch
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.layers.mlp import MLP
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


def machine(lazy: bool, *, embedding_l2: float = 0.1, network_l2: float = 0.2) -> tuple[Machine, Adam]:
    torch.manual_seed(0)
    model = Machine().double()
    mark_lazy(model, lazy)
    return model, Adam(parameter_groups(model, embedding_l2, embedding_l2, network_l2), lr=0.05)


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


@pytest.mark.parametrize("lazy", [False, True])
def test_a_table_is_updated_as_documented(lazy: bool) -> None:
    """Row by row, from the gradients: L2 by the share of steps, momentum or elapsed decay."""
    torch.manual_seed(1)
    model, optimizer = machine(lazy)
    table = model.embedding.table
    w, m, v = table.detach().clone(), torch.zeros_like(table), torch.zeros_like(table)
    seen, untouched = [0] * len(w), 0
    for t, ids in enumerate((every_id()[torch.randint(8, (2,))] for _ in range(12)), 1):
        dense = copy.deepcopy(model)
        dense.embedding.lazy = dense.linear.lazy = False
        gradient = torch.autograd.grad(dense(ids).square().mean(), dense.embedding.table)[0]
        take(model, optimizer, ids)
        for row in range(len(w)):
            g = gradient[row]
            v[row] *= 0.999
            if row != EMPTY and (ids == row).any():
                seen[row] += 1
                g = g + 0.1 * t / seen[row] * w[row]
                v[row] += 0.001 * g * g
            elif lazy:  # its second moment decays, and that is all
                untouched += 1
                continue
            m[row] = g if lazy else 0.9 * m[row] + 0.1 * g
            first = m[row] if lazy else m[row] / (1 - 0.9**t)
            w[row] -= 0.05 * first / ((v[row] / (1 - 0.999**t)).sqrt() + 1e-8)
        torch.testing.assert_close(table.detach(), w, rtol=1e-9, atol=1e-12)
    assert untouched > 50 or not lazy


@pytest.mark.slow
def test_a_lazy_row_moves_as_far_as_a_dense_one_however_rare_it_is() -> None:
    """One gradient in so many steps: with the usual sparse Adam a lazy row moves up to ten times less."""
    steps_between = {2: 1, 3: 30, 4: 300, 5: 1000}  # by row; what happens to one is nothing to the others

    def distances(lazy: bool) -> list[float]:
        layer = FieldLinear(SCHEMA)
        mark_lazy(layer, lazy)
        optimizer = Adam(parameter_groups(layer, 0.0, 0.0, 0.0), lr=0.01)
        for step in range(1100):
            optimizer.zero_grad()
            rows = torch.tensor([row for row, every in steps_between.items() if step % every == 50 % every])
            nn.functional.embedding(rows, layer.table, sparse=lazy).sum().backward()
            optimizer.step()
        return layer.table[2:6, 0].abs().tolist()

    assert distances(lazy=True) == pytest.approx(distances(lazy=False), rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("lazy", [False, True])
def test_l2_means_the_same_for_rare_and_frequent_ids(lazy: bool) -> None:
    """Two rows with the same data in their share of the steps end where the penalised loss is least.

    Row i has gradient w_i - 1 in a share p_i of the steps, so that its loss is p_i / 2 (w_i - 1)^2, and with
    a penalty of l2 / 2 w_i^2 a step it is least at p_i / (p_i + l2).
    """
    layer = FieldLinear(SCHEMA)
    mark_lazy(layer, lazy)
    optimizer, l2 = Adam(parameter_groups(layer, 0.0, 0.05, 0.0), lr=0.02), 0.05
    for step in range(2400):
        optimizer.zero_grad()
        rows = torch.tensor([row for row, every in ((1, 1), (2, 4), (3, 20)) if step % every == 0])
        (nn.functional.embedding(rows, layer.table, sparse=lazy) - 1).square().sum().mul(0.5).backward()
        optimizer.lr = 0.02 * 0.9975**step
        optimizer.step()
    least = [share / (share + l2) for share in (1, 1 / 4, 1 / 20)]
    assert layer.table[1:4, 0].tolist() == pytest.approx(least, rel=0.03)


def test_the_empty_row_stays_zero_in_a_lazy_table() -> None:
    model, optimizer = machine(lazy=True)
    ids = every_id()
    ids[:, -1] = EMPTY
    for _ in range(3):
        take(model, optimizer, ids)
    assert not model.embedding.table[EMPTY].any()
    assert not model.linear.table[EMPTY].any()


@pytest.mark.parametrize("lazy", [False, True])
def test_all_tables_of_a_model_are_lazy_or_none(lazy: bool) -> None:
    model, _ = machine(lazy)
    assert model.embedding.lazy is model.linear.lazy is lazy
    model(every_id()).sum().backward()
    for table in (model.embedding.table, model.linear.table):
        assert table.grad.is_sparse is lazy


@pytest.mark.parametrize("lazy", [False, True])
def test_a_saved_optimizer_goes_on_as_one_that_was_never_stopped(lazy: bool) -> None:
    whole, optimizer = machine(lazy)
    half, first = machine(lazy)
    for _ in range(3):
        take(whole, optimizer, every_id()[:3])
        take(half, first, every_id()[:3])
    again, second = machine(lazy)
    again.load_state_dict(half.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(3):
        take(whole, optimizer, every_id()[2:5])
        take(again, second, every_id()[2:5])
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("norm", [1e-3, 1e3])
def test_clip_is_torchs(norm: float) -> None:
    (ours, _), (theirs, _), (lazy, _) = machine(False), machine(False), machine(True)
    ids = every_id()[[0, 1, 1, 4]]
    for model in (ours, theirs, lazy):
        model(ids).square().mean().backward()
    clip(ours.parameters(), norm)
    clip(lazy.parameters(), norm)
    nn.utils.clip_grad_norm_(theirs.parameters(), norm)
    for a, b, c in zip(ours.parameters(), theirs.parameters(), lazy.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=0)
        torch.testing.assert_close(c.grad.to_dense(), b.grad, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("embedding_l2", [0.0, 0.1])
def test_a_dense_step_is_torchs_to_the_last_bit(embedding_l2: float) -> None:
    """With `l2_tables: whole` a penalty of tables is its `weight_decay`, paid by rows without a gradient."""
    torch.manual_seed(0)
    ours, theirs = (Machine().double() for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    l2 = embedding_l2, embedding_l2, 0.2
    optimizer = Adam(parameter_groups(ours, *l2, l2_tables="whole"), lr=0.05)
    adam = torch.optim.Adam(
        [
            {"params": group.params, "weight_decay": group.l2}
            for group in parameter_groups(theirs, *l2, l2_tables="whole")
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
            optimizer.lr = 0.01
            for group in adam.param_groups:
                group["lr"] = 0.01
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("steps", [0.3, 1, 5, 1000])
@pytest.mark.parametrize("lazy", [False, True])
def test_the_average_is_the_documented_one_and_leaves_the_weights_alone(lazy: bool, steps: float) -> None:
    torch.manual_seed(0)
    model = Machine().double()
    mark_lazy(model, lazy)
    optimizer = Adam(parameter_groups(model, 0.1, 0.1, 0.2), lr=0.05, average=steps)
    expected = [p.detach().clone() for p in model.parameters()]
    for t in range(1, 101):
        take(model, optimizer, every_id()[torch.randint(8, (3,))])
        for a, p in zip(expected, model.parameters(), strict=True):
            a += max(1 / max(1, steps), 9 / (8 + t)) * (p.detach() - a)
    own = [p.detach().clone() for p in model.parameters()]
    with optimizer.averaged():
        for p, a in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(p.detach(), a, rtol=1e-9, atol=1e-12)
    for p, w in zip(model.parameters(), own, strict=True):
        assert torch.equal(p.detach(), w)


def test_an_average_over_no_steps_is_the_weights_themselves() -> None:
    model, optimizer = machine(lazy=False)
    take(model, optimizer, every_id())
    own = [p.detach().clone() for p in model.parameters()]
    with optimizer.averaged():
        assert all(torch.equal(p, w) for p, w in zip(model.parameters(), own, strict=True))
    assert not optimizer.average.values


# ---- decay ----


class Faint(nn.Module):
    """A network whose output counts for next to nothing beside the rest of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp, self.rest = MLP(4, [3]), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(x).squeeze(1) + 1e-5 * self.mlp(x).sum(1)


def trained(steps: int, *, lr: float = 0.01, network_l2: float = 0.0, network_decay: float = 0.0) -> Faint:
    torch.manual_seed(2)
    model = Faint().double()
    optimizer = Adam(parameter_groups(model, 0.0, 0.0, network_l2, network_decay), lr=lr)
    for _ in range(steps):
        x = torch.randn(16, 4, dtype=torch.float64)
        optimizer.zero_grad()
        (model(x) - x.sum(1)).square().mean().backward()
        optimizer.step()
    return model


def test_decay_is_that_of_the_paper() -> None:
    """Decoupled Weight Decay Regularization, algorithm 2, of the matrix alone; its first step."""
    torch.manual_seed(2)
    model = Faint().double()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    x = torch.randn(16, 4, dtype=torch.float64)
    (model(x) - x.sum(1)).square().mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    after = dict(trained(1, network_decay=0.3).named_parameters())
    for name, w in before.items():
        g = gradients[name]
        assert g is not None
        expected = w - 0.01 * g / (g.abs() + 1e-8) - 0.01 * (0.3 * w if name == "mlp.0.weight" else 0)
        torch.testing.assert_close(after[name].detach(), expected, msg=name)


def test_l2_kills_a_network_of_small_gradients_and_decay_does_not() -> None:
    """A penalty of 1e-3 takes what the rest of a model outshines to zero, as it did with DCN's network."""

    def size(**penalty: float) -> float:
        return trained(400, **penalty).mlp[0].weight.norm().item()

    plain = size()
    assert size(network_l2=1e-3) < 0.02 * plain
    assert size(network_decay=0.5) > 0.1 * plain
