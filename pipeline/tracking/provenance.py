"""Where a result comes from: the tags of a run that a stage has made, and how fast it was.

Nothing of it is in the files under DVC, so only the process that trains can tell; a run that is published
from files alone has none.
"""

import hashlib
import platform
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pipeline.tracking.record import Row

PACKAGES = ("torch", "numpy", "pandas", "optuna", "dvc", "mlflow")
CODE = ("pipeline", "stages", "params.yaml")  # a change of these makes a commit say less than all
LEAST_SECONDS = 0.01  # evaluations that follow each other faster are read from a cache or a checkpoint


def tags(root: Path, device: str) -> dict[str, str]:
    """Return the commit, the digest of dvc.lock, the device, threads and versions of this process."""
    import torch

    lock = root / "dvc.lock"
    found = {
        "device": device,
        "threads": str(torch.get_num_threads()),
        "versions": ", ".join(
            [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
        ),
    }
    if lock.exists():
        found["dvc_lock"] = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    commit = _git(root, "rev-parse", "HEAD")
    if commit:
        changed = bool(_git(root, "status", "--porcelain", "--", *CODE))
        found["commit"] = commit + (" and changes" if changed else "")
    named = {f"provenance.{name}": value for name, value in found.items()}
    return named | ({"mlflow.source.git.commit": commit} if commit else {})


def _git(root: Path, *arguments: str) -> str:
    """Return what git says; nothing without git, or outside a repository."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@dataclass
class Speed:
    """The seconds between the evaluations of trainings, and the rows that were trained on in them.

    Attributes:
        rows: of one epoch.
    """

    rows: int
    epochs: float = 0.0
    seconds: float = 0.0

    def watch(self) -> "Watch":
        """Return the clock of one training, which adds to these."""
        return Watch(self)

    def metrics(self) -> Row:
        """Return rows per second and seconds; nothing if nothing was trained."""
        if not self.seconds:
            return {}
        rate = self.epochs * self.rows / self.seconds
        return {"speed_rows_per_second": float(round(rate)), "speed_seconds": round(self.seconds, 1)}


@dataclass
class Watch:
    """The clock of one training: `before` an evaluation is written and `after`, which does not count."""

    speed: Speed
    epoch: float | None = None
    last: float = 0.0

    def before(self, epoch: float) -> None:
        """Count the time since the last evaluation."""
        now = time.monotonic()
        if self.epoch is not None and now - self.last >= LEAST_SECONDS:
            self.speed.epochs += epoch - self.epoch
            self.speed.seconds += now - self.last
        self.epoch = epoch

    def after(self) -> None:
        """Begin to count."""
        self.last = time.monotonic()
