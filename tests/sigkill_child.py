"""Train in child processes that die of SIGKILL at random moments: `python tests/sigkill_child.py FOLDER`.

Prints {"kills": how many, "results": [what each training that got through ended with]}; the first
result is of a training that nobody disturbed.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from rows import SCHEMAS, random_split  # noqa: E402

from pipeline.common.files import canonical  # noqa: E402
from pipeline.models import build  # noqa: E402
from pipeline.train.device import reproducible  # noqa: E402
from pipeline.train.loop import fit  # noqa: E402

KILLS = 6
OPTIONS = {"embedding_size": 8, "hidden": [16], "dropout": 0.3, "embedding_dropout": 0.1, "batch_norm": True}


def train(checkpoint: Path | None, result: Path) -> None:
    schema = SCHEMAS["three-domains"]
    model = build("deepfm", schema, OPTIONS, seed=1)
    state = fit(
        model,
        random_split(schema, 2000, seed=1),
        random_split(schema, 500, seed=2),
        seed=1,
        epochs=6,
        batch_size=64,
        lr=0.02,
        evaluations_per_epoch=4,
        patience=99,
        checkpoint=checkpoint,
    )
    total = hashlib.sha256(canonical(state.curve).encode())
    for value in model.state_dict().values():
        total.update(value.numpy().tobytes())
    result.write_text(total.hexdigest())


def child(checkpoint: Path | None, result: Path) -> int:
    """Fork a process that trains and exits."""
    pid = os.fork()
    if pid == 0:
        try:
            train(checkpoint, result)
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def lived(pid: int) -> bool:
    """Wait for the end of a child: whether it got through; False if it was killed."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, status
    return True


def main(folder: Path) -> None:
    reproducible(1)
    result, checkpoint = folder / "result", folder / "checkpoint.pt"
    start = time.monotonic()
    assert lived(child(None, result))
    duration = time.monotonic() - start
    kills, results = 0, [result.read_text()]
    # However fast or slow this machine is: go on until enough children were killed and one got through.
    while True:
        pid = child(checkpoint, result)
        if kills < KILLS:
            time.sleep(random.uniform(0, duration / 2))
            os.kill(pid, signal.SIGKILL)
        if not lived(pid):
            kills += 1
            continue
        results.append(result.read_text())
        if kills >= KILLS:
            break
        checkpoint.unlink()
    print(json.dumps({"kills": kills, "results": results}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
