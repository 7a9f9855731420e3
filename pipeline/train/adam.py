"""Adam with an L2 penalty that means the same for rare and for frequent ids, and lazy tables."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.layers.accelerated import accelerated
from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.layers.mlp import MLP
from pipeline.train.average import Average, copy_all

BETAS, EPSILON = (0.9, 0.999), 1e-8
L2Tables = Literal["batch", "whole"]  # which rows of a table pay its L2 in a step


class Group(NamedTuple):
    """Parameters that are penalised and updated alike.

    Attributes:
        params: the parameters.
        l2: strength of their penalty (l2 / 2) ||w||^2 on the mean loss.
        decay: by which share of the learning rate a step makes them smaller, whatever their gradient.
        rows: whether they are tables whose rows pay their penalty one by one; see `Adam`.
        lazy: whether only the rows of a batch are updated, and their gradients are sparse.
    """

    params: Sequence[Tensor]
    l2: float = 0.0
    decay: float = 0.0
    rows: bool = False
    lazy: bool = False


def tables(model: nn.Module) -> list[FieldEmbedding | FieldLinear]:
    """Return the layers that have a table."""
    return [module for module in model.modules() if isinstance(module, FieldEmbedding | FieldLinear)]


def mark_lazy(model: nn.Module, lazy: bool) -> None:
    """Make all tables of a model lazy, or none: one rule for all of them."""
    for layer in tables(model):
        layer.lazy = lazy


def parameter_groups(
    model: nn.Module,
    embedding_l2: float,
    linear_l2: float,
    network_l2: float,
    network_decay: float = 0.0,
    *,
    l2_tables: L2Tables = "batch",
) -> list[Group]:
    """Split the parameters by their L2 penalty: embeddings, linear terms, matrices of the networks, the rest.

    The penalty is added to the gradient; a `FieldEmbedding` may have a multiple of it. Adam divides it by the
    size of the gradient, so that it drives whatever has small gradients to exactly zero, by a penalty of
    almost any strength: of a whole network, where the rest of a model explains what it could. `network_decay`
    is not divided: a step multiplies the matrices by 1 - lr * network_decay. Both are those of the matrices
    of `MLP`s alone. What weighs, gates or scales something (attention, excitations, thresholds, cross
    weights, gains, biases) has neither. What needs no gradient is in no group, nor are sharded tables: see
    `sharded`.

    Args:
        l2_tables: `batch`: a row of a table pays in the steps whose batch has its id, for all steps; see
            `Adam`. `whole`: every row pays in every step, which no lazy table can.
    """
    layers = [layer for layer in tables(model) if isinstance(layer.table, Tensor)]
    embeddings = dict[float, list[Tensor]]()  # by their factor
    for layer in layers:
        if isinstance(layer, FieldEmbedding):
            embeddings.setdefault(layer.l2_factor, []).append(layer.table)
    linear = [layer.table for layer in layers if isinstance(layer, FieldLinear)]
    matrices = [
        layer.weight
        for network in model.modules()
        if isinstance(network, MLP)
        for layer in network
        if isinstance(layer, nn.Linear)
    ]
    known = {id(p) for p in (*chain(*embeddings.values()), *linear, *matrices)}
    rest = [p for p in model.parameters() if id(p) not in known and p.requires_grad]
    lazy, rows = any(layer.lazy for layer in layers), l2_tables == "batch"
    groups = [
        *(Group(own, factor * embedding_l2, rows=rows, lazy=lazy) for factor, own in embeddings.items()),
        Group(linear, linear_l2, rows=rows, lazy=lazy),
        Group(matrices, network_l2, network_decay),
        Group(rest),
    ]
    return [group for group in groups if group.params]


class Adam:
    """Adam; row by row where a table is lazy.

    Unless kernels are off, dense parameters are updated bit for bit as by `torch.optim.Adam(fused=True)`,
    without its Python overhead, which takes longer than the update where a model is small.

    **L2 of a table** is paid in the steps whose batch contains the id, divided by the share of the steps so
    far that did: over many steps each row pays (l2 / 2) ||w||^2 a step, however rare its id. Paid in
    every step, as by torch's `weight_decay`, the penalty is all that is left of a rare row's gradient
    between its occurrences; Adam divides it by its own size, and moves the row by up to `lr` a step towards
    zero, whatever l2 is. A row without a gradient (its id is in no row of the batch) pays nothing. Groups
    that are not marked `rows` do pay like that, as those of other libraries whose figures are to be met.

    **A row of a lazy table** is updated only in the steps whose batch contains its id, without first
    moment (beta1 = 0), with a second moment that has decayed for all steps since, and the bias correction of
    the global step count. So one gradient moves it at once as far as it moves a dense row in the steps
    that follow; with beta1 = 0.9, as in other libraries' lazy or sparse Adam, the rest of that momentum would
    be lost, and a row that occurs once in 1,000 steps would move a tenth as far.

    Source: Kingma and Ba, "Adam", ICLR 2015, https://arxiv.org/abs/1412.6980, algorithm 1. The penalty of a
    table is the mini-batch aware regularisation of Zhou et al., "Deep Interest Network", KDD 2018, eq. 5-7,
    with the number of steps in place of the number of occurrences. The decay is that of Loshchilov and
    Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, https://arxiv.org/abs/1711.05101, algorithm 2,
    with the learning rate as its factor, as in `torch.optim.AdamW`.

    Args:
        groups: what `parameter_groups` returns.
        lr: learning rate; an attribute that may be changed between steps.
        average: time constant, in steps, of the average of the weights; 0 for none.
    """

    def __init__(self, groups: list[Group], lr: float, *, average: float = 0.0) -> None:
        self.lr, self.steps = lr, 0
        self._groups = groups
        self._state: dict[Tensor, dict[str, Tensor]] = {}
        for group in groups:
            for p in group.params:
                state = self._state[p] = {"second": torch.zeros_like(p)}
                if group.lazy:  # the step of each row's last update
                    state["last"] = torch.zeros(len(p), dtype=torch.int32, device=p.device)
                else:
                    state["first"] = torch.zeros_like(p)
                if group.rows and group.l2:  # in how many steps each row has had a gradient
                    state["seen"] = torch.zeros(len(p), dtype=p.dtype, device=p.device)
        lazy = {p: self._state[p]["last"] for group in groups if group.lazy for p in group.params}
        self.average = Average([p for p in self._state if p not in lazy], average, lazy)

    def averaged(self) -> AbstractContextManager[None]:
        """Let the model have the average of its weights inside the block."""
        return self.average.applied(self.steps)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for p in self._state:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        self.steps += 1
        for group in self._groups:
            grads = [(p, p.grad, self._state[p]) for p in group.params if p.grad is not None]
            if group.lazy:
                for p, grad, state in grads:
                    self._update_rows(p, *_rows(grad), state, group.l2)
                continue
            if group.rows and group.l2:
                for p, grad, state in grads:
                    add_row_l2(grad, p, state["seen"], l2=group.l2, steps=self.steps)
            if group.decay:
                for p, _, _ in grads:
                    p.mul_(1 - self.lr * group.decay)
            moments = [(p, grad, state["first"], state["second"]) for p, grad, state in grads]
            if moments:
                l2 = 0.0 if group.rows else group.l2
                update_all(*map(list, zip(*moments, strict=True)), **self._settings(l2))
        self.average.update(self.steps)

    def _settings(self, l2: float) -> dict[str, Any]:
        return {"steps": self.steps, "lr": self.lr, "l2": l2, "betas": BETAS, "epsilon": EPSILON}

    def _update_rows(
        self,
        table: Tensor,
        rows: Int[Tensor, " R"],
        grad: Float[Tensor, "R D"],
        state: dict[str, Tensor],
        l2: float,
    ) -> None:
        w, v, last = (t.index_select(0, rows) for t in (table, state["second"], state["last"]))
        if l2:
            seen = state["seen"].index_select(0, rows).add_(1)
            state["seen"].index_copy_(0, rows, seen)
            grad = grad + (l2 * self.steps / seen).unsqueeze(1) * w
        beta2 = BETAS[1]
        v.mul_((beta2 ** (self.steps - last).to(v.dtype)).unsqueeze(1))
        v.addcmul_(grad, grad, value=1 - beta2)
        after = w.addcdiv(grad, (v / (1 - beta2**self.steps)).sqrt_().add_(EPSILON), value=-self.lr)
        self.average.update_rows(self.steps, table, rows, w, after)
        table.index_copy_(0, rows, after)
        state["second"].index_copy_(0, rows, v)
        state["last"].index_fill_(0, rows, self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs."""
        state = list(self._state.values())
        return {"lr": self.lr, "steps": self.steps, "state": state, "average": self.average.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned for the same parameters."""
        self.lr, self.steps = state["lr"], state["steps"]
        for ours, saved in zip(self._state.values(), state["state"], strict=True):
            for name, tensor in ours.items():
                tensor.copy_(saved[name])
        copy_all(self.average.values, state["average"])


def _rows(grad: Tensor) -> tuple[Int[Tensor, " R"], Float[Tensor, "R D"]]:
    """Return the rows that a table's gradient concerns, and their gradients."""
    if grad.is_sparse:
        grad = grad.coalesce()
        return grad.indices()[0], grad.values()
    rows = grad.any(1).nonzero().squeeze(1)
    return rows, grad.index_select(0, rows)


def add_row_l2(
    grad: Float[Tensor, "V D"],
    table: Float[Tensor, "V D"],
    seen: Float[Tensor, " V"],
    *,
    l2: float,
    steps: int,
) -> None:
    """Add the penalty of the rows that have a gradient to it, in place, and count them in `seen`.

    g_i <- g_i + l2 (t / n_i) w_i, where n_i of the t steps had a gradient of row i, this one included.
    """
    touched = grad.abs().amax(1) != 0  # several times as fast as any()
    seen += touched
    grad.addcmul_(table, (touched * (l2 * steps / seen.clamp(min=1))).unsqueeze(1))


def update(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    *,
    steps: int,
    lr: float,
    l2: float,
    betas: tuple[float, float],
    epsilon: float,
) -> None:
    """One step of Adam on the gradient g + l2 w, in place.

    m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g^2,
    w <- w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon).

    Args:
        w: weights.
        g: their gradient.
        m: its first moment.
        v: its second moment.
        steps: t, the number of this step.
    """
    beta1, beta2 = betas
    g = g.add(w, alpha=l2)
    m.lerp_(g, 1 - beta1)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    w.addcdiv_(m, (v / (1 - beta2**steps)).sqrt_().add_(epsilon), value=-lr / (1 - beta1**steps))


@accelerated("adam")
def update_all(
    weights: list[Tensor], grads: list[Tensor], first: list[Tensor], second: list[Tensor], **settings: Any
) -> None:
    """`update` every weight; `first` and `second` are the moments."""
    for w, g, m, v in zip(weights, grads, first, second, strict=True):
        update(w, g, m, v, **settings)


def clip(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """Clip the norm of all gradients together to `largest` (0: never), as `nn.utils.clip_grad_norm_` does.

    That one rewrites every gradient even if nothing is clipped, and refuses sparse gradients.
    """
    if not largest:
        return
    grads: list[Tensor] = []
    for p in parameters:
        if p.grad is not None and p.grad.is_sparse:
            p.grad = p.grad.coalesce()  # an id that occurs twice is one row
            grads.append(p.grad.values())
        elif p.grad is not None:
            grads.append(p.grad)
    clip_all(grads, largest)


@accelerated("adam")
def clip_all(grads: list[Tensor], largest: float) -> None:
    """Clip the norm of all gradients together, in place."""
    norm = nn.utils.get_total_norm(grads)
    if norm.is_cuda or norm > largest:  # reading a GPU's value would make the host wait
        factor = (largest / (norm + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(factor)
