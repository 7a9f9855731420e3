"""Messages for people: the nearest name, one line on stderr, a traceback for defects only."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from pipeline.common import errors
from pipeline.common.errors import (
    STEP,
    Diverged,
    PipelineError,
    error_context,
    exit_with_message,
    starting,
    unknown,
)
from tests import project

LIGHT = {"__init__", "names"}  # import no library that takes seconds
STAGES = sorted({path.stem for path in (project.ROOT / "stages").glob("*.py")} - LIGHT)
ON_A_MODEL = ["--dataset", "synthetic", "--model", "fm"]
OPTIONS = {"paper": ["--paper", "flsest-table-1"], "train": ON_A_MODEL, "tune": ON_A_MODEL}


@pytest.mark.parametrize(
    ("name", "near"),
    [("depfm", "deepfm"), ("flset", "flsest"), ("FM", None), ("transformer", None), (3, None)],
)
def test_an_unknown_name_gets_its_nearest(name: object, near: str | None) -> None:
    message = unknown("model", name, ["fm", "deepfm", "flsest"])
    assert message.startswith(f"unknown model {name!r}")
    assert message.endswith("(valid: deepfm, flsest, fm)")
    assert ("did you mean" in message) == (near is not None)
    if near:
        assert f"did you mean {near!r}?" in message


def run(error: BaseException) -> None:
    def main() -> None:
        raise error

    exit_with_message(main)


def test_our_errors_are_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    for error in (PipelineError("x.csv:3: bad line"), Diverged("x.csv:3: bad line")):
        with pytest.raises(SystemExit) as stop:
            run(error)
        assert stop.value.code == 1
        assert capsys.readouterr().err == "error: x.csv:3: bad line\n"


def test_under_torchrun_the_first_process_reports_and_the_others_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(errors.time, "sleep", waited.append)
    for rank in (0, 1, 2):
        file = tmp_path / f"{rank}.json"
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        with pytest.raises(SystemExit) as stop:
            run(PipelineError("x.csv:3: bad line"))
        assert stop.value.code == 1
        content = json.loads(file.read_text())
        failure = ProcessFailure(rank, 1, 1, str(file))  # as torchrun reads it
        assert failure.message == content["message"]
        assert content["message"]["message"] == "error: x.csv:3: bad line"
    assert waited == [errors.RANK_DELAY_SECONDS + 1, errors.RANK_DELAY_SECONDS + 2]
    assert capsys.readouterr().err == ""
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(SystemExit):
        run(KeyboardInterrupt())
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "nowhere/0.json"))
    with pytest.raises(SystemExit):
        run(PipelineError("x.csv:3: bad line"))
    assert capsys.readouterr().err == "error: x.csv:3: bad line\n"


@pytest.mark.parametrize(
    ("code", "need"),
    [
        *((code, "free some space") for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)),
        *((code, "own it") for code in (errno.EACCES, errno.EPERM)),
        (errno.EROFS, "read-only"),
        (errno.EISDIR, "move it away"),
        (errno.ENOTDIR, "move it away"),
        (errno.ENAMETOOLONG, "shorter name"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "check the disk"),
    ],
)
def test_what_the_machine_refuses_is_one_message_with_the_place_and_the_need(
    code: int, need: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrapped = RuntimeError("unexpected pos 704 vs 598")  # as torch.save does
    wrapped.__context__ = OSError(code, os.strerror(code), "data/x.npy")
    for error in (OSError(code, os.strerror(code), "data/x.npy"), wrapped):
        with pytest.raises(SystemExit) as stop:
            run(error)
        assert stop.value.code == 1
        message = capsys.readouterr().err
        assert message.startswith(f"error: data/x.npy: {os.strerror(code)}; nothing was left half-written: ")
        assert need in message and message.count("\n") == 1


FULL = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from pipeline.common.errors import exit_with_message
from pipeline.common.files import writing
from stages import new_folder
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
def main():
    if sys.argv[1] == "torch":
        with writing(Path("out/x")) as file:
            torch.save({"a": torch.zeros(10**5)}, file)
    with new_folder(Path("out")) as folder:
        np.save(folder / "a.npy", np.zeros(10**5))
exit_with_message(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("writer", ["numpy", "torch"])
def test_a_full_disk_is_named_by_what_was_being_written(writer: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, writer],
        cwd=tmp_path,
        env=project.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: out") and "free some space" in done.stderr
    assert done.stderr.count("\n") == 1
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {".out.lock"}  # an empty file, by which a second writer is told


@pytest.mark.parametrize(
    "fault",
    [MemoryError(), lambda: torch.empty(10**17), lambda: np.empty(10**17)],
    ids=["plain", "torch", "numpy"],
)
def test_too_little_memory_is_one_message(fault: object, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        if isinstance(fault, BaseException):
            raise fault
        fault()

    with pytest.raises(SystemExit):
        exit_with_message(main)
    message = capsys.readouterr().err
    assert message.startswith("error: not enough memory (") and "`embedding_size`" in message
    assert message.count("\n") == 1


def test_passwords_of_addresses_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(PipelineError("cannot fetch https://me:pa:ss@host/a.zip?X-Sig=abc&api_key=def&page=2: refused"))
    message = capsys.readouterr().err
    assert message == "error: cannot fetch https://***@host/a.zip?X-Sig=***&api_key=***&page=2: refused\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_is_not_utf_8_takes_every_line(encoding: str) -> None:
    code = (
        "from pipeline.common.errors import exit_with_message\n"
        "exit_with_message(lambda: print('\u2605 0.79 \u00b1 0.01, k\u00e4ufe'))"
    )
    env = project.environment(PYTHONIOENCODING=encoding)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"\\u2605 0.79")


def test_ctrl_c_is_one_message(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for is_step in (False, True):  # of a command, which tells it then
        if is_step:
            monkeypatch.setenv(STEP, "1")
        with pytest.raises(SystemExit) as stop:
            run(KeyboardInterrupt())
        assert stop.value.code == 130
        assert ("run the same command again" in capsys.readouterr().err) != is_step


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        *([f"stages.{stage}", *OPTIONS.get(stage, ["--dataset", "synthetic"])] for stage in STAGES),
        ["pipeline", "inspect", "log.csv"],
    ],
    ids=[*STAGES, "command"],
)
def test_a_stop_while_libraries_are_imported_is_one_message(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("data: {synthetic: {}}\nmodel: {fm: {}}\n")  # read before imports
    stopped = "stopped; run the same command again to go on from here\n"
    cases = [(signal.SIGINT, {}, stopped), (signal.SIGINT, {STEP: "1"}, "")]
    # of SIGTERM the command above need not have heard, and no stage is above a command
    cases += [(signal.SIGTERM, {STEP: "1"}, stopped)] * (words[0] != "pipeline")
    for number, step, said in cases:
        lines = ["import os, signal, time", f"os.kill(os.getpid(), {number:d})", "time.sleep(60)"]
        (tmp_path / "numpy.py").write_text("\n".join(lines))
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=tmp_path,
            env=project.environment(**step),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 128 + number
        assert done.stderr == said, "a step of `ctr run` leaves it to that"


@pytest.fixture(name="default_signals")
def _default_signals() -> Iterator[None]:
    """SIGINT and SIGTERM as Python has them, and afterwards as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("step", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stage_that_is_stopped_cleans_up_and_says_what_is_kept(
    number: signal.Signals, step: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if step:
        monkeypatch.setenv(STEP, "1")
    cleaned = []

    def main() -> None:
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(signal.getsignal(signal.SIGTERM))

    starting()
    with pytest.raises(SystemExit) as stop:
        exit_with_message(main, kept="finished trials are kept")
    assert stop.value.code == 128 + number
    said = "stopped; finished trials are kept: run the same command again to go on from here\n"
    assert capsys.readouterr().err == ("" if step and number == signal.SIGINT else said)
    assert len(cleaned) == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if number == signal.SIGTERM:
        assert cleaned == [signal.SIG_DFL], "a second SIGTERM ends what hangs"


@pytest.mark.usefixtures("default_signals")
def test_sigterm_is_left_as_it_is_for_a_rank_of_torchrun_and_where_it_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    starting()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    monkeypatch.setenv("LOCAL_RANK", "0")
    starting()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("default_signals")
def test_ctrl_c_is_as_it_was_once_the_program_runs_and_stays_ignored_where_it_is() -> None:
    for handler in (signal.default_int_handler, signal.SIG_IGN):
        signal.signal(signal.SIGINT, handler)
        starting()
        assert (signal.getsignal(signal.SIGINT) is handler) == (handler is signal.SIG_IGN)
        exit_with_message(lambda: None)
        assert signal.getsignal(signal.SIGINT) is handler


def test_an_error_gets_its_place_and_stays_what_it_was() -> None:
    with (
        pytest.raises(Diverged, match=r"^params\.yaml: model\.fm: no number$"),
        error_context("params.yaml: model.fm"),
    ):
        raise Diverged("no number")


@pytest.mark.parametrize(
    "error", [ValueError("x"), FileNotFoundError(errno.ENOENT, "gone"), OSError("no code")]
)
def test_defects_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        run(error)
    assert caught.value is error


def test_success_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    exit_with_message(lambda: None)
    assert capsys.readouterr() == ("", "")
