"""The tables and figures of the two papers, each as a target that trains what it shows.

`exhibits.py` has all of them by name, `experiment.py` trains, `report.py` and `pictures.py` show.
"""
