"""Break a tiny project and see whether every promise holds: `python -m benchmarks.chaos --kills 300`.

Kills: `dvc repro` or `sync` gets SIGKILL, SIGTERM or SIGINT (its group, the stage alone, or dvc alone)
at a random moment; the next `check`, `dvc repro` and `sync` have to end well, with the bits of a run
that nobody stopped. `--damages`: see `benchmarks.damages`; `--disk`: see `benchmarks.full_disk`.
"""

import ctypes
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import psutil
from ruamel.yaml import YAML

from pipeline.common.errors import exit_with_message
from pipeline.common.files import file_digests

ROOT = Path(__file__).parents[1]
TAKEN = ("pipeline", "stages", ".dvc", "dvc.yaml", ".dvcignore", ".gitignore")
RESULTS = ("raw", "interim", "processed", "runs", "predictions", "reports")
STAGES = ("download", "preprocess", "split", "train", "tune", "evaluate")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
WHOM = ("group", "stage", "dvc")


QUICK = {"train": {"epochs": 3, "seeds": [1, 2], "threads": 1}, "tune": {"trials": 3}}


# root reads everything: without these capabilities it is told what any other user is told
_CAPABILITIES = "-dac_override,-dac_read_search"
_SETPRIV = ("setpriv", f"--bounding-set={_CAPABILITIES}", f"--inh-caps={_CAPABILITIES}")
LIKE_A_USER = _SETPRIV if os.geteuid() == 0 else ()


def make_project(folder: Path, *, rows: int = 2000, settings: Any = QUICK, **more: Any) -> Path:
    """Copy what DVC needs into a new repository, with a params.yaml that takes seconds.

    Args:
        rows: of the synthetic log.
        settings: of its entry.
        more: keys of params.yaml that are different; those of `model` join the blocks there.
    """
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
    values["data"]["synthetic"]["download"]["rows"] = rows
    values["data"]["synthetic"]["settings"] = settings
    values["model"] |= more.pop("model", {})
    values |= more
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


def warm(folder: Path, module: str, *words: str, like_a_user: bool = False) -> tuple[int, str]:
    """Run a module of the project as a fork of this process, which has imported what takes seconds.

    Args:
        like_a_user: without the right of root to read everything.

    Returns:
        its exit code and what it printed.
    """
    for name in (*STAGES, "__init__"):
        importlib.import_module(f"stages.{name}".removesuffix(".__init__"))
    import mlflow.pytorch  # noqa: F401
    import optuna  # noqa: F401
    import sklearn.linear_model  # noqa: F401

    with TemporaryFile("w+") as out:
        pid = os.fork()
        if not pid:
            code: Any = 1
            try:
                for stream in (1, 2):
                    os.dup2(out.fileno(), stream)
                os.chdir(folder)
                env = environment()
                os.environ.clear()
                os.environ.update(env)
                if like_a_user:
                    _give_up_reading_everything()
                sys.argv = [module, *words]
                where = "pipeline.__main__" if module == "pipeline" else module
                exit_with_message(importlib.import_module(where).main)
                code = 0
            except SystemExit as stop:
                code = stop.code
            except BaseException:  # noqa: BLE001  as Python would show it
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code or 0)
        _, status = os.waitpid(pid, 0)
        out.seek(0)
        return os.waitstatus_to_exitcode(status), out.read()


def cold(folder: Path, module: str, *words: str, like_a_user: bool = False) -> tuple[int, str]:
    """Do what `warm` does, in a process of its own."""
    limited = LIKE_A_USER if like_a_user else ()
    done = call(folder, *limited, sys.executable, "-m", module, *words)
    return done.returncode, done.stdout + done.stderr


def _give_up_reading_everything() -> None:
    """Drop CAP_DAC_OVERRIDE (1) and CAP_DAC_READ_SEARCH (2) of this process (Linux)."""
    if os.geteuid():
        return
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, the lower and the upper 32
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.capget(header, sets)
    sets[0] &= ~0b110
    if failed or libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


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


def table(promise: str, found: Counter[tuple[str, bool]]) -> str:
    """Return the lines of a Markdown table: what was done, how often, how often the promise held."""
    lines = [f"| {promise} | tried | held |", "|---|---:|---:|"]
    for name in dict.fromkeys(name for name, _ in found):
        held = found[name, True]
        lines.append(f"| {name} | {held + found[name, False]} | {held} |")
    return "\n".join(lines)


def main() -> None:
    """Make the project, break it, print the tables."""
    from benchmarks import damages, full_disk

    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=0)
    ways = list(damages.DAMAGES)
    parser.add_argument("--damages", nargs="*", choices=ways, help=f"{', '.join(ways)} (default: all)")
    parser.add_argument("--disk", action="store_true")
    parser.add_argument("--only", default="", help="files whose path has this, or stages of this name")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    hows = ways if arguments.damages == [] else arguments.damages or []
    # with a variant and a blend: what they read is damaged, too
    more: dict[str, Any] = {"variants": ["lr-too"], "model": {"lr-too": {"base": "lr"}}}
    more["evaluate"] = {"blend": ["lr", "lr-too"]}
    with TemporaryDirectory() as temporary:
        folder = make_project(Path(temporary, "project"), **(more if hows else {}))
        if wrong := go_on(folder):
            raise SystemExit(wrong)
        shown, tables = runs_in_mlflow(folder), []
        if hows:
            found = damages.damages(folder, hows, arguments.only)
            tables.append(table("damage named, cured, same bits", found))
        if arguments.disk:
            found = full_disk.fill(folder, Path(temporary, "disk"), arguments.only)
            tables.append(table("full disk named, nothing half-written, same bits with space", found))
        if arguments.kills:
            found = kills(folder, arguments.kills, random.Random(arguments.seed))
            tables.append(table("killed; the next run goes on, same bits", found))
            more_runs = runs_in_mlflow(folder) - shown
            tables.append(f"finished runs in MLflow too many: {dict(more_runs) or 'none'}")
        print("\n\n".join(tables))


if __name__ == "__main__":
    main()
