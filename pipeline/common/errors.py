"""Errors meant for people: what is wrong, where, and what to do."""

import difflib
import errno
import json
import os
import re
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import cast

from pipeline.common.text import without_secrets

_OWNER = "let the user who runs this own it, or write there (`ls -ld` shows who may)"
_FREE = "free some space (or raise the limit) and run the same command again"
_NEEDS = {  # what a person can do about an error of the machine
    errno.ENOSPC: _FREE,
    errno.EFBIG: _FREE,
    errno.EDQUOT: _FREE,
    errno.EACCES: _OWNER,
    errno.EPERM: _OWNER,
    errno.EROFS: "it lies on a disk that is mounted read-only: mount it writable, or move the project",
    errno.EISDIR: "a folder is where a file belongs: move it away",
    errno.ENOTDIR: "a file is where a folder belongs: move it away",
    errno.ENAMETOOLONG: "choose a shorter name, or a folder higher up",
    errno.EMFILE: "raise the limit of open files (`ulimit -n 4096`) and run the same command again",
    errno.ENFILE: "the machine has too many open files: end other programs and run the same command again",
    errno.EIO: "the disk could not read or write it: check the disk, then run the same command again",
}
_NO_MEMORY = re.compile(
    r"can't allocate memory|out of memory|CUDNN_STATUS_ALLOC_FAILED|Unable to allocate", re.IGNORECASE
)
_SHORT = re.compile(r"\d+ requested and \d+ written")
_LESS = (
    "make `embedding_size`, `hidden` or `batch_size` smaller, let `rows_in_memory` stream the rows, or train "
    "with `processes: 1`"
)
RANK_DELAY_SECONDS = 10  # by which one rank of torchrun may be behind the others
STEP = "CTR_STEP"  # in the environment of a step of another program, which says what to do after Ctrl-C


class PipelineError(Exception):
    """A fault of the input, the settings or the computer, explained in the message."""


class LostRank(PipelineError):
    """The connection to another rank broke; the message of that rank says why."""


class Diverged(PipelineError):
    """Training produced a loss that is not a finite number."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as `kill`, a container or a scheduler sends it: it ends a stage as Ctrl-C does."""


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """Format an "unknown <kind>" message with the nearest valid name.

    >>> unknown("model", "depfm", ["fm", "deepfm"])
    "unknown model 'depfm'; did you mean 'deepfm'? (valid: deepfm, fm)"
    """
    return f"unknown {kind} {name!r}{nearest(name, known)}"


def nearest(name: object, known: Iterable[str]) -> str:
    """Format the valid name nearest to `name`, and all valid names unless a long list would bury it."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if near and len(names) > 20:
        return hint
    return f"{hint} (valid: {', '.join(names) or 'none'})"


@contextmanager
def error_context(where: str) -> Iterator[None]:
    """Prefix the message of a `PipelineError` that leaves the block with `where`.

    >>> with error_context("params.yaml: model.fm"):
    ...     raise PipelineError("no such thing")
    Traceback (most recent call last):
    pipeline.common.errors.PipelineError: params.yaml: model.fm: no such thing
    """
    try:
        yield
    except PipelineError as error:
        error.args = (f"{where}: {error}",)
        raise


def starting() -> None:
    """Let Ctrl-C and SIGTERM end the program with one line, already during its imports, which take seconds.

    Nothing has begun yet, so nothing has to be cleaned up. What is ignored stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    # torchrun ends its ranks by SIGTERM, those that wait for a lost one, too, and says itself why
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and "LOCAL_RANK" not in os.environ:
        signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, _frame: FrameType | None) -> None:
    if line := _stopped(number):
        os.write(2, f"{line}\n".encode())
    os._exit(128 + number)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the program where it is
    raise Terminated


def _stopped(number: int, kept: str = "") -> str:
    """Return what is to be said of a stop by a signal, if anything.

    A program above hears Ctrl-C, too, and tells it; of SIGTERM it need not have heard, or it is gone.
    """
    if number == signal.SIGINT and STEP in os.environ:
        return ""
    return f"stopped; {f'{kept}: ' if kept else ''}run the same command again to go on from here"


def exit_with_message(main: Callable[[], None], kept: str = "") -> None:
    """Run a program's `main`; print a `PipelineError` as one message and exit with 1.

    An error of the machine (a full disk, no permission, no memory) is not a fault of the program either, so
    it gets a message, too; every other exception is a defect and keeps its traceback.

    Args:
        kept: what is kept of it when it is stopped, as a sentence.
    """
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) is _stop:
        signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):  # names and signs may not be in the terminal's encoding
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # who reads the output has seen enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except PipelineError as error:
        _report(f"error: {error}", first=not isinstance(error, LostRank))
        raise SystemExit(1) from None
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        _report(f"error: {message}")
        raise SystemExit(1) from None
    except KeyboardInterrupt as stop:
        number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        if is_main_process() and (line := _stopped(number, kept)):
            print(line, file=sys.stderr)
        raise SystemExit(128 + number) from None
    finally:
        if signal.getsignal(signal.SIGTERM) is _terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def explain(error: BaseException) -> str | None:
    """Return in a sentence what the machine refused, where, and what it needs; None if it refused nothing.

    Libraries wrap such errors in their own, so the causes of an error are searched, too.

    >>> explain(PermissionError(errno.EACCES, "denied", "data/x.npy"))
    'data/x.npy: Permission denied; nothing was left half-written: let the user who runs this own it, ...'
    """
    seen = list(_causes(error))
    for each in seen:
        if isinstance(each, OSError) and each.errno in _NEEDS:
            where = each.filename2 or each.filename or "a file"
            problem = (
                f"{os.fsdecode(where) if isinstance(where, bytes) else where}: {os.strerror(each.errno)}"
            )
            return f"{problem}; nothing was left half-written: {_NEEDS[each.errno]}"
        if getattr(each, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return f"its SQLite file: {each}; nothing was left half-written: {_FREE}"
    for each in seen:
        if isinstance(each, MemoryError) or (isinstance(each, RuntimeError) and _NO_MEMORY.search(str(each))):
            first = next(iter(str(each).splitlines()), "")
            return f"not enough memory ({first[:200] or 'MemoryError'}): {_LESS}"
    return None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name what is being written in an error of the machine that names no file: a full disk, say."""
    try:
        yield
    except Exception as error:
        for each in _causes(error):
            if isinstance(each, OSError) and each.filename is None:
                if each.errno is None and _SHORT.search(
                    str(each)
                ):  # numpy, of a disk that took less than all
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
                each.filename = str(path)
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from."""
    seen, each = set[int](), cast("BaseException | None", error)
    while each is not None and id(each) not in seen:
        yield each
        seen.add(id(each))
        each = each.__cause__ or each.__context__


def is_main_process() -> bool:
    """True for the process that prints shared messages: local rank 0 under torchrun."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _report(message: str, *, first: bool = True) -> None:
    """Print an error, without passwords, once, even if every rank of torchrun meets it, as the last lines.

    torchrun ends with a page of its own, whose last lines come from the error file of the process that failed
    first, by the second; when one has failed it ends the others. So the other ranks wait, one longer than the
    other, and report only if rank 0 goes on, which has not met their error then; and a rank that only lost
    another one fails later than that. (torch's own `record` writes the file without waiting, and with a
    traceback instead of the message.)
    """
    message = without_secrets(message)
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file is None:
        print(message, file=sys.stderr)
        return
    if not first:
        time.sleep(2)
    if not is_main_process():
        time.sleep(RANK_DELAY_SECONDS + int(os.environ["LOCAL_RANK"]))
    page = {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}
    try:
        with open(f"{file}.tmp", "w", encoding="utf-8") as out:
            json.dump({"message": page}, out)
        os.replace(f"{file}.tmp", file)
    except OSError:
        print(message, file=sys.stderr)
