"""Click-through-rate prediction from a raw click log to an honest leaderboard.

The package is a library: it knows no stage, no command line and (outside `tracking/` and
`tuning.py`) no experiment tool. Integers come in, one logit comes out.
"""
