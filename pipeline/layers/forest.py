"""Gradient-boosted trees, grown by LightGBM and read as tensors."""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from pipeline.layers.prepared import Prepared

if TYPE_CHECKING:
    from lightgbm import Booster


def boost(
    numbers: Float64[Tensor, "N C"], label: Float[Tensor, " N"], *, trees: int, leaves: int, lr: float
) -> "Booster":
    """Grow a forest for the logloss (Friedman, 2001; Ke et al., "LightGBM", NeurIPS 2017).

    One thread and a fixed way to count: the same rows give the same trees.
    """
    import lightgbm

    options = {
        "objective": "binary",
        "num_leaves": leaves,
        "learning_rate": lr,
        "seed": int(torch.randint(2**31 - 1, ())),
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(numbers.cpu().numpy(), label.cpu().numpy())
    return lightgbm.train(options, data, num_boost_round=trees)


class Forest(Prepared):
    """In which leaf of each tree a row ends.

    Shapes: numbers (B, C) in float64 -> (T, L, B), true where row b is in leaf l of tree t.

    A split sends a row to the left where x[feature] <= threshold. A leaf's path has +1 for each split
    that it lies to the left of and -1 for each to the right; the sum over the splits that send a row left
    is the number of +1 for the leaf that the row ends in, and less for all others. That is one product of
    matrices (Nakandala et al., "Hummingbird", OSDI 2020, https://arxiv.org/abs/2010.04804, GEMM strategy).

    Args:
        trees: T; those that were not grown have no leaves.
        leaves: L, at most so many a tree.
    """

    feature: Tensor
    threshold: Tensor
    path: Tensor
    lefts: Tensor

    def __init__(self, trees: int, leaves: int) -> None:
        super().__init__()
        splits = leaves - 1
        self.register_buffer("feature", torch.zeros(trees, splits, dtype=torch.long))
        self.register_buffer("threshold", torch.zeros(trees, splits, dtype=torch.float64))
        self.register_buffer("path", torch.zeros(trees, leaves, splits))
        self.register_buffer("lefts", torch.full((trees, leaves, 1), -1.0))

    def take(self, booster: "Booster") -> None:
        """Become the trees of a booster."""
        device = self.path.device
        fresh = Forest(len(self.path), self.path.shape[1])
        for tree, found in enumerate(booster.dump_model()["tree_info"]):
            fresh.place(tree, found["tree_structure"], [])
        self.load_state_dict(fresh.to(device).state_dict())

    def place(self, tree: int, node: dict[str, Any], way: list[tuple[int, int]]) -> None:
        """Write down a node and all below it; `way` holds (split, side) of those above."""
        if "split_index" not in node:
            leaf = node.get("leaf_index", 0)  # a tree that is one leaf does not number it
            for split, side in way:
                self.path[tree, leaf, split] = side
            self.lefts[tree, leaf] = sum(side > 0 for _, side in way)
            return
        split = node["split_index"]
        self.feature[tree, split] = node["split_feature"]
        self.threshold[tree, split] = node["threshold"]
        self.place(tree, node["left_child"], [*way, (split, 1)])
        self.place(tree, node["right_child"], [*way, (split, -1)])

    def forward(self, numbers: Float64[Tensor, "B C"]) -> Bool[Tensor, "T L B"]:
        left = numbers.T[self.feature] <= self.threshold.unsqueeze(2)
        return self.path @ left.to(self.path.dtype) == self.lefts
