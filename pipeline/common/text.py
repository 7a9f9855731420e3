"""Words for messages."""

import re
from collections.abc import Iterable, Mapping
from typing import Any


def counted(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural.

    >>> counted(1, "run"), counted(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def listed(names: Iterable[str], most: int = 5) -> str:
    """Return the first names of a list, and how many there are beside them.

    >>> listed(["a", "b"]), listed(["a", "b", "c", "d"], most=3)
    ('a, b', 'a, b, c and 1 more')
    """
    every = list(names)
    more = len(every) - most
    return ", ".join(every[:most]) + (f" and {more:,} more" if more > 0 else "")


def with_error(difference: float, error: float | None) -> str:
    """Return a difference of AUCs or loglosses with its standard error, where that is known.

    >>> with_error(0.00421, 0.0018), with_error(-0.0005, None)
    ('+0.0042 ± 0.0018', '-0.0005')
    """
    return f"{difference:+.4f}" + ("" if error is None else f" ± {error:.4f}")


def with_interval(test: Mapping[str, Any]) -> str:
    """Return a difference of AUCs with its interval.

    Args:
        test: with `difference`, `low` and `high`, as `statistics.significance.compare` returns it.

    >>> with_interval({"difference": 0.00421, "low": -0.0018, "high": 0.0102, "p": 0.2})
    '+0.0042 [-0.0018, +0.0102]'
    """
    return "{difference:+.4f} [{low:+.4f}, {high:+.4f}]".format(**test)


def without_secrets(text: str) -> str:
    """Return a text without the passwords and keys of the addresses in it.

    >>> without_secrets("cannot fetch https://me:pass@host/a.zip?token=1&part=2")
    'cannot fetch https://***@host/a.zip?token=***&part=2'
    >>> without_secrets("postgresql://me:pa/ss@host/studies, https://host:80/a@b")
    'postgresql://***@host/studies, https://host:80/a@b'
    """
    # a password may hold a slash; what begins with digits and a slash is a port
    text = re.sub(r"(\w://)(?:[^\s/]*|[^\s/:@]*:(?!\d+/)[^\s@]*)@", r"\1***@", text)
    return re.sub(r"(?i)([?&][\w-]*(?:token|key|secret|sig|signature|password)=)[^&\s]+", r"\1***", text)
