"""Second-order interactions over all pairs."""

from jaxtyping import Float
from torch import Tensor


def bi_interaction(e: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
    """Sum of e_i * e_j over all pairs i < j, as 0.5 [(sum e)^2 - sum e^2].

    Source: He and Chua, "Neural Factorization Machines", SIGIR 2017, eq. 4; summed over D it is
    the pairwise term of Rendle, "Factorization Machines", ICDM 2010, lemma 3.1.
    """
    return 0.5 * (e.sum(1).square() - e.square().sum(1))
