"""What the commands of `ctr` do beyond one call of the library; `pipeline/__main__.py` has their options."""

__version__ = "0.2.0"  # not in pipeline/__init__.py, which every stage depends on
