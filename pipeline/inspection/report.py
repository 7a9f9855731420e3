"""The findings in words: a line about the file, a table of its columns, the label, and warnings."""

from collections.abc import Iterator

import pyarrow as pa

from pipeline.common.text import counted, listed
from pipeline.datasets.tabular import MISSING, clicks_of
from pipeline.inspection import profiling
from pipeline.inspection.entry import RANDOM, by_time, of_files, one_line, proposed_label, short
from pipeline.inspection.findings import Findings, first_rejects
from pipeline.inspection.labels import MAX_VALUES, constant, is_called_label
from pipeline.inspection.profiling import shown
from pipeline.preprocess import tables
from pipeline.preprocess.clean_table import MAX_REJECTED
from pipeline.schema import SPLITS

FEW_WORDS = 0.05  # of the values of a column that is one of numbers but for them
MAX_FILES = 5  # of a folder that are named in a line
MAX_SHOWN = 3  # invalid labels that are listed with their lines
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}


def write(findings: Findings) -> str:
    """Return the report."""
    return "\n".join(
        [
            _headline(findings),
            "",
            *_table(findings),
            "",
            *_label(findings),
            *_roles(findings),
            *_warnings(findings),
        ]
    )


def _headline(findings: Findings) -> str:
    found, layout = findings.survey, findings.layout
    files = f", {counted(len(findings.files), 'file')}" if findings.path.expanduser().is_dir() else ""
    facts = [f"{'the first ' if found.truncated else ''}{counted(found.rows, 'record')}"]
    if not findings.is_text:
        facts.append("Parquet")
    else:
        separator = layout.separator or ","
        facts += [f"separator {SEPARATORS.get(separator, one_line(separator))}", layout.encoding]
        facts += [f"escape {layout.escape}"] if layout.escape else []
        facts += ["no quotes"] if layout.quote is None else []
        facts.append("header" if layout.names is None else "no header")
    return f"{findings.path}{files}: {', '.join(facts)}"


def _table(findings: Findings) -> Iterator[str]:
    rows = [("column", "looks like", "distinct", "missing", "examples")]
    for name, profile in findings.survey.profiles.items():
        kind = {findings.label: "label", findings.split: "split"}.get(name, findings.guesses[name].kind)
        distinct = f"{profile.distinct:,}" if profile.filled else ""
        if profile.values is None:
            distinct = f">= {min(profile.distinct, profiling.MAX_DISTINCT):,}"
        missing = f"{100 * profile.missing / profile.rows:.1f} %" if profile.missing else "-"
        rows.append((shown(name), kind, distinct, missing, ", ".join(map(shown, profile.examples))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, kind, distinct, missing, examples in rows:
        line = f"  {name:{widths[0]}}  {kind:{widths[1]}}  {distinct:>{widths[2]}}  {missing:>{widths[3]}}"
        yield f"{line}  {examples}".rstrip()


def _label(findings: Findings) -> Iterator[str]:
    if findings.vectors is not None:
        column, field = findings.vectors
        key, name = shown(field.source), shown(column)
        yield f"  no log, but a file of vectors of {key}: in the entry of a log with that column"
        yield f"      name it under `download: {{vectors: [...]}}`, and take the field {name} from here"
        return
    if not findings.labels:
        yield "  label: no column looks like one; name it with --label COLUMN"
        yield from _constant_labels(findings)
        return
    labels = [proposed_label(findings), *(candidate.label for candidate in findings.labels[1:6])]
    rates = (f"{100 * candidate.rate:.2f} % clicks" for candidate in findings.labels)
    first, *others = (f"{one_line(short(label))}, {rate}" for label, rate in zip(labels, rates, strict=False))
    guessed = " (guessed from its values alone: check it, or name another with --label COLUMN)"
    unsure = findings.labels[0].doubt > 2
    yield f"  label: {first}{guessed if unsure else ''}"
    yield from (f"     or: {other}" for other in others)
    if unsure:
        yield from _constant_labels(findings)
    profile = findings.survey.profiles[findings.labels[0].label.column]
    if profile.missing:
        records = counted(profile.missing, "record")
        yield f"  ! {records} without a label will be left out; without `drop: [null]` they are rejected"
    yield from _invalid_labels(findings)


def _roles(findings: Findings) -> Iterator[str]:
    """Say which of the user and the item no column identifies by its name, and what that costs."""
    wanted = {"user": "gAUC, and errors that know whose rows are alike", "item": "slices of new items"}
    if not findings.labels or findings.vectors is not None:
        return
    for role, needs in wanted.items():
        if role not in findings.roles:
            yield f"  {role}: no column is called like its id; if one is, write `{role}: NAME` in the entry,"
            yield f"      beside `label`: {needs} need it, and models of histories"


def _constant_labels(findings: Findings) -> Iterator[str]:
    """Name the columns that are called like a label and have one value."""
    for name, profile in findings.survey.profiles.items():
        if is_called_label(name) and (words := constant(profile)):
            yield f"  ! {shown(name)}: is called like a label, but {words}, so there is nothing to learn"


def _invalid_labels(findings: Findings) -> Iterator[str]:
    """Warn of values that the label's rule rejects: which, where the first is, and what to do."""
    label = proposed_label(findings)
    profile = findings.survey.profiles[label.column]
    assert profile.values is not None
    clicks, valid = clicks_of(profile.values.dictionary_encode(), label)
    if valid.all():
        return
    values, counts = profile.values.filter(pa.array(~valid)).to_pylist(), profile.counts[~valid]
    first, rule = values[:MAX_SHOWN], short(label)
    opened = tables.open_folder(findings.files, findings.layout)
    places = profiling.places(opened, label.column, first, MISSING)
    some = [f"{shown(v)} ({n:,}, first at {places[v]})" for v, n in zip(first, counts.tolist(), strict=False)]
    some += [f"{counted(len(values) - MAX_SHOWN, 'other value')}"] if len(values) > MAX_SHOWN else []
    words = isinstance(rule, str)
    reason = "neither positive (1, true, yes) nor negative (0, false, no)" if words else "not numbers"
    yield f"  ! {counts.sum():,} of {profile.filled:,} labels are {reason}: {', '.join(some)}"
    stops = ", more than preprocess allows" if counts.sum() > MAX_REJECTED * profile.rows else ""
    yield f"      their records will be rejected{stops}; fix the file, or change the label in the entry"
    if len(values) > MAX_VALUES:
        return
    drop = label.model_copy(update={"drop": [*(label.drop or []), *values]})
    yield f"      to leave them out: `label: {one_line(short(drop))}`"
    if words:
        equals = label.model_copy(
            update={"equals": profile.values.filter(pa.array(clicks)).to_pylist() + values}
        )
        yield f"      if they are clicks: `label: {one_line(short(equals))}`"


def _odd_values(findings: Findings) -> Iterator[str]:
    """Tell of columns of numbers that a few words make a category, and of records without a user or item."""
    roles = findings.roles
    for column, field in findings.fields.items():
        profile = findings.survey.profiles[column]
        if (
            field.type == "category"
            and not findings.guesses[column].warning
            and column not in roles.values()
            and not profile.identifiers
            and 0 < profile.not_numbers <= FEW_WORDS * profile.filled
        ):
            share = 100 * (1 - profile.not_numbers / profile.filled)
            odd = f"{share:.1f} % of its values are numbers, {profile.not_numbers:,} are not"
            yield f"  ! {shown(column)}: {odd}, so it is a category;"
            yield "      if it is an amount, list those under `missing` and set `type: number`"
    for role, column in roles.items():
        if missing := findings.survey.profiles[column].missing:
            yield f"  ! {shown(column)}: {counted(missing, 'record')} without a value count as one {role}"


def _split(findings: Findings) -> Iterator[str]:
    yield from _split_of_files(findings)
    if by_time(findings):
        yield "  split by time: the newest fifth are the test rows, as a model meets them;"
        yield f"      `split: {one_line(RANDOM)}` mixes old and new, as papers do"


def _split_of_files(findings: Findings) -> Iterator[str]:
    """Say what the names of the files have to do with the split."""
    named = findings.named_files
    of_part = {file: part for file, part in named.items() if part is not None}
    parts = listed((f"{shown(file)}: {part}" for file, part in of_part.items()), MAX_FILES)
    if findings.split is not None:
        if {"train", "test"} <= set(of_part.values()):
            yield f"  split by the column {shown(findings.split)}; names of files say parts, too: {parts}"
    elif findings.file_parts:
        yield f"  split by the names of the files: {parts}"
        for part, (records, rate) in findings.of_parts.items():
            clicks = "" if rate is None else f", {100 * rate:.2f} % clicks"
            yield f"      {part}: {counted(records, 'record')}{clicks}"
        yield from _empty_files(findings)
    elif named:
        others = [shown(file) for file, part in named.items() if part is None]
        lacking = "test" if "train" in of_part.values() else "train"
        column = of_files(findings)
        values = one_line(dict(list(named.items())[:MAX_FILES]))[:-1] + ", ..." * (len(named) > MAX_FILES)
        rest = f"those of {listed(others, MAX_FILES)} do not" if others else f"none says {lacking}"
        yield f"  ! the names of some files say parts ({parts}), {rest},"
        yield f"      so all are split together {'by time' if by_time(findings) else 'at random'};"
        yield f"      to split by files set `file: {column}` under `preprocess`, and, with what each is,"
        yield f"      `split: {{method: column, column: {column}, values: {values}}}}}`"
        if others:
            wanted = one_line(list(of_part)[:MAX_FILES])[:-1] + ", ..." * (len(of_part) > MAX_FILES)
            yield "      (null leaves a file out, as `download` does if it names the wanted ones alone:"
            yield f"      `files: {wanted}]`)"


def _empty_files(findings: Findings) -> Iterator[str]:
    """Warn of parts without a record, at which `split` will stop."""
    parts, empty = findings.file_parts, findings.empty_files
    for file in empty:
        yield f"  ! {shown(file)} has no records"
    for part in SPLITS:
        named = [file for file in parts if parts[file] == part]
        if named and set(named) <= set(empty):
            yield f"      so no row is {part}, and `split` will stop"
            if part == "valid":
                yield "      (with `valid: 0.1` under `split` the rows are drawn from train)"


def _warnings(findings: Findings) -> Iterator[str]:
    fields, found = findings.fields, findings.survey
    if findings.copied_rows:
        copies, sampled = findings.copied_rows, len(next(iter(found.sample.values())))
        of = "" if sampled == found.rows else "the first "
        yield f"  ! {copies:,} of {of}{sampled:,} records are copies of an earlier one: a leak"
        yield "      where one is in train and another in test; set `split: {repeated: drop}`, or `keep` if"
        yield "      they are right"
    for column, guess in findings.guesses.items():
        mine = column == findings.split
        if column not in fields and guess.feature and not mine and guess.left_out not in ("", guess.kind):
            yield f"  ! {shown(column)}: {guess.left_out}; left out of the fields"
    for column, guess in findings.guesses.items():
        if guess.warning:
            yield f"  ! {shown(column)}: {guess.warning}"
    yield from _split(findings)
    if findings.is_text and findings.layout.encoding != "utf-8":
        yield f"  ! its text is not UTF-8 and was read as {findings.layout.encoding}, a guess: look at the"
        yield "      examples, and set `encoding` (cp1252, gbk, big5, shift_jis, ...) if they look wrong"
        if findings.odd_bytes:
            yield f"      {findings.odd_bytes};"
            yield "      if that is damage, leave `encoding` out, and such lines are rejected"
    yield from _odd_values(findings)
    bags = [column for column, field in fields.items() if field.type == "bag"]
    if bags:
        yield f"  bags keep their first 8 values ({listed(map(shown, bags))}); of a history say"
        yield "      `encode: {slots_from: end}` for its newest ones, and `max_slots` for how many"
    if findings.layout.names is not None:
        yield "  ! no header: set the columns' `names`, and the domain (user, item, context) of each field"
    if found.rejected:
        yield f"  ! {counted(found.rejected, 'line')} rejected{first_rejects(found)}"
