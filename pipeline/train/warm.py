"""A warm start, part two: a model begins with the weights of an earlier package, its tables grown.

A row of a table keeps its weights wherever its value's id went; a value that is new begins with those of
its field's unseen id, which is what a model without it would have said. Only weights are taken over: the
optimizer, the base logit and what a model remembers of its train rows (`prepare`) are those of the new rows.

The rows that came since the package was trained are new to all of its weights, and two passes over them are
not enough where the old ones had eight. So a pass has each of them `NEW_ROWS` times (LOG.md, "Rolling days").
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load
from torch import Tensor, nn

from pipeline.common.errors import PipelineError
from pipeline.common.files import canonical, digest, read_json
from pipeline.data.batches import Batch, Split
from pipeline.layers.embedding import FieldEmbedding, FieldLinear
from pipeline.layers.prepared import Prepared
from pipeline.layers.vectors import blank
from pipeline.models import BASE_LOGIT, build
from pipeline.schema import EMPTY, Schema

NEW_ROWS = 3  # how often a pass has a row that came since the package
FOLDER = "start"  # within the processed folder: see pipeline/split/warm.py
Block = dict[str, Any]


def package_of(processed: Path, model: str) -> Path | None:
    """Return the folder of the package that a model's training begins from; None for one that begins anew."""
    folder = processed / FOLDER / model
    return folder if folder.exists() else None


def identity(package: Path, files: Mapping[str, str], architecture: str, options: Block) -> str:
    """Return the digest of a package, after checking that it is one of this model.

    Args:
        files: the digests of the processed folder's files, by name.
        architecture, options: of the model that begins from it.

    Raises:
        PipelineError: the package is of another model, or of other options.
    """
    head = read_json(package / "package.json")
    if head["architecture"] != architecture:
        raise PipelineError(
            f"encode.warm_start: the package for {package.name} is one of {head['architecture']!r}, the "
            f"model is {architecture!r}"
        )
    old, new = head["options"], options
    for key in sorted(old.keys() | new.keys()):
        if canonical(old.get(key)) != canonical(new.get(key)):
            raise PipelineError(
                f"encode.warm_start: the package for {package.name} has {key} {old.get(key)!r}, the model "
                f"{new.get(key)!r}: weights fit one set of options; set it to that of the package"
            )
    start = f"{FOLDER}/{package.name}/"
    own = {name: content for name, content in files.items() if name.startswith(start)}
    return digest(own)


def begin(model: nn.Module, package: Path) -> None:
    """Give a new model the weights of the package, in place.

    Args:
        model: as `build` makes it, on the CPU, with a grown schema.

    Raises:
        PipelineError: the weights cannot be taken over.
    """
    head = read_json(package / "package.json")
    if not getattr(model, "warm", True):
        raise PipelineError(
            f"{head['architecture']} cannot start warm: what it learns before the first step (another model, "
            "or trees) is learnt anew from the new rows, and its weights belong to that. Take it off "
            "encode.warm_start, and it begins anew"
        )
    schema = blank(Schema.from_json(read_json(package / "schema.json")))
    old = build(head["architecture"], schema, head["options"], seed=0)
    old.load_state_dict(load((package / "weights.safetensors").read_bytes()))
    before, modules = old.state_dict(), dict(old.named_modules())
    fresh = {BASE_LOGIT}
    for name, module in model.named_modules():
        if isinstance(module, Prepared):
            fresh |= {f"{name}.{buffer}" for buffer, _ in module.named_buffers(recurse=False)}
        if isinstance(module, FieldEmbedding | FieldLinear):
            key = f"{name}.table" if name else "table"
            earlier = modules[name]
            assert isinstance(earlier, FieldEmbedding | FieldLinear)
            before[key] = before[key][rows(earlier.schema, module.schema)]
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key in fresh:
                continue
            if value.shape != before[key].shape:
                raise PipelineError(
                    f"{head['architecture']} cannot start warm on this log: its {key} has the shape "
                    f"{tuple(before[key].shape)} in the package and {tuple(value.shape)} now"
                )
            value.copy_(before[key])


def rows(old: Schema, new: Schema, *, of_new: Literal["unseen", "empty"] = "unseen") -> Tensor:
    """Return, for every row of a table of the new schema (V,), the row of the old one that it begins from.

    Args:
        of_new: the row of a value that is new: that of its field's unseen id, or EMPTY, which is zero.
    """
    found = [torch.tensor([EMPTY])]
    for first, before, after in zip(old.row_offsets, old.fields, new.fields, strict=True):
        if after.table is not None or after.given == "frozen":  # its rows are another field's, or none
            continue
        place = torch.arange(after.size)
        unknown = first if of_new == "unseen" else EMPTY
        found.append(torch.where(place < before.size, first + place, unknown))
    return torch.cat(found)


@dataclass(frozen=True)
class Repeated(Split):
    """Train rows, some of which come several times in a pass; what a model remembers of rows, it sees once.

    Attributes:
        once: each row is among the first so many.
    """

    once: int = field(kw_only=True)

    def whole(self) -> Batch:
        """Return each row once."""
        return super().whole().rows(slice(self.once))

    def batches(self, size: int, generator: torch.Generator | None = None, **more: Any) -> Iterator[Batch]:
        """Yield batches as `Split.batches` does, of all rows of a pass."""
        yield from Split(self.schema, *super().whole()).batches(size, generator, **more)


def rehearsed(train: Split, package: Path) -> Split:
    """Return train rows with those that are later than the package's each `NEW_ROWS` times in a pass.

    As they are: rows without times, all of them old or all new, a streamed split, a package that does not
    say when its training ended.
    """
    until = read_json(package / "package.json").get("trained_on", {}).get("until")
    if until is None or train.time is None or train.streamed:
        return train
    new = (train.time > until).nonzero().flatten()
    if len(new) in (0, len(train)):
        return train
    order = torch.cat([torch.arange(len(train), device=new.device), *([new] * (NEW_ROWS - 1))])
    return Repeated(train.schema, *train.whole().rows(order), once=len(train))
