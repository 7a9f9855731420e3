"""Errors meant for people: what is wrong, where, and what to do."""

import difflib
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

_DISK_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
RANK_DELAY_SECONDS = 10  # by which one rank of torchrun may be behind the others
_STOPPED = "stopped; run the same command again to go on from here"


class PipelineError(Exception):
    """A fault of the input, the settings or the computer, explained in the message."""


class LostRank(PipelineError):
    """The connection to another rank broke; the message of that rank says why."""


class Diverged(PipelineError):
    """Training produced a loss that is not a finite number."""


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
    """Let Ctrl-C end the program with one line during its imports, which take seconds.

    Nothing has begun yet, so nothing has to be cleaned up. If Ctrl-C is ignored, it stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    os.write(2, f"{_STOPPED}\n".encode())
    os._exit(130)


def exit_with_message(main: Callable[[], None]) -> None:
    """Run a program's `main`; print a `PipelineError` as one message and exit with 1.

    A full disk is not a fault of the program either, so it gets a message, too; every other exception is
    a defect and keeps its traceback.
    """
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except PipelineError as error:
        _report(f"error: {error}", first=not isinstance(error, LostRank))
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        _report(
            f"error: {os.strerror(error.errno)}{where}; nothing was left half-written. "
            "Free some space and run the same command again."
        )
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        if is_main_process():
            print(_STOPPED, file=sys.stderr)
        raise SystemExit(130) from None


def is_main_process() -> bool:
    """True for the process that prints shared messages: local rank 0 under torchrun."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _report(message: str, *, first: bool = True) -> None:
    """Print an error once, even if every rank of torchrun meets it, in the last lines of the output.

    torchrun ends with a page of its own, whose last lines come from the error file of the process that failed
    first, by the second; when one has failed it ends the others. So the other ranks wait, one longer than the
    other, and report only if rank 0 goes on, which has not met their error then; and a rank that only lost
    another one fails later than that. (torch's own `record` writes the file without waiting, and with a
    traceback instead of the message.)
    """
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
