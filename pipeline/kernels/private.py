"""All of torch's private functions that kernels call, and a check that they still do what kernels expect."""

from typing import Any

import torch
from torch import Tensor

ONEDNN = torch.backends.mkldnn.is_available()


def inside_functorch() -> bool:
    """Whether a transform of `torch.func` (vmap, grad, ...) is active."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def onednn_linear(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """Return x w^T + bias by oneDNN: (M, K), (N, K), (N,) -> (M, N)."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, w, bias, "none", [], "")
    return result


def relu_backward(grad: Tensor, output: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The gradient of relu's input from its output; NaN in the output lets the gradient through."""
    result: Tensor
    if out is None:
        result = torch.ops.aten.threshold_backward(grad, output, 0)
    else:
        result = torch.ops.aten.threshold_backward.grad_input(grad, output, 0, grad_input=out)
    return result


def softmax_backward(grad: Tensor, output: Tensor, axis: int) -> Tensor:
    """The gradient of softmax's input from its output."""
    return torch._softmax_backward_data(grad, output, axis, output.dtype)


def adam(
    weights: list[Tensor],
    grads: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    steps: Tensor,
    *,
    lr: float,
    betas: tuple[float, float],
    epsilon: float,
    l2: float,
) -> None:
    """One step of fused Adam in place; `steps` is the number of this one, on the device of the weights."""
    torch._fused_adam_(
        weights,
        grads,
        first,
        second,
        [],
        [steps] * len(weights),
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=l2,
        eps=epsilon,
        amsgrad=False,
        maximize=False,
    )


def norms(tensors: list[Tensor]) -> list[Tensor]:
    """The norm of each tensor."""
    return list(torch._foreach_norm(tensors))


def multiply(tensors: list[Tensor], factor: Tensor) -> None:
    """Multiply each tensor by a number, in place."""
    torch._foreach_mul_(tensors, factor)


def lerp(tensors: list[Tensor], targets: list[Tensor], share: float) -> None:
    """Move each tensor a share of the way to its target, in place."""
    torch._foreach_lerp_(tensors, targets, share)


def check() -> None:
    """Call each function once on a few numbers.

    Raises:
        AssertionError, AttributeError, ImportError, RuntimeError, TypeError: this torch does not have it, or
            it returns something else.
    """
    assert not inside_functorch()
    with torch.inference_mode(False), torch.device("cpu"), torch.no_grad():
        x, w = torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]]), torch.tensor([[2.0, 0.0, -1.0]])
        if ONEDNN:
            _same(onednn_linear(x, w, torch.tensor([1.0])), x @ w.t() + 1)
            _same(onednn_linear(x, w, None), x @ w.t())
        out = torch.empty_like(x)
        for result in (relu_backward(x, x - 1), relu_backward(x, x - 1, out=out), out):
            _same(result, x * (x > 1))
        a = x.softmax(1)
        _same(softmax_backward(x, a, 1), a * (x - (a * x).sum(1, keepdim=True)))
        weights, first, second = [w.clone()], [torch.ones_like(w)], [torch.ones_like(w)]
        settings: dict[str, Any] = {"lr": 0.5, "betas": (0.5, 0.75), "epsilon": 0.1, "l2": 1.0}
        adam(weights, [w], first, second, torch.tensor(2.0), **settings)
        g = 2 * w
        m, v = 0.5 + 0.5 * g, 0.75 + 0.25 * g * g
        for moments, expected in ((first, m), (second, v)):
            _same(moments[0], expected)
        _same(weights[0], w - 0.5 * (m / 0.75) / ((v / 0.4375).sqrt() + 0.1))
        _same(torch.stack(norms([x, w])), torch.stack([x.norm(), w.norm()]))
        scaled = [x.clone()]
        multiply(scaled, torch.tensor(2.0))
        _same(scaled[0], 2 * x)
        lerp(scaled, [x], 0.25)
        _same(scaled[0], 1.75 * x)


def _same(result: Tensor, expected: Tensor) -> None:
    assert torch.allclose(result, expected), f"{result.tolist()} instead of {expected.tolist()}"
