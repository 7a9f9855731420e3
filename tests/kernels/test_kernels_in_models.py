"""Models with their kernels and without, and the bits of a training with everything on that makes it fast."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loops import exact
from rows import SCHEMAS, every_schema, random_ids, random_split

from pipeline.common.files import seal, write_json
from pipeline.data.batches import Split
from pipeline.kernels import cin, fiinet, lookup
from pipeline.layers import accelerated
from pipeline.models import build
from pipeline.schema import Schema
from pipeline.train.device import reproducible
from pipeline.train.loop import fit

SCHEMA = SCHEMAS["two-domains"]  # it has a bag
NETWORK = {"embedding_size": 4, "hidden": [8, 8], "dropout": 0.0}
MODELS: dict[str, dict[str, Any]] = {
    "fm": {"embedding_size": 4},
    "deepfm": NETWORK,
    "nfm": NETWORK,
    "xdeepfm": {**NETWORK, "cin": [4, 6, 3], "split_half": True},
    "autoint": {**NETWORK, "attention_size": 4, "heads": 2, "attention_layers": 2, "scaling": True},
    "fibinet": NETWORK,
    "fiinet": {"embedding_size": 4, "hidden": [8], "dropout": 0.0, "separate": True, "orders": [2]},
}
# The steps of autograd that are kernels, and which models are made of them; all of them look rows up.
STEPS: dict[str, set[str]] = {
    "fm": {"_BiInteraction"},
    "deepfm": {"_BiInteraction", "_ReluLayers"},
    "nfm": {"_BiInteraction", "_ReluLayers"},
    "xdeepfm": {"_CIN", "_ReluLayers"},
    "autoint": {"_InteractingLayers", "_ReluLayers"},
    "fibinet": {"_Bilinears", "_Senet", "_ReluLayers"},
    "fiinet": {"_Lookup"},
}
every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def _few_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small batch is looked up by the kernel."""
    monkeypatch.setattr(lookup, "MIN_IDS", 0)


@pytest.fixture(name="tiny")
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small batch makes several chunks."""
    monkeypatch.setattr(fiinet, "CHUNK_ELEMENTS", 1)
    monkeypatch.setattr(cin, "MIN_COLUMNS", 6)
    monkeypatch.setattr(cin, "CHUNK_ELEMENTS", 1)


@pytest.mark.usefixtures("tiny")
@every_schema
@every_model
def test_logits_and_gradients_are_those_of_the_equations(name: str, schema: Schema) -> None:
    original, ids = exact(build(name, schema, MODELS[name], seed=1)), random_ids(schema, 11)
    weight, found, steps = torch.linspace(-1, 1, 11).double(), [], []
    for switch in (None, accelerated.off()):
        model = deepcopy(original).train()
        torch.manual_seed(2)  # NFM drops components of the pooled pairs
        with switch or torch.enable_grad():
            logit = model(ids)
            grads = torch.autograd.grad(logit @ weight, list(model.parameters()), allow_unused=True)
            steps.append(steps_of(logit))
            with torch.inference_mode():
                scores = model.eval()(ids)
            found.append([logit, scores, *(grad for grad in grads if grad is not None)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
    assert steps == [{"_Lookup", *STEPS[name]}, set()], "the kernels that were used"


def steps_of(result: torch.Tensor) -> set[str]:
    """The hand-written steps of autograd that a result was computed by."""
    waiting, found, seen = [result.grad_fn], set(), set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found.add(type(node).__name__.removesuffix("Backward"))
            waiting += [other for other, _ in node.next_functions]
    return {name for name in found if name.startswith("_")}


@pytest.mark.slow
@every_model
def test_a_model_with_kernels_can_be_exported(name: str) -> None:
    model = exact(build(name, SCHEMA, MODELS[name], seed=1))
    rows = torch.export.Dim("rows", min=1, max=4096)
    exported = torch.export.export(model, (random_ids(SCHEMA, 5),), dynamic_shapes=({0: rows},))
    ids = random_ids(SCHEMA, 9)
    torch.testing.assert_close(exported.module()(ids), model(ids))


def history(name: str, train: Split, **settings: Any) -> tuple[list[float], list[torch.Tensor]]:
    model = build(name, SCHEMA, MODELS[name], seed=1)
    valid = random_split(SCHEMA, 200, seed=2)
    state = fit(model, train, valid, seed=1, epochs=3, batch_size=64, lr=0.01, patience=9, **settings)
    return [row["train_logloss"] for row in state.curve], [p.detach() for p in model.parameters()]


@pytest.mark.slow
@every_model
def test_a_training_with_kernels_learns_the_same_history(name: str) -> None:
    train = random_split(SCHEMA, 640, seed=1)
    ours, _ = history(name, train)
    with accelerated.off():
        plain, _ = history(name, train)
    np.testing.assert_allclose(ours, plain, atol=1e-4)


@pytest.mark.slow
@every_model
def test_same_seed_same_bits_with_all_of_it_switched_on(name: str, tmp_path: Path) -> None:
    rows = random_split(SCHEMA, 640, seed=1)
    write_json(tmp_path / "schema.json", SCHEMA.to_json())
    np.save(tmp_path / "train.ids.npy", rows.ids.numpy().astype(np.int32))
    np.save(tmp_path / "train.label.npy", rows.label.numpy().astype(np.uint8))
    seal(tmp_path)
    reproducible(2)
    try:
        runs = []
        for _ in range(2):
            streamed = Split.load(tmp_path, "train", rows_in_memory=100)
            assert streamed.streamed
            runs.append(history(name, streamed, lazy_rows=1, precision="bfloat16"))
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(1)
    (first, weights), (second, others) = runs
    assert first == second
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))
