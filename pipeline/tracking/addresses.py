"""Addresses of MLflow's page, in its mode for training models: its other one shows traces."""

from pathlib import Path

from pipeline.tracking.report import MODE
from pipeline.tracking.store import Store, configure
from pipeline.tracking.views import CHARTS, TAG


def page(root: Path, port: int) -> tuple[str, bool]:
    """Return where the page is, and whether a server has to be started for it on this port."""
    store = Store.of(root.resolve())
    return (f"http://127.0.0.1:{port}", True) if store.local else (store.uri.rstrip("/"), False)


def start_page(base: str) -> str:
    """Return the address of the list of experiments."""
    return f"{base}/#/experiments?{MODE}"


def saved_views(root: Path, base: str) -> dict[str, str]:
    """Return the address of each dataset's saved views, or of its runs if it has no report yet.

    The keys are `<dataset>: <view>`. A view that is not there would lead to the page's other mode.
    """
    client = configure(root.resolve()).client
    found = client.search_experiments(filter_string="tags.`pipeline.dataset` != ''", order_by=["name ASC"])
    addresses = {}
    for each in found:
        runs = f"{base}/#/experiments/{each.experiment_id}/runs?"
        names = [tag.removeprefix(TAG) for tag in each.tags if tag.startswith(TAG)]
        for name in sorted(names, key=lambda name: (name in CHARTS, name)):
            charts = "compareRunsMode=CHART&" if name in CHARTS else ""
            addresses[f"{each.name}: {name}"] = f"{runs}viewStateShareKey={name}&{charts}{MODE}"
        if not names:
            addresses[f"{each.name}: runs"] = f"{runs}{MODE}"
    return addresses
