"""Graph convolution that routes each edge to the intents it stands for."""

from jaxtyping import Bool, Float
from torch import Tensor


def convolve(
    item: Float[Tensor, "B R K D"],
    users: Float[Tensor, "B R N K D"],
    items: Float[Tensor, "B R N M K D"],
    has_user: Bool[Tensor, "B R N"],
    has_item: Bool[Tensor, "B R N M"],
) -> Float[Tensor, "B R K D"]:
    """Carry two hops of neighbours, intent by intent, to an item: the representation after two layers.

    Source: DisenCTR, https://doi.org/10.1145/3477495.3531851. A layer is x_k <- (A * q_k) x_k over the
    edges in both directions, with A = 1 / sqrt(degree of source * degree of target), q = softmax_k(s)
    and s = 1 at first; after it s_k <- s_k + sum_d x_source,k tanh(x_target,k). The subgraph is a tree:
    the item, N users who clicked it, M items that each of those clicked. Only what reaches the item is
    computed, so of the first layer what the items in the last place become is left out.

    Args:
        item, users, items: embeddings, K intents of D numbers each.
        has_user, has_item: which of the users and items are there; the others are zero vectors.
    """
    degree, user_degree = has_user.sum(2, keepdim=True).to(item), 1 + has_item.sum(3).to(item)
    near = (has_user / (degree * user_degree).sqrt().clamp(min=1))[..., None, None]
    far = (has_item / user_degree.sqrt().unsqueeze(3))[..., None, None]
    q = 1 / item.shape[2]
    item_1 = q * (near * users).sum(2)
    users_1 = q * (near * item.unsqueeze(2) + (far * items).sum(3))
    s = (users_1 * item_1.unsqueeze(2).tanh()).sum(4, keepdim=True)
    return (near * s.softmax(3) * users_1).sum(2)
