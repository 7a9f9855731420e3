"""-> data/runs/*/default: the loop (read `loop.py`); trainings are repeatable, resumable, cached."""
