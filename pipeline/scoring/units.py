"""Times that were written in another unit: years before others, and beside them when multiplied."""

YEAR = 365.25 * 86400
APART = 5 * YEAR  # seconds: a log that is older than that against another is not compared with it by a model
FACTORS = (10**3, 10**6, 10**9)  # between seconds, milliseconds, microseconds and nanoseconds


def factor(first: int, last: int, since: int, until: int) -> int | None:
    """Return by what times are to be multiplied to lie beside others; None if nothing brings them there.

    Args:
        first, last: the ends of the times, in whole seconds: what is multiplied may be up to one more.
        since, until: of the others.

    >>> factor(1_700_000, 1_700_009, 1_699_000_000, 1_701_000_000)
    1000
    """
    for each in FACTORS:
        if since - APART - each <= each * first and each * last <= until + APART:
            return each
    return None
