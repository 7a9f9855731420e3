"""MLflow, a view of the files in data/ that can be rebuilt at any time; only this package imports it.

A run is known by the tag `pipeline.key`, the key of its run.json. `live` shows a training while it goes
on, `publish` brings its run up to what the files say, `publish_report` does so for a dataset's report,
`sync` for all files, and it mends what a killed process or a moved checkout left behind. A run that holds
all there is has the tag `pipeline.complete`. Everything may be repeated; nothing is logged twice. MLflow's
page hides tags that begin with `mlflow.`; so ours that only keep the books do.

Where: `mlflow.db` and `mlruns/` in the project's root, which plain `mlflow ui` shows, unless
MLFLOW_TRACKING_URI names another place. CTR_TRACKING=off switches all of this off.

Importing this loads neither mlflow nor torch, and `sync` that finds nothing to do does not either.
"""

from pipeline.tracking.live import live
from pipeline.tracking.report import publish_report
from pipeline.tracking.runs import publish
from pipeline.tracking.store import configure, enabled
from pipeline.tracking.sync import sync

__all__ = ["configure", "enabled", "live", "publish", "publish_report", "sync"]
