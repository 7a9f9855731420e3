"""From a raw log to encoded splits, and on to a report: time, peak memory and disk of each stage.

    python -m benchmarks.preparation kuairec                  12.5 million generated rows, 1.1 GB
    python -m benchmarks.preparation avazu                    40 million generated rows, 7 GB
    python -m benchmarks.preparation kuairec --rows 2000000 --compare
    python -m benchmarks.preparation avazu --train fm deepfm  all stages

The log is generated into `--folder` and kept for the next run, a local server hands it out. Each step is its
own process; its peak memory is the operating system's figure. `--compare` adds what a user would write
instead: pandas reads and joins everything, scikit-learn encodes labels and splits. `--train` streams the rows
from disk, one pass over them a model with vectors of 16 numbers, one seed; the one trial of the search is
this training. Seconds on a shared machine vary: compare those of one run.
"""

import os
import shutil
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
SOURCES = {  # dataset, its log, rows of the original
    "kuairec": ("kuairec-big", "big_matrix.csv", 12_530_806),
    "avazu": ("avazu-1m", "train.csv", 40_428_967),
}
GENERATE = """
import sys
from pathlib import Path
from benchmarks import logs
logs.{}(Path(sys.argv[1]), int(sys.argv[2]))
"""
READ = """
import sys
with open(sys.argv[1], "rb", buffering=0) as file:
    while file.read(16 << 20):
        pass
"""
PARSE = """
import sys
from pathlib import Path
from pipeline.preprocess.rejects import RejectLog
from pipeline.preprocess.text import Dialect, first_line, records
path, dialect = Path(sys.argv[1]), Dialect(quote='"')
names = first_line(path, dialect)
print(sum(len(table) for table, _ in records(path, names, RejectLog(), dialect, header=True, text=names)))
"""
PANDAS = """
import sys
from pathlib import Path
import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelEncoder
path = Path(sys.argv[1])
log = pd.read_csv(path, dtype={"id": str})
if path.name == "big_matrix.csv":
    log["label"] = (log["watch_ratio"] > 3).astype(int)
    stamp = pd.to_datetime(log["time"])
    log["hour"], log["weekday"] = stamp.dt.hour, stamp.dt.weekday
    log = log.drop(columns=["play_duration", "time", "date", "timestamp", "watch_ratio"])
    log = log.merge(pd.read_csv(path.parent / "user_features.csv"), on="user_id", how="left")
    log = log.merge(pd.read_csv(path.parent / "item_categories.csv"), on="video_id", how="left")
else:
    log = log.rename(columns={"click": "label"}).drop(columns=["id"])
fields = [name for name in log.columns if name != "label"]
for name in fields:
    log[name] = LabelEncoder().fit_transform(log[name].fillna("").astype(str))
train, test = train_test_split(log, test_size=0.2, random_state=1024)
train, valid = train_test_split(train, test_size=0.1, random_state=1024)
for name, part in (("train", train), ("valid", valid), ("test", test)):
    np.save(path.parent / f"pandas.{name}.npy", part[fields].to_numpy(np.int32))
"""


SIZE, BATCH = 16, 4096  # of a vector, of a step
STREAMED = 1_000_000  # rows from which on a split is streamed


def main() -> None:
    """Generate, run, print a table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("log", choices=sorted(SOURCES))
    parser.add_argument("--rows", type=int, default=None, help="rows of the log (default: as the original)")
    parser.add_argument("--folder", type=Path, default=ROOT / "data/benchmarks")
    parser.add_argument("--compare", action="store_true", help="also measure pandas and scikit-learn")
    parser.add_argument(
        "--train", nargs="+", default=[], metavar="MODEL", help="also train and evaluate these"
    )
    arguments = parser.parse_args()
    name, file, size = SOURCES[arguments.log]
    rows = arguments.rows or size
    folder: Path = arguments.folder.resolve() / f"{arguments.log}-{rows}"
    path = folder / "mirror" / name / file
    if not (folder / "generated").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-c", GENERATE.format(arguments.log), str(path.parent), str(rows)], folder)
        (folder / "generated").touch()
    shutil.rmtree(folder / "data", ignore_errors=True)
    megabytes = path.stat().st_size / 1e6
    print(f"{rows:,} rows, {megabytes:,.0f} MB, {os.cpu_count()} cores\n")
    steps = {
        "reading the file once": [sys.executable, "-c", READ, str(path)],
        "parsing every column": [sys.executable, "-c", PARSE, str(path)],
        "download (local server, sha256)": _stage("download", name),
        "preprocess": _stage("preprocess", name),
        "split": _stage("split", name),
    }
    for model in arguments.train:
        for stage in ("train", "tune"):
            steps[f"{stage} {model}"] = [*_stage(stage, name), "--model", model]
    if arguments.train:
        steps["evaluate"] = _stage("evaluate", name)
    if arguments.compare:
        steps["the same with pandas"] = [sys.executable, "-c", PANDAS, str(path)]
    seconds = {}
    print("| step | seconds | CPU seconds | million rows / s | peak memory, GiB | on disk after it, GB |")
    print("|---|---:|---:|---:|---:|---:|")
    with _server(folder / "mirror") as port:
        _params(folder, name, rows, f"http://127.0.0.1:{port}", arguments.train)
        for step, command in steps.items():
            seconds[step], busy, peak = _run(command, folder)
            speed, disk = rows / 1e6 / seconds[step], _bytes(folder / "data") / 1e9
            print(
                f"| {step} | {seconds[step]:.1f} | {busy:.1f} | {speed:.2f} | {peak:.2f} | {disk:.2f} |",
                flush=True,
            )
    ours = seconds["preprocess"] + seconds["split"]
    print(f"\npreprocess + split: {ours:.1f} s, {ours / seconds['reading the file once']:.0f} x reading once")
    if arguments.compare:
        print(f"pandas takes {seconds['the same with pandas'] / ours:.1f} times as long")


def _stage(stage: str, dataset: str) -> list[str]:
    return [sys.executable, "-m", f"stages.{stage}", "--dataset", dataset]


def _bytes(folder: Path) -> int:
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum({each.st_ino: each.st_size for each in found}.values())  # download and raw are one file


@contextmanager
def _server(folder: Path) -> Iterator[int]:
    """Hand out the files of a folder; yield the port."""
    command = [sys.executable, "-um", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline().split(" port ")[1].split()[0])
        finally:
            server.terminate()


def _params(folder: Path, name: str, rows: int, mirror: str, models: list[str]) -> None:
    """Write a params.yaml in which the generated log takes the place of the original."""
    yaml = YAML(typ="safe", pure=True)
    values = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["datasets"], values["mirror"], values["models"] = [name], mirror, models or values["models"]
    if "rows" in values["data"][name]["preprocess"]:
        values["data"][name]["preprocess"]["rows"] = rows
    values["data"][name]["settings"] = {"model": {"embedding_size": SIZE}}
    values["tune"] |= {"trials": 1, "finalists": 1}
    values["train"] |= {"seeds": [1], "epochs": 1, "batch_size": BATCH, "rows_in_memory": STREAMED}
    with open(folder / "params.yaml", "w", encoding="utf-8") as file:
        yaml.dump(values, file)


# this process imports little, since a child's peak memory starts from that of its parent
def _run(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Run a step; return its seconds, those of the processor, and its peak memory in GiB."""
    env = {k: v for k, v in os.environ.items() if k != "CTR_MIRROR"}
    env |= {"PYTHONPATH": str(ROOT), "CTR_TRACKING": "off"}
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command[:4])} failed")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


if __name__ == "__main__":
    main()
