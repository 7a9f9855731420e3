"""The exported graph of a model, and the example it is exported with."""

import jaxtyping
import numpy as np
import pytest
import torch
from rows import SCHEMAS, random_ids, random_split, times, wake

from pipeline.data.batches import Batch
from pipeline.models import MODELS, build
from pipeline.tracking import models
from pipeline.train.loop import fit
from pipeline.train.predict import is_timed, logits
from pipeline.train.start import prepare

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore")  # torch.export's own
@pytest.mark.parametrize("name", MODELS)
def test_the_graph_of_every_model_takes_any_number_of_rows(name: str) -> None:
    """Also with what it remembers of the train rows, and for a timed model with times."""
    schema = SCHEMAS["three-domains"]
    model, train = build(name, schema, {}, seed=1), random_split(schema, 200)
    prepare(model, train, train, fit, seed=1, epochs=1)
    click = models.ClickProbability(model.eval())
    example = torch.from_numpy(models.example(schema, timed=is_timed(model)))
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        dynamic = [{0: torch.export.Dim.AUTO}]
        graph = torch.export.export(click, (example,), dynamic_shapes=dynamic).module()
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    for n in (1, 2, 5, 64):
        ids = random_ids(schema, n).long()
        rows = torch.cat([ids, times(ids).unsqueeze(1)], 1) if is_timed(model) else ids
        expected = logits(model, Batch(ids, torch.zeros(n), times(ids))).sigmoid()
        torch.testing.assert_close(graph(rows), expected)


def test_a_row_of_a_timed_model_ends_with_its_time() -> None:
    schema = SCHEMAS["three-domains"]
    plain, timed = models.example(schema), models.example(schema, timed=True)
    assert (timed[:, :-1] == plain).all()
    assert np.datetime64(int(timed[0, -1]), "s") == np.datetime64("2017-07-14T02:40:00")
    assert not is_timed(build("fm", schema, {}, seed=1))
    model, train = build("din", schema, {}, seed=1), random_split(schema, 200)
    assert is_timed(model)
    prepare(model, train, train, fit)
    wake(model)
    click = models.ClickProbability(model)
    ids = random_ids(schema, 50).long()
    early, late = (click(torch.cat([ids, torch.full((50, 1), time)], 1)) for time in (0, 99_999))
    assert not torch.allclose(early, late), "before all that users clicked, and after"


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_example_holds_valid_ids(name: str) -> None:
    schema = SCHEMAS[name]
    unseen, last = models.example(schema)
    filled = [slot for slot in range(schema.slots) if unseen[slot]]
    assert [unseen[slot] for slot in filled] == list(schema.offsets)
    ends = [first + field.size - 1 for first, field in zip(schema.offsets, schema.fields, strict=True)]
    assert [last[slot] for slot in filled] == ends
    assert set(unseen[[s for s in range(schema.slots) if s not in filled]]) <= {0}
