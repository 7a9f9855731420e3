"""-> data/runs/*/default: the loop (read `loop.py`); what makes trainings repeatable, resumable, cached."""
