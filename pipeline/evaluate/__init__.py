"""-> data/predictions, data/reports: the test split, once; figures, leaderboard, plots."""
