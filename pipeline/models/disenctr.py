"""DisenCTR: a user's intents, told apart on a graph of who clicked what before, and how they fade.

Paper: Wang et al., "DisenCTR: Dynamic Graph-based Disentangled Representation for Click-Through Rate
Prediction", SIGIR 2022, https://doi.org/10.1145/3477495.3531851.

Equation: every user and item has K vectors of d numbers, one an intent. Two graph convolutions
(`layers/disentangle.py`) give x of a history item h and of the target v from their two-hop subgraphs;
a_h = W1 x_h + e_h, a_v = W2 x_v + e_v, a_u = e_u. Mixture of Hawkes:
y = mean_k [cos(a_u, a_v)_k + sum_h exp(-delta_u (t - t_h) / T) cos(a_h, a_v)_k pi_hk], with
pi_h = softmax_k((cos(a_h, a_u)_k + noise) / tau_h); logit = scale y + bias.

Shapes: ids (B, S) -> a_h (B, n, K, D), a_v and a_u (B, K, D) -> logit (B,).

Differs from the paper: it reads the user and the item of a row and no other field, as in the paper.
Histories and graph are the train part's positive rows, an edge always strictly earlier than what it
leads to: a history item's time, the row's, or the next edge's. So a subgraph is a tree, and users
or items in it twice are nodes of their own. The Gumbel noise of pi is there in training only; delta
and tau are kept positive by softplus. The scale and the bias are ours: y alone is no logit.
Dropout on the embeddings is an option.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.data.batches import Batch
from pipeline.layers.columns import column_of
from pipeline.layers.disentangle import convolve
from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.layers.memory import Memory, clicks
from pipeline.layers.mlp import dense
from pipeline.schema import EMPTY, Schema


class DisenCTR(nn.Module):
    """Intents on a dynamic graph, and a mixture of Hawkes processes over them."""

    timed = True

    def __init__(
        self,
        schema: Schema,
        *,
        intents: int = 4,
        intent_size: int = 16,
        embedding_std: float = 0.1,
        embedding_dropout: float = 0.0,
        user: str | None = None,
        item: str | None = None,
        history: int = 20,
        neighbours: int = 10,
        second_neighbours: int = 5,
    ) -> None:
        super().__init__()
        self.schema, self.intents, self.history = schema, intents, history
        self.neighbours, self.second_neighbours = neighbours, second_neighbours
        self.user, self.item = column_of(schema, user, "user"), column_of(schema, item, "item")
        self.by_user, self.by_item = Memory(), Memory()
        self.embedding = FieldEmbedding(
            schema, intents * intent_size, dropout=embedding_dropout, std=embedding_std
        )
        self.delta, self.tau = FieldLinear(schema), FieldLinear(schema)
        for layer in (self.delta, self.tau):  # softplus of it is 1
            nn.init.constant_(layer.bias, math.log(math.e - 1))
        self.w1, self.w2 = (dense(intent_size, intent_size, bias=False) for _ in range(2))
        self.scale, self.bias = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def prepare(self, rows: Batch, _train: Callable[[nn.Module], object]) -> None:
        """Remember who clicked what, and when."""
        users, items, times = clicks(rows, self.schema, self.user, self.item)
        self.by_user.remember(users, items, times)
        self.by_item.remember(items, users, times)

    def embed(self, *nodes: Int[Tensor, "B ..."]) -> list[Float[Tensor, "B ... K D"]]:
        """Embed nodes of several shapes in one lookup."""
        flat = [node.flatten(1) for node in nodes]
        vectors = self.embedding.slots(torch.cat(flat, 1)).split([part.shape[1] for part in flat], 1)
        return [x.view(*node.shape, self.intents, -1) for x, node in zip(vectors, nodes, strict=True)]

    def hawkes(
        self,
        a_h: Float[Tensor, "B n K D"],
        a_u: Float[Tensor, "B K D"],
        a_v: Float[Tensor, "B K D"],
        tau: Float[Tensor, "B n"],
        decay: Float[Tensor, "B n"],
    ) -> Float[Tensor, " B"]:
        """Mean over the intents of the base rate and of what each event adds to it."""
        a_h, a_u, a_v = (F.normalize(a, dim=-1, eps=1e-3) for a in (a_h, a_u, a_v))
        closeness = torch.einsum("bnkd,bkd->bnk", a_h, a_u)
        if self.training:
            closeness = closeness - torch.empty_like(closeness).exponential_().log()  # Gumbel noise
        pi = (closeness / tau.unsqueeze(2)).softmax(2)
        gained = torch.einsum("bn,bnkd,bkd,bnk->bk", decay, a_h, a_v, pi)
        return ((a_u * a_v).sum(2) + gained).mean(1)

    def forward(self, ids: Int[Tensor, "B S"], time: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        u, v, t = ids[:, [self.user]], ids[:, [self.item]], time.unsqueeze(1)
        h, t_h = (x.flatten(1) for x in self.by_user.recent(u, t, self.history))
        root, t_root = torch.cat([h, v], 1), torch.cat([t_h, t], 1)
        users, t_users = self.by_item.recent(root, t_root, self.neighbours)
        items, _ = self.by_user.recent(users, t_users, self.second_neighbours)
        a_u, e, e_users, e_items = self.embed(u, root, users, items)
        x = convolve(e, e_users, e_items, users != EMPTY, items != EMPTY)
        a_h, a_v = self.w1(x[:, :-1]) + e[:, :-1], self.w2(x[:, -1]) + e[:, -1]
        delta = F.softplus(self.delta(u)).unsqueeze(1)
        tau = F.softplus(self.tau(h.view(-1, 1))).view_as(h)
        decay = torch.exp(-delta * (t - t_h) / self.by_user.span) * (h != EMPTY)
        return self.scale * self.hawkes(a_h, a_u.squeeze(1), a_v, tau, decay) + self.bias
