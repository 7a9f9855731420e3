"""Times of a copy that is not the publisher's: what reads them is refused, unless the entry asks for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import project
import pytest

from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json, seal, write_json
from pipeline.data.storage import has_column, read_schema
from pipeline.train.runs import RunHeader

pytestmark = pytest.mark.slow

Run = Callable[..., Path]


def copy(folder: Path, run: Run, **preprocess: Any) -> Path:
    """Download a log, and let its manifest say that its times are not the publisher's."""
    values = project.own_params()
    values["data"][project.DATASET]["preprocess"] = preprocess
    values["data"][project.DATASET]["split"] = {"method": "time"}
    values["data"][project.DATASET]["download"]["rows"] = 600
    project.make_project(folder, data=values["data"])
    path = run(folder, project.DATASET, "download") / f"raw/{project.DATASET}/manifest.json"
    write_json(path, {**read_json(path), "doubtful_times": ["clicks.csv"]})
    seal(path.parent)
    run(folder, project.DATASET, "preprocess")
    return folder


def test_a_split_by_time_and_a_model_that_reads_times_are_refused_with_the_cure(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy(tmp_path, run)
    why = "clicks.csv is not the publisher's file, so its times may be imputed"
    assert why in capsys.readouterr().out
    with pytest.raises(
        PipelineError, match=f"synthetic: split method 'time': {why}.*`unverified_times: true`"
    ):
        run(folder, project.DATASET, "split")
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("method: time", "method: random"))
    processed = run(folder, project.DATASET, "split") / "processed/synthetic"
    assert not has_column(processed, "train", "time")
    assert not {"hour", "weekday"} & {field.name for field in read_schema(processed).fields}
    with pytest.raises(PipelineError, match=f"my-din needs timestamps, which toy does not have: {why}"):
        RunHeader.of("train", "toy", "my-din", "din", {"model": {}}, processed)
    assert RunHeader.of("train", "toy", "fm", "fm", {"model": {}}, processed).dataset == "toy"


def test_who_knows_them_to_be_right_can_say_so(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy(tmp_path, run, unverified_times=True)
    assert "imputed" not in capsys.readouterr().out
    processed = run(folder, project.DATASET, "split") / "processed/synthetic"
    assert has_column(processed, "train", "time")
    assert {"hour", "weekday"} <= {field.name for field in read_schema(processed).fields}
    assert RunHeader.of("train", "toy", "din", "din", {"model": {}}, processed).architecture == "din"


def test_a_field_of_the_time_that_is_asked_for_is_refused_with_the_cure(tmp_path: Path, run: Run) -> None:
    with pytest.raises(PipelineError, match=r"synthetic: preprocess.fields: of the row's time: .*`unver"):
        copy(tmp_path, run, fields=["user", "item", "hour"])
