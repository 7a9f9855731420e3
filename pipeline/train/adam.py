"""Adam whose step costs what the batch costs, however many rows the tables have."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.layers.accelerated import accelerated
from pipeline.layers.embedding import FieldEmbedding, FieldLinear

BETAS, EPSILON = (0.9, 0.999), 1e-8


def _tables(model: nn.Module) -> list[FieldEmbedding | FieldLinear]:
    return [module for module in model.modules() if isinstance(module, FieldEmbedding | FieldLinear)]


def lazy_tables(model: nn.Module, lazy_rows: int) -> list[FieldEmbedding | FieldLinear]:
    """Return the layers whose table has `lazy_rows` rows or more: `Adam` updates only the rows in a batch."""
    return [layer for layer in _tables(model) if len(layer.table) >= lazy_rows]


def mark_lazy(model: nn.Module, lazy_rows: int) -> None:
    """Let the lazy tables, and no others, have sparse gradients."""
    for layer in _tables(model):
        layer.lazy = layer in lazy_tables(model, lazy_rows)


def parameter_groups(model: nn.Module, embedding_l2: float, network_l2: float) -> list[dict[str, Any]]:
    """Split the parameters into the tables (one row per id) and the rest, each with its own L2 penalty.

    The penalty is (l2 / 2) ||w||^2 on the mean loss, added to the gradient: not decoupled decay.
    """
    tables = [layer.table for layer in _tables(model)]
    known = {id(table) for table in tables}
    rest = [p for p in model.parameters() if id(p) not in known]
    groups = [(tables, embedding_l2), (rest, network_l2)]
    return [{"params": params, "weight_decay": l2} for params, l2 in groups if params]


class Adam:
    """Adam; row by row where a table's gradient is sparse (a lazy table).

    Unless kernels are off, dense parameters are updated bit for bit as by `torch.optim.Adam(fused=True)`,
    without its Python overhead, which takes longer than the update where a model is small.

    A row of a lazy table is updated only in the steps whose batch contains its id, as dense Adam would
    update it there, with the bias corrections of the global step count. Dense Adam would also, in all other
    steps, let the row's moments decay, move it by what is left of them and shrink it by its L2. So L2 is
    paid once per step in which the id occurs: frequent ids are regularised as densely, rare ones less. If
    every batch contains every id, the two are equal.

    Source: Kingma and Ba, "Adam", ICLR 2015, https://arxiv.org/abs/1412.6980, algorithm 1. Applied to the
    rows that occur, it is what other libraries call lazy or sparse Adam.

    Args:
        groups: what `parameter_groups` returns.
        lr: learning rate; an attribute that may be changed between steps.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        self.lr, self.steps = lr, 0
        self._groups = [(group["params"], group["weight_decay"]) for group in groups]
        self._moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for ps, _ in self._groups for p in ps}

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for p in self._moments:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        self.steps += 1
        for params, l2 in self._groups:
            grads = [(p, p.grad) for p in params if p.grad is not None]
            dense = [(p, grad, *self._moments[p]) for p, grad in grads if not grad.is_sparse]
            if dense:
                update_all(*map(list, zip(*dense, strict=True)), **self._settings(l2))
            for p, grad in grads:
                if grad.is_sparse:
                    self._update_rows(p, grad.coalesce(), l2)

    def _settings(self, l2: float) -> dict[str, Any]:
        return {"steps": self.steps, "lr": self.lr, "l2": l2, "betas": BETAS, "epsilon": EPSILON}

    def _update_rows(self, table: Tensor, grad: Tensor, l2: float) -> None:
        rows = grad.indices()[0]
        whole = (table, *self._moments[table])
        w, m, v = (tensor.index_select(0, rows) for tensor in whole)
        update(w, grad.values(), m, v, **self._settings(l2))
        for tensor, values in zip(whole, (w, m, v), strict=True):
            tensor.index_copy_(0, rows, values)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs."""
        return {"lr": self.lr, "steps": self.steps, "moments": list(self._moments.values())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned for the same parameters."""
        self.lr, self.steps = state["lr"], state["steps"]
        for ours, saved in zip(self._moments.values(), state["moments"], strict=True):
            for moment, value in zip(ours, saved, strict=True):
                moment.copy_(value)


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
