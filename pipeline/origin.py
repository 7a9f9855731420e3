"""Where the data of a dataset come from, and whether they are what the publisher offers."""

from typing import Any

Block = dict[str, Any]


def origin(manifest: Block) -> Block:
    """Return what of a raw folder's manifest goes along with the data.

    The source; whether all files are as the publisher has them, None where nobody can tell; and the names
    of those that are not (`differs`) or are not there (`missing`).
    """
    files = manifest["files"].items()
    return {
        "source": manifest["source"],
        "matches_publisher": manifest["matches_publisher"],
        "differs": [name for name, entry in files if entry.get("matches_publisher") is False],
        "missing": manifest["missing"],
    }


def not_the_publishers(found: Block) -> str:
    """Say what of an `origin` is not as the publisher has it; empty if all is, or nobody can tell.

    >>> not_the_publishers({"differs": ["a.csv", "b.csv"], "missing": ["c.csv"]})
    'other bytes in a.csv, b.csv; without c.csv'
    """
    said = {"other bytes in": found["differs"], "without": found["missing"]}
    return "; ".join(f"{words} {', '.join(names)}" for words, names in said.items() if names)
