"""What makes a training fast changes its last bits only, and never from one run to the next."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rows import SCHEMAS, random_split

from pipeline.common.files import write_json
from pipeline.data.batches import Split
from pipeline.layers import attention, bilinear, compress, excitation, lookup, mlp, pieces
from pipeline.models import build
from pipeline.train.device import reproducible
from pipeline.train.loop import fit

SCHEMA = SCHEMAS["two-domains"]  # it has a bag
NETWORK = {"embedding_size": 4, "hidden": [8, 8], "dropout": 0.0}
MODELS = {
    "fm": {"embedding_size": 4},
    "deepfm": NETWORK,
    "nfm": NETWORK,
    "xdeepfm": {**NETWORK, "cin": [4, 4]},
    "autoint": {**NETWORK, "attention_size": 4, "heads": 2, "attention_layers": 2},
    "fibinet": NETWORK,
    "fiinet": {"embedding_size": 4, "hidden": [8], "dropout": 0.0},
}


def curve(name: str, train: Split, **settings: object) -> tuple[list[float], list[torch.Tensor]]:
    model = build(name, SCHEMA, MODELS[name], seed=1)
    valid = random_split(SCHEMA, 200, seed=2)
    state = fit(model, train, valid, seed=1, epochs=3, batch_size=64, lr=0.01, patience=9, **settings)  # type: ignore[arg-type]
    return [row["train_logloss"] for row in state.curve], [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("name", MODELS)
def test_fast_and_plain_ways_learn_the_same_curve(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    train, asked = random_split(SCHEMA, 640, seed=1), list[str]()
    monkeypatch.setattr(lookup, "FEW", 0)
    curves = []
    for hand in (True, False):
        for module in (attention, bilinear, compress, excitation, lookup, mlp, pieces):

            def by_hand(_x: torch.Tensor, module: str = module.__name__, hand: bool = hand) -> bool:
                asked.append(module)
                return hand

            monkeypatch.setattr(module, "by_hand", by_hand)
        curves.append(curve(name, train)[0])
    np.testing.assert_allclose(*curves, atol=1e-4)
    assert "pipeline.layers.lookup" in asked
    assert "pipeline.layers.mlp" in asked or name not in ("deepfm", "nfm")
    assert ("pipeline.layers.compress" in asked) is (name == "xdeepfm")
    assert ("pipeline.layers.attention" in asked) is (name == "autoint")
    assert ({"pipeline.layers.bilinear", "pipeline.layers.excitation"} <= set(asked)) is (name == "fibinet")


@pytest.mark.parametrize("name", MODELS)
def test_same_seed_same_bits_with_all_of_it_switched_on(name: str, tmp_path: Path) -> None:
    rows = random_split(SCHEMA, 640, seed=1)
    write_json(tmp_path / "schema.json", SCHEMA.to_json())
    np.save(tmp_path / "train.ids.npy", rows.ids.numpy().astype(np.int32))
    np.save(tmp_path / "train.label.npy", rows.label.numpy().astype(np.uint8))
    reproducible(2)
    try:
        runs = []
        for _ in range(2):
            streamed = Split.load(tmp_path, "train", rows_in_memory=100)
            assert streamed.streamed
            runs.append(curve(name, streamed, lazy_rows=1, precision="bfloat16"))
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(1)
    (first, weights), (second, others) = runs
    assert first == second
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))
