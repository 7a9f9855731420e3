"""Every kernel against the body that it is attached to: the same values and gradients, on many shapes."""

import pkgutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from importlib import import_module
from itertools import product as combinations_of
from typing import Any

import pytest
import torch
from loops import exact
from rows import SCHEMAS
from torch import Tensor, nn

import pipeline
from pipeline.kernels import attention, cin, fiinet, lookup, product
from pipeline.layers.accelerated import ATTACHED, off
from pipeline.layers.attention import Interacting, InteractingLayers
from pipeline.layers.bilinear import Bilinear, BilinearKind, Bilinears
from pipeline.layers.cin import CIN
from pipeline.layers.excitation import SENET
from pipeline.layers.lookup import Bags
from pipeline.layers.mlp import MLP, Linear
from pipeline.models import build

for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
    if module.name.split(".")[1] in ("layers", "models", "train"):
        import_module(module.name)

Arguments = tuple[Any, ...]
KINDS: tuple[BilinearKind, ...] = ("all", "each", "interaction")


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def lookups() -> Iterator[Arguments]:
    for dim, kind in combinations_of((1, 5), (torch.int32, torch.int64)):
        yield random(30, dim), torch.randint(30, (7, 3), dtype=kind)


def bags() -> Iterator[Arguments]:
    for dim, first in combinations_of((1, 5), ([0], [0, 4, 4, 9], [0, 0, 20, 20])):
        yield random(30, dim), Bags(torch.randint(30, (20,)), torch.tensor(first), {})


def linears() -> Iterator[Arguments]:
    for shape, outputs, bias in combinations_of(((3, 5), (2, 4, 5)), (1, 4), (False, True)):
        yield Linear(5, outputs, bias=bias), random(*shape)


def mlps() -> Iterator[Arguments]:
    for hidden, dropout, rows, training in combinations_of(
        ([7], [7, 5, 6]), (0.0, 0.3), (1, 33), (True, False)
    ):
        yield MLP(4, hidden, dropout=dropout).train(training), random(rows, 4)


def attentions() -> Iterator[Arguments]:
    for (heads, size, fields), rows in combinations_of(((1, 1, 1), (2, 3, 4)), (1, 3, 7)):
        layers = [Interacting(w, size, heads, scaling=w == 5, dropout=0.0) for w in (5, heads * size)]
        yield InteractingLayers(*layers), random(rows, fields, 5)


def cins() -> Iterator[Arguments]:
    flags = (False, True)
    for fields, sizes, half, relu in combinations_of((1, 4), ([3], [4, 3], [2, 6, 5]), flags, flags):
        for rows in (1, 2, 7):
            yield CIN(fields, sizes, split_half=half, relu=relu), random(rows, fields, 3)


def several_bilinears() -> Iterator[Arguments]:
    for kind, fields, rows, layers in combinations_of(KINDS, (2, 3, 6), (1, 7), (1, 2)):
        several = Bilinears(Bilinear(fields, 3, kind=kind) for _ in range(layers))
        yield several, [random(rows, fields, 3) for _ in range(layers)]


def fiinets() -> Iterator[Arguments]:
    options: list[dict[str, Any]] = [{"hidden": [4]}, {"hidden": [], "fusion": "concat"}]
    for chosen, schema in combinations_of(options, SCHEMAS.values()):
        if len(schema.fields) > 2:
            model = build("fiinet", schema, {"embedding_size": 3, "dropout": 0.0, **chosen}, seed=1)
            yield model, random(3, len(schema.fields), 3)


def adams() -> Iterator[Arguments]:
    weights, grads, first, second = ([random(4, 3), random(5)] for _ in range(4))
    yield weights, grads, first, [v.square() for v in second]


CASES: dict[str, Callable[[], Iterator[Arguments]]] = {
    "adam.clip_all": lambda: (([random(4, 3), random(5)], norm) for norm in (0.1, 100.0)),
    "adam.towards_all": lambda: (
        ([random(4, 3), random(5)], [random(4, 3), random(5)], s) for s in (0.1, 1.0)
    ),
    "adam.update_all": adams,
    "attention.interactinglayers": attentions,
    "bilinear.bilinear": lambda: ((Bilinear(4, 3, kind=kind), random(7, 4, 3)) for kind in KINDS),
    "bilinear.bilinears": several_bilinears,
    "cin.cin": cins,
    "excitation.senet": lambda: (
        (SENET(fields, residual=residual), random(7, fields, 3))
        for fields, residual in combinations_of((1, 2, 7), (False, True))
    ),
    "fiinet.fiinet_deep": fiinets,
    "lookup.lookup": lookups,
    "lookup.sum_bags": bags,
    "mlp.mlp": mlps,
    "pairs.bi_interaction": lambda: ((random(rows, n, 3),) for rows in (1, 7) for n in (1, 2, 5)),
    "product.linear": linears,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "adam.update_all": {"steps": 3, "lr": 0.1, "l2": 0.2, "betas": (0.9, 0.99), "epsilon": 1e-3}
}
LARGE: dict[str, Callable[[], Arguments]] = {
    "attention.interactinglayers": lambda: (
        InteractingLayers(*(Interacting(w, 16, 2, scaling=True, dropout=0.0) for w in (16, 32, 32))),
        torch.randn(1500, 7, 16),
    ),
    "bilinear.bilinears": lambda: (
        Bilinears(Bilinear(25, 16) for _ in range(2)),
        [torch.randn(400, 25, 16) for _ in range(2)],
    ),
    "cin.cin": lambda: (CIN(7, [64, 64], split_half=True, relu=True), torch.randn(300, 7, 16)),
    "mlp.mlp": lambda: (MLP(100, [200, 200]), torch.randn(512, 100)),
    "product.linear": lambda: (Linear(100, 200), torch.randn(512, 100)),
}
every_kernel = pytest.mark.parametrize("name", sorted(ATTACHED))
LAYERS = sorted(name for name in ATTACHED if not name.startswith("adam."))  # those change what they get


@pytest.fixture(name="tiny")
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thresholds and chunks so small that a few rows use the kernel and make several chunks."""
    monkeypatch.setattr(lookup, "MIN_IDS", 0)
    monkeypatch.setattr(product, "MIN_MULTIPLICATIONS", 0)
    monkeypatch.setattr(product, "MIN_MULTIPLICATIONS_TRANSPOSED", 0)
    monkeypatch.setattr(product, "MIN_INPUT_ELEMENTS", 0)
    monkeypatch.setattr(attention, "CHUNK_ROWS", 3)
    monkeypatch.setattr(cin, "MIN_COLUMNS", 6)
    monkeypatch.setattr(cin, "CHUNK_ELEMENTS", 1)
    monkeypatch.setattr(fiinet, "CHUNK_ELEMENTS", 1)


def kernel(name: str) -> Callable[..., Any]:
    module, function = name.split(".")
    found: Callable[..., Any] = getattr(import_module(f"pipeline.kernels.{module}"), function)
    return found


def cases(name: str) -> Iterator[Arguments]:
    torch.manual_seed(1)
    for arguments in CASES[name]():
        if isinstance(arguments[0], nn.Module):
            training = arguments[0].training
            exact(arguments[0]).train(training)
        yield arguments


def tensors(arguments: Any) -> list[Tensor]:
    """All tensors with a gradient in these arguments, and the parameters of the module among them."""
    if isinstance(arguments, nn.Module):
        return list(arguments.parameters())
    if isinstance(arguments, list | tuple):
        return [tensor for argument in arguments for tensor in tensors(argument)]
    return [arguments] if isinstance(arguments, Tensor) and arguments.is_floating_point() else []


def results(function: Callable[..., Any], arguments: Arguments, **settings: Any) -> list[Tensor]:
    """What a function returns and the gradients of all it gets, or what it changes in place."""
    arguments = deepcopy(arguments)
    torch.manual_seed(5)
    if settings or function.__name__ in ("clip_all", "towards_all"):
        assert function(*arguments, **settings) is None
        return tensors(arguments)
    inputs = [tensor.requires_grad_() for tensor in tensors(arguments)]
    before = [tensor.detach().clone() for tensor in inputs]
    result = function(*arguments)
    assert result is not NotImplemented
    weight = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view_as(result)
    kept = weight.clone()
    grads = torch.autograd.grad(result, inputs, weight, allow_unused=True)
    assert torch.equal(weight, kept), "the gradient that it got is changed"
    assert all(map(torch.equal, inputs, before)), "an argument is changed"
    return [
        result.detach(),
        *(torch.zeros_like(x) if g is None else g for x, g in zip(inputs, grads, strict=True)),
    ]


def test_every_kernel_is_covered_here() -> None:
    assert sorted(ATTACHED) == sorted(CASES)


@every_kernel
@pytest.mark.usefixtures("tiny")
def test_a_kernel_is_its_body_in_training(name: str) -> None:
    settings, seen = SETTINGS.get(name, {}), False
    for arguments in cases(name):
        ours = results(kernel(name), arguments, **settings)
        with off():
            body = results(ATTACHED[name], arguments, **settings)
        for a, b in zip(ours, body, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)  # dropout's factors are float32
        seen |= bool(ours[0].any()) and any(bool(x.any()) for x in ours[1:])
    assert seen, "zeros are compared in all cases"


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.usefixtures("tiny")
def test_a_kernel_is_its_body_in_scoring(name: str) -> None:
    for arguments in cases(name):
        if isinstance(arguments[0], nn.Module):
            arguments[0].eval()
        for mode in (torch.no_grad(), torch.inference_mode()):
            with mode:
                ours = ATTACHED[name](*arguments)
                with off():
                    torch.testing.assert_close(ours, ATTACHED[name](*arguments))


@pytest.mark.parametrize("name", sorted(LARGE))
def test_a_kernel_is_its_body_where_onednn_multiplies(name: str) -> None:
    torch.manual_seed(1)
    arguments = LARGE[name]()
    ours = results(kernel(name), arguments)
    with off():
        body = results(ATTACHED[name], arguments)
    for a, b in zip(ours, body, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.usefixtures("tiny")
def test_a_kernel_declines_outside_of_plain_computation_on_a_cpu(name: str) -> None:
    for arguments in cases(name):
        with torch.autocast("cpu", torch.bfloat16):
            assert kernel(name)(*arguments) is NotImplemented
            assert ATTACHED[name](*arguments).isfinite().all()
        calls = partial(kernel(name), *arguments)
        assert torch.func.vmap(lambda x, calls=calls: x * (calls() is NotImplemented))(torch.ones(2)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*LAYERS} - {"fiinet.fiinet_deep"}))  # see test_kernels_in_models.py
def test_what_has_a_kernel_is_exported_as_its_body(name: str) -> None:
    class Function(nn.Module):
        def forward(self, *inputs: Any) -> Tensor:
            result: Tensor = ATTACHED[name](*inputs)
            return result

    arguments = list(cases(name))[-1]
    layer, inputs = (Function(), arguments)
    if isinstance(arguments[0], nn.Module):
        layer, *inputs = arguments
    exported = torch.export.export(layer.eval(), tuple(inputs))
    assert "mkldnn" not in exported.graph_module.code
    with off():
        torch.testing.assert_close(exported.module()(*inputs), layer(*inputs))


def test_no_rows_have_no_channels() -> None:
    assert CIN(3, [4, 2], split_half=False, relu=True)(torch.randn(0, 3, 5)).shape == (0, 6)
