"""Losses on several logits of a row: what a model's paper trains with instead of the logloss of one.

Each takes the logits (H, B) of a model's heads and the labels, and returns the loss and the logit that
all heads make together. L is the mean logloss.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as logloss
from torch.nn.functional import logsigmoid

Heads = Float[Tensor, "H B"]
Label = Float[Tensor, " B"]
Loss = tuple[Float[Tensor, ""], Float[Tensor, " B"]]


def of_mean(heads: Heads, label: Label) -> Loss:
    """L(mean_h z_h, y): the heads are trained together alone."""
    logit = heads.mean(0)
    return logloss(logit, label), logit


def tri_bce(heads: Heads, label: Label) -> Loss:
    """L + sum_h w_h L_h, w_h = max(0, L_h - L), with L of the mean of the logits and L_h of each.

    A head learns from the labels by itself, the more the further it is behind. As in the authors' code, the
    gradient goes through the weights, too.

    Source: Li et al., "FCN", 2024, https://arxiv.org/abs/2407.13349.
    """
    loss, logit = of_mean(heads, label)
    own = [logloss(head, label) for head in heads]
    return torch.stack([loss, *(torch.relu(one - loss) * one for one in own)]).sum(), logit


def self_distillation(heads: Heads, label: Label) -> Loss:
    """L(p, y) + sum_h L(p_h, p), p that of the mean logit and constant in the second term.

    What the heads say together learns from the labels and teaches each of them.

    Source: Zhu et al., "FINAL", SIGIR 2023, https://doi.org/10.1145/3539618.3591988.
    """
    return taught_by(heads.mean(0), heads, label)


def self_ensemble(heads: Heads, label: Label) -> Loss:
    """The same with p = mean_h p_h, the mean of the probabilities.

    Source: Li et al., KDD 2025, https://arxiv.org/abs/2505.17999.
    """
    return taught_by(logsigmoid(heads).logsumexp(0) - logsigmoid(-heads).logsumexp(0), heads, label)


def taught_by(logit: Label, heads: Heads, label: Label) -> Loss:
    """L(p, y) + sum_h L(p_h, p) with p = sigmoid(logit)."""
    p = logit.detach().sigmoid()
    return torch.stack([logloss(logit, label), *(logloss(head, p) for head in heads)]).sum(), logit
