"""Adam whose step costs what the batch costs, however many rows the tables have."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.layers.embedding import FieldEmbedding, FieldLinear


def parameter_groups(
    model: nn.Module, embedding_l2: float, network_l2: float, lazy_rows: int
) -> list[dict[str, Any]]:
    """Split the parameters into the tables (one row an id) and the rest, each with its own L2.

    The penalty is (l2 / 2) ||w||^2 on the mean loss, added to the gradient: not decoupled decay. Tables
    of `lazy_rows` rows or more become lazy: see `Adam`.
    """
    layers = [m for m in model.modules() if isinstance(m, FieldEmbedding | FieldLinear)]
    for layer in layers:
        layer.lazy = len(layer.table) >= lazy_rows
    tables = [layer.table for layer in layers]
    known = {id(table) for table in tables}
    rest = [p for p in model.parameters() if id(p) not in known]
    groups = [(tables, embedding_l2), (rest, network_l2)]
    return [{"params": params, "weight_decay": l2} for params, l2 in groups if params]


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, fused, and row by row where a table's gradient is sparse (a lazy table).

    A row of a lazy table moves in the steps whose batch holds its id, and in no other. In such a step
    it does what dense Adam does, with the bias corrections of the whole training's step count. Between
    them dense Adam would let its moments decay, move it on by what is left of them, and shrink it by
    its L2; a lazy row stands still. So L2 is paid once for each step in which the id occurs: a frequent
    id is regularised as densely, a rare one less. Where every batch holds every id the two are equal.

    Source of the idea: Kingma and Ba, "Adam", ICLR 2015, https://arxiv.org/abs/1412.6980, algorithm 1,
    applied to the rows that occur, as "lazy" or "sparse" Adam is in other libraries.

    Args:
        groups: what `parameter_groups` returns.
        lr: learning rate.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        moved = [(p, p.grad, group) for group in self.param_groups for p in group["params"]]
        lazy = [(p, grad, group) for p, grad, group in moved if grad is not None and grad.is_sparse]
        for p, _, _ in lazy:
            p.grad = None  # what has no gradient is left out by the parent
        super().step(closure)
        for p, grad, group in lazy:
            self._move_rows(p, grad, group)
            p.grad = grad

    def _move_rows(self, table: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[table], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        state["step"] += 1
        t = state["step"].item()
        grad = grad.coalesce()
        rows, g = grad.indices()[0], grad.values()
        w = table.index_select(0, rows)
        g = g.add(w, alpha=group["weight_decay"])
        m = state["exp_avg"].index_select(0, rows).lerp_(g, 1 - beta1)
        v = state["exp_avg_sq"].index_select(0, rows).mul_(beta2).addcmul_(g, g, value=1 - beta2)
        state["exp_avg"].index_copy_(0, rows, m)
        state["exp_avg_sq"].index_copy_(0, rows, v)
        spread = (v / (1 - beta2**t)).sqrt_().add_(group["eps"])
        table.index_copy_(0, rows, w.addcdiv_(m, spread, value=-group["lr"] / (1 - beta1**t)))


def clip(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """Cut the norm of all gradients together to `largest`, as `nn.utils.clip_grad_norm_` does.

    That one touches every number also where nothing is to be cut, and takes no sparse gradient.
    """
    grads: list[Tensor] = []
    for p in parameters:
        if p.grad is not None and p.grad.is_sparse:
            p.grad = p.grad.coalesce()  # an id that occurs twice is one row
            grads.append(p.grad.values())
        elif p.grad is not None:
            grads.append(p.grad)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    if norm.is_cuda or norm > largest:  # a look at a number of the GPU would make the host wait
        torch._foreach_mul_(grads, (largest / (norm + 1e-6)).clamp(max=1.0))
