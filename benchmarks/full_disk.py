"""Run each stage and `sync` on a disk that is full too soon: `python -m benchmarks.chaos --disk`, as root.

The whole project lies on a file system of its own (tmpfs), with room for a tenth, two tenths, ... of what the
stage writes. Either the stage fits, or it ends with one message that names the path and the need, and every
file that is there has the bits of an undisturbed run; given room, it runs through with those bits.
"""

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import chaos

ROOM, STEPS = 400 * 2**20, 10
ON = ("--dataset", "synthetic")
# what is run, and what it writes anew
STAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "download": (("stages.download", *ON), ("data/raw",)),
    "preprocess": (("stages.preprocess", *ON), ("data/interim",)),
    "split": (("stages.split", *ON), ("data/processed",)),
    "train": (
        ("stages.train", *ON, "--model", "lr"),
        ("data/runs/synthetic/lr/default", "mlflow.db", "mlruns"),
    ),
    "tune": (
        ("stages.tune", *ON, "--model", "lr"),
        ("data/runs/synthetic/lr/tuned", "studies", "mlflow.db", "mlruns"),
    ),
    "evaluate": (("stages.evaluate", *ON), ("data/predictions", "data/reports", "mlflow.db", "mlruns")),
    "sync": (("pipeline", "sync"), ("mlflow.db", "mlruns")),
}


@contextmanager
def disk(place: Path, size: int) -> Iterator[None]:
    """Mount an empty file system of so many bytes."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def resize(place: Path, size: int) -> None:
    """Give a mounted file system so many bytes."""
    subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)


def used(place: Path) -> int:
    """Return the bytes that are taken of a file system."""
    status = os.statvfs(place)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def lay_out(source: Path, place: Path, outputs: tuple[str, ...]) -> None:
    """Copy a finished project, without DVC's cache and without what a stage writes."""
    ignore = shutil.ignore_patterns("cache", "tmp", ".git", "__pycache__", "*.lock")
    shutil.copytree(source, place, dirs_exist_ok=True, ignore=ignore)
    (place / ".git").mkdir()
    for name in outputs:
        path = place / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def files(place: Path) -> dict[str, str]:
    """Return the digest of every result by its path; leftovers count, locks do not."""
    found = {
        f"{room}/{name}": digest
        for room, each in chaos.results(place).items()
        for name, digest in each.items()
    }
    return {name: digest for name, digest in found.items() if not name.endswith(".lock")}


def fill_once(source: Path, place: Path, stage: str, tenths: int, need: int) -> str:
    """Run a stage with room for some tenths of its need; return which promise broke, or nothing."""
    words, outputs = STAGES[stage]
    expected = files(source)
    with disk(place, ROOM):
        lay_out(source, place, outputs)
        resize(place, used(place) + need * tenths // STEPS + 4096)
        code, said = chaos.warm(place, *words)
        left = files(place)
        half = [name for name, digest in left.items() if expected.get(name) != digest]
        if "Traceback" in said:
            return f"traceback: {said[-500:]}"
        if half:
            return f"half-written: {half}; {said}"
        if code and not (re.search(r"error: \S+", said) and "free some space" in said):
            return f"path or need is not told: {said}"
        resize(place, ROOM)
        again, later = chaos.warm(place, *words)
        if again:
            return f"with room again: {later[-500:]}"
        if {name: digest for name, digest in files(place).items() if name in expected} != expected:
            return "other bits with room again"
        return "" if code else f"fits{': ' + said if 'warning' in said else ''}"


def fill(source: Path, place: Path, only: str = "") -> Counter[tuple[str, bool]]:
    """Run each stage with ten amounts of room; return how often every promise held, by stage."""
    found = Counter[tuple[str, bool]]()
    for stage, (words, outputs) in STAGES.items():
        if only not in stage:
            continue
        with disk(place, ROOM):
            lay_out(source, place, outputs)
            before = used(place)
            code, said = chaos.warm(place, *words)
            if code:
                raise SystemExit(f"{stage}: {said}")
            need = used(place) - before
        for tenths in range(STEPS):
            wrong = fill_once(source, place, stage, tenths, need)
            held = not wrong or wrong.startswith("fits")
            found[stage, held] += 1
            print(f"{stage}, room for {tenths} tenths of {need:,} bytes: {wrong or 'told'}", flush=True)
    return found
