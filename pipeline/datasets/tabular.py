"""Your own click log: a text file with separators, a Parquet file, or a folder of these.

Its dataset entry in params.yaml says what the columns are; `python -m pipeline inspect FILE` drafts one.

    my-clicks:
      source: tabular
      download: {path: ../logs/clicks.csv}
      preprocess:
        label: click                              # or {column: rating, at_least: 4}
        fields:
          user_id: user                           # short for {domain: user}: a category
          item_id: item
          price: {domain: item, type: number}
          tags: {domain: item, type: bag, separator: "|"}
          ts: {domain: context, type: timestamp, parts: [hour, weekday]}   # fields ts_hour, ts_weekday
        user: user_id                             # the field that identifies the user, and
        item: item_id                             # that of the item: for models that need them
        time: ts                                  # for a split by time
      split: {method: random, seed: 1024, test: 0.2, valid: 0.1}
      encode: {min_count: 2}
      settings: {}

Columns are found by their names, in any order; those that no key names are not read. White space around
values and names is cut off. A value that is one of `missing` is missing: a category of its own, NaN, an
empty bag. A record is rejected, with file and line, if its label is missing or invalid or if a number or
time is malformed; infinite numbers stay. The files of a folder are read in the order of their names. A
category or a value of a bag that is a whole number has no decimals: 12.0 is `12`, in text as in Parquet,
whose integers are categories by their digits and whose lists are bags, or vectors of numbers.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from pipeline.common.errors import PipelineError, unknown
from pipeline.common.files import SEAL
from pipeline.download.obtain import copy_own
from pipeline.preprocess import parse, tables
from pipeline.preprocess.clean_table import ClickLog
from pipeline.preprocess.cleaning import equals, reject, shown
from pipeline.preprocess.cleaning import keep as keep_rows
from pipeline.preprocess.parse import chunk, recode
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.tables import Layout, Table
from pipeline.preprocess.timestamps import DatePart, check_format, date_part, offset_seconds, seconds
from pipeline.preprocess.units import Clean, Lines, Unit, cleaned
from pipeline.preprocess.vectors import Found, Gathered, Keyed, in_rows
from pipeline.schema import Column, Domain, Given

Value = str | bool | int | float
Mask = NDArray[np.bool_]
MISSING = ("", "NULL", "null", "NA", "N/A", "nan", "NaN", "None", "\\N")
YES, NO = ("true", "yes", "t", "y"), ("false", "no", "f", "n")  # beside 1 and 0: labels without a rule
NO_LABEL = "is none of 0, 1, yes, no"  # nor another spelling of them
RESERVED = ("label", "group", "time", "truth", "grade")  # columns of the clean table that are no fields
ALARM_RECORDS = 100  # in a first block of at least this many, mostly malformed values mean a wrong setting


def _valid_format(time_format: str) -> str:
    check_format(time_format)
    return time_format


def _valid_offset(offset: str) -> str:
    offset_seconds(offset)
    return offset


TimeFormat = Annotated[str, AfterValidator(_valid_format)]
Offset = Annotated[str, AfterValidator(_valid_offset)]


class Settings(BaseModel):
    """Values of params.yaml: no unknown key, no silent conversion; a word alone is one key's value."""

    model_config = ConfigDict(extra="forbid", strict=True)
    word: ClassVar[str] = "column"

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        return {cls.word: value} if isinstance(value, str) else value


class Feature(Settings):
    """A field: what a column means. A word alone is the domain of a category.

    Attributes:
        domain: whose property it is.
        type: `category`; `number`, which `split` will cut into bins; `bag`, several values in one;
            `timestamp`, whose parts become the fields `<name>_<part>`; `vector`, a list of numbers, such as a
            pre-trained embedding, which is a property of the value of another column, `key`.
        column: where it is read from (default: the field's name).
        separator: between the values of a bag (default: `|`); not for lists of Parquet.
        table: of a bag, the field whose values its own are, such as the items of a user's history: it has
            the ids and vectors of that field, and `din` attends to a bag of items. With `encode: {max_slots:
            20, slots_from: end}` bags keep their last 20 values, in their order.
        format: of a timestamp: iso, seconds, milliseconds or a pattern like %d.%m.%Y %H:%M.
        parts: of a timestamp, each a category (default: hour and weekday).
        key: of a vector, the column whose values have the vectors, such as the item's: rows of the same value
            have the same one, and the field is a category by this value.
        file: of a vector, the Parquet file that it is in, one of `download.vectors` (default: the log itself,
            row by row); it may have vectors of values that are not in the log.
        file_key: the column of `file` with the values of `key` (default: of the same name).
        trained: of a vector, whether training goes on from it, value by value (default: it stays as it is,
            and models learn what it means).
        utc_offset: of a timestamp, the clock that its parts are of, such as +08:00 (default: UTC, whatever
            offset a time is written with).
    """

    word: ClassVar[str] = "domain"
    domain: Domain
    type: Literal["category", "number", "bag", "timestamp", "vector"] = "category"
    column: str | None = None
    separator: str | None = Field(default=None, min_length=1)
    table: str | None = None
    format: TimeFormat | None = None
    parts: list[DatePart] | None = Field(default=None, min_length=1)
    utc_offset: Offset | None = None
    key: str | None = None
    file: str | None = None
    file_key: str | None = None
    trained: bool = False

    @model_validator(mode="before")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("needs a domain: user, item or context")
        return value

    @model_validator(mode="after")
    def _matches(self) -> "Feature":
        keys = dict.fromkeys(("separator", "table"), "bag")
        keys |= dict.fromkeys(("format", "parts", "utc_offset"), "timestamp")
        keys |= dict.fromkeys(("key", "file", "file_key", "trained"), "vector")
        for key, type_ in keys.items():
            if getattr(self, key) not in (None, False) and self.type != type_:
                raise ValueError(f"{key} belongs to type {type_}, and this is a {self.type}")
        if self.type == "vector" and self.key is None:
            raise ValueError(
                "a vector needs `key`: the column of the log to whose value it belongs, as item_id"
            )
        if self.file_key is not None and self.file is None:
            raise ValueError("file_key is a column of `file`, which is not given")
        if self.parts and len(set(self.parts)) < len(self.parts):
            raise ValueError("parts contains one twice")
        return self

    def named(self, name: str) -> "Feature":
        """Return the field with its column, which is called as the field if no other is given."""
        return self.model_copy(update={"column": name if self.column is None else self.column})

    @property
    def source(self) -> str:
        """The column of the log that its values are read from."""
        found = self.key if self.type == "vector" else self.column
        assert found is not None
        return found

    @property
    def lists(self) -> str:
        """Of a vector, the column that it is read from."""
        assert self.type == "vector" and self.column is not None
        return self.column

    def date_parts(self, name: str) -> dict[str, DatePart]:
        """Return the columns of the clean table that a timestamp of this name becomes."""
        return {f"{name}_{part}": part for part in self.parts or ["hour", "weekday"]}

    def columns(self, name: str) -> list[str]:
        """Return the columns of the clean table that a field of this name becomes."""
        return list(self.date_parts(name)) if self.type == "timestamp" else [name]


class Label(Settings):
    """Which records are clicks. A word alone is a column of 0 and 1 (or true/false, yes/no).

    Attributes:
        column: the label is computed from it, so that it cannot be a field.
        above: numbers larger than this are clicks.
        at_least: numbers as large as this or larger are clicks.
        equals: this value is a click, or each of these.
        drop: records with these values are left out; null stands for a missing label.
        grades: further thresholds of the amount, for `train: {grades: ...}`; needs `above`.
    """

    column: str
    above: int | float | None = None
    at_least: int | float | None = None
    equals: Value | list[Value] | None = None
    drop: list[Value | None] = Field(default_factory=list)
    grades: list[int | float] = Field(default_factory=list, max_length=250)

    @model_validator(mode="after")
    def _one_rule(self) -> "Label":
        if sum(rule is not None for rule in (self.above, self.at_least, self.equals)) > 1:
            raise ValueError("give one of above, at_least and equals")
        if self.grades and self.above is None:
            raise ValueError("grades are thresholds beside `above`: they need one")
        if self.equals == []:
            raise ValueError("equals is empty")
        return self


class Time(Settings):
    """When a record was written. A word alone is a column, in the format of the field of that column."""

    column: str
    format: TimeFormat | None = None


def download(
    folder: Path,
    cache: Path,
    *,
    path: str,
    files: Sequence[str] | None = None,
    vectors: Sequence[str] = (),
    mirror: str | None = None,
) -> None:
    """Copy a file, or the files of a folder that look like tables.

    DVC does not see when the original changes: `dvc repro -f download@my-clicks` copies it again. A `mirror`
    is for datasets that have a publisher.

    Args:
        cache: keeps what comes from an address.
        path: of the file or folder; relative paths start at the project's folder. Or the address of a file, a
            folder or a pattern of files, such as `s3://bucket/clicks/*.parquet`: see `download/remote.py`.
        files: names of those of the folder, such as `[u1.base, u1.test]` (default: all that end like tables).
        vectors: paths of Parquet files with vectors of values: `file` of fields of the type `vector`.
    """
    del mirror
    suffixes = tables.SUFFIXES
    copy_own(path, folder, source="tabular", suffixes=suffixes, names=files, further=vectors, cache=cache)


def read(
    folder: Path,
    rejects: RejectLog,
    *,
    label: Label,
    fields: dict[str, Feature],
    group: str | None = None,
    time: Time | None = None,
    keep: Sequence[str] = (),
    file: str | None = None,
    separator: str | None = None,
    encoding: str = "utf-8",
    quote: str | None = '"',
    escape: str | None = None,
    decimal: Literal[".", ","] = ".",
    missing: Sequence[str] = MISSING,
    names: Sequence[str] | None = None,
) -> ClickLog:
    """Read the files, in the order of their names.

    Args:
        label: which records are clicks.
        fields: what the columns mean, in the order of the fields.
        group: a column: records with the same value form a group of gAUC and stay together in a split
            by user; those without a value form one group (default: the field that `user` names).
        time: a column, for a split by time; records without a time are rejected then.
        keep: further columns, for a split by one of them.
        file: the name of a further column: the name of the file that a record is from, for a split by it.
        separator: between the fields of a text file (default: a tab in .tsv files, else a comma).
        encoding: of text, as Python calls it.
        quote: around a field that contains separators or line ends; null for none.
        escape: before a character that loses its meaning.
        decimal: before the decimals of numbers in text.
        missing: texts that stand for a missing value, in the place of these; a blank always does.
        names: of the columns, in order, for text files without a header.

    Raises:
        PipelineError: the files do not have the columns that the keys name, or not of a usable type.
    """
    plan = plan_of(
        label=label,
        fields=fields,
        group=group,
        time=time,
        keep=keep,
        file=file,
        missing=missing,
        decimal=decimal,
    )
    layout = Layout(separator, encoding, quote, escape, None if names is None else tuple(names))
    found = {file.name: file for file in sorted(folder.iterdir()) if file.name not in ("manifest.json", SEAL)}
    vectors = {name: Gathered(field.lists) for name, field in plan.fields.items() if field.type == "vector"}
    for wanted, name in plan.aside.items():
        if wanted not in found:
            raise PipelineError(
                f"preprocess.fields.{name}.file: {unknown('file', wanted, found)}; the paths of vectors' "
                f"files belong under `download`, as `vectors: [../{Path(wanted).name}]`, and `file` is the "
                "name alone"
            )
    files = [path for name, path in found.items() if name not in plan.aside]
    if not files:
        raise PipelineError(f"{folder} contains no file of a log; run the download stage again")
    opened = plan.open(files, layout)
    for name, gathered in vectors.items():
        if (own := plan.fields[name].file) is not None:
            _gather(gathered, found[own], name, plan)
    return ClickLog(plan.columns(opened), _rows(opened, plan, rejects, vectors), vectors)


def _gather(vectors: Gathered, file: Path, name: str, plan: "Plan") -> None:
    """Read the vectors of a field from its own file."""
    field, (table, key) = plan.fields[name], _of_vectors(file, name, plan)
    for block, lines in table.blocks([key, field.lists], RejectLog()):
        keys = parse.texts(chunk(block[key]), plan.missing, plan.decimal)
        if keys.null_count:
            row = int(np.flatnonzero(keys.is_null().to_numpy(zero_copy_only=False))[0])
            raise PipelineError(
                f"{file.name}:{lines[row]}: {key!r} is missing, and a vector belongs to its value: fill it "
                "in, or take the row out"
            )
        vectors.add(in_rows(keys, chunk(block[field.lists]), lines, table.path.name, field.lists))
    if not vectors.keys:
        raise PipelineError(f"preprocess.fields.{name}: {file.name} has no vector in {field.lists!r}")


def vectors_of(file: Path, name: str, plan: "Plan") -> Keyed:
    """Return the vectors of a field from a file of them.

    Raises:
        PipelineError: the file has other columns than the field says, no vectors, or one that is none.
    """
    found = Gathered(plan.fields[name].lists)
    _gather(found, file, name, plan)
    return pa.array(found.keys, pa.string()), found.values


def _of_vectors(file: Path, name: str, plan: "Plan") -> tuple[tables.Table, str]:
    """Open the file of a field's vectors; return it and the column of the values that they belong to.

    Raises:
        PipelineError: a column is not there, or not of a usable type.
    """
    field, where = plan.fields[name], f"preprocess.fields.{name}"
    table, key = tables.open_table(file, Layout()), field.file_key or field.source
    tables.check_column(table.path, f"{where}.{'file_key' if field.file_key else 'key'}", key, table.types)
    tables.check_column(
        table.path, f"{where}{'.column' if field.lists != name else ''}", field.lists, table.types
    )
    _check_usable(table, field.lists, where, "vector")
    _check_usable(table, key, f"{where}.key", "category")
    return table, key


def check(files: Sequence[Path], of_vectors: Mapping[str, Path], **arguments: Any) -> None:
    """Raise if files cannot be what `read` is told they are, by their headers and first lines.

    Args:
        files: of the user, before they are copied.
        of_vectors: those of vectors, by name; one that is not looked at may be left out.
        arguments: of `read`; others are ignored.

    Raises:
        PipelineError: as `read` does.
    """
    of_plan, of_layout = (
        {field.name: arguments[field.name] for field in dataclasses.fields(kind) if field.name in arguments}
        for kind in (Plan, Layout)
    )
    plan = plan_of(**of_plan)
    plan.open([file for file in files if file.name not in plan.aside], Layout(**of_layout))
    for name, field in plan.fields.items():
        if field.file is not None and field.file in of_vectors:
            _of_vectors(of_vectors[field.file], name, plan)


def column_names(*, user: str | None = None, **arguments: Any) -> set[str]:
    """Return the columns that the clean table will have besides the label, by the keys of `preprocess`.

    Args:
        user: the field that groups are of where `group` names no column.
        arguments: of `read`; others are ignored.
    """
    of_plan = {
        key: arguments[key] for key in ("label", "fields", "group", "time", "keep") if key in arguments
    }
    plan, file = plan_of(**of_plan), arguments.get("file")
    names = {column for name, field in plan.fields.items() for column in field.columns(name)}
    names |= {*plan.kept} | ({"time"} if plan.time else set()) | ({"group"} if plan.group or user else set())
    return names | ({file} if file else set())


def plan_of(
    *,
    fields: dict[str, Any],
    label: Any = None,
    group: str | None = None,
    time: Any = None,
    keep: Sequence[str] = (),
    file: str | None = None,
    missing: Sequence[str] = MISSING,
    decimal: str = ".",
) -> "Plan":
    """Return what becomes of columns, by the arguments of `read`; rows to score have no label.

    Raises:
        PipelineError: a value does not fit its key, or two keys do not fit each other.
    """
    features = _valid(dict[str, Feature], fields, "fields")
    return Plan(
        label=None if label is None else _valid(Label, label, "label"),
        fields={name: feature.named(name) for name, feature in features.items()},
        group=group,
        time=None if time is None else _valid(Time, time, "time"),
        keep=tuple(dict.fromkeys(keep)),
        file=file,
        missing=frozenset({"", *missing}),
        decimal=decimal,
    )


def _valid(kind: Any, value: Any, key: str) -> Any:
    """Return a value of params.yaml as an instance of its type; the config has checked it before."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise PipelineError(f"preprocess.{key}: {error}") from None


@dataclass(frozen=True)
class Plan:
    """What becomes of the columns of the files; rows to be scored have no label.

    Raises:
        PipelineError: two columns of the clean table with the same name, or the label among the fields.
    """

    label: Label | None
    fields: dict[str, Feature]
    group: str | None
    time: Time | None
    keep: tuple[str, ...]
    file: str | None
    missing: frozenset[str]
    decimal: str

    def __post_init__(self) -> None:
        if not self.fields:
            raise PipelineError("preprocess.fields: is empty; a model needs at least one field")
        self._check_names()
        self._check_leaks()
        self._check_tables()

    @property
    def kept(self) -> list[str]:
        """The columns of `keep` that are not in the clean table as fields already."""
        fields = [name for name, field in self.fields.items() if field.columns(name) == [field.source]]
        return [name for name in self.keep if name not in fields]

    @property
    def uses(self) -> list[tuple[str, str, str]]:
        """Every use of a column: the column, the key of params.yaml that names it, and what it is used as."""
        uses = [(self.label.column, "label", "category")] if self.label else []
        for name, field in self.fields.items():
            if field.type != "vector":
                uses.append((field.source, f"fields.{name}", field.type))
                continue
            uses.append((field.source, f"fields.{name}.key", "category"))
            if self.label is not None and field.file is None:  # rows to score have the values alone
                uses.append((field.lists, f"fields.{name}", "vector"))
        uses += [(self.group, "group", "category")] if self.group is not None else []
        uses += [(self.time.column, "time", "timestamp")] if self.time else []
        return uses + [(column, "keep", "category") for column in self.kept]

    @property
    def aside(self) -> dict[str, str]:
        """The files that hold vectors and no records, with the first field that reads each."""
        pairs = ((field.file, name) for name, field in reversed(self.fields.items()))
        return {file: name for file, name in pairs if file is not None}

    @property
    def plain(self) -> set[str]:
        """The columns that are used as numbers and timestamps alone: nearly all their values may differ."""
        numeric = {column for column, _, use in self.uses if use in ("number", "timestamp")}
        return numeric - {column for column, _, use in self.uses if use in ("category", "bag")}

    @property
    def time_format(self) -> str:
        """The format of `time`: its own, or that of a field of the same column."""
        assert self.time is not None
        same = (
            f.format for f in self.fields.values() if f.source == self.time.column and f.type == "timestamp"
        )
        return self.time.format or next(same, None) or "iso"

    def open(self, files: Sequence[Path], layout: Layout) -> list[Table]:
        """Open files and check their columns.

        Raises:
            PipelineError: the layout fits no file, or a file lacks a column or has one of another type.
        """
        layout.check()
        opened = tables.open_folder(files, layout)
        self.check(opened)
        return opened

    def check(self, opened: Sequence[Table]) -> None:
        """Raise if a file lacks a column, or has one of a type that cannot be used so."""
        for table in opened:
            for column, key, _ in self.uses:
                tables.check_column(table.path, f"preprocess.{key}", column, table.types)
            for column, key, use in self.uses:
                _check_usable(table, column, f"preprocess.{key}", use)

    def columns(self, opened: Sequence[Table]) -> tuple[Column, ...]:
        """Return the fields of the clean table."""
        made: list[Column] = []
        for name, field in self.fields.items():
            if field.type == "bag":
                lists = any(parse.kind(table.types[field.source]) == "list" for table in opened)
                separator = tables.LIST_SEPARATOR if lists else field.separator or "|"
                made.append(Column(name, "bag", field.domain, separator, table=field.table))
            elif field.type == "vector":
                given: Given = "trained" if field.trained else "frozen"
                made.append(Column(name, "category", field.domain, given=given))
            else:
                kind: Literal["category", "number"] = "number" if field.type == "number" else "category"
                made += [Column(column, kind, field.domain) for column in field.columns(name)]
        return tuple(made)

    def _check_names(self) -> None:
        made: dict[str, str] = dict.fromkeys(RESERVED, "the pipeline itself")
        for name, field in self.fields.items():
            for new in field.columns(name):
                if new in made:
                    raise PipelineError(
                        f"preprocess.fields.{name}: the name {new!r} is taken by {made[new]}; give the field "
                        f"another one: `my_{name}: {{column: {field.source}, domain: {field.domain}, ...}}`"
                    )
                made[new] = f"the field {name!r}"
        for name in self.kept:
            if name in made:
                raise PipelineError(f"preprocess.keep: the name {name!r} is taken by {made[name]}")
            made[name] = "a column of `keep`"
        if self.file in made:
            raise PipelineError(f"preprocess.file: the name {self.file!r} is taken by {made[self.file]}")

    def _check_tables(self) -> None:
        known = [name for name, field in self.fields.items() if field.type in ("category", "vector")]
        for name, field in self.fields.items():
            if field.table is not None and field.table not in known:
                what = unknown("field of one value a row", field.table, known)
                raise PipelineError(f"preprocess.fields.{name}.table: {what}")

    def _check_leaks(self) -> None:
        if self.label is None:
            return
        clicks = self.label.column
        for name, field in self.fields.items():
            if field.source == clicks:
                raise PipelineError(
                    f"preprocess.fields.{name}: the label is made of the column {clicks!r}; as a field it "
                    "would give the models what they should predict. Take it out of the fields"
                )
        time = self.time.column if self.time else None
        for key, columns in (("group", [self.group]), ("time", [time]), ("keep", [*self.keep])):
            if clicks in columns:
                raise PipelineError(f"preprocess.{key}: {clicks!r} is the label's column")


def _check_usable(table: Table, column: str, key: str, use: str) -> None:
    """Raise if a column cannot be read so."""
    type_ = table.types[column]
    if parse.usable(type_, use):
        return
    types = {"list": "; its type is bag", "time": "; its type is timestamp"}
    if use == "vector":
        types = {parse.kind(type_): ": vectors are lists of numbers, in a Parquet file"}
    elif parse.usable(type_, "vector"):
        types["list"] += ", or vector"
    raise PipelineError(
        f"{table.path}: {key}: the column {column!r} holds {type_}, which cannot be read as a "
        f"{use}{types.get(parse.kind(type_), '')}"
    )


def _rows(
    opened: Sequence[Table], plan: Plan, rejects: RejectLog, vectors: Mapping[str, Gathered]
) -> Iterator[pa.Table]:
    hinted = False
    for rows, found in cleaned(_tasks(opened, plan), rejects):
        for name, some in found.items():
            vectors[name].add(some)
        hinted = hinted or rejects.add_hint(_hint)
        yield rows
    for table in opened:
        rejects.count(table.path.name, 0)
    if not any(rejects.files[table.path.name].records for table in opened):
        raise PipelineError(f"{opened[0].path} has no records")


def _hint(reason: str) -> str:
    """Return what to try where records are rejected for this reason; empty if there is nothing to try."""
    value = re.search(rf"('.*'|\".*\") {NO_LABEL}$", reason)
    if value is None:
        return tables.hint(reason)
    if parse.numbers(pa.array([value[1][1:-1]]).dictionary_encode())[1].any():  # a word
        return (
            "say under `label` which of its values are clicks, `equals: [...]`, or which are left out, "
            f"`drop: [{value[1]}]`"
        )
    return f"say under `label` from where on numbers are clicks, such as `at_least: {value[1][1:-1]}`"


def _tasks(opened: Sequence[Table], plan: Plan) -> Iterator[tuple[Unit, Clean]]:
    """Yield the units of all files, and how each is cleaned."""
    separators = {column.name: column.separator for column in plan.columns(opened)}
    wanted = {column for column, _, _ in plan.uses}
    first = True
    for table in opened:
        for unit in table.units(wanted, plain=plan.plain):
            yield unit, partial(_checked, plan, separators, table.path.name, first)
            first = False


def _checked(
    plan: Plan,
    separators: Mapping[str, str],
    file: str,
    first: bool,
    table: pa.Table,
    lines: Lines,
    rejects: RejectLog,
) -> tuple[pa.Table, dict[str, Found]]:
    alarm = first and len(table) >= ALARM_RECORDS
    return _clean(Check(table, lines, file, rejects, alarm), plan, separators)


@dataclass
class Check:
    """A block of records, of which those that cannot be used are rejected; the first reason counts.

    Attributes:
        alarm: a column of which more than half the values are malformed is an error at once: it is not
            damage but a wrong setting.
    """

    table: pa.Table
    lines: Lines
    file: str
    rejects: RejectLog
    alarm: bool

    def __post_init__(self) -> None:
        self.good = np.ones(len(self.table), bool)

    def reject(self, bad: Mask, column: str, reason: str, *, remedy: str = "", tip: str = "") -> None:
        """Reject records for the value of a column.

        Args:
            remedy: what to do if most values are malformed; it may contain {column} and {value}.
            tip: what to add to the reason in the reject log.
        """
        if remedy and self.alarm and bad.sum() * 2 > len(bad):
            rows = np.flatnonzero(bad).tolist()
            some = list(dict.fromkeys(repr(shown(self.table[column], row)) for row in rows[:1000]))
            raise PipelineError(
                f"{self.file}: column {column!r}: a value such as {', '.join(some[:5])} {reason}, and "
                f"{len(rows)} of the first {len(bad)} are like that. "
                + remedy.format(column=column, value=some[0])
            )
        new = bad & self.good
        reject(self.table, self.lines, self.file, self.rejects, new, column, reason + tip, if_missing=reason)
        self.good &= ~new


def _clean(check: Check, plan: Plan, separators: Mapping[str, str]) -> tuple[pa.Table, dict[str, Found]]:
    """Return the clean rows of a block, and the vectors that they have, by field."""
    assert plan.label is not None
    texts = cache(lambda name: parse.texts(chunk(check.table[name]), plan.missing, plan.decimal))
    clicks, dropped = label_of(texts(plan.label.column), plan, check)
    made = features_of(check, plan, separators, texts)
    made["label"] = pa.array(clicks)
    if plan.label.grades and plan.label.above is not None:
        amounts, _ = parse.numbers(texts(plan.label.column), (), plan.decimal)
        made["grade"] = parse.grades(amounts, plan.label.above, *plan.label.grades)
    if plan.group is not None:
        made["group"] = parse.filled(texts(plan.group))
    made |= times_of(check, plan)
    made |= {name: parse.filled(texts(name)) for name in plan.kept}
    if plan.file is not None:
        made[plan.file] = parse.texts(pa.repeat(check.file, len(check.table)))
    check.rejects.drop(check.file, int((check.good & dropped).sum()))
    kept = check.good & ~dropped
    vectors = {}
    for name, field in plan.fields.items():
        if field.type == "vector" and field.file is None:
            lists = chunk(check.table[field.lists]).filter(pa.array(kept))
            keys = made[name].filter(pa.array(kept))
            vectors[name] = in_rows(keys, lists, check.lines[kept], check.file, field.lists)
    return keep_rows(pa.table(made), check.lines, kept)[0], vectors


def features_of(
    check: Check,
    plan: Plan,
    separators: Mapping[str, str],
    texts: Callable[[str], pa.DictionaryArray],
) -> dict[str, pa.Array]:
    """Return the fields of a block as the clean table has them; records with malformed values are rejected.

    Args:
        separators: of each bag in the clean table.
        texts: the values of a column as texts.
    """
    made: dict[str, pa.Array] = {}
    for name, field in plan.fields.items():
        if field.type in ("category", "vector"):
            made[name] = texts(field.source)
            continue
        column = chunk(check.table[field.source])
        if field.type == "number":
            values, malformed = parse.numbers(column, plan.missing, plan.decimal)
            check.reject(malformed, field.source, "is not a number", remedy=_NUMBER_REMEDY)
            made[name] = pa.array(values)
        elif field.type == "bag":
            if parse.kind(column.type) == "text" and plan.decimal == ".":
                column = texts(field.source)  # which `parse.bags` starts with, too
            made[name] = _bag(column, field, separators[name], plan.missing)
        else:
            times = _times(column, field.source, field.format or "iso", plan, check)
            clock = field.utc_offset or "+00:00"
            made |= {new: date_part(times, part, clock) for new, part in field.date_parts(name).items()}
    return made


def times_of(check: Check, plan: Plan) -> dict[str, pa.Array]:
    """Return the column `time` of a block, if the plan has one; records without a time are rejected."""
    if plan.time is None:
        return {}
    name = plan.time.column
    times = _times(chunk(check.table[name]), name, plan.time_format, plan, check)
    check.reject(times.is_null().to_numpy(zero_copy_only=False), name, "is missing, and `time` needs it")
    return {"time": times}


def clicks_of(values: pa.DictionaryArray, label: Label, decimal: str = ".") -> tuple[Mask, Mask]:
    """Return masks of the values that are clicks, and of those that are valid labels; missing ones are not.

    Args:
        decimal: the character before the decimals of a number.
    """
    present = values.is_valid().to_numpy(zero_copy_only=False)
    if label.equals is not None:
        given = label.equals if isinstance(label.equals, list) else [label.equals]
        return _is_one_of(values, given), present
    if label.above is None and label.at_least is None:
        lower, (amounts, _) = recode(values, pc.utf8_lower), parse.numbers(values, (), decimal)
        clicks = equals(lower, *YES) | (amounts == 1)
        return clicks, clicks | equals(lower, *NO) | (amounts == 0)
    amounts, _ = parse.numbers(values, (), decimal)
    valid = present & ~np.isnan(amounts)
    if label.above is not None:
        return amounts > label.above, valid
    assert label.at_least is not None
    return amounts >= label.at_least, valid


def label_of(values: pa.DictionaryArray, plan: Plan, check: Check) -> tuple[NDArray[np.uint8], Mask]:
    """Return the clicks, and a mask of the records that are left out on purpose; reject invalid labels."""
    rule = plan.label
    assert rule is not None
    absent = values.is_null().to_numpy(zero_copy_only=False)
    dropped = _is_one_of(values, [value for value in rule.drop if value is not None])
    if None in rule.drop:
        dropped |= absent
    else:
        tip = "; `drop: [null]` under `label` leaves it out"
        check.reject(absent, rule.column, "is missing, and it is the label", tip=tip)
    clicks, valid = clicks_of(values, rule, plan.decimal)
    invalid = ~absent & ~valid & ~dropped
    if rule.above is not None or rule.at_least is not None:
        check.reject(invalid, rule.column, "is not a number", remedy=_AMOUNT_REMEDY)
    else:
        check.reject(invalid, rule.column, NO_LABEL, remedy=_label_remedy(values))
    return clicks.astype(np.uint8), dropped


def _label_remedy(values: pa.DictionaryArray) -> str:
    """Say how a label of these values is written; which of them are clicks, only the user knows."""
    amounts, malformed = parse.numbers(values.dictionary)
    finite = amounts[np.isfinite(amounts)]
    if len(finite) and not malformed.any():
        low, high = f"{finite.min():.10g}", f"{finite.max():.10g}"
        return (
            f"They go from {low} to {high}: say from where on they are clicks, such as "
            f"`label: {{{{column: {{column}}, at_least: {high}}}}}`"
        )
    some = ", ".join(repr(text[:40]) for text in values.dictionary[:6].to_pylist())
    some = some.replace("{", "{{").replace("}", "}}") + (", ..." if len(values.dictionary) > 6 else "")
    return f"Say which of its values ({some}) are clicks: `label: {{{{column: {{column}}, equals: [...]}}}}`"


_AMOUNT_REMEDY = (
    'Its rule needs numbers: use `{{column: {column}, equals: {value}}}`, or set `decimal: ","` for decimal '
    "commas"
)
_NUMBER_REMEDY = (
    "Make it a category (`{column}: {{domain: ..., type: category}}`), list the texts of missing values "
    '(`missing: ["n/a", ...]`), or set `decimal: ","` for decimal commas'
)
_TIME_REMEDY = (
    "Say how its times are written: `format:` iso, seconds, milliseconds or a pattern like "
    '"%d.%m.%Y %H:%M:%S"'
)


def _is_one_of(values: pa.DictionaryArray, given: Sequence[Value]) -> Mask:
    """Whether a value is one of those in params.yaml; numbers are compared as numbers."""
    flags = [str(value).lower() for value in given if isinstance(value, bool)]
    found = equals(recode(values, pc.utf8_lower), *flags) if flags else np.zeros(len(values), bool)
    texts = pa.array([value.strip() for value in given if isinstance(value, str)], pa.string())
    found |= equals(values, *parse.whole(texts).to_pylist())
    amounts = [
        float(value) for value in given if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return found | np.isin(parse.numbers(values)[0], amounts) if amounts else found


def _times(column: pa.Array, name: str, time_format: str, plan: Plan, check: Check) -> pa.Int64Array:
    times, malformed = seconds(column, time_format, plan.missing)
    check.reject(malformed, name, f"is not a time ({time_format})", remedy=_TIME_REMEDY)
    return times


def _bag(column: pa.Array, field: Feature, separator: str, missing: frozenset[str]) -> pa.DictionaryArray:
    """Return a bag with the separator that it has in all files of the folder."""
    own = separator if parse.kind(column.type) == "list" else field.separator or "|"
    values = parse.bags(column, own, missing)
    if own == separator:
        return values
    return recode(values, lambda texts: pc.replace_substring(texts, own, separator))
