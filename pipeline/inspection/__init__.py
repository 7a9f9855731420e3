"""A first look at somebody's click log: what its columns hold, and an item for params.yaml.

The item is a guess from names and values, printed to be read and corrected. The same file gives the same
text. Files are read block by block, in bounded memory.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from ruamel.yaml.error import YAMLError

from pipeline import metrics
from pipeline.common.errors import PipelineError, unknown
from pipeline.common.files import write_text
from pipeline.config import yaml_file
from pipeline.datasets.tabular import MISSING, RESERVED
from pipeline.inspection import guessing, profiling
from pipeline.inspection.guessing import ENOUGH, FEW, Flags, Guess, Rule
from pipeline.inspection.profiling import DISTINCT, Survey, survey
from pipeline.inspection.sniffing import sniff
from pipeline.preprocess import clean_table, tables
from pipeline.preprocess.parse import numbers
from pipeline.preprocess.tables import Layout

WIDTH = 24  # characters of a name or an example that are shown
MATCHING = 500  # rows in which two columns must tell the same before one is left out
SURE = 10  # rows of either label that a column must tell before it is called a leak
SHOWN = 3  # values that are no label, told with their places
MAX_REJECTED = signature(clean_table.write).parameters["max_rejected"].default
BROKEN = 0.001  # fraction of lines that are no UTF-8, from which on the file is taken for latin-1

_PLAIN = re.compile(r"(\.{0,2}/)*[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", "none"}  # YAML reads more than words


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        report: for people.
        item: of params.yaml, under `data:`.
        complete: whether the item can be used as it is.
    """

    report: str
    item: str
    complete: bool


def inspect(
    path: Path, name: str, *, root: Path = Path(), rows: int | None = None, label: str | None = None
) -> Inspection:
    """Read a file, or the files of a folder, and say what they hold.

    Args:
        path: of the file or folder.
        name: of the item.
        root: the project's folder, at which a relative path in the item starts.
        rows: look only at so many of the first records.
        label: the column of the label, where it is not to be guessed.

    Raises:
        PipelineError: there is no table, or no such column.
    """
    check_name(name)
    files = _files(path)
    written = [file for file in files if not tables.is_parquet(file)]
    layout = sniff(written[0]) if written else Layout()
    found = survey(tables.open_folder(files, layout), MISSING, rows)
    if layout.encoding == "utf-8" and _strange(found) > BROKEN * max(found.rows, 1):
        layout = replace(layout, encoding="latin-1")
        found = survey(tables.open_folder(files, layout), MISSING, rows)
    if not found.rows:
        raise PipelineError(f"{path} has no records that can be read{_refused(found)}")
    named = layout.names is None
    guesses = {
        column: guessing.guess(profile, found.sample.get(column, pa.array([])), named=named)
        for column, profile in found.profiles.items()
    }
    rules = _rules(found, guesses, named, label)
    left_out = _left_out(found, guesses, rules[0]) if rules else {}
    guesses = {
        column: replace(guess, out=left_out.get(column, guess.out)) for column, guess in guesses.items()
    }
    own = path.is_absolute() or path.parts[:1] == ("~",) or root.resolve() == Path.cwd()
    own_path = path if own else Path(os.path.relpath(path, root))
    item, complete = _item(own_path, name, layout if written else None, found, guesses, rules[:1])
    warnings = [f"{_shown(c)}: {why}; left out of the fields" for c, why in left_out.items()]
    warnings += [f"{_shown(c)}: {guess.warning}" for c, guess in guesses.items() if guess.warning]
    report = [
        _headline(path, files, layout if written else None, found),
        _table(found, {**guesses, **{rule.column: Guess("label") for rule in rules[:1]}}),
        *_about_label(found, rules),
        *(_about_others(files, layout, found, rules[0]) if rules else []),
        *(f"  ! {warning}" for warning in [*warnings, *_about_names(named), *_about_lines(found)]),
    ]
    return Inspection("\n".join(report), item, complete)


def check_name(name: str) -> None:
    """Refuse a name that a stage could not have.

    Raises:
        PipelineError: it is none.
    """
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise PipelineError(f"--name {name!r}: letters, digits, - and _ make the name of a dataset")


def name_of(path: Path) -> str:
    """Return a name for an item, from that of the file."""
    stem = path.resolve().name.lower()
    for suffix in sorted(tables.SUFFIXES, key=len, reverse=True):
        stem = stem.removesuffix(suffix)
    return re.sub("[^a-z0-9]+", "-", stem).strip("-") or "my-clicks"


def check_free(params: Path, name: str) -> None:
    """Refuse a name that an item of params.yaml has.

    Raises:
        PipelineError: it is taken, or there is no such file.
    """
    _, values = _read(params)
    if name in (values.get("data") or {}):
        raise PipelineError(f"{params}: data: {name!r} is there already; choose another --name, or remove it")


def add(params: Path, name: str, item: str) -> None:
    """Put an item at the end of the block `data` of params.yaml; every other byte stays as it is.

    Raises:
        PipelineError: the name is taken, or the file has no such block.
    """
    check_free(params, name)
    text, before = _read(params)
    new = yaml_file.parsed(f"data:\n{item}")["data"]
    after = _inserted(text, item)
    wanted = {**before, "data": {**(before.get("data") or {}), **new}}
    if after is None or not _reads_as(after, wanted):
        raise PipelineError(f"{params}: no place for a new item under `data:`; paste it there yourself")
    write_text(params, after)


def _read(params: Path) -> tuple[str, dict[str, Any]]:
    text, values = yaml_file.read(params)
    if not isinstance(values, dict) or not isinstance(values.get("data") or {}, dict):
        raise PipelineError(f"{params} has no block `data`")
    return text, values


def _reads_as(text: str, values: Any) -> bool:
    try:
        return bool(yaml_file.parsed(text) == values)
    except YAMLError:
        return False


def _files(path: Path) -> list[Path]:
    """Return the files that the download stage would take."""
    origin = path.expanduser()
    if not origin.exists():
        raise PipelineError(f"{path} is not there")
    if not origin.is_dir():
        return [origin]
    files = [file for file in sorted(origin.iterdir()) if file.is_file() and file.name[0] not in "._"]
    files = [file for file in files if file.name.endswith(tables.SUFFIXES)]
    if not files:
        raise PipelineError(f"{path} holds no file ending in {', '.join(tables.SUFFIXES)}")
    return files


def _rules(found: Survey, guesses: Mapping[str, Guess], named: bool, column: str | None) -> list[Rule]:
    """Return what could be the label, the likeliest first."""
    if column is not None and column not in found.profiles:
        raise PipelineError(f"--label: {unknown('column', column, found.profiles)}")
    some = list(found.profiles) if column is None else [column]
    rules = [guessing.label(found.profiles[c], named=named, chosen=column is not None) for c in some]
    if column is not None and rules == [None]:
        raise PipelineError(
            f"--label: no rule splits the values of {column!r} ({guesses[column].kind}) in two; "
            f"write one by hand: `label: {{column: {column}, above: 3}}`, `at_least:` or `equals:`"
        )
    return sorted((rule for rule in rules if rule), key=lambda rule: rule.doubt)


def _left_out(found: Survey, guesses: Mapping[str, Guess], rule: Rule) -> dict[str, str]:
    """Return the columns that tell the label, or the same as another one, and why."""
    clicks, known = guessing.clicks(found.sample[rule.column], rule)
    out: dict[str, str] = {}
    seen: dict[bytes, str] = {}
    for name, guess in guesses.items():
        if guess.type is None or guess.out or name == rule.column or len(known) < ENOUGH:
            continue
        values = found.sample[name]
        codes = _by_first(values)
        if _tells(values, codes, guess, clicks, known):
            out[name] = f"tells the label, {_shown(rule.column)}: a leak, unless it is known before the click"
        elif codes.tobytes() in seen and len(codes) >= MATCHING and codes.max() + 1 < len(codes):
            out[name] = f"tells the same as {_shown(seen[codes.tobytes()])}"
        seen.setdefault(codes.tobytes(), name)
    return out


def _by_first(values: pa.DictionaryArray) -> NDArray[np.int64]:
    """Return codes of the values in the order of their first rows: equal for columns that say the same."""
    held = pc.fill_null(values.indices, -1).to_numpy(zero_copy_only=False)
    _, first, codes = np.unique(held, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.asarray(rank[codes])


def _tells(
    values: pa.DictionaryArray, codes: NDArray[np.int64], guess: Guess, clicks: Flags, known: Flags
) -> bool:
    """Whether a column, or that it has a value at all, gives the label away."""
    absent = values.is_null().to_numpy(zero_copy_only=False)
    if _predicts(absent.astype(np.int64), clicks, known):
        return True
    if guess.type == "number":
        amounts, _ = numbers(values)
        amounts = np.nan_to_num(amounts, nan=-np.inf, posinf=None)[known]
        both = min(clicks[known].sum(), (~clicks[known]).sum())
        return bool(both >= SURE and abs(metrics.auc(clicks[known], amounts) - 0.5) > 0.499)
    return guess.type == "category" and _predicts(codes, clicks, known)


def _predicts(codes: NDArray[np.int64], clicks: Flags, known: Flags) -> bool:
    """Whether what the first half of the rows says about each value holds in the second without exception."""
    half = np.arange(len(codes)) < len(codes) // 2
    size = int(codes.max(initial=0)) + 1
    hits = np.bincount(codes[known & half & clicks], minlength=size)
    misses = np.bincount(codes[known & half & ~clicks], minlength=size)
    test = known & ~half & (hits + misses > 0)[codes]
    said, true = (hits > misses)[codes[test]], clicks[test]
    return bool(min(true.sum(), (~true).sum()) >= SURE and (said == true).mean() > 0.9999)


def _item(
    path: Path,
    name: str,
    layout: Layout | None,
    found: Survey,
    guesses: Mapping[str, Guess],
    rules: Sequence[Rule],
) -> tuple[str, bool]:
    """Return the item, and whether it can be used."""
    label = rules[0].column if rules else None
    fields, some = _fields(guesses, label)
    preprocess = [f"label: {_label(rules[0])}" if rules else "label: # which column says what was clicked?"]
    preprocess += ["fields:", *(f"  {line}" for line in fields)]
    used = {column: guess for column, guess in guesses.items() if column != label and not guess.out}
    group = [c for c, g in used.items() if g.type == "category" and guessing.names_a_person(c)]
    preprocess += [f"group: {_scalar(group[0])}"] if group else []
    if time := _time(found, used):
        preprocess.append(f"time: {_scalar(time)}")
    preprocess += [f"{key}: {_value(value)}" for key, value in _settings(path, layout, used, found).items()]
    lines = [
        f"{name}:",
        "  source: tabular",
        f"  download: {_flow({'path': path.as_posix()})}",
        "  preprocess:",
        *(f"    {line}" for line in preprocess),
        "  split: {method: random, seed: 1024, test: 0.2, valid: 0.1}",
        "  encode: {min_count: 2}",
        "  settings: {}",
    ]
    return "".join(f"  {line}\n" for line in lines), bool(rules) and some


def _fields(guesses: Mapping[str, Guess], label: str | None) -> tuple[list[str], bool]:
    """Return a line per column, those left out as comments, and whether there is any field."""
    lines, taken, some = [], set(RESERVED), False
    for column, guess in guesses.items():
        if column == label:
            continue
        if guess.type is None:
            lines.append(f"# {_scalar(column)}: {guess.kind}")
            continue
        name = column or "unnamed"
        while taken & set(_made_of(name, guess)):
            name = f"my_{name}"
        options = {"column": column} if name != column else {}
        kind = {} if guess.type == "category" else {"type": guess.type}
        value = _flow({**options, "domain": guessing.domain(column), **kind, **guess.options})
        value = guessing.domain(column) if guess.type == "category" and not options else value
        line = f"{_scalar(name)}: {value}"
        lines.append(f"# {line}  # {guess.out}" if guess.out else line)
        if not guess.out:
            taken |= set(_made_of(name, guess))
            some = True
    return lines, some


def _made_of(name: str, guess: Guess) -> list[str]:
    if guess.type != "timestamp":
        return [name]
    return [f"{name}_{part}" for part in guess.options["parts"]]


def _time(found: Survey, used: Mapping[str, Guess]) -> str | None:
    """Return the column that says when a record was written: full times rather than dates."""
    times = [
        column
        for column, guess in used.items()
        if guess.type == "timestamp"
        and not guessing.is_past(column)
        and found.profiles[column].missing <= found.profiles[column].stray
    ]
    full = [column for column in times if "hour" in used[column].options["parts"]]
    return next(iter([*full, *times]), None)


def _settings(path: Path, layout: Layout | None, used: Mapping[str, Guess], found: Survey) -> dict[str, Any]:
    """Return the keys that differ from their defaults."""
    keys: dict[str, Any] = {}
    if layout is not None:
        usual, default = Layout(), Layout().dialect(path.name).delimiter
        if layout.separator != default or path.is_dir():
            keys["separator"] = layout.separator
        for key in ("encoding", "quote", "escape"):
            if getattr(layout, key) != getattr(usual, key):
                keys[key] = getattr(layout, key)
    if any(guess.type == "number" and found.profiles[column].comma for column, guess in used.items()):
        keys["decimal"] = ","
    marks = dict.fromkeys(mark for guess in used.values() for mark in guess.marks)
    if marks:
        keys["missing"] = [*MISSING, *marks]
    if layout is not None and layout.names is not None:
        keys["names"] = list(layout.names)
    return keys


def _label(rule: Rule) -> str:
    return _flow({"column": rule.column, **rule.rule}) if rule.rule else _scalar(rule.column)


def _headline(path: Path, files: Sequence[Path], layout: Layout | None, found: Survey) -> str:
    which = f"{path}, {len(files)} file{'s' * (len(files) > 1)}" if path.expanduser().is_dir() else str(path)
    told = [f"{'the first ' if found.stopped else ''}{found.rows:,} records"]
    if layout is None:
        told.append("Parquet")
    else:
        signs = {",": "comma", ";": "semicolon", "\t": "tab"}
        told.append(f"separator {signs.get(layout.separator or ',', _scalar(str(layout.separator)))}")
        told.append(layout.encoding)
        told += [f"escape {layout.escape}"] if layout.escape else []
        told += ["quotes mean nothing"] if layout.quote is None else []
        told.append("header" if layout.names is None else "no header: names are made up")
    return f"{which}: {', '.join(told)}\n"


def _table(found: Survey, guesses: Mapping[str, Guess]) -> str:
    """Return an aligned table of the columns."""
    rows = [("column", "looks like", "distinct", "missing", "examples")]
    for name, profile in found.profiles.items():
        bound = f">= {min(profile.at_least, DISTINCT):,}"
        distinct = bound if profile.values is None else f"{profile.at_least:,}"
        absent = f"{100 * profile.missing / profile.rows:.1f} %" if profile.missing else "-"
        examples = ", ".join(_shown(text) for text in profile.examples)
        usable = guesses[name].type is not None or not profile.rows
        rows.append((_shown(name), guesses[name].kind, distinct if usable else "", absent, examples))
    wide = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = (
        f"  {name:{wide[0]}}  {kind:{wide[1]}}  {distinct:>{wide[2]}}  {absent:>{wide[3]}}  {examples}"
        for name, kind, distinct, absent, examples in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _about_label(found: Survey, rules: Sequence[Rule]) -> list[str]:
    if not rules:
        return ["\n  label: no column looks like one; say which it is with --label COLUMN"]
    lines = [f"\n  label: {_label(rules[0])}, {100 * rules[0].rate:.2f} % clicks"]
    if rules[0].doubt > 2:
        lines[0] += " (its name does not say so: check, or say --label COLUMN)"
    lines += [f"     or: {_label(rule)}, {100 * rule.rate:.2f} % clicks" for rule in rules[1:6]]
    profile = found.profiles[rules[0].column]
    if profile.missing:
        lines.append(f"  ! {profile.missing} records have no label: they will be refused")
    return lines


def _about_others(files: Sequence[Path], layout: Layout, found: Survey, rule: Rule) -> list[str]:
    """Warn of values that are no label by the rule: which, where the first stands, and what to do."""
    column, profile = rule.column, found.profiles[rule.column]
    assert profile.values is not None
    clicks, known = guessing.clicks(profile.values.dictionary_encode(), rule)
    if known.all():
        return []
    values = profile.values.filter(pa.array(~known)).to_pylist()
    some, counts = values[:SHOWN], profile.counts[~known]
    places = profiling.places(tables.open_folder(files, layout), column, some, MISSING)
    told = [f"{_shown(v)} ({n:,}, first at {places[v]})" for v, n in zip(some, counts.tolist(), strict=False)]
    told += [f"{len(values) - SHOWN} values more"] * (len(values) > SHOWN)
    what = "no numbers" if rule.rule else "neither positive (1, true, yes) nor negative (0, false, no)"
    stops = ", and so many of them stop preprocess" * bool(counts.sum() > MAX_REJECTED * profile.rows)
    lines = [f"  ! {counts.sum():,} of {profile.filled:,} labels are {what}: {', '.join(told)}"]
    lines.append(f"      their records will be refused{stops}; mend the file, or change the item:")
    drop = _flow({"column": column, **rule.rule, "drop": values})
    lines.append(f"      to leave them out: `label: {drop}`")
    if not rule.rule:
        positive = profile.values.filter(pa.array(clicks)).to_pylist()
        equals = _flow({"column": column, "equals": positive + values})
        lines.append(f"      if they are clicks: `label: {equals}`")
    return lines if len(values) <= FEW else lines[:2]


def _about_names(named: bool) -> list[str]:
    if named:
        return []
    return [
        "no header: give the columns their names under `names` and say whose they are (user, item, context)"
    ]


def _about_lines(found: Survey) -> list[str]:
    rejected = sum(tally.rejected for tally in found.rejects.files.values())
    return [f"{rejected} lines were refused{_refused(found)}"] if rejected else []


def _refused(found: Survey) -> str:
    first = found.rejects.first[:3]
    hints = dict.fromkeys(filter(None, map(tables.hint, first)))
    return "".join(f"\n      {line}" for line in first) + "".join(hints)


def _strange(found: Survey) -> int:
    """Return a count of lines that are not in UTF-8: that of all refused ones, if some of them are."""
    strange = any("is not utf-8" in line for line in found.rejects.first)
    return sum(tally.rejected for tally in found.rejects.files.values()) if strange else 0


def _shown(text: str) -> str:
    """Return a text that fits into a line of a table."""
    cut = text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."
    cut = cut.replace(tables.LIST_SEPARATOR, ", ")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut) or '""'


def _value(value: Any) -> str:
    """Return a value in YAML, on one line."""
    if isinstance(value, dict):
        return _flow(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return _scalar(value) if isinstance(value, str) else "null" if value is None else str(value)


def _flow(values: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{_scalar(key)}: {_value(value)}" for key, value in values.items()) + "}"


def _scalar(text: str) -> str:
    """Return a string in YAML: as it is where nothing else could be meant."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\\t':
        return {"\t": "\\t"}.get(character, f"\\{character}")
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _inserted(text: str, item: str) -> str | None:
    """Return the text with the item behind the last line of the block `data`."""
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    starts = [i for i, line in enumerate(lines) if re.match(r"""(data|"data"|'data')\s*:\s*(#.*)?$""", line)]
    if len(starts) != 1:
        return None
    end = start = starts[0] + 1
    indent = 2
    for i in range(start, len(lines)):
        content = lines[i].strip()
        if not content or (content.startswith("#") and lines[i][0] == "#"):
            continue
        if lines[i][0] != " ":
            break
        if end == start and not content.startswith("#"):
            indent = len(lines[i]) - len(lines[i].lstrip(" "))
        end = i + 1
    newline = "\r\n" if lines[starts[0]].endswith("\r\n") else "\n"
    added = "".join(f"{' ' * (indent - 2)}{line}{newline}" for line in item.splitlines())
    before = "".join(lines[:end])
    if not before.endswith("\n"):
        before += newline
    return f"{before}{newline}{added}{''.join(lines[end:])}"
