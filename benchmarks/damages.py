"""Damage each file that somebody reads, and do what the message says: `python -m benchmarks.chaos --damages`.

Every file is emptied, cut, flipped by a bit, removed and made unreadable, in place, also where DVC's cache
shares its bytes. Whoever reads it has to name it without a traceback, or to heal it and end with the right
bits; the cure as told has to give back the right bits.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmarks import chaos

Words = tuple[str, ...]
Run = Callable[..., tuple[int, str]]


def _flip(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def _resize(share: float) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": _resize(0),
    "cut": _resize(0.6),
    "one bit": _flip,
    "gone": Path.unlink,
    "unreadable": lambda path: path.chmod(0),
}

ON = ("--dataset", "synthetic")
TRAIN, PACKAGE = ("stages.train", *ON, "--model", "lr"), ("pipeline", "package", *ON, "-o", "package")
# who reads the files of a pattern: a module and its words; the first pattern of a file counts
READERS: dict[str, Words] = {
    "data/checkpoints/**/*.pt": TRAIN,
    "studies/journal.jsonl": ("stages.tune", *ON, "--model", "lr"),
    "data/raw/synthetic/*": ("stages.preprocess", *ON),
    "data/interim/synthetic/reading.json": PACKAGE,
    "data/interim/synthetic/*": ("stages.split", *ON),
    "data/processed/synthetic/vocabulary.json": PACKAGE,
    "data/processed/synthetic/test.*": ("stages.evaluate", *ON),
    "data/processed/synthetic/*": TRAIN,
    "data/reports/synthetic/report.json": ("pipeline", "compare", "synthetic", "--out", "comparison"),
    "data/reports/synthetic/SHA256SUMS": ("pipeline", "compare", "synthetic", "--out", "comparison"),
    "data/runs/synthetic/*/*/*": ("stages.evaluate", *ON),
}
MOST_COPIES = 3  # of one file
UNREAD = {"trials.csv", "best.json"}  # for people


def files(folder: Path) -> Iterator[tuple[Path, Words]]:
    """Yield each file that is read, with who reads it."""
    seen = set(UNREAD)
    for pattern, reader in READERS.items():
        if pattern.endswith("*.pt"):
            interrupt(folder)
        for path in sorted(folder.glob(pattern)):
            if str(path) not in seen and path.name not in UNREAD:
                seen.add(str(path))
                yield path, reader


def interrupt(folder: Path) -> None:
    """Kill a training that has written a checkpoint."""
    command = [sys.executable, "-m", *TRAIN]
    while not list(folder.glob("data/checkpoints/**/*.pt")):
        started = subprocess.Popen(
            command, cwd=folder, env=chaos.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while started.poll() is None and not list(folder.glob("data/checkpoints/**/*.pt")):
            time.sleep(0.002)
        started.send_signal(signal.SIGKILL)
        started.wait()


def damage_once(folder: Path, path: Path, reader: Words, how: str, run: Run = chaos.warm) -> str:
    """Damage a file; return which promise broke, or nothing.

    Args:
        run: `chaos.warm` or `chaos.cold`.
    """
    before, name = chaos.results(folder), str(path.relative_to(folder))
    unreadable = how == "unreadable"
    # files with the same bytes may be one file by several names, of which the reader meets the first
    runs = (each for each in folder.glob("data/runs/**/*") if each.is_file())
    names = {name, *(str(each.relative_to(folder)) for each in runs if each.samefile(path))}
    path.chmod(0o644)
    DAMAGES[how](path)
    code, said = run(folder, *reader, like_a_user=unreadable)
    if "Traceback" in said:
        return f"traceback: {said[-300:]}"
    if code:
        if not any(each in said for each in names):
            return f"not named: {said}"
        if wrong := follow_cure(folder, said, chaos.LIKE_A_USER if unreadable else ()):
            return f"the cure did not help: {wrong}"
        again, said = run(folder, *reader, like_a_user=unreadable)
        if again:
            return f"the cure did not help: {said[-300:]}"
    if chaos.results(folder) != before:
        return "other bits after the cure" if code else "the reader went on, with other bits"
    if not code and path.exists() and name.startswith("data") and not unreadable:
        return "the reader went on with the damaged file"
    return ""


def follow_cure(folder: Path, message: str, limited: Words, more: int = MOST_COPIES) -> str:
    """Do what a message says with the files that it names, then run the DVC target.

    Results with the same bytes are one file to DVC's cache, and damaged together: the run of the first may
    meet the next, and says what to do with that, `more` times at most.
    """
    if told := re.search(r"(\S+) cannot be read .*; make it readable, or remove it and run", message):
        (folder / told[1]).unlink()
    elif told := re.search(r"remove (.*?), then ", message):
        for name in told[1].split(" and "):
            (folder / name).unlink()
    elif told := re.search(r"(\S+) is damaged .*: move it away and run again", message):
        (folder / told[1]).unlink()
        return ""
    elif told := re.search(r"(\S+): Permission denied; .* own it", message):
        (folder / told[1]).chmod(0o644)
        return ""
    target = re.search(r"`dvc repro (\S+)`", message)
    if not target:
        return f"no cure is told: {message}"
    done = chaos.call(folder, *limited, "dvc", "repro", target[1])
    next_told = re.search(r"`dvc repro (\S+)`", done.stderr)
    if done.returncode and more and next_told and next_told[1] != target[1]:
        return follow_cure(folder, done.stderr, limited, more - 1)
    return done.stderr[-300:] if done.returncode else ""


def damages(folder: Path, hows: Iterable[str] = DAMAGES, only: str = "") -> Counter[tuple[str, bool]]:
    """Damage each file in these ways; return how often every promise held, by way."""
    found = Counter[tuple[str, bool]]()
    for how in hows:
        for path, reader in files(folder):
            if only not in str(path):
                continue
            wrong = damage_once(folder, path, reader, how)
            found[how, not wrong] += 1
            print(f"{path.relative_to(folder)}, {how}: {wrong or 'held'}", flush=True)
            if wrong and (worse := chaos.go_on(folder)):
                raise SystemExit(f"the project cannot go on: {worse}")
    return found
