"""Anybody's own click log: a text file with separators, a Parquet file, or a folder of such.

The item in params.yaml says what the columns are; `python -m pipeline inspect FILE` writes a first one.

    my-clicks:
      source: tabular
      download: {path: ../logs/clicks.csv}
      preprocess:
        label: click                              # or {column: rating, at_least: 4}
        fields:
          user_id: user                           # short for {domain: user}: a category
          price: {domain: item, type: number}
          tags: {domain: item, type: bag, separator: "|"}
          ts: {domain: context, type: timestamp, parts: [hour, weekday]}   # fields ts_hour, ts_weekday
        group: user_id                            # for gAUC and a split by user
        time: ts                                  # for a split by time
      split: {method: random, seed: 1024, test: 0.2, valid: 0.1}
      encode: {min_count: 2}
      settings: {}

The columns of a file are known by their names, in any order; what no key names is not read. White space
around values and names goes. A value that is one of `missing` is missing: a category of its own, no
number, an empty bag. A record is refused, with file and line, whose label is missing or no label,
whose number is none or whose time is none; infinite numbers stay. Files of a folder come in the order of
their names. In Parquet, integers are categories by their decimals, 12.0 is `12`, and lists are bags.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from pipeline.common.errors import PipelineError
from pipeline.download.obtain import copy_own
from pipeline.preprocess import parse, tables
from pipeline.preprocess.clean_table import ClickLog
from pipeline.preprocess.cleaning import equals
from pipeline.preprocess.cleaning import keep as keep_rows
from pipeline.preprocess.parse import chunk, number, recode
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.tables import Layout, Table
from pipeline.preprocess.text import Lines
from pipeline.preprocess.timestamps import DatePart, check_format, date_part, seconds
from pipeline.schema import Column, Domain

Value = str | bool | int | float
Mask = NDArray[np.bool_]
MISSING = ("", "NULL", "null", "NA", "N/A", "nan", "NaN", "None", "\\N")
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")  # labels as they are, in any case
OWN = ("label", "group", "time", "truth")  # columns of the clean table that are no fields
MANY = 100  # records from which on a wrong setting is told from a few damaged records


class Settings(BaseModel):
    """Values of params.yaml: no unknown key, no silent change of type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Feature(Settings):
    """A field: what a column means. A word alone is the domain of a category.

    Attributes:
        domain: whose property it is.
        type: `category`; `number`, which `split` will cut into bins; `bag`, several values in one;
            `timestamp`, of which the parts become fields `<name>_<part>`.
        column: its column (default: the field's name).
        separator: between the values of a bag; a list of Parquet has none.
        format: of a timestamp: iso, seconds, milliseconds or a pattern like %d.%m.%Y %H:%M.
        parts: of a timestamp, each a category.
    """

    domain: Domain
    type: Literal["category", "number", "bag", "timestamp"] = "category"
    column: str | None = None
    separator: str | None = Field(default=None, min_length=1)
    format: str | None = None
    parts: list[DatePart] | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("needs a domain: user, item or context")
        return {"domain": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _matches(self) -> "Feature":
        for key, type_ in (("separator", "bag"), ("format", "timestamp"), ("parts", "timestamp")):
            if getattr(self, key) is not None and self.type != type_:
                raise ValueError(f"{key} belongs to type {type_}, and this is a {self.type}")
        if self.format is not None:
            check_format(self.format)
        if self.parts and len(set(self.parts)) < len(self.parts):
            raise ValueError("parts names one twice")
        return self


class Label(Settings):
    """Which records are clicks. A word alone is a column of 0 and 1 (or true/false, yes/no).

    Attributes:
        column: it is made of this column, which is therefore no field.
        above: numbers larger than this are clicks.
        at_least: numbers as large as this or larger are clicks.
        equals: this value is a click, or each of these.
        drop: records with these values are left out.
    """

    column: str
    above: int | float | None = None
    at_least: int | float | None = None
    equals: Value | list[Value] | None = None
    drop: list[Value] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_rule(self) -> "Label":
        if sum(rule is not None for rule in (self.above, self.at_least, self.equals)) > 1:
            raise ValueError("give one of above, at_least and equals")
        if self.equals == []:
            raise ValueError("equals is empty")
        return self


class Time(Settings):
    """When a record was written. A word alone is a column, in the format of the field of that column."""

    column: str
    format: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _known(self) -> "Time":
        if self.format is not None:
            check_format(self.format)
        return self


def download(folder: Path, cache: Path, *, path: str, mirror: str | None = None) -> None:
    """Copy the file, or the files of a folder that look like tables.

    A copy, so DVC does not see when the original changes: `dvc repro -f download@my-clicks` takes it
    anew. `cache` and `mirror` are for datasets that come from a publisher.

    Args:
        path: of the file or folder; a relative one starts at the project's folder.
    """
    del cache, mirror
    copy_own(path, folder, source="tabular", suffixes=tables.SUFFIXES)


def read(
    folder: Path,
    rejects: RejectLog,
    *,
    label: Label,
    fields: dict[str, Feature],
    group: str | None = None,
    time: Time | None = None,
    keep: Sequence[str] = (),
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
            by user. Records without one form one group.
        time: a column, for a split by time. Records without a time are refused then.
        keep: further columns, for a split by one of them.
        separator: between the fields of a text file (default: a tab in .tsv files, else a comma).
        encoding: of text, as Python calls it.
        quote: around a field that holds separators or line ends; null for none.
        escape: before a character that stands for itself.
        decimal: before the decimals of numbers in text.
        missing: what a missing value looks like.
        names: of the columns, in order, for text files without a header.

    Raises:
        PipelineError: files, columns and keys do not fit.
    """
    features = _valid(dict[str, Feature], fields, "fields")
    plan = _Plan(
        label=_valid(Label, label, "label"),
        fields={name: _with_column(name, feature) for name, feature in features.items()},
        group=group,
        time=None if time is None else _valid(Time, time, "time"),
        keep=tuple(dict.fromkeys(keep)),
        missing=frozenset(missing),
        decimal=decimal,
    )
    layout = Layout(separator, encoding, quote, escape, None if names is None else tuple(names))
    layout.check()
    files = [file for file in sorted(folder.iterdir()) if file.name != "manifest.json"]
    if not files:
        raise PipelineError(f"{folder} holds no file; run the download stage again")
    opened = tables.open_folder(files, layout)
    plan.check(opened)
    return ClickLog(plan.columns(opened), _rows(opened, plan, rejects))


def _with_column(name: str, feature: Feature) -> Feature:
    return feature.model_copy(update={"column": name}) if feature.column is None else feature


def _valid(kind: Any, value: Any, key: str) -> Any:
    """Return a value of params.yaml as what it means; params has checked it before."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise PipelineError(f"preprocess.{key}: {error}") from None


@dataclass(frozen=True)
class _Plan:
    """What is made of the columns; every field knows its column.

    Raises:
        PipelineError: two things of one name, or the label among the fields.
    """

    label: Label
    fields: dict[str, Feature]
    group: str | None
    time: Time | None
    keep: tuple[str, ...]
    missing: frozenset[str]
    decimal: str

    def __post_init__(self) -> None:
        if not self.fields:
            raise PipelineError("preprocess.fields: is empty; a model needs at least one field")
        self._check_names()
        self._check_leaks()

    @property
    def kept(self) -> list[str]:
        """The columns of `keep` that do not go into the clean table as fields already."""
        there = [name for name, field in self.fields.items() if _made_of(name, field) == [_of(field)]]
        return [name for name in self.keep if name not in there]

    @property
    def used(self) -> dict[str, str]:
        """The columns that are read, each with the key of params.yaml that first names it."""
        named = {self.label.column: "preprocess.label"}
        for name, field in self.fields.items():
            named.setdefault(_of(field), f"preprocess.fields.{name}")
        for key, columns in (
            ("group", [self.group] if self.group is not None else []),
            ("time", [self.time.column] if self.time else []),
            ("keep", self.kept),
        ):
            for column in columns:
                named.setdefault(column, f"preprocess.{key}")
        return named

    @property
    def plain(self) -> set[str]:
        """Columns of which nearly all values may differ."""
        some = {_of(field) for field in self.fields.values() if field.type in ("number", "timestamp")}
        some |= {self.time.column} if self.time else set()
        coded = {_of(field) for field in self.fields.values() if field.type in ("category", "bag")}
        return some - coded - {self.label.column, self.group, *self.kept}

    @property
    def time_format(self) -> str:
        """The format of `time`: its own, or that of a field of the same column."""
        assert self.time is not None
        same = (
            f.format for f in self.fields.values() if _of(f) == self.time.column and f.type == "timestamp"
        )
        return self.time.format or next(same, None) or "iso"

    def check(self, opened: Sequence[Table]) -> None:
        """Refuse columns that are not there or of a type that cannot be used so."""
        for table in opened:
            for column, key in self.used.items():
                tables.check_column(table.path, key, column, table.types)
            uses = [(_of(field), f"fields.{name}", field.type) for name, field in self.fields.items()]
            uses += [(self.label.column, "label", "category")]
            uses += [(self.group, "group", "category")] if self.group is not None else []
            uses += [(column, "keep", "category") for column in self.kept]
            uses += [(self.time.column, "time", "timestamp")] if self.time else []
            for column, key, use in uses:
                type_ = table.types[column]
                if not parse.usable(type_, use):
                    better = "; its type is bag" if parse.kind(type_) == "list" else ""
                    better = "; its type is timestamp" if parse.kind(type_) == "time" else better
                    raise PipelineError(
                        f"{table.path}: preprocess.{key}: the column {column!r} holds {type_}, which cannot "
                        f"be read as a {use}{better}"
                    )

    def columns(self, opened: Sequence[Table]) -> tuple[Column, ...]:
        """Return the fields."""
        made = []
        for name, field in self.fields.items():
            if field.type == "timestamp":
                made += [Column(new, "category", field.domain) for new in _made_of(name, field)]
            elif field.type == "bag":
                made.append(Column(name, "bag", field.domain, _separator(field, opened)))
            else:
                made.append(Column(name, field.type, field.domain))
        return tuple(made)

    def _check_names(self) -> None:
        made: dict[str, str] = dict.fromkeys(OWN, "the pipeline itself")
        for name, field in self.fields.items():
            for new in _made_of(name, field):
                if new in made:
                    raise PipelineError(
                        f"preprocess.fields.{name}: the name {new!r} is taken by {made[new]}; give the field "
                        f"another one: `my_{name}: {{column: {_of(field)}, domain: {field.domain}, ...}}`"
                    )
                made[new] = f"the field {name!r}"
        for name in self.kept:
            if name in made:
                raise PipelineError(f"preprocess.keep: the name {name!r} is taken by {made[name]}")

    def _check_leaks(self) -> None:
        clicks = self.label.column
        for name, field in self.fields.items():
            if _of(field) == clicks:
                raise PipelineError(
                    f"preprocess.fields.{name}: the label is made of the column {clicks!r}; as a field it "
                    "would tell the models what they should predict. Take it out of the fields"
                )
        time = self.time.column if self.time else None
        for key, columns in (("group", [self.group]), ("time", [time]), ("keep", [*self.keep])):
            if clicks in columns:
                raise PipelineError(f"preprocess.{key}: {clicks!r} is the label's column")


def _rows(opened: Sequence[Table], plan: _Plan, rejects: RejectLog) -> Iterator[pa.Table]:
    separators = {column.name: column.separator for column in plan.columns(opened)}
    hinted, first = False, True
    for table in opened:
        for block, lines in table.blocks(plan.used, rejects, plain=plan.plain):
            rows = _clean(block, lines, table.path.name, plan, separators, rejects, first=first)
            hinted, first = hinted or rejects.add_hint(tables.hint), False
            yield rows
    if not any(rejects.files[table.path.name].records for table in opened):
        raise PipelineError(f"{opened[0].path} has no records")


def _clean(
    table: pa.Table,
    lines: Lines,
    file: str,
    plan: _Plan,
    separators: Mapping[str, str],
    rejects: RejectLog,
    *,
    first: bool,
) -> pa.Table:
    """Return the clean rows of a block; the others go into the rejects."""
    refused = _Refused(table, file, alarm=first)
    texts = cache(lambda column: parse.texts(chunk(table[column]), plan.missing))
    clicks, dropped = _label(texts(plan.label.column), plan, refused)
    made: dict[str, pa.Array] = {}
    for name, field in plan.fields.items():
        column = chunk(table[_of(field)])
        if field.type == "category":
            made[name] = texts(_of(field))
        elif field.type == "number":
            values, bad = parse.numbers(column, plan.missing, plan.decimal)
            refused.add(bad, _of(field), "is not a number", _NUMBER)
            made[name] = pa.array(values)
        elif field.type == "bag":
            made[name] = _bag(column, field, separators[name], plan.missing)
        else:
            times = _times(column, _of(field), field.format or "iso", plan, refused)
            made |= {f"{name}_{which}": date_part(times, which) for which in _parts(field)}
    made["label"] = pa.array(clicks)
    if plan.group is not None:
        made["group"] = _filled(texts(plan.group))
    if plan.time:
        here = plan.time.column
        made["time"] = _times(chunk(table[here]), here, plan.time_format, plan, refused)
        absent = made["time"].is_null().to_numpy(zero_copy_only=False)
        refused.add(absent, here, "is missing, and `time` needs it")
    made |= {name: _filled(texts(name)) for name in plan.kept}
    good = refused.tell(lines, rejects)
    rejects.drop(file, int((good & dropped).sum()))
    return keep_rows(pa.table(made), lines, good & ~dropped)[0]


_LABEL = (
    "Say which values are clicks, such as `label: {{column: {column}, at_least: 4}}`, "
    "`{{column: {column}, above: 3}}` or `{{column: {column}, equals: {value}}}`"
)
_AMOUNT = (
    'Its rule wants numbers: say `{{column: {column}, equals: {value}}}`, or `decimal: ","` if a comma '
    "stands before the decimals"
)
_NUMBER = (
    "Make it a category (`{column}: {{domain: ..., type: category}}`), say what a missing value looks like "
    '(`missing: [...]`), or say `decimal: ","` if a comma stands before the decimals'
)
_TIMESTAMP = (
    "Say how its times are written: `format:` iso, seconds, milliseconds or a pattern like "
    '"%d.%m.%Y %H:%M:%S"'
)


class _Refused:
    """The records of a block that cannot be used, and why; the first reason counts.

    Args:
        alarm: a column of which more than half the values are refused is an error at once: that is no
            damage but a wrong setting.
    """

    def __init__(self, table: pa.Table, file: str, *, alarm: bool) -> None:
        self._table, self._file, self._alarm = table, file, alarm and len(table) >= MANY
        self._good = np.ones(len(table), bool)
        self._reasons: list[tuple[Mask, str, str]] = []

    def add(self, bad: Mask, column: str, reason: str, remedy: str = "", tip: str = "") -> None:
        """Refuse records for what stands in a column.

        Args:
            remedy: what to do where most values are refused.
            tip: for the account of single records.
        """
        if remedy and self._alarm and bad.sum() * 2 > len(bad):
            rows = np.flatnonzero(bad)
            some = list(dict.fromkeys(self._value(column, row) for row in rows[:1000].tolist()))
            raise PipelineError(
                f"{self._file}: column {column!r}: a value such as {', '.join(some[:5])} {reason}, and "
                f"{len(rows)} of the first {len(bad)} are like that. "
                + remedy.format(column=column, value=some[0])
            )
        new = bad & self._good
        if new.any():
            self._reasons.append((new, column, reason + tip))
            self._good &= ~new

    def tell(self, lines: Lines, rejects: RejectLog) -> Mask:
        """Write the refused records into the rejects, in their order; return which are good."""
        which = np.zeros(len(self._good), np.int64)
        for number_, (bad, _, _) in enumerate(self._reasons):
            which[bad] = number_
        for row in np.flatnonzero(~self._good).tolist():
            _, column, reason = self._reasons[which[row]]
            told = rejects.would_show(self._file, int(lines[row]))  # the others are only counted
            rejects.reject(
                self._file, int(lines[row]), f"{column} {self._value(column, row)} {reason}" if told else ""
            )
        return self._good

    def _value(self, column: str, row: int) -> str:
        value = self._table[column].slice(row, 1)
        if parse.kind(value.type) != "text":  # not every time of Arrow's is one of Python's
            value = parse.texts(chunk(value))
        return repr(value[0].as_py())[:80]


def _label(values: pa.DictionaryArray, plan: _Plan, refused: _Refused) -> tuple[NDArray[np.uint8], Mask]:
    """Return the clicks, and which records are left out on purpose; refuse values that are no label."""
    rule = plan.label
    absent = values.is_null().to_numpy(zero_copy_only=False)
    refused.add(absent, rule.column, "is missing, and it is the label")
    dropped = _is_one_of(values, rule.drop)
    if rule.equals is not None:
        given = rule.equals if isinstance(rule.equals, list) else [rule.equals]
        return _is_one_of(values, given).astype(np.uint8), dropped
    if rule.above is not None or rule.at_least is not None:
        amounts, _ = parse.numbers(values, (), plan.decimal)
        refused.add(np.isnan(amounts) & ~absent & ~dropped, rule.column, "is not a number", _AMOUNT)
        if rule.above is not None:
            return (amounts > rule.above).astype(np.uint8), dropped
        assert rule.at_least is not None
        return (amounts >= rule.at_least).astype(np.uint8), dropped
    lower = recode(values, pc.utf8_lower)
    clicks = equals(lower, *YES)
    other = ~absent & ~clicks & ~equals(lower, *NO) & ~dropped
    refused.add(other, rule.column, "is not 0 or 1", _LABEL, "; `label` takes a rule, such as at_least")
    return clicks.astype(np.uint8), dropped


def _is_one_of(values: pa.DictionaryArray, given: Sequence[Value]) -> Mask:
    """Whether a value is one of those in params.yaml; numbers are compared as numbers."""
    words = [str(value).lower() for value in given if isinstance(value, bool)]
    found = equals(recode(values, pc.utf8_lower), *words) if words else np.zeros(len(values), bool)
    found |= equals(values, *(value.strip() for value in given if isinstance(value, str)))
    amounts = [
        float(value) for value in given if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return found | np.isin(number(values)[0], amounts) if amounts else found


def _times(column: pa.Array, name: str, style: str, plan: _Plan, refused: _Refused) -> pa.Int64Array:
    times, bad = seconds(column, style, plan.missing)
    refused.add(bad, name, f"is not a time ({style})", _TIMESTAMP)
    return times


def _bag(column: pa.Array, field: Feature, separator: str, missing: frozenset[str]) -> pa.DictionaryArray:
    """Return a bag whose values have the separator that they have in all files of the folder."""
    listed = parse.kind(column.type) == "list"
    own = separator if listed else field.separator or "|"
    values = parse.bags(column, own, missing)
    if own == separator:
        return values
    return recode(values, lambda texts: pc.replace_substring(texts, own, separator))


def _filled(values: pa.DictionaryArray) -> pa.DictionaryArray:
    """Return texts in which a missing value is an empty one: no split knows missing values."""
    if not values.null_count:
        return values
    dictionary = pa.concat_arrays([values.dictionary, pa.array([""])])
    indices = pc.fill_null(values.indices, len(values.dictionary))
    return recode(pa.DictionaryArray.from_arrays(indices, dictionary), lambda texts: texts)


def _separator(field: Feature, opened: Sequence[Table]) -> str:
    """Return what stands between the values of a bag: nothing that a list of Parquet may hold."""
    lists = any(parse.kind(table.types[_of(field)]) == "list" for table in opened)
    return tables.BETWEEN if lists else field.separator or "|"


def _made_of(name: str, field: Feature) -> list[str]:
    """Return the columns of the clean table that a field becomes."""
    return [f"{name}_{which}" for which in _parts(field)] if field.type == "timestamp" else [name]


def _parts(field: Feature) -> list[DatePart]:
    return field.parts or ["hour", "weekday"]


def _of(field: Feature) -> str:
    assert field.column is not None
    return field.column
