"""The dataset entry for params.yaml: written as YAML, and put into the file."""

import fcntl
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from pipeline.common.errors import PipelineError
from pipeline.common.files import write_text
from pipeline.common.names import LONGEST
from pipeline.config import yaml_file
from pipeline.datasets.tabular import MISSING, RESERVED, Label, Settings
from pipeline.inspection.findings import Findings
from pipeline.inspection.guessing import is_past
from pipeline.preprocess import tables
from pipeline.preprocess.tables import Layout
from pipeline.schema import SPLITS

_WRITTEN: dict[str, str] = {}
RANDOM = {"method": "random", "seed": 1024, "test": 0.2, "valid": 0.1}  # the split of a log without times
LOG = "THE-LOG"  # stands for the file of a log, where vectors alone were inspected
OF_FILES = "part", "file", "file_name"  # how the column of the files' names may be called
LEAST_TIMES = 100  # distinct ones; rows of one time stay together
FEW_ROWS = 20_000  # below, 20 bins of a number have too few rows for a weight each


def name_of(path: Path) -> str:
    """Return a name for the dataset of a file."""
    stem = path.resolve().name.lower()
    for suffix in sorted(tables.SUFFIXES, key=len, reverse=True):
        stem = stem.removesuffix(suffix)
    return re.sub("[^a-z0-9]+", "-", stem)[:LONGEST].strip("-") or "my-clicks"


def check_free(params: Path, name: str) -> None:
    """Raise if params.yaml has a dataset entry of this name.

    Raises:
        PipelineError: it has, or it is missing, invalid or without a block `data`.
    """
    _, values = yaml_file.read(params)
    if not isinstance(values, dict) or not isinstance(values.get("data") or {}, dict):
        raise PipelineError(f"{params} has no block `data`")
    if name in (values.get("data") or {}):
        raise PipelineError(f"{params}: data: {name!r} already exists; choose another --name, or remove it")


def add(params: Path, name: str, entry: str) -> None:
    """Append an entry to the block `data` of params.yaml; every other byte stays as it is.

    Raises:
        PipelineError: the name is taken, or the block is missing or not in a form that can be appended to.
    """
    with _alone(params.parent):
        _add(params, name, entry)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for other processes that add an entry: two at once would read the same file, and one be lost."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def _add(params: Path, name: str, entry: str) -> None:
    check_free(params, name)
    text, values = yaml_file.read(params)
    expected = {**values, "data": {**(values.get("data") or {}), **yaml_file.parsed(entry)}}
    after = _inserted(text, entry)
    try:
        fits = after is not None and yaml_file.parsed(after) == expected
    except YAMLError:
        fits = False
    if after is None or not fits:
        raise PipelineError(f"{params}: cannot append to the block `data`; paste the entry there yourself")
    write_text(params, after)


def write(name: str, findings: Findings, root: Path) -> str:
    """Return the entry as YAML, indented as below `data:`; columns that are no fields are comments.

    Args:
        root: the project's folder, at which a relative path in the entry starts.
    """
    path = findings.path
    if not path.is_absolute() and path.parts[:1] != ("~",) and root.resolve() != Path.cwd():
        path = Path(os.path.relpath(path, root))
    download: dict[str, Any] = {"path": path.as_posix()}
    if findings.vectors is not None:
        download = {"path": LOG, "vectors": [path.as_posix()]}
    label = one_line(short(proposed_label(findings))) if findings.labels else "# which column is the label?"
    lines = [
        f"{name}:",
        "  source: tabular",
        f"  download: {one_line(download)}",
        "  preprocess:",
        f"    label: {label}",
        "    fields:",
        *(f"      {line}" for line in _fields(findings)),
        *(f"    {key}: {one_line(value)}" for key, value in _further_keys(findings).items()),
        f"  split: {one_line(_split(findings))}",
        f"  encode: {one_line(_encode(findings))}",
        "  settings: {}",
    ]
    return "".join(f"  {line}\n" for line in lines)


def proposed_label(findings: Findings) -> Label:
    """Return the likeliest label; records without one are left out, since a few of them may be normal."""
    label = findings.labels[0].label
    missing = findings.survey.profiles[label.column].missing
    return label.model_copy(update={"drop": [None]}) if missing else label


def by_time(findings: Findings) -> bool:
    """Whether the log has times of day by which it can be split into past and future."""
    if findings.split is not None or findings.file_parts or (column := _time(findings)) is None:
        return False
    hours = "hour" in (findings.fields[column].parts or [])
    return hours and findings.survey.profiles[column].distinct >= LEAST_TIMES


def short(settings: Settings) -> Any:
    """Return the values that are not the default, or the word that stands for them."""
    values = settings.model_dump(exclude_defaults=True)
    return values[settings.word] if list(values) == [settings.word] else values


def one_line(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, str) and re.fullmatch("[a-zA-Z]+_[a-zA-Z0-9_]+|user|item|context", value):
        return value  # as most names of columns; a table may have thousands, and a dump takes a millisecond
    key = repr(value)  # of few different fields
    if key not in _WRITTEN:
        _WRITTEN[key] = _dumped(value)
    return _WRITTEN[key]


def _dumped(value: Any) -> str:
    yaml, stream = YAML(typ="safe", pure=True), StringIO()
    yaml.Representer, yaml.default_flow_style, yaml.width = _Representer, True, sys.maxsize
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump({0: value}, stream)
    return stream.getvalue()[len("{0: ") : -len("}\n")]


class _Representer(SafeRepresenter):
    """Quotes more texts than YAML demands: `;`, since it looks odd, and what is not printable."""

    def represent_str(self, data: str) -> ScalarNode:
        style = '"' if not data.isprintable() else None if re.match(r"[\w./~]", data) else "'"
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Representer.add_representer(str, _Representer.represent_str)


def _fields(findings: Findings) -> list[str]:
    """Return a line per column but the label."""
    lines, taken = [], set(RESERVED)
    for column, guess in findings.guesses.items():
        if column in (findings.label, findings.split):
            continue
        if guess.feature is None:
            lines.append(f"# {one_line(column)}: {guess.kind}")
            continue
        name = column or "unnamed"
        while taken & set(guess.feature.columns(name)):
            name = f"my_{name}"
        feature = guess.feature if name == column else guess.feature.named(column)
        line = f"{one_line(name)}: {one_line(short(feature))}"
        if column in findings.fields:
            lines.append(line)
            taken |= set(feature.columns(name))
        else:
            lines.append(f"# {line}  # {guess.left_out}")
    return lines


def _further_keys(findings: Findings) -> dict[str, Any]:
    """Return the keys of `preprocess` besides label and fields, where they are not the default."""
    fields, keys = findings.fields, dict[str, Any](findings.roles)
    if time := _time(findings):
        keys["time"] = time
    if findings.split is not None:
        keys["keep"] = [findings.split]
    if findings.file_parts:
        keys["file"] = of_files(findings)
    if findings.is_text:
        layout, path = findings.layout, findings.path.expanduser()
        if path.is_file() and layout.separator == Layout().dialect(path.name).delimiter:
            layout = replace(layout, separator=None)
        keys |= {key: value for key, value in vars(layout).items() if value != getattr(Layout(), key)}
    profiles = findings.survey.profiles
    if any(field.type == "number" and profiles[column].decimal_comma for column, field in fields.items()):
        keys["decimal"] = ","
    marks = dict.fromkeys(mark for column in fields for mark in findings.guesses[column].marks)
    if marks:
        keys["missing"] = [*MISSING, *marks]
    return keys


def _encode(findings: Findings) -> dict[str, Any]:
    """Return the block `encode`: numbers of a small log as steps, since its bins would have few rows."""
    numbers = any(field.type == "number" for field in findings.fields.values())
    small = numbers and findings.survey.rows < FEW_ROWS
    return {"min_count": 2, **({"numbers": "steps"} if small else {})}


def _split(findings: Findings) -> dict[str, Any]:
    """Return the block `split`: by a column or files that name the splits, else by time, else at random."""
    if files := findings.file_parts:
        split = {"method": "column", "column": of_files(findings), "values": files}
        return split if "valid" in files.values() else {**split, "seed": 1024, "valid": 0.1}
    if (column := findings.split) is None:
        return {"method": "time", "test": 0.2, "valid": 0.1} if by_time(findings) else dict(RANDOM)
    parts = findings.guesses[column].parts or {}
    block: dict[str, Any] = {"method": "column", "column": column}
    if any(text not in (part, str(SPLITS.index(part))) for text, part in parts.items()):
        block["values"] = dict(parts)
    return block if "valid" in parts.values() else {**block, "seed": 1024, "valid": 0.1}


def of_files(findings: Findings) -> str:
    """Return a free name for the column of the files' names."""
    taken = {*RESERVED, *findings.survey.profiles}
    return next((name for name in OF_FILES if name not in taken), "in_file")


def _time(findings: Findings) -> str | None:
    """Return the column that says when a record was written; rather a full time than a date."""
    hours = {}
    for column, field in findings.fields.items():
        profile = findings.survey.profiles[column]
        if field.type == "timestamp" and not is_past(column) and profile.missing <= profile.tolerated:
            hours[column] = "hour" in (field.parts or [])
    return max(hours, key=hours.__getitem__, default=None)


def _inserted(text: str, entry: str) -> str | None:
    """Return params.yaml with an entry at the end of the block `data`, or None without such a block."""
    root, newline = YAML(typ="safe", pure=True).compose(text), "\r\n" if "\r\n" in text else "\n"
    block = next((value for key, value in root.value if key.value == "data"), None)
    if block is None or (isinstance(block, MappingNode) and block.flow_style):
        return None
    indent = block.value[0][0].start_mark.column if isinstance(block, MappingNode) else 2
    lines = text[: block.end_mark.index].splitlines(keepends=True)
    while re.match(r"#|\s*$", lines[-1]):  # blank lines, and comments on what follows
        lines.pop()
    before = "".join(lines)
    after = text[len(before) :]
    added = "".join(f"{' ' * (indent - 2)}{line}{newline}" for line in entry.splitlines())
    return f"{before}{newline * (2 - before.endswith(newline))}{added}{after}"
