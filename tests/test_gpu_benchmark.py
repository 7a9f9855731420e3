"""The prepared measurement of a GPU, in small on the processor: every path of it but the CUDA graph."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from benchmarks import gpu

ROOT = Path(__file__).parent.parent
# of what the project installs a machine with torch has these, as the docstring says, and no others
REFUSING = """
import runpy, sys
needed = {"annotated-types", "jaxtyping", "numpy", "psutil", "torch", "tqdm"}
absent = set(sys.argv.pop(1).split(",")) - needed - {"filelock"}  # which is torch's
class Finder:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.replace("_", "-") in absent else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Finder, sys.meta_path)
sys.argv[0] = "gpu"
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""


@pytest.mark.thorough
@pytest.mark.slow
def test_the_measurement_runs_in_small_without_dvc_mlflow_and_optuna() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [re.split(r"[^\w.-]", line)[0].lower() for line in project["dependencies"]]
    result = subprocess.run(
        [sys.executable, "-c", REFUSING, ",".join(declared), "--device", "cpu"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    cases = {line.split(" | ")[0].removeprefix("| ") for line in lines[1:]}
    for name in gpu.MODELS:
        assert {f"{name}, right", f"{name}, repeats", f"{name}, 128, bfloat16, eager"} <= cases
    assert {"deepfm, 128, 3 seeds at once", "deepfm, 128, float32, compiled"} <= cases
    assert not any("FAILED" in line for line in lines)


@pytest.mark.slow
def test_a_wrong_auc_is_a_failed_case_and_the_next_one_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "metrics_on_device", lambda label, score: torch.tensor([0.5]))
    report = gpu.Report(deadline=float("inf"))
    report.case("wrong", gpu.right, "deepfm", 2000, torch.device("cpu"))
    report.case("next", lambda: gpu.Row("fine"))
    with pytest.raises(SystemExit, match="1"):
        report.end()
    text = capsys.readouterr().out
    assert "| wrong | - | - | - | - | FAILED: AUC 0.5 on the device" in text
    assert "| next | - | - | - | - | fine |" in text


def test_what_comes_too_late_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    report = gpu.Report(deadline=0.0)
    report.case("late", lambda: gpu.Row("fine"))
    report.end()
    assert "Left out for want of time: late" in capsys.readouterr().out
