"""Disentangled intents: a graph convolution that routes each edge to them, and how they decay.

Source of both: Wang et al., "DisenCTR", SIGIR 2022, https://doi.org/10.1145/3477495.3531851.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

Route = Callable[..., Tensor]  # a `layers.mechanism.Mechanism`: weights, which of them are used


def _as_it_is(weights: Tensor, _used: Tensor | None = None) -> Tensor:
    return weights


def convolve(
    item: Float[Tensor, "B R K D"],
    users: Float[Tensor, "B R N K D"],
    items: Float[Tensor, "B R N M K D"],
    has_user: Bool[Tensor, "B R N"],
    has_item: Bool[Tensor, "B R N M"],
    route: Route = _as_it_is,
    route_loop: Route = _as_it_is,
) -> Float[Tensor, "B R K D"]:
    """Return an item's representation after two convolutions over its two-hop subgraph, intent by intent.

    A layer is x_k <- (A * q_k) x_k over the edges from each neighbour to its root and from every node to
    itself, with q = softmax_k(s), s = 1 at first and A = 1 / sqrt(in-degree of source * in-degree of target);
    after it s_k <- s_k + sum_d x_source,k tanh(x_target,k). The subgraph is a tree: N users who clicked the
    item, M items that each of those clicked. Only what reaches the item is computed: nothing of the leaves.

    Args:
        item: its embedding, K intents of size D; B rows with R items each.
        users: those of the users who clicked it.
        items: those of the items that these users clicked.
        has_user: which users exist; the others are zero vectors.
        has_item: which items exist.
        route: the second layer's q of the edges passes through it, (B, R, N, K, 1).
        route_loop: and that of the loop, (B, R, K, 1).
    """
    degree, user_degree = 1 + has_user.sum(2, keepdim=True).to(item), 1 + has_item.sum(3).to(item)
    loop, user_loop = (1 / d[..., None, None] for d in (degree.squeeze(2), user_degree))
    near = (has_user / (degree * user_degree).sqrt())[..., None, None]
    far = (has_item / user_degree.sqrt().unsqueeze(3))[..., None, None]
    q = 1 / item.shape[2]
    item_1 = q * (loop * item + (near * users).sum(2))
    users_1 = q * (user_loop * users + (far * items).sum(3))
    root = item_1.tanh()
    q_loop = route_loop((item_1 * root).sum(3, keepdim=True).softmax(2))
    q_near = (users_1 * root.unsqueeze(2)).sum(4, keepdim=True).softmax(3)
    q_near = route(q_near, has_user[..., None, None].expand_as(q_near))
    return loop * q_loop * item_1 + (near * q_near * users_1).sum(2)


def hawkes(
    a_h: Float[Tensor, "B n K D"],
    a_u: Float[Tensor, "B K D"],
    a_v: Float[Tensor, "B K D"],
    tau: Float[Tensor, "B n"],
    decay: Float[Tensor, "B n"],
    *,
    noisy: bool,
    route: Route = _as_it_is,
) -> Float[Tensor, " B"]:
    """Mixture of Hawkes: mean_k [cos(a_u, a_v)_k + sum_h decay_h cos(a_h, a_v)_k pi_hk].

    pi_h = softmax_k((cos(a_h, a_u)_k + noise) / tau_h) is the intent that event h belongs to.

    Args:
        a_h: the n events of a history.
        a_u: the user.
        a_v: the target item.
        tau: temperature of each event.
        decay: what is left of each event's effect; 0 for places without an event.
        noisy: add Gumbel noise, as in training.
        route: pi passes through it, (B, n, K).
    """
    a_h, a_u, a_v = (F.normalize(a, dim=-1, eps=1e-3) for a in (a_h, a_u, a_v))
    closeness = torch.einsum("bnkd,bkd->bnk", a_h, a_u)
    if noisy:
        closeness = closeness - torch.empty_like(closeness).exponential_().log()
    pi = route((closeness / tau.unsqueeze(2)).softmax(2), (decay > 0).unsqueeze(2).expand_as(closeness))
    gained = torch.einsum("bn,bnkd,bkd,bnk->bk", decay, a_h, a_v, pi)
    return ((a_u * a_v).sum(2) + gained).mean(1)
