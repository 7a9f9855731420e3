"""DisenCTR: a user's intents, disentangled on a graph of past clicks, and their decay over time.

Paper: Wang et al., "DisenCTR: Dynamic Graph-based Disentangled Representation for Click-Through Rate
Prediction", SIGIR 2022, https://doi.org/10.1145/3477495.3531851.

Equation: every user and item has K vectors of size D, one per intent. Two graph convolutions
(`layers/disentangle.py`) give x of a history item h and of the target v from their two-hop subgraphs;
a_h = W1 x_h + e_h, a_v = W2 x_v + e_v, a_u = e_u. A mixture of Hawkes processes,
y = mean_k [cos(a_u, a_v)_k + sum_h exp(-delta_u (t - t_h) / T) cos(a_h, a_v)_k pi_hk], with
pi_h = softmax_k((cos(a_h, a_u)_k + noise) / tau_h); logit = scale y + bias.

Shapes: ids (B, S) -> a_h (B, n, K, D), a_v and a_u (B, K, D) -> logit (B,).

Differs from the paper: an edge leads from a neighbour to its root and every node has a loop, as in the
authors' code. Histories and neighbours are the latest likes of the train split strictly before what they lead
to: the time of the row, of the history item, or of the next edge. That code draws neighbours at random from
all interactions up to a user's last three, anew for each batch. A subgraph is a tree, in which a user or item
that occurs twice is two nodes; there it is one graph for a whole history. `delta` is of the user and `tau` of
the item, kept positive by softplus (raw weights there). Gumbel noise is added in training only. There is no
dropout: it would change cosines. Scale and bias are added: y alone is no logit. The task is the
dataset's; the paper's is another one: likes of a user against items drawn at random that she never rated.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.data.batches import Batch
from pipeline.layers.columns import column_of
from pipeline.layers.disentangle import convolve, hawkes
from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.layers.mechanism import Mechanism
from pipeline.layers.memory import Memory, clicks
from pipeline.layers.mlp import dense
from pipeline.layers.neighbours import refuse_neighbours
from pipeline.layers.options import Count, NonNegative
from pipeline.schema import EMPTY, Schema


class DisenCTR(nn.Module):
    """Intents on a dynamic graph, and a mixture of Hawkes processes over them."""

    timed = True

    def __init__(
        self,
        schema: Schema,
        *,
        intents: Count = 4,
        intent_size: Count = 16,
        embedding_std: NonNegative = 0.1,
        history: Count = 20,
        neighbours: Count = 10,
        second_neighbours: Count = 5,
    ) -> None:
        refuse_neighbours(schema, "the model has no field vectors, and its graph has these pairs already")
        super().__init__()
        self.schema, self.intents, self.history = schema, intents, history
        self.neighbours, self.second_neighbours = neighbours, second_neighbours
        self.user, self.item = column_of(schema, "user"), column_of(schema, "item")
        self.by_user, self.by_item = Memory(), Memory()
        self.embedding = FieldEmbedding(schema, intents * intent_size, std=embedding_std)
        self.delta, self.tau = FieldLinear(schema), FieldLinear(schema)
        for layer in (self.delta, self.tau):  # whose softplus is 1
            nn.init.constant_(layer.bias, math.log(math.e - 1))
        self.q, self.q_loop = (Mechanism("routing", "uniform", axis=axis) for axis in (3, 2))
        self.pi = Mechanism("routing", "uniform", axis=2)
        self.w1, self.w2 = (dense(intent_size, intent_size, bias=False) for _ in range(2))
        self.scale, self.bias = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def prepare(self, rows: Batch, _train: Callable[[nn.Module], object]) -> None:
        """Store who clicked what, and when."""
        users, items, times = clicks(rows, self.schema, self.user, self.item)
        self.by_user.remember(users, items, times)
        self.by_item.remember(items, users, times)

    def embed(self, *nodes: Int[Tensor, "B ..."]) -> list[Float[Tensor, "B ... K D"]]:
        """Embed nodes of several shapes in one lookup."""
        flat = [node.flatten(1) for node in nodes]
        vectors = self.embedding.slots(torch.cat(flat, 1)).split([part.shape[1] for part in flat], 1)
        return [x.view(*node.shape, self.intents, -1) for x, node in zip(vectors, nodes, strict=True)]

    def forward(self, ids: Int[Tensor, "B S"], time: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        u, v, t = ids[:, [self.user]], ids[:, [self.item]], time.unsqueeze(1)
        h, t_h = (x.flatten(1) for x in self.by_user.recent(u, t, self.history))
        root, t_root = torch.cat([h, v], 1), torch.cat([t_h, t], 1)
        users, t_users = self.by_item.recent(root, t_root, self.neighbours)
        items, _ = self.by_user.recent(users, t_users, self.second_neighbours)
        a_u, e, e_users, e_items = self.embed(u, root, users, items)
        x = convolve(e, e_users, e_items, users != EMPTY, items != EMPTY, self.q, self.q_loop)
        a_h, a_v = self.w1(x[:, :-1]) + e[:, :-1], self.w2(x[:, -1]) + e[:, -1]
        delta = F.softplus(self.delta.of(u)).unsqueeze(1)
        tau = F.softplus(self.tau.of(h.view(-1, 1))).view_as(h)
        decay = torch.exp(-delta * (t - t_h) / self.by_user.span) * (h != EMPTY)
        y = hawkes(a_h, a_u.squeeze(1), a_v, tau, decay, noisy=self.training, route=self.pi)
        return self.scale * y + self.bias
