"""Addresses of MLflow's page, in its mode for training models: its other one shows traces."""

from pathlib import Path

from pipeline.tracking.report import VIEW
from pipeline.tracking.store import Store, configure

MODE = "workflowType=machine_learning"


def page(root: Path, port: int) -> tuple[str, bool]:
    """Return where the page is, and whether a server has to be started for it on this port."""
    store = Store.of(root.resolve())
    return (f"http://127.0.0.1:{port}", True) if store.local else (store.uri.rstrip("/"), False)


def start_page(base: str) -> str:
    """Return the address of the list of experiments."""
    return f"{base}/#/experiments?{MODE}"


def leaderboards(root: Path, base: str) -> dict[str, str]:
    """Return the address of each dataset's saved view `Leaderboard`, or of its runs if it has no report yet.

    A view that is not there would lead to the page's other mode.
    """
    client = configure(root.resolve()).client
    found = client.search_experiments(filter_string="tags.`pipeline.dataset` != ''", order_by=["name ASC"])
    views = {each.name: "viewStateShareKey=leaderboard&" if VIEW in each.tags else "" for each in found}
    return {
        each.name: f"{base}/#/experiments/{each.experiment_id}/runs?{views[each.name]}{MODE}"
        for each in found
    }
