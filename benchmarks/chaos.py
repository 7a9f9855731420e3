"""Break a tiny project and see whether every promise holds: `python -m benchmarks.chaos --kills 300`.

Kills: `dvc repro` or `sync` gets SIGKILL, SIGTERM or SIGINT (its group, the stage alone, or dvc alone)
at a random moment; the next `check`, `dvc repro` and `sync` have to end well, with the bits of a run
that nobody stopped. Damages: each file that a stage reads is emptied, cut, flipped by a bit or removed; the
stage has to name it without a traceback, and the cure as told has to give back the right bits.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from ruamel.yaml import YAML

from pipeline.common.files import file_digests

ROOT = Path(__file__).parents[1]
TAKEN = ("pipeline", "stages", ".dvc", "dvc.yaml", ".dvcignore", ".gitignore")
RESULTS = ("raw", "interim", "processed", "runs", "predictions", "reports")
STAGES = ("download", "preprocess", "split", "train", "tune", "evaluate")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
WHOM = ("group", "stage", "dvc")


def make_project(folder: Path) -> Path:
    """Copy what DVC needs into a new repository, with a params.yaml that takes seconds."""
    folder.mkdir(parents=True)
    for name in TAKEN:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, folder / name)
    yaml = YAML(typ="safe", pure=True)
    values = yaml.load((ROOT / "params.yaml").read_text())
    values |= {"datasets": ["synthetic"], "models": ["lr"], "variants": [], "processes": 1}
    values["data"]["synthetic"]["download"]["rows"] = 2000
    values["data"]["synthetic"]["settings"] = {
        "train": {"epochs": 3, "seeds": [1, 2], "threads": 1},
        "tune": {"trials": 3},
    }
    with open(folder / "params.yaml", "w", encoding="utf-8") as file:
        yaml.dump(values, file)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def environment() -> dict[str, str]:
    """Return the environment of a run: no server of the machine's, and every training really runs."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "CTR_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    return {**env, "PATH": path, "CTR_STORE": "off", "PYTHONWARNINGS": "ignore"}


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, check=False)


def python(folder: Path, module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the project to its end."""
    return call(folder, sys.executable, "-m", module, *words)


def results(folder: Path) -> dict[str, dict[str, str]]:
    """Return the digest of every result by its path."""
    return {name: file_digests(folder / "data" / name) for name in RESULTS}


def go_on(folder: Path) -> str:
    """Do what `make repro` does; return what went wrong, or nothing."""
    ours = (sys.executable, "-m", "pipeline")
    for command in ((*ours, "check"), ("dvc", "repro"), (*ours, "sync")):
        done = call(folder, *command)
        if done.returncode or "Traceback" in done.stderr:
            return f"{' '.join(command)}: {done.stderr[-800:]}"
    return ""


def runs_in_mlflow(folder: Path) -> Counter[str]:
    """Return how many finished runs MLflow shows by their names."""
    import sqlite3

    with sqlite3.connect(folder / "mlflow.db") as database:
        query = "select name from runs where lifecycle_stage = 'active' and status = 'FINISHED'"
        return Counter(name for (name,) in database.execute(query))


# ---- kills ----


def kill_once(folder: Path, chance: random.Random, target: str, longest: float) -> str:
    """Start a target, stop it at a random moment; return by what, once none of its processes is left."""
    command = [sys.executable, "-m", "pipeline", "sync"]
    if target != "sync":
        command = ["dvc", "repro", "--force", "--single-item", target]
    started = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(chance.uniform(0, longest))
    sent, whom = chance.choice(SIGNALS), chance.choice(WHOM)
    family = _family(started.pid)
    for process in {"group": family, "stage": family[-1:], "dvc": family[:1]}[whom]:
        try:
            process.send_signal(sent)
        except psutil.NoSuchProcess:
            continue
    started.wait()
    psutil.wait_procs(family)  # what outlives dvc ends by itself
    return f"{sent.name} to {whom}"


def _family(pid: int) -> list[psutil.Process]:
    """Return a process and its descendants, the stage last."""
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kills(folder: Path, count: int, chance: random.Random) -> Counter[tuple[str, bool]]:
    """Kill `count` times; return how often the next run went on with the same bits, by target."""
    expected, found = results(folder), Counter[tuple[str, bool]]()
    targets = {stage: f"{stage}@synthetic" for stage in STAGES} | {"sync": "sync"}
    targets |= {stage: f"{targets[stage]}-lr" for stage in ("train", "tune")}
    for number in range(count):
        stage = list(targets)[number % len(targets)]
        begun = time.monotonic()
        how = kill_once(folder, chance, targets[stage], 12)
        wrong = go_on(folder)
        if not wrong and results(folder) != expected:
            wrong = "other bits"
        found[stage, not wrong] += 1
        print(
            f"{number + 1}: {stage}, {how}, {time.monotonic() - begun:.0f} s: {wrong or 'held'}", flush=True
        )
        if wrong and not (folder / ".git").exists():
            break
    return found


# ---- damages ----


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
}
# who reads a folder of data/; the words of its command follow
READERS: dict[str, tuple[str, ...]] = {
    "raw/synthetic": ("preprocess",),
    "interim/synthetic": ("split",),
    "processed/synthetic": ("train", "--model", "lr"),
    "runs/synthetic/lr/default": ("evaluate",),
    "runs/synthetic/lr/tuned": ("evaluate",),
}


def damage_once(folder: Path, path: Path, how: str) -> str:
    """Damage a file in place, also where DVC's cache shares it; return which promise broke, or nothing."""
    before = results(folder)
    inside = path.relative_to(folder / "data").parent.as_posix()
    stage, *words = READERS[inside]
    path.chmod(0o644)
    DAMAGES[how](path)
    done = python(folder, f"stages.{stage}", "--dataset", "synthetic", *words)
    if not done.returncode:
        return "" if path.name in UNREAD else "the stage went on"
    if "Traceback" in done.stderr:
        return f"traceback: {done.stderr[-300:]}"
    if str(path.relative_to(folder)) not in done.stderr:
        return f"not named: {done.stderr}"
    follow_cure(folder, done.stderr)
    if wrong := go_on(folder):
        return f"the cure did not help: {wrong}"
    return "" if results(folder) == before else "other bits after the cure"


def follow_cure(folder: Path, message: str) -> None:
    """Do what a message says: remove the files that it names, then run the DVC target."""
    told = re.search(r"remove (.*?), then ", message)
    for name in told[1].split(" and ") if told else ():
        (folder / name).unlink()
    target = re.search(r"`dvc repro (\S+)`", message)
    if target:
        call(folder, "dvc", "repro", target[1])


# for people, and what packages are made of: no stage reads them
UNREAD = {"trials.csv", "best.json", "reading.json"}


def damages(folder: Path) -> Counter[tuple[str, bool]]:
    """Damage each file that a stage reads in each way; return how often every promise held, by way."""
    found = Counter[tuple[str, bool]]()
    for inside in READERS:
        for path in sorted((folder / "data" / inside).iterdir()):
            for how in DAMAGES:
                wrong = damage_once(folder, path, how)
                found[how, not wrong] += 1
                print(f"{path.relative_to(folder)}, {how}: {wrong or 'held'}", flush=True)
                if wrong or path.name in UNREAD:
                    go_on(folder)
    return found


def table(promise: str, found: Counter[tuple[str, bool]]) -> str:
    """Return the lines of a Markdown table: what was done, how often, how often the promise held."""
    lines = [f"| {promise} | tried | held |", "|---|---:|---:|"]
    for name in dict.fromkeys(name for name, _ in found):
        held = found[name, True]
        lines.append(f"| {name} | {held + found[name, False]} | {held} |")
    return "\n".join(lines)


def main() -> None:
    """Make the project, break it, print the tables."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--damages", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = make_project(Path(temporary, "project"))
        if wrong := go_on(folder):
            raise SystemExit(wrong)
        shown, tables = runs_in_mlflow(folder), []
        if arguments.damages:
            tables.append(table("damage named, cured, same bits", damages(folder)))
        if arguments.kills:
            found = kills(folder, arguments.kills, random.Random(arguments.seed))
            tables.append(table("killed; the next run goes on, same bits", found))
            more = runs_in_mlflow(folder) - shown
            tables.append(f"finished runs in MLflow too many: {dict(more) or 'none'}")
        print("\n\n".join(tables))


if __name__ == "__main__":
    main()
