"""Gradient-boosted trees, grown by LightGBM and evaluated as tensors."""

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

    With one thread and a fixed order of sums, the same rows give the same trees.
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
    """The leaf of each tree that a row falls into.

    Shapes: numbers (B, C) in float64 -> (T, L, B), true where row b is in leaf l of tree t.

    A row goes left at a split if x[feature] <= threshold. A leaf's path has +1 for each split above it whose
    left side it is on, and -1 for each whose right side. Summed over the splits where a row goes left, the
    path of the row's own leaf gives its number of +1, and that of any other leaf less: one matrix product
    (Nakandala et al., "Hummingbird", OSDI 2020, https://arxiv.org/abs/2010.04804, GEMM strategy).

    Args:
        trees: T; trees that were not grown have no leaves.
        leaves: L, the largest number of leaves of a tree.
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

    def load_booster(self, booster: "Booster") -> None:
        """Replace the trees by those of a booster."""
        device = self.path.device
        fresh = Forest(len(self.path), self.path.shape[1])
        for tree, found in enumerate(booster.dump_model()["tree_info"]):
            fresh._add(tree, found["tree_structure"], [])
        self.load_state_dict(fresh.to(device).state_dict())

    def _add(self, tree: int, node: dict[str, Any], above: list[tuple[int, int]]) -> None:
        """Add a node and its descendants; `above` has (split, side) of its ancestors."""
        if "split_index" not in node:
            leaf = node.get("leaf_index", 0)  # a tree of a single leaf does not number it
            for split, side in above:
                self.path[tree, leaf, split] = side
            self.lefts[tree, leaf] = sum(side > 0 for _, side in above)
            return
        split = node["split_index"]
        self.feature[tree, split] = node["split_feature"]
        self.threshold[tree, split] = node["threshold"]
        self._add(tree, node["left_child"], [*above, (split, 1)])
        self._add(tree, node["right_child"], [*above, (split, -1)])

    def forward(self, numbers: Float64[Tensor, "B C"]) -> Bool[Tensor, "T L B"]:
        left = numbers.T[self.feature] <= self.threshold.unsqueeze(2)
        return self.path @ left.to(self.path.dtype) == self.lefts
