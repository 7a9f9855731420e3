"""MLflow as a view of the files in data/, which can be rebuilt at any time; only this package imports mlflow.

The tag `pipeline.key` is the key of a run's run.json. `live` shows a training while it runs, `publish`
completes its run from the files, `publish_report` does the same for a dataset's report, and `sync` for all
files; `sync` also repairs what a killed process or a moved checkout left behind. A complete run has the tag
`pipeline.complete`. Everything may be repeated; nothing is logged twice. MLflow's page hides tags that begin
with `mlflow.`, so those that are bookkeeping do.

The database is `mlflow.db` with the artifacts in `mlruns/` in the project's root, where plain `mlflow ui`
finds them, unless MLFLOW_TRACKING_URI names another store. CTR_TRACKING=off turns tracking off.

Importing this package loads neither mlflow nor torch, nor does a `sync` that finds nothing to do.
"""

from pipeline.tracking.addresses import page, saved_views, start_page
from pipeline.tracking.live import live
from pipeline.tracking.report import publish_report
from pipeline.tracking.runs import publish
from pipeline.tracking.store import configure, enabled
from pipeline.tracking.sync import sync

__all__ = [
    "configure",
    "enabled",
    "live",
    "page",
    "publish",
    "publish_report",
    "saved_views",
    "start_page",
    "sync",
]
