"""The rule for every name that becomes a path, a DVC target, a word of a command or a name in MLflow."""

import re
from collections.abc import Iterable

from pipeline.common.errors import PipelineError

LONGEST = 64  # two of them and two digests make the name of a file, which has at most 255 bytes
RULE = f"a name has at most {LONGEST} letters (A to Z), digits, - and _, and begins with a letter or digit"


def is_name(value: object) -> bool:
    """Whether a value follows the rule.

    >>> [is_name(name) for name in ("my-clicks_2", "-x", "a.b", "../docs", "a;b", "käufe", "", 7)]
    [True, False, False, False, False, False, False, False]
    """
    return isinstance(value, str) and bool(
        re.fullmatch(f"[A-Za-z0-9][A-Za-z0-9_-]{{0,{LONGEST - 1}}}", value)
    )


def check(kind: str, name: object) -> str:
    """Return a name that follows the rule.

    Raises:
        PipelineError: it does not.
    """
    if not is_name(name):
        raise PipelineError(f"the {kind} {name!r}: {RULE}; rename it")
    return str(name)


def check_targets(datasets: Iterable[object], models: Iterable[object]) -> None:
    """Check names, and that no two of them, or pairs, make one target, or one folder where case is ignored.

    Raises:
        PipelineError: a name breaks the rule, or DVC would run only one of two pairs.
    """
    of_datasets = [check("dataset", dataset) for dataset in datasets]
    of_models = [check("model", model) for model in models]
    pairs = {(dataset, model): f"{dataset}-{model}" for dataset in of_datasets for model in of_models}
    for targets in ({(name,): name for name in of_datasets}, {(name,): name for name in of_models}, pairs):
        seen = dict[str, tuple[str, ...]]()
        for names, target in targets.items():
            other = seen.setdefault(target.lower(), names)
            if other != names:
                told = " and ".join(" with ".join(map(repr, each)) for each in (other, names))
                raise PipelineError(f"{told} have the same name in DVC or on disk, {target!r}: rename one")


def stem(split: str) -> str:
    """Return the name of a log from that of an entry with one of its splits.

    >>> stem("movielens-100k-s1"), stem("movielens-1m")
    ('movielens-100k', 'movielens-1m')
    """
    return re.sub("-s?[0-9]+$", "", split)
