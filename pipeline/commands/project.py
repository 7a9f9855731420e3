"""Commands that start other programs: the whole pipeline, and MLflow's page."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from pipeline.commands.outcome import outcome
from pipeline.common.errors import STEP, PipelineError
from pipeline.config import yaml_file

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def run(root: Path, targets: list[str]) -> None:
    """Check params.yaml, copy files that changed, run DVC, bring MLflow up to date, say who won.

    Each step is a process of its own, so that nothing it loaded stays in memory while the stages run.

    Args:
        root: the project's folder.
        targets: of `dvc repro`; none for all.

    Raises:
        SystemExit: a step failed, which has said why.
    """
    own = [sys.executable, "-m", "pipeline", "--root", "."]
    # DVC's command `python` is the one that runs this
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, **QUIET, "PATH": path, STEP: "1"}
    for step in (
        [*own, "check", "--quiet"],
        [*own, "refresh"],
        [sys.executable, "-m", "dvc", "repro", *targets],
        [*own, "sync"],
    ):
        code = subprocess.run(step, cwd=root, env=environment, check=False).returncode
        if code:
            raise SystemExit(code)
    reported = [name for name in datasets(root) if (root / "data/reports" / name / "report.json").exists()]
    print(f"\n{outcome(root, reported)}")


def datasets(root: Path) -> list[str]:
    """Return the names of the datasets that run, by params.yaml."""
    return list(yaml_file.read(root / "params.yaml")[1]["datasets"])


def ui(root: Path, host: str, port: int) -> NoReturn:
    """Print the addresses of MLflow's page and become its server, until Ctrl-C.

    Raises:
        SystemExit: the runs are on a server of their own, whose address was printed.
    """
    from pipeline import tracking

    try:
        print(tracking.sync(root))
    except PipelineError as error:  # what is published already can be looked at all the same
        print(f"warning: {error}", file=sys.stderr)
    base, local = tracking.page(root, port)
    for what, address in {"runs": tracking.start_page(base), **tracking.saved_views(root, base)}.items():
        print(f"{what + ':':<28} {address}")
    if not local:
        raise SystemExit
    sys.stdout.flush()
    os.chdir(root)
    words = ["-m", "mlflow", "ui", "--host", host, "--port", str(port), "--workers", "1"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    os.execve(sys.executable, [sys.executable, *words], {**os.environ, **quiet})
