"""A package: one trained model and all that is needed to score raw rows with it, as plain files.

    package.json          `format`; `architecture` and `options` of the model; `trained_on`: dataset, model,
                          variant, seed, key and digests of the run, its metrics; `log`, its source and what
                          is a click; `until`, the last time of a train row
    schema.json           the fields and their ids; see `Schema`
    vocabulary.json       values and bins of each field; see pipeline/split/vocabulary.py
    reading.json          how raw columns become fields; see `reading.py`
    calibration.json      from logits to probabilities; see pipeline/evaluate/calibration.py
    weights.safetensors   the weights, and what the model remembers of its train rows
    SHA256SUMS            the SHA-256 of each

The same training gives the same bytes.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn

from pipeline.common.errors import PipelineError
from pipeline.common.files import check_folder, read_json, seal, write_json
from pipeline.models import build
from pipeline.schema import Schema
from pipeline.split import vocabulary as vocabularies
from pipeline.split.vocabulary import Vocabulary

Block = dict[str, Any]
FORMAT = 1
HEAD, WEIGHTS = "package.json", "weights.safetensors"
JSON = ("schema", "vocabulary", "reading", "calibration")


@dataclass(frozen=True)
class Package:
    """The contents of a package.

    Attributes:
        architecture, options: arguments of `models.build`.
        vocabulary, reading, calibration: see above.
        weights: the bytes of a safetensors file.
        trained_on: where it comes from.
    """

    architecture: str
    options: Block
    vocabulary: Vocabulary
    reading: Block
    calibration: Block
    weights: bytes
    trained_on: Block

    @property
    def schema(self) -> Schema:
        """What the ids mean."""
        return vocabularies.schema(self.vocabulary)

    def network(self) -> nn.Module:
        """Return the trained network on the CPU, in evaluation mode.

        Raises:
            PipelineError: the weights do not fit the model, which is another one than when it was trained.
        """
        network = build(self.architecture, self.schema, self.options, seed=0)
        try:
            network.load_state_dict(load_tensors(self.weights))
        except (SafetensorError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise PipelineError(
                f"{WEIGHTS} does not fit {self.architecture} as it is here: {reason}"
            ) from None
        return network.requires_grad_(False).eval()

    def write(self, folder: Path) -> None:
        """Write the files into a folder that is new, or holds a package, which they replace.

        Raises:
            PipelineError: the folder holds something else.
        """
        if folder.exists() and not (
            folder.is_dir() and ((folder / HEAD).exists() or not any(folder.iterdir()))
        ):
            raise PipelineError(f"{folder} is there already and is no package; name another folder")
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            head = {"format": FORMAT, "architecture": self.architecture, "options": self.options}
            write_json(temporary / HEAD, {**head, "trained_on": self.trained_on})
            write_json(temporary / "schema.json", self.schema.to_json())
            for name in JSON[1:]:
                write_json(temporary / f"{name}.json", getattr(self, name))
            (temporary / WEIGHTS).write_bytes(self.weights)
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
        return cls(
            architecture=head["architecture"],
            options=head["options"],
            vocabulary=vocabulary,
            reading=reading,
            calibration=calibration,
            weights=(folder / WEIGHTS).read_bytes(),
            trained_on=head["trained_on"],
        )
