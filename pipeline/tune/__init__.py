"""-> data/runs/*/tuned: the hyper-parameter search."""
