"""One contract for all models; a new model is tested by standing in MODELS."""

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from readings import NEEDS, OTHER, READINGS
from rows import SCHEMAS, random_ids, random_split, times, wake
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.common.errors import PipelineError
from pipeline.common.files import canonical
from pipeline.config.params import load
from pipeline.data.batches import Batch, Split
from pipeline.layers.prepared import Prepared
from pipeline.models import MODELS, build
from pipeline.schema import EMPTY, Field, Schema
from pipeline.train.loop import fit, prepare
from pipeline.train.predict import evaluate, logits

ROOT = Path(__file__).parents[1]

# Small and without chance, wherever the signature has the name.
SMALL = {
    "embedding_size": 4,
    "attention_size": 12,
    "hidden": [8, 6],
    "dropout": 0.0,
    "history": 3,
    "neighbours": 2,
    "second_neighbours": 2,
}


def options(name: str, **more: Any) -> dict[str, Any]:
    """SMALL and `more`, as far as the model takes them."""
    known = inspect.signature(MODELS[name]).parameters
    return {key: value for key, value in {**SMALL, **more}.items() if key in known}


def cases() -> list[Any]:
    found = []
    for name in MODELS:
        readings: list[dict[str, Any]] = [{}, *READINGS.get(name, [])]
        general = [{"batch_norm": True}, {"embedding_transform": "senet"}, {"embedding_transform": "sest"}]
        known = inspect.signature(MODELS[name]).parameters.keys()
        readings += [reading for reading in general if reading.keys() <= known]
        for reading in readings:
            label = ",".join(f"{key}={value}" for key, value in reading.items())
            found.append(pytest.param(name, options(name, **reading), id=f"{name}:{label}".rstrip(":")))
    return found


every_model = pytest.mark.parametrize("name", MODELS)
every_reading = pytest.mark.parametrize(("name", "chosen"), cases())
every_schema = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)


def ready(name: str, schema: Schema, chosen: dict[str, Any], seed: int = 1) -> nn.Module:
    """A model as it is before its first gradient step."""
    model = build(name, schema, chosen, seed=seed)
    rows = random_split(schema, 200)
    prepare(model, rows, rows, seed=seed, epochs=1)
    return model


def awake(name: str, schema: Schema, chosen: dict[str, Any], seed: int = 1) -> nn.Module:
    """A model with no parameter left at its start, in evaluation mode."""
    model = ready(name, schema, chosen, seed)
    wake(model)
    return model.eval()


def score(model: nn.Module, ids: Tensor) -> Tensor:
    """The logits; each row has a time of its own, which goes along with its values."""
    return logits(model, Batch(ids, torch.zeros(len(ids)), times(ids)))


def same_bits(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@every_schema
@every_reading
def test_one_finite_logit_a_row(name: str, chosen: dict[str, Any], schema: Schema) -> None:
    for model in (ready(name, schema, chosen), awake(name, schema, chosen)):
        for mode in (True, False):
            logit = score(model.train(mode), random_ids(schema, 5))
            assert logit.shape == (5,)
            assert logit.dtype == torch.float32
            assert logit.isfinite().all()


@every_schema
@every_reading
def test_a_row_is_scored_on_its_own(name: str, chosen: dict[str, Any], schema: Schema) -> None:
    model, ids = awake(name, schema, chosen).double(), random_ids(schema, 9)
    order = torch.randperm(9)
    together = score(model, ids)
    torch.testing.assert_close(score(model, ids[order]), together[order])
    alone = torch.cat([score(model, row[None]) for row in ids])
    torch.testing.assert_close(alone, together)


@every_schema
@every_reading
def test_order_within_a_bag_and_where_it_is_empty_change_nothing(
    name: str, chosen: dict[str, Any], schema: Schema
) -> None:
    model, ids = awake(name, schema, chosen).double(), random_ids(schema, 12)
    shuffled = ids.clone()
    for i in range(len(schema.fields)):
        columns = [s for s, field in enumerate(schema.field_of_slot) if field == i]
        shuffled[:, columns] = ids[:, columns[::-1]]
    torch.testing.assert_close(score(model, shuffled), score(model, ids))


@every_reading
def test_more_empty_slots_change_nothing(name: str, chosen: dict[str, Any]) -> None:
    narrow = SCHEMAS["two-domains"]
    user, genres, age, item = narrow.fields
    wide = Schema((user, Field("genres", genres.size, 5, "item"), age, item))
    ids = random_ids(narrow, 12)
    padded = torch.full((12, wide.slots), EMPTY, dtype=torch.int32)
    padded[:, [0, 2, 3, 5, 6, 7]] = ids
    a, b = build(name, narrow, chosen, seed=1), build(name, wide, chosen, seed=1).eval()
    assert same_bits(a, b)
    a = awake(name, narrow, chosen)
    b.load_state_dict(a.state_dict())
    torch.testing.assert_close(score(b, padded), score(a, ids))


@every_reading
def test_a_missing_bag_is_scored(name: str, chosen: dict[str, Any]) -> None:
    schema = SCHEMAS["three-domains"]
    model, ids = awake(name, schema, chosen), random_ids(schema, 4)
    ids[:, [s for s, field in enumerate(schema.field_of_slot) if schema.fields[field].slots > 1]] = EMPTY
    assert score(model, ids).isfinite().all()
    assert score(model, torch.full_like(ids, EMPTY)).isfinite().all()


@every_schema
@every_reading
def test_every_parameter_learns_and_is_saved(name: str, chosen: dict[str, Any], schema: Schema) -> None:
    """A unit may be dead at one start (ReLU), never at all of them.

    With three fields, each a domain of its own, there are no pairs within a domain and there is one
    triple, whose softmax is 1: then those weights have a gradient, but it is zero.
    """
    ids = random_ids(schema, 64)
    label = (ids[:, 0] % 2).float()
    asleep: set[str] | None = None
    for seed in range(20):
        model = ready(name, schema, chosen, seed)
        wake(model, seed)
        binary_cross_entropy_with_logits(score(model, ids), label).backward()
        parameters = dict(model.named_parameters())
        assert all(p.requires_grad and p.grad is not None for p in parameters.values())
        assert all(p.grad.isfinite().all() for p in parameters.values() if p.grad is not None)
        still = {key for key, p in parameters.items() if not p.grad.any()}  # type: ignore[union-attr]
        asleep = still if asleep is None else asleep & still
        assert parameters.keys() <= model.state_dict().keys()
        if not asleep or schema is SCHEMAS["field-per-domain"]:
            return
    pytest.fail(f"never a gradient: {asleep}")


@every_reading
def test_only_what_is_learnt_is_saved(name: str, chosen: dict[str, Any]) -> None:
    model = build(name, SCHEMAS["two-domains"], chosen, seed=1)
    learnt_before = {
        f"{path}.{key}".lstrip(".")
        for path, module in model.named_modules()
        if isinstance(module, Prepared)
        for key, _ in module.named_buffers(recurse=False)
    }
    constants = model.state_dict().keys() - dict(model.named_parameters()).keys() - learnt_before
    assert all(
        key.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked") for key in constants
    )


@every_reading
def test_weights_survive_saving(name: str, chosen: dict[str, Any]) -> None:
    schema = SCHEMAS["two-domains"]
    model, other = awake(name, schema, chosen), build(name, schema, chosen, seed=2).eval()
    other.load_state_dict(model.state_dict())
    ids = random_ids(schema, 9)
    assert torch.equal(score(other, ids), score(model, ids))


@every_reading
def test_the_seed_alone_decides_the_weights(name: str, chosen: dict[str, Any]) -> None:
    schema = SCHEMAS["two-domains"]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build(name, schema, chosen, seed=1)
    assert torch.equal(torch.get_rng_state(), before), "building must not touch the global generator"
    torch.manual_seed(6)
    assert same_bits(first, build(name, schema, chosen, seed=1))
    if name != "lr":  # all weights of a linear model start at zero
        assert not same_bits(first, build(name, schema, chosen, seed=2))


@every_schema
@every_reading
def test_a_batch_of_one_works(name: str, chosen: dict[str, Any], schema: Schema) -> None:
    model, ids = ready(name, schema, chosen), random_ids(schema, 1)
    assert score(model.eval(), ids).shape == (1,)
    if not chosen.get("batch_norm"):
        assert score(model.train(), ids).shape == (1,)


@every_reading
def test_ids_of_32_and_64_bits_agree(name: str, chosen: dict[str, Any]) -> None:
    schema = SCHEMAS["three-domains"]
    model, ids = awake(name, schema, chosen), random_ids(schema, 9)
    assert torch.equal(score(model, ids.int()), score(model, ids.long()))


@every_model
def test_ids_stay_integers(name: str) -> None:
    """Two ids above 2^24, which float32 cannot tell apart, keep weights of their own."""
    schema = Schema(
        (Field("item", 2, 1, "item"), Field("hour", 2, 1, "context"), Field("user", 2**24 + 4, 1, "user"))
    )
    tiny = options(name, embedding_size=1, intents=1, intent_size=1, hidden=[2])
    model = ready(name, schema, tiny).eval()
    ids = torch.tensor([[1, 3, 2**24], [1, 3, 2**24 + 1]])
    assert ids[0, 2].float() == ids[1, 2].float()
    for module in model.modules():
        if isinstance(getattr(module, "table", None), nn.Parameter):
            module.table.data[ids[0]], module.table.data[ids[1, 2]] = 1.0, -2.0
    assert score(model, ids)[0] != score(model, ids)[1]


@every_reading
def test_sixty_four_rows_are_learnt_by_heart(name: str, chosen: dict[str, Any]) -> None:
    """From one of three starts: a gate of ReLUs may be closed for good at one of them."""
    schema = Schema((Field("user", 65, 1, "user"), *SCHEMAS["three-domains"].fields))
    ids = random_ids(schema, 64)
    ids[:, 0] = torch.arange(2, 66)
    rows = Split(schema, ids, (torch.rand(64) < 0.5).float(), times(ids))

    class ByHeart(Exception):
        pass

    def log(metrics: dict[str, float], _step: int) -> None:
        if metrics["valid_auc"] > 0.999:
            raise ByHeart

    settings = {"epochs": 100, "batch_size": 32, "lr": 0.03, "patience": 100, "lr_patience": 0, "log": log}
    for seed in (1, 2, 3):
        try:
            fit(build(name, schema, chosen, seed=seed), rows, rows, seed=seed, **settings)
        except ByHeart:
            return
    pytest.fail("not even 64 rows are learnt")


@every_reading
def test_scoring_in_between_changes_nothing(name: str, chosen: dict[str, Any]) -> None:
    schema = SCHEMAS["two-domains"]
    rows = random_split(schema, 40)
    model = ready(name, schema, options(name, **{**chosen, "dropout": 0.5})).train()
    before = copy.deepcopy(model.state_dict())
    assert evaluate(model, rows) == evaluate(model, rows)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    evaluate(model.eval(), rows)
    assert not any(module.training for module in model.modules())


@every_model
def test_dropout_acts_in_training_only(name: str) -> None:
    heavy = options(name, dropout=0.5, embedding_dropout=0.5)
    if not heavy.keys() & {"dropout", "embedding_dropout"}:
        return  # nothing to drop
    schema = SCHEMAS["two-domains"]
    model, ids = awake(name, schema, heavy), random_ids(schema, 9)
    assert torch.equal(score(model, ids), score(model, ids))
    assert not torch.equal(score(model.train(), ids), score(model, ids))


@every_model
def test_every_option_reaches_the_model(name: str) -> None:
    """Each keyword argument, changed, changes the model: none is accepted and forgotten."""
    schema = SCHEMAS["two-domains"]
    ids = random_ids(schema, 30)

    def result(changes: dict[str, Any]) -> tuple[Tensor, int]:
        model = ready(name, schema, options(name, **changes))
        wake(model)
        torch.manual_seed(3)
        return score(model.train(), ids), sum(p.numel() for p in model.parameters())

    for key in list(inspect.signature(MODELS[name]).parameters)[1:]:
        base = NEEDS.get(key, {})
        other = OTHER.get(f"{name}.{key}", OTHER.get(key))
        assert other is not None, f"say in readings.py which other value of {key} to try"
        (a, weights), (b, others) = result(base), result({**base, key: other})
        assert weights != others or not torch.equal(a, b), key


def test_its_block_in_params_builds_it() -> None:
    params = load(ROOT / "params.yaml")
    assert MODELS.keys() <= params.blocks
    configs = [params.config(dataset, model) for dataset in params.data for model in params.blocks]
    chosen = {canonical([c.architecture, c.model]): (c.architecture, c.model) for c in configs}
    schemas = [schema for schema in SCHEMAS.values() if len(schema.fields) > 3]  # FiiNet of order 4 needs 4
    for name, block in chosen.values():
        for schema in schemas:
            assert score(ready(name, schema, block), random_ids(schema, 3)).isfinite().all()


def test_unknown_names_and_impossible_options_are_explained() -> None:
    schema = SCHEMAS["two-domains"]
    with pytest.raises(PipelineError, match="unknown model 'depfm'; did you mean 'deepfm'"):
        build("depfm", schema, {}, seed=1)
    with pytest.raises(PipelineError, match=r"^orders \[2, 5\].*4, the number of fields"):
        build("fiinet", schema, {"orders": [2, 5]}, seed=1)
    with pytest.raises(PipelineError, match=r"^fusion align weighs orders"):
        build("fiinet", schema, {"orders": [2], "fusion": "align"}, seed=1)
    with pytest.raises(PipelineError, match=r"^use_fwbi and use_mlp are both off"):
        build("flsest", schema, {"use_fwbi": False, "use_mlp": False}, seed=1)
    with pytest.raises(TypeError, match="embeding_size"):
        build("fm", schema, {"embeding_size": 4}, seed=1)
