"""Kernels can be switched off, can be missing, and switch themselves off where torch has changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import kernels
from pipeline.kernels import private
from pipeline.layers import accelerated
from pipeline.layers.pairs import bi_interaction
from pipeline.train import cache

ROOT = Path(__file__).parents[2]
ASK = "from pipeline.layers import accelerated; print(accelerated.enabled())"
# What is run without the folder: equations against loops, a model of each layer that has a kernel, the
# optimizer and the loop.
WITHOUT = [
    *(f"tests/layers/test_{name}.py" for name in ("bilinear", "lookup", "pairs")),
    *(f"tests/models/test_{name}.py" for name in ("autoint", "deepfm", "fibinet", "xdeepfm")),
    "tests/test_optimizer.py",
    "tests/test_training.py::test_a_step_is_that_of_the_paper",
    "tests/test_training.py::test_the_seed_decides_every_bit",
]


def has_kernel() -> bool:
    e = torch.randn(2, 3, 4, requires_grad=True)
    return type(bi_interaction(e).grad_fn).__name__ == "_BiInteractionBackward"


def python(code: str, **env: str) -> tuple[str, str]:
    """What a fresh interpreter prints, and its warnings."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip(), result.stderr


def test_off_runs_the_bodies_until_its_end() -> None:
    assert has_kernel()
    with accelerated.off():
        assert not accelerated.enabled()
        assert not has_kernel()
        with accelerated.off():
            pass
        assert not has_kernel()
    with pytest.raises(KeyError), accelerated.off():
        raise KeyError
    assert has_kernel()


def test_a_training_with_kernels_is_not_taken_for_one_without() -> None:
    device = torch.device("cpu")
    ours = cache.environment("deepfm", device)
    assert ours == cache.environment("deepfm", device)
    with accelerated.off():
        assert ours != cache.environment("deepfm", device)


@pytest.mark.slow
def test_the_environment_variable_switches_them_off() -> None:
    assert python(ASK, CTR_KERNELS="off") == ("False", "")


def test_they_fit_this_torch() -> None:
    private.check()
    assert kernels.works()


@pytest.mark.parametrize("lost", ["_fused_adam_", "_foreach_norm", "_softmax_backward_data"])
def test_a_torch_without_a_private_function_is_one_warning(lost: str, monkeypatch: Any) -> None:
    monkeypatch.delattr(torch, lost)
    with pytest.warns(UserWarning, match=f"does not fit torch .*{lost}.* plain equations") as warnings:
        assert not kernels.works()
    assert len(warnings) == 1


def test_a_private_function_that_computes_something_else_is_noticed(monkeypatch: Any) -> None:
    monkeypatch.setattr(torch, "_softmax_backward_data", lambda grad, output, axis, dtype: grad * output)
    with pytest.warns(UserWarning, match="does not fit torch"):
        assert not kernels.works()


@pytest.mark.slow
def test_where_they_do_not_fit_they_are_off() -> None:
    answer, warnings = python(f"import torch; del torch._fused_adam_; {ASK}")
    assert answer == "False"
    assert warnings.count("does not fit torch") == 1


@pytest.mark.thorough
@pytest.mark.slow
def test_without_the_folder_everything_works(tmp_path: Path) -> None:
    for name in ("pipeline", "stages", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "kernels")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("pyproject.toml", "params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    not_there = ["--deselect", "tests/test_optimizer.py::test_a_dense_step_is_torchs_to_the_last_bit"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *not_there, *WITHOUT]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
    assert " passed" in result.stdout
