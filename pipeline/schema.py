"""What the integer columns mean: fields, their slots and where their rows lie in the one table.

All fields share one id space. Id 0 is the empty slot of a bag and belongs to no field. Each field
owns a block of consecutive ids whose first is its "unseen" id (a value that was not in the train
part, or too rare there); the vocabulary follows. So an id is a row of the embedding table as it
stands, and no offset is added while training.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, get_args

Domain = Literal["user", "item", "context"]
Kind = Literal["category", "number", "bag"]
SplitName = Literal["train", "valid", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")
EMPTY = 0  # the id of an empty bag slot: embeds to zero in every model


@dataclass(frozen=True)
class Column:
    """A field before it is encoded: a column of strings (category, bag) or of numbers (float64).

    The values of a bag stand in one string, with `separator` between them.
    """

    name: str
    kind: Kind
    domain: Domain
    separator: str = "|"


@dataclass(frozen=True)
class Field:
    """One feature field.

    Attributes:
        name: the column it came from.
        size: number of ids, the unseen one included (>= 1).
        slots: number of columns; more than one for a multi-valued field (a bag).
        domain: the general feature domain, read by models that treat user, item and context
            fields as groups (FLSEST, section 3.1).
    """

    name: str
    size: int
    slots: int = 1
    domain: Domain = "context"

    def __post_init__(self) -> None:
        assert self.size >= 1 and self.slots >= 1, self
        assert self.domain in get_args(Domain), self


@dataclass(frozen=True)
class Schema:
    """An ordered list of fields: F fields, S slots in all, and the rows of the embedding table."""

    fields: tuple[Field, ...]

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """The first id of each field, which is its unseen id (F numbers)."""
        ids = [1]
        for field in self.fields[:-1]:
            ids.append(ids[-1] + field.size)
        return tuple(ids)

    @cached_property
    def vocabulary_size(self) -> int:
        """Rows of the embedding table: the empty id and every field's ids."""
        return 1 + sum(field.size for field in self.fields)

    @cached_property
    def slots(self) -> int:
        """Columns of the id matrix."""
        return sum(field.slots for field in self.fields)

    @cached_property
    def field_of_slot(self) -> tuple[int, ...]:
        """The field index of each column (S numbers)."""
        return tuple(i for i, field in enumerate(self.fields) for _ in range(field.slots))

    @cached_property
    def domains(self) -> tuple[tuple[int, ...], ...]:
        """Field indices by domain, in the order user, item, context; domains without fields left out."""
        by_domain = (
            tuple(i for i, field in enumerate(self.fields) if field.domain == domain)
            for domain in get_args(Domain)
        )
        return tuple(group for group in by_domain if group)

    def to_json(self) -> list[dict[str, Any]]:
        """Return plain values for `schema.json`."""
        return [asdict(field) for field in self.fields]

    @classmethod
    def from_json(cls, values: Sequence[dict[str, Any]]) -> "Schema":
        """Rebuild a schema from `to_json`."""
        return cls(tuple(Field(**value) for value in values))
