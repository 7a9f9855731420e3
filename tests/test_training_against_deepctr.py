"""Our loop against an independent one: the same start, rows and settings give the same learning curve."""

import contextlib
import io

import numpy as np
import pytest
import torch
from deepctr import features, models, put_layer, twin
from rows import SCHEMAS, random_split
from torch import nn

from pipeline.data.batches import Split
from pipeline.models import build
from pipeline.train.base_rate import BaseRate
from pipeline.train.loop import fit
from pipeline.train.predict import predict

pytestmark = pytest.mark.slow

SCHEMA, ROWS, BATCH, SEED, EPOCHS, HIDDEN = SCHEMAS["no-bags"], 512, 64, 3, 4, [16, 8]
RATE = 1e-2


@pytest.mark.parametrize("l2", [0.0, 1e-2])
@pytest.mark.parametrize("lazy_rows", [10**9, 1])
def test_deepfm_learns_as_deepctrs_does(l2: float, lazy_rows: int) -> None:
    """Their loss is the sum over a batch and their L2 l2 ||w||^2: ours is 2 l2 / B on the mean, and an
    epsilon beside a sum is B times ours."""
    train = random_split(SCHEMA, ROWS, seed=1)
    ours = build("deepfm", SCHEMA, {"embedding_size": 4, "hidden": HIDDEN, "dropout": 0.0}, seed=1)
    with torch.no_grad():  # the empty row and the unseen ones are no business of theirs
        ours.linear.table.normal_(std=0.1)
    options = {"l2_reg_linear": l2, "l2_reg_embedding": l2}
    theirs = twin(models.DeepFM, ours, SCHEMA, dnn_hidden_units=HIDDEN, **options)
    put_layer(ours.out, theirs.dnn_linear)
    theirs = theirs.float()
    BaseRate(train).start(ours)
    with torch.no_grad():  # theirs starts there, too
        theirs.out.bias += ours.base_logit
    theirs.out.task = "binary"
    adam = torch.optim.Adam(theirs.parameters(), lr=RATE, eps=1e-8 * BATCH)
    theirs.compile(adam, "binary_crossentropy", metrics=[])

    expected = []
    for epoch in range(EPOCHS):
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(SEED * 1_000_003 + epoch))
        x = features(SCHEMA, train.ids[order]).numpy()
        x = {field.name: x[:, i] for i, field in enumerate(SCHEMA.fields)}
        with contextlib.redirect_stdout(io.StringIO()):
            theirs.fit(x, train.label[order].numpy(), batch_size=BATCH, epochs=1, shuffle=False, verbose=0)
        expected.append(logits(theirs, train))

    seen = []
    fit(
        ours,
        train,
        random_split(SCHEMA, 64, seed=2),
        seed=SEED,
        epochs=EPOCHS,
        patience=99,
        batch_size=BATCH,
        lr=RATE,
        embedding_l2=2 * l2 / BATCH,
        clip_norm=0.0,
        lazy_rows=lazy_rows,
        log=lambda _row, _step: seen.append(predict(ours, train).logit().numpy()),
    )
    if lazy_rows > 1:
        np.testing.assert_allclose(seen, expected, atol=2e-3)
    else:  # lazy rows have no first moment: they learn by another rule, and no slower
        fast, slow = ([logloss(logit, train) for logit in curve] for curve in (seen, expected))
        np.testing.assert_allclose(fast, slow, atol=0.1)
        assert all(a < b + 0.005 for a, b in zip(fast, slow, strict=True))
    assert np.abs(expected[-1] - expected[0]).max() > 0.5, "something was learnt"


def logloss(logit: np.ndarray, rows: Split) -> float:
    return nn.functional.binary_cross_entropy_with_logits(torch.from_numpy(logit), rows.label).item()


def logits(theirs: nn.Module, rows: Split) -> np.ndarray:
    theirs.eval()
    with torch.inference_mode():
        probability = theirs(features(SCHEMA, rows.ids).float())
    return probability[:, 0].logit().numpy()
