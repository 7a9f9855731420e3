"""What a trained model has learnt: which fields it lives by, which pairs, and what a row's logit is made of.

    from pipeline.explain import effects, importance, pairs
    from pipeline.scoring import load

    model = load("champion")
    rows = model.rows(frame, frame["click"])  # raw rows that training did not see, and their labels
    importance(model.network, rows)

Any network of `pipeline.models` will do, with any encoded rows (`data.batches.Split`).
"""

from pipeline.explain.fields import importance
from pipeline.explain.pairs import pairs
from pipeline.explain.row import effects

__all__ = ["effects", "importance", "pairs"]
