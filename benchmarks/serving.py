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
SECONDS = 10  # of each measurement


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
def serving(folder: Path, model: Path) -> Iterator[int]:
    """Serve a model; yield the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    words = ["mlflow", "models", "serve", "-m", str(model), "--env-manager", "local", "--port", str(port)]
    with open(folder / "serve.log", "wb") as log:
        server = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        while True:
            with socket.socket() as client:
                if not client.connect_ex(("127.0.0.1", port)):
                    break
            assert server.poll() is None, (folder / "serve.log").read_text()
            time.sleep(0.2)
        yield port
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def load_test(port: int, body: bytes, clients: int) -> list[float]:
    """Send the same request from several clients over kept connections; return the seconds of each."""
    found: list[float] = []
    end = time.perf_counter() + SECONDS

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


def line(what: str, seconds: list[float], total: float) -> str:
    """Return a line of the table."""
    p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
    return f"| {what} | {p50:.2f} | {p99:.2f} | {len(seconds) / total:,.0f} |"


def latency(folder: Path) -> None:
    """Print a table: in process, and over HTTP with four clients beside a constant model."""
    torch.set_num_threads(1)
    model = load(folder / "package")
    frame = scoring.rows(2000, seed=3).to_pandas()
    single = [frame.iloc[row : row + 1] for row in range(len(frame))]
    for row in single[:100]:
        model.predict(row)
    seconds, cpu = [], time.process_time()
    for row in single:
        start = time.perf_counter()
        model.predict(row)
        seconds.append(time.perf_counter() - start)
    cpu = (time.process_time() - cpu) / len(single)
    print("| batch | p50 ms | p99 ms | requests/s |\n|---|---:|---:|---:|")
    print(line(f"1, in process ({1e3 * cpu:.2f} ms of CPU)", seconds, sum(seconds)))
    for batch in (1, 100):
        split = json.loads(frame.head(batch).to_json(orient="split", index=False))
        body = json.dumps({"dataframe_split": {key: split[key] for key in ("columns", "data")}}).encode()
        for name in ("model", "constant"):
            with serving(folder, folder / name) as port:
                load_test(port, body, 1)
                print(
                    line(f"{batch}, HTTP, 4 clients: {name}", load_test(port, body, 4), SECONDS), flush=True
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
