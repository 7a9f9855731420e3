"""A package: a trained model, or a blend of some, and all that is needed to score raw rows with it.

    package.json          `format`; `architecture` and `options` of the model; `trained_on`: dataset, model,
                          variant, seed, key and digests of the run, its metrics; `log`, its source and what
                          is a click; `since` and `until`, the first and the last time of a train row, where
                          rows have times (packages of earlier versions have no `since`). Of a blend, whose
                          architecture is `blend`: `members`, of each `architecture`, `options`, `share` and
                          `trained_on`
    schema.json           the fields and their ids; see `Schema`
    vocabulary.json       values and bins of each field; see pipeline/split/vocabulary.py
    reading.json          how raw columns become fields; see `reading.py`
    calibration.json      from logits to probabilities; see pipeline/evaluate/calibration.py
    vectors.safetensors   the vectors that values of fields are given, if any; see pipeline/data/storage.py
    reference.json        what the test rows were like, if there was a report; see pipeline/watch/reference.py
    weights.safetensors   the weights, and what the model remembers of its train rows; of a blend
                          weights-1.safetensors and so on, in the order of `members`
    SHA256SUMS            the SHA-256 of each

The same training gives the same bytes.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from pipeline.common.errors import PipelineError
from pipeline.common.files import check_folder, creating, read_json, seal, write_json
from pipeline.data.batches import Batch
from pipeline.data.storage import VECTORS
from pipeline.models import build
from pipeline.schema import Schema
from pipeline.split import vocabulary as vocabularies
from pipeline.split.vocabulary import Vocabulary
from pipeline.train.predict import logits, needs_times

Block = dict[str, Any]
REFERENCE = "reference.json"
FORMAT = 1
HEAD, WEIGHTS = "package.json", "weights.safetensors"
BLEND = "blend"  # the architecture of a package with members
JSON = ("schema", "vocabulary", "reading", "calibration")


@dataclass(frozen=True)
class Member:
    """A network of a blend; `share` of its logit, all shares adding up to 1, and the rest as in `Package`."""

    architecture: str
    options: Block
    weights: bytes
    share: float
    trained_on: Block

    def to_json(self) -> Block:
        """Return all but the weights."""
        return {key: value for key, value in vars(self).items() if key != "weights"}


class Blend(nn.Module):
    """The mean of the logits of networks on the same rows: ids (B, S) -> (B,)."""

    def __init__(self, networks: Sequence[nn.Module], shares: Sequence[float]) -> None:
        super().__init__()
        self.networks, self.shares = nn.ModuleList(networks), tuple(shares)
        self.timed = any(needs_times(each) for each in networks)

    def forward(self, ids: Int[Tensor, "B S"], time: Int[Tensor, " B"] | None = None) -> Float[Tensor, " B"]:
        """Return the mean, weighted by the shares."""
        total = torch.zeros(len(ids), device=ids.device)
        for network, share in zip(self.networks, self.shares, strict=True):
            total = total + share * logits(network, Batch(ids, total, time)).float()
        return total


@dataclass(frozen=True)
class Package:
    """The contents of a package.

    Attributes:
        architecture, options: arguments of `models.build`; of a blend `blend` and nothing.
        vocabulary, reading, calibration: see above.
        weights: the bytes of a safetensors file.
        trained_on: where it comes from.
        members: of a blend.
        vectors: the bytes of the file of given vectors; none if no field is given any.
        reference: what `watch` compares a new log with; None if there was no report.
    """

    architecture: str
    options: Block
    vocabulary: Vocabulary
    reading: Block
    calibration: Block
    weights: bytes
    trained_on: Block
    members: tuple[Member, ...] = ()
    vectors: bytes = b""
    reference: Block | None = None

    @cached_property
    def schema(self) -> Schema:
        """What the ids mean."""
        found = vocabularies.schema(self.vocabulary)
        if not self.vectors:
            return found
        return replace(
            found, vectors={name: value.copy() for name, value in load_arrays(self.vectors).items()}
        )

    def network(self) -> nn.Module:
        """Return the trained network on the CPU, in evaluation mode.

        Raises:
            PipelineError: the weights do not fit the model, which is another one than when it was trained.
        """
        if not self.members:
            return _network(self, self.schema, WEIGHTS)
        networks = [_network(each, self.schema, name) for name, each in self._files()]
        return Blend(networks, [each.share for each in self.members]).eval()

    def _files(self) -> list[tuple[str, "Package | Member"]]:
        """Return the name of each file of weights, and whose they are."""
        if not self.members:
            return [(WEIGHTS, self)]
        return [(_weights_of(number), each) for number, each in enumerate(self.members)]

    def write(self, folder: Path) -> None:
        """Write the files into a folder that is new, or holds a package, which they replace.

        Raises:
            PipelineError: the folder holds something else, or cannot be made there.
        """
        if folder.exists() and not (
            folder.is_dir() and ((folder / HEAD).exists() or not any(folder.iterdir()))
        ):
            raise PipelineError(f"{folder} is there already and is no package; name another folder")
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        with creating(folder):
            temporary.mkdir(parents=True)
        try:
            head = {"format": FORMAT, "architecture": self.architecture, "options": self.options}
            if self.members:
                head["members"] = [each.to_json() for each in self.members]
            write_json(temporary / HEAD, {**head, "trained_on": self.trained_on})
            write_json(temporary / "schema.json", self.schema.to_json())
            for name in JSON[1:]:
                write_json(temporary / f"{name}.json", getattr(self, name))
            if self.reference is not None:
                write_json(temporary / REFERENCE, self.reference)
            for name, part in self._files():
                (temporary / name).write_bytes(part.weights)
            if self.vectors:
                (temporary / VECTORS).write_bytes(self.vectors)
            seal(temporary)
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @classmethod
    def read(cls, folder: Path) -> "Package":
        """Read a package.

        Raises:
            PipelineError: a file is missing or was changed, or it is of another format.
        """
        if not (folder / HEAD).exists():
            raise PipelineError(f"{folder} is no package of a model: it has no {HEAD}")
        check_folder(folder, "make the package again")
        head = read_json(folder / HEAD)
        if head["format"] != FORMAT:
            raise PipelineError(
                f"{folder} has the format {head['format']}, this version reads {FORMAT}: make it again"
            )
        schema, vocabulary, reading, calibration = (read_json(folder / f"{name}.json") for name in JSON)
        if Schema.from_json(schema) != vocabularies.schema(vocabulary):
            raise PipelineError(f"{folder}: vocabulary.json gives other ids than schema.json")
        members = tuple(
            Member(weights=(folder / _weights_of(number)).read_bytes(), **values)
            for number, values in enumerate(head.get("members", ()))
        )
        return cls(
            architecture=head["architecture"],
            options=head["options"],
            vocabulary=vocabulary,
            reading=reading,
            calibration=calibration,
            weights=b"" if members else (folder / WEIGHTS).read_bytes(),
            trained_on=head["trained_on"],
            members=members,
            vectors=(folder / VECTORS).read_bytes() if (folder / VECTORS).exists() else b"",
            reference=read_json(folder / REFERENCE) if (folder / REFERENCE).exists() else None,
        )


def _weights_of(number: int) -> str:
    """Return the file of a blend's member, which are counted from 0."""
    return f"weights-{number + 1}.safetensors"


def _network(part: Package | Member, schema: Schema, file: str) -> nn.Module:
    network = build(part.architecture, schema, part.options, seed=0)
    try:
        network.load_state_dict(load_tensors(part.weights))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise PipelineError(f"{file} does not fit {part.architecture} as it is here: {reason}") from None
    return network.requires_grad_(False).eval()
