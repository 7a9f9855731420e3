"""How much a log looks like a real one: click rate, tails, cold ids, drift, positions.

    python -m benchmarks.log_shapes feed synthetic movielens-1m ...

of entries whose preprocess stage has run. Beside them stands what is published of logs that are not at hand:
Avazu and Criteo as counted by Zhu et al., "BARS-CTR: Open Benchmarking for Click-Through Rate Prediction",
CIKM 2021; KuaiRec by Gao et al., "KuaiRec: A Fully-observed Dataset and Insights for Evaluating Recommender
Systems", CIKM 2022.
"""

import json
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

PUBLISHED = {
    "Avazu": {"rows": "40,428,967", "clicks": "17.0 %"},
    "Criteo": {"rows": "45,840,617", "clicks": "25.6 %"},
    "KuaiRec-big, ratio > 3": {
        "rows": "12,530,806",
        "users": "7,176",
        "items": "10,728",
        "clicks": "3 %",
    },
}
COLUMNS = ("rows", "users", "items", "clicks", "median rows a user", "median rows an item",
           "items with < 20 rows", "new users", "new items", "daily click rate")  # fmt: skip


def shape(folder: Path) -> dict[str, str]:
    """Return what a clean table looks like; new ids are of the last fifth, as shares of its rows."""
    of = json.loads((folder / "columns.json").read_text())
    roles = {c["role"]: c["name"] for c in of if c.get("role")}
    table = pq.read_table(folder / "table.parquet")
    label = table["label"].to_numpy().astype(float)
    found = {"rows": f"{len(table):,}", "clicks": f"{100 * label.mean():.1f} %"}
    order = np.arange(len(table))
    if "time" in table.column_names:
        time = table["time"].to_numpy()
        order = np.argsort(time, kind="stable")
        found["daily click rate"] = _rates(time // 86400, label)
    for role, name in roles.items():
        _, code, count = np.unique(
            table[name].to_numpy().astype(str), return_inverse=True, return_counts=True
        )
        code, first = code[order], 4 * len(table) // 5
        found[f"{role}s"] = f"{len(count):,}"
        found[f"median rows {'an' if role == 'item' else 'a'} {role}"] = f"{np.median(count):.0f}"
        if role == "item":
            found["items with < 20 rows"] = f"{100 * (count < 20).mean():.0f} %"
        if "time" in table.column_names:
            found[f"new {role}s"] = f"{100 * (~np.isin(code[first:], code[:first])).mean():.0f} %"
    return found


def _rates(day: NDArray[np.int64], label: NDArray[np.float64]) -> str:
    """Return the tenth and ninetieth percentile of the click rates of days with at least 100 rows."""
    _, code, count = np.unique(day, return_inverse=True, return_counts=True)
    rate = (np.bincount(code, label) / count)[count >= 100]
    return "{:.1f} to {:.1f} %".format(*(100 * np.quantile(rate, [0.1, 0.9]))) if len(rate) > 1 else ""


def main() -> None:
    """Print a Markdown table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="+")
    names = parser.parse_args().datasets
    rows = {name: shape(Path("data/interim", name)) for name in names} | PUBLISHED
    print(f"| log | {' | '.join(COLUMNS)} |\n|---|{'---:|' * len(COLUMNS)}")
    for name, found in rows.items():
        print(f"| {name} | {' | '.join(found.get(column, '') for column in COLUMNS)} |")


if __name__ == "__main__":
    main()
