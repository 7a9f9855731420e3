"""Second-order interactions over all pairs."""

from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.layers.accelerated import accelerated


@accelerated("pairs")
def bi_interaction(e: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
    """Sum of e_i * e_j over all pairs i < j, as 0.5 [(sum e)^2 - sum e^2].

    Source: He and Chua, "Neural Factorization Machines", SIGIR 2017, eq. 4; summed over D it is
    the pairwise term of Rendle, "Factorization Machines", ICDM 2010, lemma 3.1.
    """
    return 0.5 * (e.sum(1).square() - e.square().sum(1))


class Pairs(nn.Module):
    """The pairs i < j of some fields, each on its own, in the order of `itertools.combinations`.

    That is (0, 1), (0, 2), ..., (1, 2), ...; P = F (F - 1) / 2 of them, none for a single field.

    Args:
        fields: F.

    Attributes:
        count: P.
        first: i of each pair (P,).
        second: j of each pair (P,).
        upper: i * F + j of each pair (P,), its place in a flattened (F, F).
    """

    first: Tensor
    second: Tensor
    upper: Tensor

    def __init__(self, fields: int) -> None:
        super().__init__()
        pairs = torch.tensor(list(combinations(range(fields), 2)), dtype=torch.long).reshape(-1, 2)
        first, second = pairs[:, 0].contiguous(), pairs[:, 1].contiguous()
        self.count = len(pairs)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("second", second, persistent=False)
        self.register_buffer("upper", first * fields + second, persistent=False)

    def inner(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B P"]:
        """<e_i, e_j> of every pair: the upper triangle of e e^T."""
        return (e @ e.transpose(1, 2)).flatten(1).index_select(1, self.upper)

    def hadamard(self, e: Float[Tensor, "B F D"]) -> Float[Tensor, "B P D"]:
        """e_i * e_j of every pair."""
        return e.index_select(1, self.first) * e.index_select(1, self.second)
