"""What a file is, by its first bytes: those that are no text of records are refused with what to do."""

import re
from pathlib import Path

from pipeline.common.errors import PipelineError
from pipeline.preprocess.text import head

PACKED = (".gz", ".bz2", ".zst")  # endings that are unpacked
_MAGIC = {
    b"PK\x03\x04": "a zip archive or an Excel file: unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel file: save the sheet as CSV",
    b"\xfd7zXZ\x00": "compressed by xz: unpack it (`xz -dk {file}`), or use gzip or zstandard",
    b"\x04\x22\x4d\x18": "compressed by lz4: unpack it (`lz4 -d {file}`), or use gzip or zstandard",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"ARROW1": "an Arrow file: save it as Parquet",
    b"FEA1": "a Feather file: save it as Parquet",
    b"ORC": "an ORC file: save it as Parquet",
    b"Obj\x01": "an Avro file: save it as Parquet",
    b"\x89HDF": "an HDF5 file: save its table as Parquet (pandas: `read_hdf(...).to_parquet(...)`)",
    b"\x93NUMPY": "an array of NumPy: save it as Parquet with names for its columns",
    b"SQLite format 3": "a database: save the table as CSV",
}
_UNNAMED = {
    b"\x1f\x8b": "compressed by gzip: its name must end in .gz",
    b"BZh": "compressed by bzip2: its name must end in .bz2",
    b"\x28\xb5\x2f\xfd": "compressed by zstandard: its name must end in .zst",
}
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_TAR = slice(257, 262)  # where a tar archive says `ustar`
_LIBSVM = re.compile(rb"[-+.0-9eE]+( +[0-9]+(:[0-9]+)?:[-+.0-9eE]+)+ *\r?$")
HEAD_BYTES = 4096


def check_text(path: Path) -> None:
    """Raise if a file is no text of records.

    Raises:
        PipelineError: it is empty, unreadable or of another kind; it says which, and what to do.
    """
    with open(path, "rb") as file:
        first = file.read(16)
    if not first:
        raise PipelineError(f"{path} is empty")
    for magic, what in {**_MAGIC, **({} if path.name.endswith(PACKED) else _UNNAMED)}.items():
        if first.startswith(magic):
            raise PipelineError(f"{path} is not a text file but {what.format(file=path.name)}")
    unpacked = head(path, HEAD_BYTES)
    line = unpacked.partition(b"\n")[0]
    stem, what = path.name.partition(".")[0], ""
    if _PICKLE.match(first) or _PICKLE.match(unpacked):
        what = "a pickle of Python: save its table as Parquet (pandas: `read_pickle(...).to_parquet(...)`)"
    elif unpacked[_TAR] == b"ustar":
        what = "a tar archive: unpack it, and name its file or its folder"
    elif unpacked.lstrip().startswith(b'{"'):
        what = (
            'JSON lines: convert it, by python -c "from pyarrow import json, parquet; '
            f"parquet.write_table(json.read_json('{path.name}'), '{stem}.parquet')\""
        )
    elif re.match(rb'\s*\[\s*\{\s*"', unpacked):
        what = (
            'JSON: convert it, by python -c "import pandas; '
            f"pandas.read_json('{path.name}').to_parquet('{stem}.parquet')\""
        )
    elif _LIBSVM.match(line):
        what = (
            "LibSVM or libFM, a label and `index:value` pairs: its indices do not say which field they are "
            "of; save the table that it was made of as CSV or Parquet"
        )
    if what:
        raise PipelineError(f"{path} is not a table as text but {what}")
