"""Take part in a search that another process, perhaps on another machine, ends."""

import os
from pathlib import Path

from pipeline.common.errors import PipelineError
from pipeline.config import params
from pipeline.train.runs import Resources
from pipeline.tune import shared, study


def join(root: Path, dataset: str, model: str) -> None:
    """Train trials of a search on the server of studies until all are finished.

    Args:
        root: folder of the project, with the encoded rows.

    Raises:
        PipelineError: no server is set, it cannot be used, the rows are not there, or tables are sharded.
    """
    os.chdir(root)  # trainings and checkpoints lie in the project's folder
    file = params.load()
    config = file.config(dataset, model)
    config.train.require_whole_tables("a search")
    server = shared.server_of(file.studies)
    if server is None:
        raise PipelineError("no server of studies: set `studies` in params.yaml, or CTR_STUDIES")
    processed, train = Path("data/processed", dataset), config.train
    resources = Resources(processed, train.device, train.threads, train.rows_in_memory)
    splits = resources.load()
    header = study.describe(dataset, model, config, splits, processed)
    study.join(header, config, splits, server)
