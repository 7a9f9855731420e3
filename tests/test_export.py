"""Networks in other runtimes give the same probabilities."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
import scoring_rows as mine
import torch
from model_options import options
from rows import SCHEMAS, random_split, wake
from torch import nn

from pipeline.common.errors import PipelineError
from pipeline.common.files import check_folder, read_json
from pipeline.data.batches import Split
from pipeline.evaluate import calibration
from pipeline.models import CLASSES, build
from pipeline.schema import Column
from pipeline.scoring import Model, export
from pipeline.split.vocabulary import apply, fit_vocabulary
from pipeline.train.loop import fit
from pipeline.train.predict import is_timed, predict

SCHEMA = SCHEMAS["three-domains"]
SIZES = (1, 2, 7, 300)
REFUSED = ["autorec"]  # how much it computes depends on the rows


def trained(name: str, **chosen: Any) -> nn.Module:
    """A model after an epoch, so that it remembers its rows, starts at a rate, and has no zero weights."""
    model = build(name, SCHEMA, options(name, **chosen), seed=1)
    fit(model, random_split(SCHEMA, 300), random_split(SCHEMA, 60, 1), seed=1, epochs=1, batch_size=64)
    wake(model)
    return model.requires_grad_(False).eval()


def inputs(model: nn.Module, rows: Split) -> list[np.ndarray]:
    assert rows.time is not None
    return [rows.ids.numpy(), rows.time.numpy()] if is_timed(model) else [rows.ids.numpy()]


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CLASSES if name not in REFUSED])
def test_every_network_predicts_the_same_in_onnx_runtime_and_from_the_graph(
    name: str, tmp_path: Path
) -> None:
    model = trained(name)
    export.save(model, SCHEMA, tmp_path / "network.onnx", "onnx")
    export.save(model, SCHEMA, tmp_path / "network.pt2", "torch")
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    graph = torch.export.load(tmp_path / "network.pt2").module()
    names = ["ids", "time"] if is_timed(model) else ["ids"]
    assert [each.name for each in session.get_inputs()] == names
    assert [each.name for each in session.get_outputs()] == ["logit"]
    for seed, count in enumerate(SIZES):
        rows = random_split(SCHEMA, count, seed + 5)
        expected, given = predict(model, rows), inputs(model, rows)
        (found,) = session.run(None, dict(zip(names, given, strict=True)))
        assert found.shape == (count,)
        # AFN takes powers of vectors: what a float32 cannot tell there is more than 1e-5 on some processors
        rounding = (predict(deepcopy(model).double(), rows) - expected).abs().max().item()
        bound = {"atol": max(1e-5, 2 * rounding), "rtol": 0}
        np.testing.assert_allclose(torch.from_numpy(found).sigmoid(), expected, **bound)
        np.testing.assert_allclose(graph(*map(torch.from_numpy, given)).sigmoid(), expected, **bound)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deepfm", "din"])
def test_a_folder_scores_raw_rows_as_the_package_does(name: str, tmp_path: Path) -> None:
    """With what lies in it, and nothing of the pipeline's models."""
    mine.write_csv(tmp_path / "log" / "log.csv", mine.log(200))
    package = mine.package(tmp_path / "log", name, {"embedding_size": 4, "hidden": [8]})
    file = export.write(package, tmp_path / "exported", "onnx")
    check_folder(file.parent, "")
    head, clean = read_json(file.parent / "export.json"), mine.clean(tmp_path / "log")
    ids = apply(read_json(file.parent / "vocabulary.json"), clean)
    given = {"ids": ids, **({"time": clean["time"].to_numpy()} if name == "din" else {})}
    assert list(head["inputs"]) == list(given)
    assert head["inputs"]["ids"] == ["rows", ids.shape[1]]
    # how to lay out ids without this library
    vocabulary = {each["name"]: each for each in read_json(file.parent / "vocabulary.json")}
    assert [slot["field"] for slot in head["slots"]][:2] == ["user_id", "age"]
    for place, slot in enumerate(head["slots"]):
        if vocabulary[slot["field"]]["kind"] == "category":
            number = {v: i for i, v in enumerate(vocabulary[slot["field"]]["values"], slot["unseen"] + 1)}
            told = [number.get(value, slot["unseen"]) for value in clean[slot["field"]].to_pylist()]
            assert ids[:, place].tolist() == told
    assert told_ids(head, vocabulary, clean) == ids.tolist()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logit,) = session.run([head["output"]], given)
    found = calibration.apply(read_json(file.parent / "calibration.json"), logit)
    expected = Model(package).score(clean, ids)["probability"]
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.05
    with pytest.raises(PipelineError, match="is there already"):
        export.write(package, tmp_path / "exported", "onnx")


def told_ids(head: dict[str, Any], vocabulary: dict[str, Any], clean: pa.Table) -> list[list[int]]:
    """What `how` in export.json says in words, of each row's values."""
    rows: list[list[int]] = [[] for _ in range(len(clean))]
    for field in head["fields"]:
        entry, empty = vocabulary[field["field"]], head["empty"]
        number = (
            {v: i for i, v in enumerate(entry["values"], field["unseen"] + 1)} if "edges" not in entry else {}
        )
        for row, value in zip(rows, clean[field["field"]].to_pylist(), strict=True):
            assert len(row) == field["first_column"]
            if field["kind"] == "category":
                own = [number.get(value, field["unseen"])]
            elif field["kind"] == "bag":
                parts = [part.strip() for part in (value or "").split(field["separator"]) if part.strip()]
                if field["keep"] == "last":
                    parts.reverse()
                own = list(dict.fromkeys(number.get(part, field["unseen"]) for part in parts))
                own = own[: field["columns"]]
                if field["keep"] == "last":
                    own.reverse()
            elif value is None or np.isnan(value):
                own = [field["missing"]]
            else:
                last = field["first_bin"] + sum(edge <= value for edge in entry["edges"])
                own = list(range(field["first_bin"], last + 1)) if field["steps"] else [last]
            row += own + [empty] * (field["columns"] - len(own))
    return rows


@pytest.mark.parametrize(
    "encode",
    [{}, {"numbers": "steps", "max_slots": 2}, {"slots_from": "end", "max_slots": 2, "min_count": 9}],
)
def test_ids_can_be_laid_out_by_what_export_json_says(tmp_path: Path, encode: dict[str, Any]) -> None:
    mine.write_csv(tmp_path / "log" / "log.csv", mine.log(200))
    package, clean = mine.package(tmp_path / "log", "lr"), mine.clean(tmp_path / "log")
    columns = [Column(e["name"], e["kind"], e["domain"], e.get("separator", "|")) for e in package.vocabulary]
    vocabulary = fit_vocabulary(lambda name: clean[name].chunks, columns, bins=5, **encode)
    head = {"fields": export.layout(replace(package, vocabulary=vocabulary)), "empty": 0}
    by_name = {entry["name"]: entry for entry in vocabulary}
    wild = clean.slice(0, 4).set_column(
        clean.column_names.index("tags"),
        "tags",
        pa.array(["new|never| new |neither|sale", "never", "|", None]),
    )
    for rows in (clean, wild):
        assert told_ids(head, by_name, rows) == apply(vocabulary, rows).tolist()


@pytest.mark.thorough
@pytest.mark.slow
def test_the_same_network_gives_the_same_file_without_the_paths_of_this_machine(tmp_path: Path) -> None:
    model = trained("din")
    for name in ("a", "b"):
        export.save(model, SCHEMA, tmp_path / name, "onnx")
    content = (tmp_path / "a").read_bytes()
    assert content == (tmp_path / "b").read_bytes()
    assert str(Path(export.__file__).parents[2]).encode() not in content


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "chosen"), [*((name, {}) for name in REFUSED), ("fm", {"neighbour_limit": 2})]
)
def test_a_network_that_cannot_be_exported_is_refused_by_name(
    name: str, chosen: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(PipelineError, match=rf"{CLASSES[name]} cannot be exported by torch\.export: .+"):
        export.save(trained(name, **chosen), SCHEMA, tmp_path / "network.onnx", "onnx")


@pytest.mark.slow
def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    class Chooses(nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return ids.float().sum(1) if ids.sum() > 3 else ids[:, 0].float()

    with pytest.raises(PipelineError, match=r"Chooses cannot be exported by torch\.export: .+"):
        export.save(Chooses(), SCHEMA, tmp_path / "network.pt2", "torch")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 100])
def test_the_search_that_onnx_lacks(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    keys = torch.randint(0, 20, (count,), generator=generator).sort().values
    values = torch.arange(-2, 23).view(5, 5)
    assert torch.equal(export.searchsorted(keys, values), torch.searchsorted(keys, values))
