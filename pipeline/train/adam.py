"""Adam whose step costs what the batch costs, however many rows the tables have."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, FieldLinear


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
    """Adam by torch's fused kernel; row by row where a table's gradient is sparse (a lazy table).

    Dense parameters are updated bit for bit as by `torch.optim.Adam(fused=True)`, without its Python
    overhead, which takes longer than the kernel where a model is small.

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

    BETAS, EPSILON = (0.9, 0.999), 1e-8

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        self.lr, self.steps = lr, 0
        self._groups = [(group["params"], group["weight_decay"]) for group in groups]
        self._moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for ps, _ in self._groups for p in ps}
        # on the device, where the kernel reads it
        self._count = torch.zeros((), device=next(iter(self._moments)).device)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for p in self._moments:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        self.steps += 1
        self._count += 1
        (beta1, beta2), moments = self.BETAS, self._moments
        for params, l2 in self._groups:
            moved = [(p, p.grad) for p in params if p.grad is not None]
            dense = [(p, grad, *moments[p]) for p, grad in moved if not grad.is_sparse]
            if dense:
                weights, grads, first, second = map(list, zip(*dense, strict=True))
                torch._fused_adam_(
                    weights,
                    grads,
                    first,
                    second,
                    [],
                    [self._count] * len(dense),
                    lr=self.lr,
                    beta1=beta1,
                    beta2=beta2,
                    weight_decay=l2,
                    eps=self.EPSILON,
                    amsgrad=False,
                    maximize=False,
                )
            for p, grad in moved:
                if grad.is_sparse:
                    self._update_rows(p, grad.coalesce(), l2)

    def _update_rows(self, table: Tensor, grad: Tensor, l2: float) -> None:
        (beta1, beta2), (first, second) = self.BETAS, self._moments[table]
        rows, g = grad.indices()[0], grad.values()
        w = table.index_select(0, rows)
        g = g.add(w, alpha=l2)
        m = first.index_select(0, rows).lerp_(g, 1 - beta1)
        v = second.index_select(0, rows).mul_(beta2).addcmul_(g, g, value=1 - beta2)
        first.index_copy_(0, rows, m)
        second.index_copy_(0, rows, v)
        spread = (v / (1 - beta2**self.steps)).sqrt_().add_(self.EPSILON)
        table.index_copy_(0, rows, w.addcdiv_(m, spread, value=-self.lr / (1 - beta1**self.steps)))

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs."""
        return {"lr": self.lr, "steps": self.steps, "moments": list(self._moments.values())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned for the same parameters."""
        self.lr, self.steps = state["lr"], state["steps"]
        self._count.fill_(self.steps)
        for ours, saved in zip(self._moments.values(), state["moments"], strict=True):
            for moment, value in zip(ours, saved, strict=True):
                moment.copy_(value)


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
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    if norm.is_cuda or norm > largest:  # reading a GPU's value would make the host wait
        torch._foreach_mul_(grads, (largest / (norm + 1e-6)).clamp(max=1.0))
