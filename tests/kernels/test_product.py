"""Products through either library against the loop, and a linear layer's gradients."""

import pytest
import torch
from torch import nn

from pipeline.kernels import product as module
from pipeline.kernels.product import product
from pipeline.layers.mlp import MLP, Linear

SHAPES = [(1, 1, 1), (5, 1, 3), (7, 3, 1), (4, 6, 5), (64, 33, 17)]


@pytest.fixture(params=["onednn", "blas"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    least = 0 if request.param == "onednn" else 10**15
    monkeypatch.setattr(module, "MIN_MULTIPLICATIONS", least)
    monkeypatch.setattr(module, "MIN_MULTIPLICATIONS_TRANSPOSED", least)
    monkeypatch.setattr(module, "MIN_INPUT_ELEMENTS", 0)
    return str(request.param)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.usefixtures("library")
def test_a_product_is_the_sum_over_the_inner_axis(
    shape: tuple[int, int, int], turned: tuple[bool, bool], with_bias: bool
) -> None:
    torch.manual_seed(1)
    m, k, n = shape
    x = torch.randn(k, m).t() if turned[0] else torch.randn(m, k)
    w = torch.randn(k, n).t() if turned[1] else torch.randn(n, k)
    bias = torch.randn(n) if with_bias else None
    kept = x.clone(), w.clone()
    expected = torch.zeros(m, n, dtype=torch.float64)
    for i in range(m):
        for j in range(n):
            expected[i, j] = (x[i].double() * w[j].double()).sum() + (0 if bias is None else bias[j].double())
    result = product(x, w, bias)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(x, kept[0])
    assert torch.equal(w, kept[1])


@pytest.mark.usefixtures("library")
def test_a_part_of_a_wider_matrix_is_a_matrix() -> None:
    x, w = torch.randn(6, 9)[:, 1:8], torch.randn(4, 11)[:, 2:9]
    torch.testing.assert_close(product(x, w), x @ w.t())
    torch.testing.assert_close(product(x.t(), w[:, :6]), x.t() @ w[:, :6].t())


def test_float32_stays_float32() -> None:
    """No narrower type inside: the error of a sum of a thousand products is that of float32."""
    torch.manual_seed(1)
    x, w = torch.randn(512, 1000), torch.randn(512, 1000)
    assert len(x) * w.numel() >= module.MIN_MULTIPLICATIONS_TRANSPOSED * torch.get_num_threads()
    exact = x.double() @ w.double().t()
    for turned in (x, x.t().contiguous().t()):
        assert (product(turned, w) - exact).abs().max() < 1e-3  # bfloat16 would be off by about 0.5


@pytest.mark.usefixtures("library")
def test_what_is_not_a_number_stays_so_in_a_network() -> None:
    """Else the loss of a training that diverged would be finite."""
    network = MLP(6, [5, 4])
    x = torch.randn(7, 6)
    x[2, 1] = torch.nan
    for result in (network(x), network.eval()(x).detach()):
        assert result.isnan().any(1).tolist() == [row == 2 for row in range(7)]
    with torch.no_grad():
        assert network(x)[2].isnan().all()


def test_same_product_same_bits() -> None:
    x, w = torch.randn(512, 300), torch.randn(200, 300)
    first = product(x, w)
    assert all(torch.equal(product(x.clone(), w.clone()), first) for _ in range(5))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 5), (0, 5), (5,)])
@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.usefixtures("library")
def test_a_linear_layer_is_torchs(shape: tuple[int, ...], outputs: int, bias: bool) -> None:
    torch.manual_seed(1)
    ours, theirs = Linear(5, outputs, bias=bias), nn.Linear(5, outputs, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape)
    results = []
    for layer in (ours, theirs):
        inputs = x.clone().requires_grad_()
        layer(inputs).square().sum().backward()
        with torch.no_grad():
            results.append([layer(inputs), inputs.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.usefixtures("library")
def test_gradients_of_a_linear_layer_in_float64() -> None:
    layer = Linear(5, 4).double()
    assert torch.autograd.gradcheck(layer, torch.randn(3, 5, dtype=torch.float64, requires_grad=True))


@pytest.mark.slow
def test_a_linear_layer_is_plain_in_a_recorded_graph() -> None:
    graph = torch.export.export(Linear(5, 4), (torch.randn(3, 5),)).graph_module.code
    assert "linear" in graph
    assert "mkldnn" not in graph
