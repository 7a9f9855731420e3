"""A served model: in a fresh environment away from the checkout, and its latency.

python -m benchmarks.serving fresh      in a new virtual environment of its own requirements (downloads them)
python -m benchmarks.serving latency    in process, and over HTTP beside a constant model
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import psutil
import torch

from benchmarks import scoring
from pipeline.scoring import load
from pipeline.tracking.models import save

CONSTANT = """
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Constant(PythonModel):
    def predict(self, context, model_input, params=None):
        half = [0.5] * len(model_input)
        return pd.DataFrame({"probability": half, "raw_probability": half})

set_model(Constant())
"""
ROUNDS, SECONDS = 5, 3  # in turns of so many seconds


def fresh(folder: Path) -> None:
    """Install the model's requirements into a new environment and predict there."""
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin/python"
    start = time.perf_counter()
    install = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "-r",
        str(folder / "model/requirements.txt"),
    ]
    subprocess.run(install, check=True)
    print(f"installed in {time.perf_counter() - start:.0f} s")
    code = (
        "import sys, mlflow; model = mlflow.pyfunc.load_model(sys.argv[1]); "
        "print(model.predict(model.input_example).to_json()); "
        "import pipeline; print(pipeline.__file__)"
    )
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    words = [str(python), "-c", code, str(folder / "model")]
    done = subprocess.run(words, cwd=folder, env=clean, check=True, capture_output=True, text=True)
    found, home = done.stdout.splitlines()
    model = load(folder / "package")
    expected = json.loads(model.predict(model.example()).to_json())
    assert home.startswith(str(folder)), home
    for name, values in expected.items():
        np.testing.assert_allclose(list(json.loads(found)[name].values()), list(values.values()), rtol=1e-6)
    print(f"the same probabilities in {environment}, with the code of {home}")


@contextmanager
def serving(folder: Path, model: Path) -> Iterator[tuple[int, int]]:
    """Serve a model; yield the port and the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    words = ["mlflow", "models", "serve", "-m", str(model), "--env-manager", "local", "--port", str(port)]
    with open(log_path := folder / f"{model.name}.log", "wb") as log:
        server = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        while True:
            with socket.socket() as client:
                if not client.connect_ex(("127.0.0.1", port)):
                    break
            assert server.poll() is None, log_path.read_text()
            time.sleep(0.2)
        yield port, server.pid
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def load_test(port: int, body: bytes, clients: int, seconds: float) -> list[float]:
    """Send the same request from several clients over kept connections; return the seconds of each."""
    found: list[float] = []
    end = time.perf_counter() + seconds

    def client() -> None:
        connection = HTTPConnection("127.0.0.1", port)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (start := time.perf_counter()) < end:
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            found.append(time.perf_counter() - start)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and those that it started."""
    root = psutil.Process(pid)
    times = [each.cpu_times() for each in (root, *root.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def line(what: str, seconds: list[float], total: float, cpu: str) -> str:
    """Return a line of the table."""
    p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
    return f"| {what} | {p50:.2f} | {p99:.2f} | {len(seconds) / total:,.0f} | {cpu} |"


def latency(folder: Path) -> None:
    """Print a table: in process, and over HTTP with four clients beside a constant model."""
    torch.set_num_threads(1)
    model = load(folder / "package")
    frame = scoring.rows(2000, seed=3).to_pandas()
    single = [frame.iloc[row : row + 1] for row in range(len(frame))]
    for row in single[:100]:
        model.predict(row)
    seconds, cpu = np.zeros((2, len(single)))
    for number, row in enumerate(single):
        start, began = time.perf_counter(), time.process_time()
        model.predict(row)
        seconds[number], cpu[number] = time.perf_counter() - start, time.process_time() - began
    p50, p99 = np.percentile(cpu, [50, 99]) * 1e3
    print("| batch | p50 ms | p99 ms | requests/s | CPU ms a request |\n|---|---:|---:|---:|---:|")
    print(line("1, in process", list(seconds), sum(seconds), f"{p50:.2f}, p99 {p99:.2f}"))
    names = ("model", "constant")
    with serving(folder, folder / names[0]) as model_server, serving(folder, folder / names[1]) as other:
        servers = dict(zip(names, (model_server, other), strict=True))
        for batch in (1, 100):
            split = json.loads(frame.head(batch).to_json(orient="split", index=False))
            body = json.dumps({"dataframe_split": {key: split[key] for key in ("columns", "data")}}).encode()
            found: dict[str, list[float]] = {name: [] for name in names}
            spent = np.zeros((len(names), ROUNDS))
            for port, _ in servers.values():
                load_test(port, body, 4, 1)
            for turn in range(ROUNDS):  # in turns, so that both have the same machine
                for number, (name, (port, pid)) in enumerate(servers.items()):
                    before = cpu_seconds(pid)
                    answered = load_test(port, body, 4, SECONDS)
                    spent[number, turn] = 1e3 * (cpu_seconds(pid) - before) / len(answered)
                    found[name] += answered
            for number, name in enumerate(names):
                cost = f"{np.median(spent[number]):.2f}"
                print(
                    line(f"{batch}, HTTP, 4 clients: {name}", found[name], ROUNDS * SECONDS, cost), flush=True
                )
            ratios = spent[0] / spent[1]
            rates = len(found["constant"]) / len(found["model"])
            print(
                f"{batch} rows: the model takes {np.median(ratios):.2f} times the CPU of the constant one "
                f"({ratios.min():.2f} to {ratios.max():.2f}), and {rates:.2f} times the time"
            )


def constant(folder: Path) -> None:
    """Write a model with the signature of the other one that does nothing."""
    import mlflow.pyfunc

    signature = mlflow.models.get_model_info(str(folder / "model")).signature
    (folder / "constant.py").write_text(CONSTANT)
    mlflow.pyfunc.save_model(
        folder / "constant",
        python_model=str(folder / "constant.py"),
        signature=signature,
        pip_requirements=["mlflow"],
    )


def main() -> None:
    """Prepare a model and run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("fresh", "latency"))
    what = parser.parse_args().what
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        scoring.write_package(folder / "package", 100_000)
        save(folder / "package", folder / "model")
        if what == "fresh":
            fresh(folder)
        else:
            constant(folder)
            latency(folder)


if __name__ == "__main__":
    main()
