"""`records` against a reader that goes through a text character by character, and what is no text."""

import bz2
import gzip
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.common.errors import PipelineError
from pipeline.preprocess import rejects as rejects_module
from pipeline.preprocess import text as module
from pipeline.preprocess import text_multiline
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import CODED, Dialect, first_line, records
from pipeline.preprocess.text_multiline import MAX_LINE_ENDS, Joined, LineScanner, State

CSV, ESCAPED = Dialect(quote='"'), Dialect(";", "latin-1", '"', "\\")
PLAIN, BACKSLASH, COLONS = Dialect("\t", "latin-1"), Dialect(escape="\\"), Dialect("::", "latin-1")
DIALECTS = (CSV, ESCAPED, PLAIN, BACKSLASH, COLONS)
NAMES = ["a", "b", "c"]

Rows = dict[int, list[str]]  # line -> values
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _all_rejects_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejects_module, "SHOWN_PER_FILE", 1 << 30)


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Write bytes into a file that the next call replaces."""
    folder = tmp_path_factory.mktemp("records")

    def to(content: bytes, name: str = "f") -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return to


# ---- the reader that the contract is written down in once more ----


def fields_of(text: bytes, dialect: Dialect) -> list[bytes] | None:
    """The fields of a record, None if it is not at its end."""
    cut, quote, escape = (
        mark.encode() if mark else None for mark in (dialect.delimiter, dialect.quote, dialect.escape)
    )
    fields, value, state, at = [], b"", "start", 0
    while at < len(text):
        char = text[at : at + 1]
        at += 1
        if char == escape:
            if at == len(text):
                return None
            value += text[at : at + 1]
            at += 1
            state = "quoted" if state == "quoted" else "plain"
        elif state == "quoted" and char == quote and text[at : at + 1] == quote:
            value += char
            at += 1
        elif state == "quoted" and char == quote:
            state = "plain"
        elif state == "quoted":
            value += char
        elif state == "start" and char == quote:
            state = "quoted"
        elif text.startswith(cut, at - 1):
            fields.append(value)
            value, state, at = b"", "start", at - 1 + len(cut)
        else:
            value += b" " if char == b"\x1f" and len(cut) > 1 else char
            state = "plain"
    return None if state == "quoted" else [*fields, value]


def naive(content: bytes, dialect: Dialect, names: Sequence[str]) -> tuple[Rows, set[int]]:
    """The rows and the lines of the rejected records."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    if b"\n" not in content and b"\r" in content[:-1]:
        content = content.replace(b"\r", b"\n")
    lines = (
        (content + b"\n" if content[-1:] != b"\n" else content).replace(b"\r\n", b"\n").replace(b"\r", b" ")
    )
    texts = lines.split(b"\n")[:-1]
    rows: Rows = {}
    rejected: set[int] = set()
    first = 0
    while first < len(texts):
        if not texts[first]:
            first += 1
            continue
        for last in range(first, min(first + text_multiline.MAX_LINE_ENDS, len(texts) - 1) + 1):
            fields = fields_of(b" ".join(texts[first : last + 1]), dialect)
            if fields is not None:
                break
        else:
            rejected.add(first + 1)
            first += 1
            continue
        if last > first and len(fields) != len(names):
            rejected.add(first + 1)
            first += 1
            continue
        try:
            b" ".join(texts[first : last + 1]).decode(dialect.encoding)
            values = [field.decode(dialect.encoding) for field in fields]
        except UnicodeDecodeError:
            values = []
        if len(values) == len(names):
            rows[first + 1] = values
        else:
            rejected.add(first + 1)
        first = last + 1
    return rows, rejected


def found(
    path: Path, dialect: Dialect, names: Sequence[str] = NAMES, **options: object
) -> tuple[Rows, set[int]]:
    """What `records` makes of a file, the account checked on the way."""
    rejects, rows = RejectLog(), {}
    for table, lines in records(path, names, rejects, dialect, **options):
        assert all(column.num_chunks <= 1 for column in table.columns)
        assert lines.dtype == np.int64 and len(lines) == len(table)
        for line, values in zip(lines.tolist(), zip(*table.to_pydict().values(), strict=True), strict=True):
            assert line not in rows
            rows[line] = list(values)
    tally = rejects.files[str(options.get("file", path.name))]
    assert tally.records == len(rows) + tally.rejected
    return rows, {line for line, _ in tally.first}


def pieces(dialect: Dialect) -> list[bytes]:
    """What awkward files are made of."""
    marks = [mark.encode() for mark in (dialect.delimiter, dialect.quote, dialect.escape) if mark]
    record = dialect.delimiter.join("xyz").encode()
    doubled = [mark * 2 for mark in marks]
    return [
        *marks, *marks, *doubled, b"\n", b"\n", b"\r\n", b"\r", b"a", b" ", b"\n" + record + b"\n",
        "é".encode(dialect.encoding), b"\xff", b"\x00", b"\x1f", b":", b"\xef\xbb\xbf", b"\xc2\x85",
    ]  # fmt: skip


DIALECT = st.sampled_from(DIALECTS)
TEXT = DIALECT.flatmap(
    lambda dialect: st.tuples(
        st.just(dialect), st.lists(st.sampled_from(pieces(dialect)), min_size=1, max_size=40).map(b"".join)
    )
).filter(lambda text: text[1] != b"\xef\xbb\xbf")
BLOCK_BYTES = st.one_of(st.integers(1, 12), st.integers(12, 200))


@pytest.mark.thorough
@pytest.mark.slow
@given(text=TEXT, block=BLOCK_BYTES, span=st.sampled_from([1, 2, 64]))
@settings(max_examples=25 * settings.default.max_examples)
@example((CSV, b'x","\n'), 1, 64)  # an even number of quotes, yet one is open
@example((CSV, b'a,b,"x\n1","2,3\n'), 100, 64)
@example((CSV, b'x","\n"'), 1, 1)  # ... on the last line but for a rejected one
@example((CSV, b'\xff",,"\n"'), 1, 1)  # ... behind bytes of another encoding
@example((BACKSLASH, b"a,b,c\\\nd\n"), 1, 64)
@example((PLAIN, b"\nx\n\xef\xbb\xbf\ty\tz"), 4, 64)  # a mark of another file that was appended
def test_rows_lines_and_rejects_are_those_of_the_naive_reader(
    write: Write, text: tuple[Dialect, bytes], block: int, span: int
):
    dialect, content = text
    path = write(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_multiline, "MAX_LINE_ENDS", span)
        expected = naive(content, dialect, NAMES)
        assert found(path, dialect) == expected
        assert found(path, dialect, block_bytes=block) == expected


@given(
    content=st.binary(min_size=1, max_size=200),
    dialect=DIALECT,
    block=BLOCK_BYTES,
    header=st.booleans(),
    name=st.just("f"),
)
@settings(max_examples=7 * settings.default.max_examples)
@example(b"\xff\xfea", CSV, 1, False, "f")
@example(b"\xef\xbb\xbf", CSV, 1, False, "f")
@example(gzip.compress(b"1,2,3\n", mtime=0) + b"x", CSV, 9, False, "f.gz")
def test_random_bytes_end_in_rows_rejects_or_one_clear_error(
    write: Write, content: bytes, dialect: Dialect, block: int, header: bool, name: str
):
    path = write(content, name)
    try:
        rows, rejected = found(path, dialect, block_bytes=block, header=header)
    except PipelineError as error:
        assert str(error).startswith(str(path))  # noqa: PT017  it need not end in an error
    else:
        assert not header
        assert (rows, rejected) == naive(content, dialect, NAMES)


@given(
    text=TEXT,
    block=BLOCK_BYTES,
    coded=st.sets(st.sampled_from(NAMES)),
    only=st.sets(st.sampled_from(NAMES), min_size=1),
)
@settings(max_examples=4 * settings.default.max_examples)
def test_which_columns_are_wanted_and_how_they_are_kept_changes_no_row(
    write: Write, text: tuple[Dialect, bytes], block: int, coded: set[str], only: set[str]
):
    dialect, content = text
    path = write(b"x" + content)
    plain = set(NAMES) - coded
    for table, _ in records(path, NAMES, RejectLog(), dialect, text=plain, only=only, block_bytes=block):
        assert table.schema.names == [name for name in NAMES if name in only]
        assert all(
            table.schema.field(name).type == (CODED if name in coded else pa.string()) for name in only
        )
    whole, rejected = found(path, dialect)
    picked = {
        line: [v for v, name in zip(values, NAMES, strict=True) if name in only]
        for line, values in whole.items()
    }
    assert found(path, dialect, text=plain, only=only, block_bytes=block) == (picked, rejected)


@given(text=TEXT, block=BLOCK_BYTES)
@settings(max_examples=4 * settings.default.max_examples)
def test_in_a_file_of_one_column_a_blank_line_is_no_record_and_an_empty_field_is_one(
    write: Write, text: tuple[Dialect, bytes], block: int
):
    dialect, content = text
    path = write(b'""\n\n' + content)
    expected = naive(path.read_bytes(), dialect, ["a"])
    assert found(path, dialect, ["a"], block_bytes=block) == expected
    assert expected[0][1] == ["" if dialect.quote else '""']
    assert 2 not in expected[0]


# ---- one case each ----


def read(path: Path, dialect: Dialect = CSV, **options: object) -> list[list[str]]:
    return list(found(path, dialect, **options)[0].values())


def reasons(path: Path, dialect: Dialect = CSV, **options: object) -> list[str]:
    rejects = RejectLog()
    assert list(records(path, NAMES, rejects, dialect, **options))
    return rejects.first


@pytest.mark.parametrize("block", [1, 9, 1000])
def test_a_reject_names_file_line_and_reason(write: Write, block: int):
    path = write(b'a,b,c\n\n"1,2,3\na,b\n1,"b\nB",c\na,\xe9,c\na,b,c\n"4\xc3\xa9,5,6\n', "clicks.csv")
    assert found(path, CSV, block_bytes=block)[0] == {
        1: ["a", "b", "c"],
        5: ["1", "b B", "c"],
        8: ["a", "b", "c"],
    }
    assert reasons(path, block_bytes=block) == [
        "clicks.csv:3: a quote is opened and not closed: '\"1,2,3'",
        "clicks.csv:4: 2 fields where 3 belong: 'a,b'",
        "clicks.csv:7: byte 0xe9 at column 3 is not utf-8",
        "clicks.csv:9: a quote is opened and not closed: '\"4é,5,6'",
    ]


def test_an_unclosed_quote_costs_its_line_and_no_other(write: Write):
    good = b"a,b,c\n" * (MAX_LINE_ENDS + 5)
    path = write(good + b'a,"b,c\n' + good)
    rows, rejected = found(path, CSV)
    assert (len(rows), rejected) == (2 * (MAX_LINE_ENDS + 5), {MAX_LINE_ENDS + 6})
    assert reasons(path) == [f"f:{MAX_LINE_ENDS + 6}: a quote is opened and not closed: 'a,\"b,c'"]
    assert reasons(write(good + b"a,b,c\\\n"), BACKSLASH) == [
        f"f:{MAX_LINE_ENDS + 6}: the end of a line is escaped: 'a,b,c\\\\'"
    ]


@pytest.mark.parametrize("block", [1, 100, 1 << 20])
def test_a_quoted_field_may_run_over_so_many_lines(write: Write, block: int):
    for lines in (MAX_LINE_ENDS, MAX_LINE_ENDS + 1):
        path = write(b'x,"' + b"\n" * lines + b'",z\n1,2,3\n')
        rows, rejected = found(path, CSV, block_bytes=block)
        if lines == MAX_LINE_ENDS:
            assert rows == {1: ["x", " " * MAX_LINE_ENDS, "z"], MAX_LINE_ENDS + 2: ["1", "2", "3"]}
            assert not rejected
        else:
            assert rows == {MAX_LINE_ENDS + 3: ["1", "2", "3"]}
            assert rejected == {
                1,
                MAX_LINE_ENDS + 2,
            }  # and its last line, '",z', has an open quote of its own


@pytest.mark.parametrize(
    ("line", "dialect", "values"),
    [
        (b'a"b,c"d"",e', CSV, ['a"b', 'c"d""', "e"]),  # within a field a quote is a character
        (b' "a",b,c', CSV, [' "a"', "b", "c"]),
        (b'"a"b"c,d,e', CSV, ['ab"c', "d", "e"]),  # what follows the closing quote belongs to the field
        (b'"a" ,"b""","""c"""', CSV, ["a ", 'b"', '"c"']),
        (b'"a,b","",""""', CSV, ["a,b", "", '"']),
        (b'"a\\";b";c\\;d;\\\\', ESCAPED, ['a";b', "c;d", "\\"]),
        (b'\\"a;"b\\\\";c\\n', ESCAPED, ['"a', "b\\", "cn"]),
        (b'"a"\\;b;c;', ESCAPED, ["a;b", "c", ""]),
        (b'a\\,b,"c,d', BACKSLASH, ["a,b", '"c', "d"]),  # no quotes here
        (b"a\t\x00\t\xe9\"'", PLAIN, ["a", "\x00", "é\"'"]),
        (b"a:::b:::\x1f\xc4", COLONS, ["a", ":b", ": Ä"]),
    ],
)
def test_how_a_line_is_read(write: Write, line: bytes, dialect: Dialect, values: list[str]):
    for ending in (b"", b"\n", b"\r\n", b"\r"):
        assert read(write(line + ending), dialect) == [values]


def test_carriage_returns_end_no_line_by_themselves(write: Write):
    assert read(write(b"a\rb,c\r,d\r\r\n\r\n1,2,3\r\n")) == [["a b", "c ", "d "], ["1", "2", "3"]]


def test_blank_lines_alone_are_no_records_but_a_table(write: Write):
    rejects = RejectLog()
    tables = [
        table for table, _ in records(write(b"\n\r\n\n"), NAMES, rejects, CSV, only=["b"], block_bytes=1)
    ]
    assert tables and all(table.schema == pa.schema({"b": CODED}) and len(table) == 0 for table in tables)
    assert rejects.files["f"].records == 0


def test_undecodable_bytes_are_reported_with_their_place(write: Write):
    assert reasons(write(b"a,b,\xff\n\xc3\xa4,2,3\nx,y,\xc3\n")) == [
        "f:1: byte 0xff at column 5 is not utf-8",
        "f:3: byte 0xc3 at column 5 is not utf-8",
    ]


def test_a_file_may_have_another_name_in_the_reject_log_and_be_a_side_table(write: Write):
    rejects = RejectLog()
    list(records(write(b"1,2\n"), NAMES, rejects, CSV, file="part/f", side_table=True))
    assert rejects.first == ["part/f:1: 2 fields where 3 belong: '1,2'"]
    assert rejects.files["part/f"].side_table


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize(
    ("head", "dialect"),
    [
        (b"a,b,c", CSV),
        (b'"a","b",c', CSV),
        (b"\xef\xbb\xbfa,b,c\r", CSV),
        (b"a::b::c", COLONS),
        (b"\\a,b,c", BACKSLASH),
    ],
)
def test_a_header_is_no_record(write: Write, head: bytes, dialect: Dialect, block: int):
    cut = dialect.delimiter.encode()
    path = write(head + b"\n" + cut.join([b"1", b"2", b"3"]) + b"\n\n" + cut.join([b"4", b"5"]))
    assert found(path, dialect, header=True, block_bytes=block) == ({2: ["1", "2", "3"]}, {4})
    assert first_line(path, dialect) == NAMES


@pytest.mark.parametrize("ending", [b"", b"\n", b"\n\n"])
def test_a_header_alone_gives_an_empty_table(write: Write, ending: bytes):
    tables = list(records(write(b"a,b,c" + ending), NAMES, RejectLog(), CSV, header=True))
    assert sum(len(table) for table, _ in tables) == 0
    assert tables[0][0].schema.names == NAMES


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"a;b;c", "the header is 'a;b;c', expected 'a,b,c'"),
        (b"", "the header is '', expected 'a,b,c'"),
        (b"a,b", "the header is 'a,b', expected 'a,b,c'"),
        (b"a,b,c,", "the header is 'a,b,c,', expected 'a,b,c'"),
        (b'a,"b,c', "a quote is opened and not closed: 'a,\"b,c'"),
        (b"a,b,\xff", "byte 0xff at column 5 is not utf-8"),
        (b"a,b," + b"c" * 200_000, "the header is 'a,b,ccc"),
        (b'a,b,"' + b"c" * 200_000 + b'"', "the header is 'a,b,ccc"),
    ],
)
def test_another_header_is_an_error(write: Write, head: bytes, message: str):
    path = write(head + b"\n1,2,3\n")
    with pytest.raises(PipelineError) as caught:
        list(records(path, NAMES, RejectLog(), CSV, header=True))
    assert str(caught.value).startswith(f"{path}:1: {message}")


# ---- files ----


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("f.gz", gzip.compress),
        ("f.gz", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
        ("f.bz2", bz2.compress),
        ("f.zst", zstd),
    ],
)
def test_a_compressed_file_is_read_as_what_it_holds(write: Write, name: str, pack: Callable[[bytes], bytes]):
    data = b"".join(b'%d,"x\n%d",y\n' % (i, i % 7) for i in range(2000))
    packed, plain = write(pack(data), name), write(data)
    assert found(packed, CSV) == found(plain, CSV)
    assert found(packed, CSV, block_bytes=999) == found(plain, CSV)


@pytest.mark.parametrize(
    ("name", "pack"), [("f.gz", gzip.compress), ("f.bz2", bz2.compress), ("f.zst", zstd)]
)
def test_a_damaged_compressed_file_is_an_error_that_names_it(
    write: Write, name: str, pack: Callable[[bytes], bytes]
):
    whole = pack(np.random.default_rng(0).bytes(5000).hex().encode())
    for content in (whole[:-1], whole[: len(whole) // 2], b"1,2,3\n" * 9):
        path = write(content, name)
        with pytest.raises(PipelineError, match=r"f\..* cannot be read to its end .* is it damaged"):
            list(records(path, ["a"], RejectLog(), CSV))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f", b"", "is empty"),
        ("f", b"\xef\xbb\xbf", "is empty"),
        ("f.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("f", "a,b\n".encode("utf-16"), "its text is UTF-16"),
        ("f", b"\xfe\xff\x00a", "its text is UTF-16"),
    ],
)
@pytest.mark.parametrize("block", [1, 1000])
def test_what_holds_no_text_is_an_error(write: Write, name: str, content: bytes, message: str, block: int):
    path = write(content, name)
    with pytest.raises(PipelineError, match=message):
        list(records(path, NAMES, RejectLog(), CSV, block_bytes=block))


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path):
    with pytest.raises(PipelineError, match="nowhere cannot be opened"):
        list(records(tmp_path / "nowhere", NAMES, RejectLog(), CSV))
    with pytest.raises(PipelineError, match="cannot be opened"):
        list(records(tmp_path, NAMES, RejectLog(), CSV))


@pytest.mark.parametrize("block", [1, 4, 30, 1000])
@pytest.mark.parametrize("ending", [b"", b"\n", b"\n1,2,3\n"])
def test_a_line_without_end_is_no_text(
    write: Write, monkeypatch: pytest.MonkeyPatch, block: int, ending: bytes
):
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 20)
    fits = b"a," + b"x" * 16 + b",c\n"
    assert len(read(write(fits * 3 + fits.strip()), block_bytes=block)) == 4
    with pytest.raises(PipelineError, match="a line is longer than"):
        read(write(fits * 3 + b"x" + fits.strip() + ending), block_bytes=block)


# ---- effort ----


@pytest.mark.slow
@pytest.mark.parametrize("block", [1000, 1 << 30])  # lines
@pytest.mark.parametrize(
    ("first", "line", "dialect"),
    [
        (b"", b'x","', CSV),  # opens a quote anew on every line
        (b"", b'"a,b,c', CSV),
        (b"", b'"""', CSV),
        (b'"', b"a,b,c", CSV),  # never closed
        (b'"', b'a;b;\\"', ESCAPED),
        (b"", b'a,b,"c\\"', ESCAPED),
        (b"", b"a;b;c\\", ESCAPED),
        (b"", b'a;\\"b;"c', ESCAPED),
    ],
)
def test_no_text_makes_the_work_grow_faster_than_its_lines(
    write: Write, monkeypatch: pytest.MonkeyPatch, first: bytes, line: bytes, dialect: Dialect, block: int
):
    looked: Counter[str] = Counter()
    held = []
    scan, join_records = LineScanner.scan, module.join_records

    def counted(self: LineScanner, state: State, text: bytes) -> tuple[State | None, int]:
        looked["lines"] += 1
        looked["bytes"] += len(text)
        return scan(self, state, text)

    def passed(data: bytes, *args: Any, **options: Any) -> Joined:
        held.append(len(data))
        return join_records(data, *args, **options)

    monkeypatch.setattr(LineScanner, "scan", counted)
    monkeypatch.setattr(module, "join_records", passed)
    count, size = 20_000, len(line) + 1
    found(write(first + (line + b"\n") * count), dialect, block_bytes=block * size)
    assert looked["lines"] <= 8 * count
    assert looked["bytes"] <= 8 * count * size
    assert sum(held) <= 2 * 3 * count * size  # a block may be read twice: see `text.Piece`
    assert max(held) <= (block + MAX_LINE_ENDS + 2) * size
