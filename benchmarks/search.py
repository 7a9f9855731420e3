"""A search by several workers, from the file and on PostgreSQL: the same trials and report; how much faster.

    python -m benchmarks.search                                       a server of its own
    python -m benchmarks.search --server postgresql://me@host/postgres --workers 1 2 4 8
    python -m benchmarks.search --trials 24 --wave 8 --rows 60000 --model deepfm

The log is the synthetic one, prepared and trained by default once; then each number of workers searches in a
copy of that folder, with the study in a file there or in a database of its own. Compared are the bytes of
the tuned run (trials, finals, winner, weights) and of the report. `seconds` is the whole stage of the search,
its finals and the winner's seeds included; `load` is the machine's before it, which must be idle for the
ratio to mean anything.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from ruamel.yaml import YAML

from pipeline.tune.shared import with_driver

ROOT = Path(__file__).parents[1]
YAML_FILE = YAML(typ="safe", pure=True)


def stage(folder: Path, name: str, model: str | None = None, **env: str) -> None:
    """Run a stage in a folder, without MLflow."""
    command = [sys.executable, "-m", f"stages.{name}", "--dataset", "synthetic"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("CTR_", "MLFLOW_"))}
    settings = {**clean, "PYTHONPATH": str(ROOT), "CTR_TRACKING": "off", **env}
    with open(folder / "log.txt", "ab") as log:
        subprocess.run(
            command + (["--model", model] if model else []),
            cwd=folder,
            env=settings,
            check=True,
            stdout=log,
            stderr=log,
        )


def prepare(folder: Path, model: str, rows: int, trials: int, wave: int) -> None:
    """Write params.yaml, prepare the log and train the default."""
    values = YAML_FILE.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["datasets"], values["models"], values["processes"] = ["synthetic"], [model], 1
    values["data"]["synthetic"]["download"]["rows"] = rows
    values["train"] |= {"threads": 1, "seeds": [1, 2]}
    values["tune"] |= {"trials": trials, "wave": wave}
    folder.mkdir()
    with open(folder / "params.yaml", "w", encoding="utf-8") as file:
        YAML_FILE.dump(values, file)
    for name in ("download", "preprocess", "split"):
        stage(folder, name)
    stage(folder, "train", model)


def digest(folder: Path) -> str:
    """Of the names and bytes of all files."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder)} ".encode() + path.read_bytes())
    return total.hexdigest()[:12]


@contextmanager
def server(address: str | None) -> Iterator[str]:
    """The address of a server on which databases may be created; one of our own if none is given."""
    if address is not None:
        yield address
        return
    from tests import postgresql

    with postgresql.running() as started:
        yield started.address()


def database(address: str, name: str) -> str:
    """Create an empty database; return its address."""
    url = sqlalchemy.make_url(with_driver(address))
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return url.set(database=name).render_as_string(hide_password=False)


def main() -> None:
    """Print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", help="where databases may be created (default: one of its own)")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4], help="on the server")
    parser.add_argument("--file", type=int, nargs="*", default=[1, 2], help="with the study in a file")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--wave", type=int, default=8)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--model", default="deepfm")
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="search-"))
    prepare(base / "base", options.model, options.rows, options.trials, options.wave)
    print("| study | workers | load | seconds | speed-up | tuned run | report |")
    print("|---|---:|---:|---:|---:|---|---|")
    first, seen = 0.0, set[tuple[str, str]]()
    with server(options.server) as address:
        for place, count in [("file", n) for n in options.file] + [("server", n) for n in options.workers]:
            folder = base / f"{place}{count}"
            shutil.copytree(base / "base", folder, ignore=shutil.ignore_patterns("trainings"))
            env = {"CTR_PROCESSES": str(count)}
            if place == "server":
                env["CTR_STUDIES"] = database(address, f"ctr_search_{count}")
            load, start = os.getloadavg()[0], time.perf_counter()
            stage(folder, "tune", options.model, **env)
            seconds = time.perf_counter() - start
            stage(folder, "evaluate")
            tuned, report = digest(folder / "data/runs"), digest(folder / "data/reports")
            seen.add((tuned, report))
            first = first or seconds
            print(
                f"| {place} | {count} | {load:.1f} | {seconds:.0f} | {first / seconds:.2f} | "
                f"{tuned} | {report} |",
                flush=True,
            )
    print("the same" if len(seen) == 1 else f"DIFFERENT: see {base}")
    if len(seen) == 1:
        shutil.rmtree(base)
    raise SystemExit(len(seen) > 1)


if __name__ == "__main__":
    main()
