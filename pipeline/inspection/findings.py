"""What an inspection finds out about a click log; the report and the dataset entry are written from it."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import get_args

import pyarrow as pa

from pipeline.common.errors import PipelineError, unknown
from pipeline.datasets.tabular import MISSING, RESERVED, Feature, clicks_of
from pipeline.download.obtain import own_files
from pipeline.inspection import domains, vectors
from pipeline.inspection.guessing import Guess, guess, is_id_of, is_plain_id, part_of
from pipeline.inspection.labels import Candidate, candidates, constant
from pipeline.inspection.leaks import copied_rows, redundant, same_times
from pipeline.inspection.profiling import SAMPLE_VALUES, Profile, Survey, survey
from pipeline.inspection.sniffing import MAX_BROKEN, odd_bytes, sniff
from pipeline.preprocess import tables
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.tables import Layout
from pipeline.preprocess.text import WIDE
from pipeline.schema import SPLITS, Role
from pipeline.split.assign import Part


@dataclass(frozen=True)
class Findings:
    """What is in a click log, and what its columns seem to be."""

    path: Path
    files: list[Path]
    layout: Layout
    is_text: bool  # some file is, and the layout is that of the first
    survey: Survey
    guesses: dict[str, Guess]  # by column
    labels: list[Candidate]  # the likeliest first
    copied_rows: int  # of the first rows, those that are copies of an earlier one
    odd_bytes: str = ""  # of a text that is not UTF-8: what was seen, and where

    @cached_property
    def label(self) -> str | None:
        """The column of the label."""
        return self.labels[0].label.column if self.labels else None

    @cached_property
    def split(self) -> str | None:
        """The column that says to which split a row belongs."""
        found = (column for column, guess in self.guesses.items() if guess.parts and column not in RESERVED)
        return next((column for column in found if column != self.label), None)

    @cached_property
    def file_parts(self) -> dict[str, Part]:
        """To which split each file of a folder belongs, if their names say so and no column does."""
        return _parts_of(self.files) if self.split is None else {}

    @cached_property
    def named_files(self) -> dict[str, Part | None]:
        """The splits that the files' names say; empty if none says one, or all say the same."""
        found = {file.name: part_of(file.name) for file in self.files}
        return found if len(set(found.values())) > 1 else {}

    @cached_property
    def empty_files(self) -> list[str]:
        """The files without a record, of those that are parts."""
        read = self.survey.rejects.files
        empty = [
            name for name in self.file_parts if name in read and read[name].records == read[name].rejected
        ]
        if not self.survey.truncated:
            return empty
        column = list(self.survey.profiles)[:1]
        for file in (file for file in self.files if file.name in self.file_parts and file.name not in read):
            blocks = tables.open_table(file, self.layout).blocks(column, RejectLog())
            if not any(len(block) for block, _ in blocks):  # no further than the first that has records
                empty.append(file.name)
        return empty

    @cached_property
    def of_parts(self) -> dict[Part, tuple[int, float | None]]:
        """The records of each split that is files, and the share of clicks; nothing if not all were read."""
        if not self.file_parts or self.survey.truncated:
            return {}
        found = {}
        for part in (part for part in SPLITS if part in self.survey.parts):
            found[part] = self.survey.parts[part], self._rate(part)
        return found

    def _rate(self, part: Part) -> float | None:
        """Return the share of clicks among the labels of a part."""
        if not self.labels:
            return None
        label = self.labels[0].label
        profile = self.survey.profiles[label.column]
        assert profile.values is not None
        clicks, _ = clicks_of(profile.values.dictionary_encode(), label)
        counts = profile.of_part[part]
        return float(counts[clicks[: len(counts)]].sum() / counts.sum()) if counts.sum() else None

    @cached_property
    def fields(self) -> dict[str, Feature]:
        """The columns that are proposed as fields."""
        return {
            column: guess.feature
            for column, guess in self.guesses.items()
            if guess.feature and not guess.left_out and column != self.label
        }

    @cached_property
    def vectors(self) -> tuple[str, Feature] | None:
        """The column of vectors, and the field that it would be, of a file of them beside a log."""
        found = ((column, field) for column, field in self.fields.items() if field.file is not None)
        return next(found, None)

    @cached_property
    def roles(self) -> dict[str, str]:
        """The fields that seem to identify the user and the item of a record."""
        categories = [column for column, field in self.fields.items() if field.type == "category"]
        found = {role: [each for each in categories if is_id_of(role, each)] for role in get_args(Role)}
        # the first of those that say so
        return {role: max(columns, key=is_plain_id) for role, columns in found.items() if columns}


def find(path: Path, *, rows: int | None = None, label: str | None = None) -> Findings:
    """Read a file, or the files of a folder, and guess what the columns are.

    Args:
        path: of the file or folder.
        rows: read only this many.
        label: the column of the label, if the user names it.

    Raises:
        PipelineError: there is no table, or no such column.
    """
    files = own_files(path.expanduser(), tables.SUFFIXES)
    texts = [file for file in files if not tables.is_parquet(file)]
    layout = sniff(texts[0]) if texts else Layout()
    opened = tables.open_folder(files, layout)
    columns = len(opened[0].types)
    if columns > WIDE:
        rows = rows or SAMPLE_VALUES // columns
        words = f"{columns:,} columns: the first {rows:,} records are read (more by --rows), for some"
        print(f"{path}: {words} {columns // 300} seconds", file=sys.stderr, flush=True)
    parts = _parts_of(files)
    odd = odd_bytes(texts[0]) if layout.encoding != "utf-8" else ""
    found = survey(opened, MISSING, rows, parts)
    not_utf8 = [line for line in found.rejects.first if "is not utf-8" in line]
    if not_utf8 and layout.encoding == "utf-8" and found.rejected > MAX_BROKEN * max(found.rows, 1):
        layout, odd = replace(layout, encoding="latin-1"), f"first {not_utf8[0]}"
        found = survey(tables.open_folder(files, layout), MISSING, rows, parts)
    if not found.rows:
        raise PipelineError(f"{path} has no records that can be read{first_rejects(found)}")
    named = layout.names is None
    guesses = {
        column: guess(profile, found.sample.get(column, pa.array([])), named=named)
        for column, profile in found.profiles.items()
    }
    guesses |= vectors.keyed(found.sample, found.profiles, guesses)
    guesses |= same_times(found.sample, guesses)
    if label is None:
        labels = candidates(found.profiles.values(), named=named, chosen=False)
    else:
        labels = _chosen(label, found.profiles, guesses)
    left_out = redundant(found.sample, guesses, labels[0].label) if labels else {}
    guesses |= {column: replace(guesses[column], left_out=why) for column, why in left_out.items()}
    guesses |= vectors.of_rows(found.sample, found.profiles, guesses, None if labels else files[0].name)
    copied = copied_rows(found.sample, guesses, labels[0].label) if labels else 0
    findings = Findings(path, files, layout, bool(texts), found, guesses, labels, copied, odd)
    return replace(findings, guesses=guesses | domains.corrected(found.sample, guesses, findings.roles))


def _parts_of(files: Sequence[Path]) -> dict[str, Part]:
    """Return to which split each file belongs, if all names say so, and some are train and some test."""
    found = {file.name: part_of(file.name) for file in files}
    parts = {name: part for name, part in found.items() if part is not None}
    return parts if len(parts) == len(found) and {"train", "test"} <= set(parts.values()) else {}


def first_rejects(found: Survey) -> str:
    """Return the first rejected lines and what to try, each on a line of its own."""
    first = found.rejects.first[:3]
    hints = dict.fromkeys(filter(None, map(tables.hint, first)))
    return "".join(f"\n      {line}" for line in first) + "".join(f"; {words}" for words in hints)


def _chosen(column: str, profiles: Mapping[str, Profile], guesses: Mapping[str, Guess]) -> list[Candidate]:
    if column not in profiles:
        raise PipelineError(f"--label: {unknown('column', column, profiles)}")
    found = candidates([profiles[column]], named=True, chosen=True)
    if not found and (words := constant(profiles[column])):
        raise PipelineError(
            f"--label: {column!r} {words}, so there is nothing to learn; name another column, or a log that "
            "has rows with a click and rows without (a missing value is not taken for either)"
        )
    if not found:
        raise PipelineError(
            f"--label: no rule splits the values of {column!r} ({guesses[column].kind}) in two; "
            f"write one by hand: `label: {{column: {column}, above: 3}}`, `at_least:` or `equals:`"
        )
    return found
