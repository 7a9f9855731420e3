"""The network of a trained model for other runtimes: ONNX, or a graph of torch.export.

Ids (rows, S) int32 and, of a timed model, the time of each row in seconds (rows,) int64 -> logit (rows,).
What makes ids of values, and a probability of the logit, lies beside it as in a package.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jaxtyping
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pipeline.common.errors import PipelineError
from pipeline.common.files import make_folder, seal, write_json
from pipeline.schema import EMPTY, Schema
from pipeline.scoring.package import Package
from pipeline.train.predict import is_timed, output

# by kind, how the values of a field become the ids of its columns
LAYOUT = {
    "category": "one column: the id of the value, `unseen` plus its place from 1 in vocabulary.json, where a "
    "missing value is null; `unseen` for a value that is not there",
    "bag": "split the text at `separator`, cut white space off the values, leave out empty and repeated "
    "ones; ids as of a category (all values that are not there are one); keep the first `columns` of them, "
    "or the last if `keep` says so, in their order; `empty` in the columns behind them. Pooling is the "
    "network's: most models add up the vectors of a bag's columns, and an empty one adds nothing",
    "number": "`missing` for a missing one, else `first_bin` plus the number of edges in vocabulary.json "
    "that are not larger; with `steps` a column for each bin up to this one, counted from the first: its id "
    "or, beyond it, `empty`; a missing number has its id in the first column, and `empty` behind it",
}
NETWORK = {"onnx": "network.onnx", "torch": "network.pt2"}  # by the name of a format, that of the file


class Logit(nn.Module):
    """A model with the constant that is added to its output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Int[Tensor, "B S"], time: Int[Tensor, " B"] | None = None) -> Float[Tensor, " B"]:
        """Return the logit of each row."""
        return output(self.model, ids) if time is None else output(self.model, ids, time)


def write(package: Package, folder: Path, form: str) -> Path:
    """Write a folder with the network, and what makes ids of values and probabilities of logits.

    Returns:
        the network's file. `export.json` says how to call it; the other files are those of a package.

    Raises:
        PipelineError: the folder is there already, or cannot be made; and see `save`.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise PipelineError(f"{folder} is there already; name another folder")
    model, schema = package.network(), package.schema
    head = {
        "network": NETWORK[form],
        "inputs": {"ids": ["rows", schema.slots], **({"time": ["rows"]} if is_timed(model) else {})},
        "types": {"ids": "int32", **({"time": "int64, seconds since 1970"} if is_timed(model) else {})},
        # a column of `ids` per slot, in this order; `unseen` is the first id of the field, whose values in
        # vocabulary.json have the ids after it
        "slots": [
            {"field": schema.fields[field].name, "unseen": schema.offsets[field]}
            for field in schema.field_of_slot
        ],
        "fields": layout(package),
        "how": LAYOUT,
        "empty": EMPTY,  # the id of a slot of a bag without a value
        "output": "logit",
        "trained_on": package.trained_on,
    }
    make_folder(folder)
    save(model, schema, folder / NETWORK[form], form)
    write_json(folder / "export.json", head)
    write_json(folder / "schema.json", schema.to_json())
    for name in ("vocabulary", "reading", "calibration"):
        write_json(folder / f"{name}.json", getattr(package, name))
    seal(folder)
    return folder / NETWORK[form]


def layout(package: Package) -> list[dict[str, Any]]:
    """Return, per field, which columns of the ids are its own, and what `LAYOUT` has to know of it."""
    schema, column, found = package.schema, 0, []
    for entry, field, unseen in zip(package.vocabulary, schema.fields, schema.offsets, strict=True):
        own: dict[str, Any] = {"field": field.name, "kind": entry["kind"], "unseen": unseen}
        own |= {"first_column": column, "columns": field.slots}
        if entry["kind"] == "bag":
            end = "last" if entry.get("slots_from") == "end" else "first"
            own |= {"separator": entry["separator"], "keep": end, "pooling": "in the network"}
        elif entry["kind"] == "number":
            missing = unseen + int(entry["missing"])
            # no train row has a number: any other one is unseen
            own |= {"missing": missing, "first_bin": missing + 1 if entry["values"] else unseen}
            own["steps"] = entry["steps"]
        found.append(own)
        column += field.slots
    return found


def graph(model: nn.Module, schema: Schema) -> ExportedProgram:
    """Return the graph of a trained model, for any number of rows.

    Args:
        model: on the CPU, in evaluation mode.

    Raises:
        PipelineError: it has an operation that torch.export does not take.
    """
    ids = torch.tensor([[schema.offsets[field] for field in schema.field_of_slot]] * 2, dtype=torch.int32)
    arguments = (ids, torch.zeros(2, dtype=torch.int64)) if is_timed(model) else (ids,)
    rows = ({0: Dim("rows")},) * len(arguments)
    with _unchecked_shapes():
        try:
            return torch.export.export(Logit(model).eval(), arguments, dynamic_shapes=rows)
        except Exception as error:
            raise _refused(model, "torch.export", error) from error


def save(model: nn.Module, schema: Schema, path: Path, form: str) -> None:
    """Write the network of a trained model in a format of `NETWORK`.

    Raises:
        PipelineError: the packages for ONNX are not installed, or the network has an operation that cannot be
            exported.
    """
    found = graph(model, schema)
    if form == "torch":
        torch.export.save(found, path)
        return
    try:
        import onnxscript  # noqa: F401 (torch.onnx needs it)
    except ImportError:
        raise PipelineError('ONNX needs more packages: pip install "ctr-pipeline[export]"') from None
    names = ["ids", "time"][: 1 + is_timed(model)]
    with _quiet():
        try:
            table = torch.export.default_decompositions()
            for node in found.graph.nodes:
                if str(node.target) == "aten.searchsorted.Tensor":
                    table[node.target] = searchsorted
            program = torch.onnx.export(
                found.run_decompositions(table), input_names=names, output_names=["logit"], verbose=False
            )
            assert program is not None
        except Exception as error:
            raise _refused(model, "ONNX", error) from error
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # the lines of code it came from
    program.save(path)


def searchsorted(keys: Tensor, values: Tensor, **options: Any) -> Tensor:
    """Return how many of the sorted keys (C,) are below each value, by steps that are powers of two.

    ONNX has no such operation.
    """
    assert not any(options.values()), options
    count = len(keys)
    place = torch.zeros_like(values, dtype=torch.int64)
    step = 1 << (count.bit_length() - 1)
    while step:
        further = place + step
        below = keys[(further - 1).clamp(max=count - 1)] < values
        place = torch.where(below & (further <= count), further, place)
        step >>= 1
    return place


def _refused(model: nn.Module, tool: str, error: Exception) -> PipelineError:
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return PipelineError(f"{type(model).__name__} cannot be exported by {tool}: {reason.strip()}")


@contextmanager
def _unchecked_shapes() -> Iterator[None]:
    """Without the tests' checks, which would fix the number of rows to that of the example."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's words about packages that are not there, and warnings of its own making."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
