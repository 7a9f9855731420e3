"""Click-through-rate prediction from a raw click log to an honest leaderboard.

A library that knows no stage and, outside `tracking/` and `tune/`, no experiment tool. docs/code.md lists its
rooms.
"""
