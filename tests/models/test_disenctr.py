"""DisenCTR against its equations, the graph as a list of edges."""

import math

import pytest
import torch
from loops import Matrix, Vector, dot, exact, mean, softmax, times
from rows import SCHEMAS, every_schema, random_ids, random_split
from rows import times as moments

from pipeline.layers.disentangle import convolve, hawkes
from pipeline.models import build
from pipeline.models.disenctr import DisenCTR
from pipeline.schema import Schema
from pipeline.train.loop import fit
from pipeline.train.start import prepare

K, D = 3, 2
CHOSEN = {"intents": K, "intent_size": D, "history": 3, "neighbours": 2, "second_neighbours": 2}
Click = tuple[int, int, int]  # time, user, item
Vectors = list[Matrix]  # of each node, K rows of D numbers


def propagate(x: Vectors, edges: list[tuple[int, int]]) -> Vectors:
    """Two layers over these edges and a loop at every node, everything computed; node 0 is the item."""
    edges = edges + [(node, node) for node in range(len(x))]
    degree = [sum(target == node for _, target in edges) for node in range(len(x))]
    s = {edge: [1.0] * K for edge in edges}
    for _ in range(2):
        new = [[[0.0] * D for _ in range(K)] for _ in x]
        for (a, b), logits in s.items():
            for k, q in enumerate(softmax(logits)):
                for d in range(D):
                    new[b][k][d] += q * x[a][k][d] / math.sqrt(degree[a] * degree[b])
        x = new
        for (a, b), logits in s.items():
            s[a, b] = [
                logit + dot(x[a][k], [math.tanh(v) for v in x[b][k]]) for k, logit in enumerate(logits)
            ]
    return x


@pytest.mark.parametrize("clicked", [[], [0], [2], [1, 2, 0], [2, 2, 2]])
def test_a_tree_is_convolved_as_any_graph(clicked: list[int]) -> None:
    """Users with so many items each; what is not there lies behind them, as zeros."""
    item, users = torch.randn(K, D).double(), torch.zeros(3, K, D).double()
    items, has_item = torch.zeros(3, 2, K, D).double(), torch.zeros(3, 2, dtype=torch.bool)
    nodes, edges = [item.tolist()], []
    for j, count in enumerate(clicked):
        users[j] = torch.randn(K, D)
        edges.append((len(nodes), 0))
        user = len(nodes)
        nodes.append(users[j].tolist())
        for m in range(count):
            items[j, m], has_item[j, m] = torch.randn(K, D), True
            edges.append((len(nodes), user))
            nodes.append(items[j, m].tolist())
    expected = propagate(nodes, edges)[0]
    has_user = torch.arange(3) < len(clicked)
    x = convolve(*(t[None, None] for t in (item, users, items, has_user, has_item)))
    torch.testing.assert_close(x[0, 0], torch.tensor(expected).double())


def test_users_reach_the_item_and_an_item_without_users_keeps_its_own_vector() -> None:
    item, users = torch.randn(1, 1, K, D).double(), torch.randn(1, 1, 2, K, D).double().requires_grad_()
    items, has_item = torch.zeros(1, 1, 2, 1, K, D).double(), torch.zeros(1, 1, 2, 1, dtype=torch.bool)
    has_user = torch.ones(1, 1, 2, dtype=torch.bool)
    x = convolve(item, users, items, has_user, has_item)
    (gradient,) = torch.autograd.grad(x.sum(), users)
    assert gradient.abs().min() > 0
    alone = convolve(item, users, items, ~has_user, has_item)
    q = torch.softmax((item / K * (item / K).tanh()).sum(3, keepdim=True), 2)
    torch.testing.assert_close(alone, q * item / K)


def clicked(schema: Schema, user: int, item: int) -> list[Click]:
    rows = random_split(schema, 200)
    unseen = {schema.offsets[schema.field_of_slot[column]] for column in (user, item)}
    table = zip(rows.time.tolist(), rows.ids.tolist(), rows.label.tolist(), strict=True)
    return [(t, row[user], row[item]) for t, row, y in table if y and not {row[user], row[item]} & unseen]


def of(clicks: list[Click], who: int, which: int, before: int, n: int) -> list[Click]:
    """The last n clicks strictly before a time of a user (which = 1) or on an item (2), the latest first."""
    other = 3 - which
    past = [click for click in clicks if click[which] == who and click[0] < before]
    return sorted(past, key=lambda click: (click[0], click[other]), reverse=True)[:n]


def cosine(a: Vector, b: Vector) -> float:
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b)) if any(a) and any(b) else 0.0


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


class Naive:
    """One row at a time."""

    def __init__(self, model: DisenCTR, schema: Schema) -> None:
        self.model, self.clicks = model, clicked(schema, model.user, model.item)

    def e(self, node: int) -> Matrix:
        return self.model.embedding.table[node].view(K, D).tolist()

    def around(self, item: int, moment: int) -> Matrix:
        nodes, edges = [self.e(item)], []
        for t, user, _ in of(self.clicks, item, 2, moment, 2):
            edges.append((len(nodes), 0))
            at = len(nodes)
            nodes.append(self.e(user))
            for _, _, other in of(self.clicks, user, 1, t, 2):
                edges.append((len(nodes), at))
                nodes.append(self.e(other))
        return propagate(nodes, edges)[0]

    def context(self, weight: torch.Tensor, item: int, moment: int) -> Matrix:
        x = self.around(item, moment)
        return [
            [a + b for a, b in zip(times(weight, row), e, strict=True)]
            for row, e in zip(x, self.e(item), strict=True)
        ]

    def rate(self, table: str, node: int) -> float:
        layer = getattr(self.model, table)
        return softplus(layer.bias.item() + layer.table[node, 0].item())

    def logit(self, user: int, item: int, moment: int) -> float:
        span = max(t for t, _, _ in self.clicks) - min(t for t, _, _ in self.clicks) + 2
        a_u, a_v = self.e(user), self.context(self.model.w2.weight, item, moment)
        y = [cosine(a_u[k], a_v[k]) for k in range(K)]
        for t, _, h in of(self.clicks, user, 1, moment, 3):
            a_h = self.context(self.model.w1.weight, h, t)
            pi = softmax([cosine(a_h[k], a_u[k]) / self.rate("tau", h) for k in range(K)])
            decay = math.exp(-self.rate("delta", user) * (moment - t) / span)
            y = [y[k] + decay * cosine(a_h[k], a_v[k]) * pi[k] for k in range(K)]
        return self.model.scale.item() * mean(y) + self.model.bias.item()


def trained(schema: Schema) -> DisenCTR:
    model = build("disenctr", schema, CHOSEN, seed=1)
    assert isinstance(model, DisenCTR)
    prepare(model, random_split(schema, 200), random_split(schema, 200), fit)
    return exact(model)


@every_schema
def test_disenctr(schema: Schema) -> None:
    model, ids = trained(schema), random_ids(schema, 30)
    naive = Naive(model, schema)
    expected = [
        naive.logit(row[model.user], row[model.item], t)
        for row, t in zip(ids.tolist(), moments(ids).tolist(), strict=True)
    ]
    torch.testing.assert_close(model(ids, moments(ids)), torch.tensor(expected).double())


def test_the_noise_is_gumbels_and_there_in_training_only() -> None:
    """Gumbel noise and softmax at a low temperature pick intent k with probability softmax_k."""
    model, ids, rows = trained(SCHEMAS["no-bags"]), random_ids(SCHEMAS["no-bags"], 30), 20_000
    a_u, a_v = torch.randn(1, K, D).double(), torch.eye(K).double()[:, :2][None]
    a_h = torch.randn(1, 1, K, D).double()
    cos = torch.nn.functional.cosine_similarity
    weight = cos(a_h[:, 0], a_u, dim=-1).softmax(-1)
    expected = (cos(a_u, a_v, dim=-1) + weight * cos(a_h[:, 0], a_v, dim=-1)).mean()

    def mixed(noisy: bool) -> torch.Tensor:
        one = torch.ones(rows, 1).double()
        wide = (a_h.expand(rows, -1, -1, -1), a_u.expand(rows, -1, -1), a_v.expand(rows, -1, -1))
        return hawkes(*wide, 1e-3 * one, one, noisy=noisy)

    torch.manual_seed(1)
    assert mixed(noisy=False).unique().numel() == 1
    assert mixed(noisy=False)[0].item() != pytest.approx(expected.item(), abs=0.01), "the largest alone"
    assert mixed(noisy=True).mean().item() == pytest.approx(expected.item(), abs=0.01)
    assert torch.equal(model(ids, moments(ids)), model(ids, moments(ids)))
    model.train()
    assert not torch.equal(model(ids, moments(ids)), model(ids, moments(ids)))


def test_rates_start_at_one_and_stay_positive() -> None:
    model = build("disenctr", SCHEMAS["no-bags"], CHOSEN, seed=1)
    for layer in (model.delta, model.tau):
        start = torch.nn.functional.softplus(layer(torch.tensor([[1], [20]])))  # type: ignore[operator]
        assert start.tolist() == [pytest.approx(1.0)] * 2


def test_vectors_of_zeros_have_no_steep_gradient() -> None:
    """The cosine has no direction there: an unseen user must not outshout the rest of a batch."""
    schema = SCHEMAS["no-bags"]
    model = build("disenctr", schema, CHOSEN, seed=1)
    unseen = torch.tensor([list(schema.offsets)])
    model(unseen, torch.tensor([0])).sum().backward()
    assert all(p.grad.norm() < 1e3 for p in model.parameters() if p.grad is not None)
