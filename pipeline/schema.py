"""What the columns of ids mean: fields, their slots, and their rows of the one embedding table.

All fields share one id space. Id 0 is the empty slot of a multi-valued field (a bag) and belongs to no
field. Each field has a block of consecutive ids: first its unseen id, for values that are not in the
train split or too rare there, then its vocabulary; a bag may share the block of another field. So an id is
a row of the embedding table, and no offset is added while training; only the values of a field whose given
vectors are frozen have no rows there, and whoever looks a table up goes by `row_offsets`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from dataclasses import field as attribute
from functools import cached_property
from typing import Any, Literal, Protocol, get_args, runtime_checkable

Domain = Literal["user", "item", "context"]
Kind = Literal["category", "number", "bag"]
Role = Literal["user", "item"]
Given = Literal["frozen", "trained"]  # vectors of a field's values: alone, or as where training begins
SplitName = Literal["train", "valid", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")
EMPTY = 0  # the id of an empty bag slot: embeds to zero in every model


@dataclass(frozen=True)
class Column:
    """A field before it is encoded: a column of strings (category, bag) or of numbers (float64).

    The values of a bag are one string, with `separator` between them. `role`, `table`, `given`: see `Field`.
    `dated`: it is part of the row's time, such as its hour.
    """

    name: str
    kind: Kind
    domain: Domain
    separator: str = "|"
    role: Role | None = None
    dated: bool = False
    table: str | None = None
    given: Given | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as `columns.json` has them."""
        return _shortened(asdict(self))


@dataclass(frozen=True)
class Field:
    """One feature field.

    Attributes:
        name: the column it came from.
        size: number of ids, the unseen one included (>= 1).
        slots: number of columns; more than one for a multi-valued field (a bag), none for a field that a
            model derives (`layers/neighbours.py`), which no file has.
        domain: whose property it is; used by models with a part for each domain (FLSEST, section 3.1).
        role: `user` or `item` if it identifies the user or the item of a row. It is declared, by the dataset
            or its entry in params.yaml, and never taken from the domain or the order of the fields.
        table: of a bag, the field whose values and ids its own are, such as the items in a user's history;
            None for ids of its own.
        given: whether each value has a given vector, `frozen` or the one that training begins from; see
            `layers/vectors.py`. None: there are none.
        width: of a given vector.
    """

    name: str
    size: int
    slots: int = 1
    domain: Domain = "context"
    role: Role | None = None
    table: str | None = None
    given: Given | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        assert self.size >= 1 and self.slots >= 0, self
        assert self.domain in get_args(Domain), self
        assert self.role is None or self.slots == 1, self
        assert (self.given is None) == (self.width is None), self
        assert self.given is None or self.table is None, self


@runtime_checkable
class Vectors(Protocol):
    """The given vectors of fields: by a field's name an array or tensor (size, width), a row an id.

    The row of the unseen id is zero, and so is that of a value without a vector.
    """

    def __getitem__(self, name: str, /) -> Any: ...


@dataclass(frozen=True)
class Schema:
    """An ordered list of F fields with S slots in total, and the rows of the embedding table."""

    fields: tuple[Field, ...]
    vectors: Vectors = attribute(default_factory=dict[str, Any], compare=False, repr=False, kw_only=True)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """The first id of each field, which is its unseen id (F values)."""
        ids, first, end = list[int](), dict[str, int](), 1
        for field in self.fields:
            if field.table is None:
                first[field.name] = end
            ids.append(end)
            end += field.size if field.table is None else 0
        return tuple(
            start if field.table is None else first[field.table]
            for field, start in zip(self.fields, ids, strict=True)
        )

    @cached_property
    def vocabulary_size(self) -> int:
        """Number of ids: the empty one and those of every field."""
        return 1 + sum(field.size for field in self.fields if field.table is None)

    @cached_property
    def frozen(self) -> tuple[tuple[int, int], ...]:
        """The ids without rows in the embedding table, as the first and the number of each block."""
        blocks = zip(self.offsets, self.fields, strict=True)
        return tuple((first, field.size) for first, field in blocks if field.given == "frozen")

    @cached_property
    def row_offsets(self) -> tuple[int, ...]:
        """The row of the table of the first id of each field; EMPTY where it has none (F values)."""
        return tuple(
            EMPTY
            if any(first == start for start, _ in self.frozen)
            else first - sum(size for start, size in self.frozen if start < first)
            for first in self.offsets
        )

    @cached_property
    def rows(self) -> int:
        """Rows of the embedding table."""
        return self.vocabulary_size - sum(size for _, size in self.frozen)

    @cached_property
    def slots(self) -> int:
        """Columns of the id matrix."""
        return sum(field.slots for field in self.fields)

    @cached_property
    def field_of_slot(self) -> tuple[int, ...]:
        """The field index of each column (S values)."""
        return tuple(i for i, field in enumerate(self.fields) for _ in range(field.slots))

    @cached_property
    def domains(self) -> tuple[tuple[int, ...], ...]:
        """Field indices by domain, in the order user, item, context, without empty domains."""
        by_domain = (
            tuple(i for i, field in enumerate(self.fields) if field.domain == domain)
            for domain in get_args(Domain)
        )
        return tuple(group for group in by_domain if group)

    def to_json(self) -> list[dict[str, Any]]:
        """Return plain values for `schema.json`."""
        return [_shortened(asdict(field)) for field in self.fields]

    @classmethod
    def from_json(cls, values: Sequence[dict[str, Any]]) -> "Schema":
        """Rebuild a schema from `to_json`."""
        return cls(tuple(Field(**value) for value in values))


def _shortened(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what most fields do not have."""
    optional = ("table", "given", "width")
    return {key: value for key, value in values.items() if key not in optional or value is not None}
