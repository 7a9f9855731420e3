"""One contract for all models; a new model is tested by standing in MODELS."""

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from model_options import NEEDS, OTHER, READINGS, options, other
from rows import SCHEMAS, random_ids, random_split, times, wake
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.common.errors import PipelineError
from pipeline.common.files import canonical
from pipeline.config.params import load
from pipeline.data.batches import Batch, Split
from pipeline.layers.options import arguments
from pipeline.layers.prepared import Prepared
from pipeline.models import BASE_LOGIT, CLASSES, MODELS, build
from pipeline.schema import EMPTY, Field, Schema
from pipeline.train.loop import fit
from pipeline.train.loss import training_loss
from pipeline.train.predict import evaluate, logits
from pipeline.train.start import prepare

ROOT = Path(__file__).parents[1]

# Every reading is tried on the schema with the most bags; a model's defaults on all of them.
BAGS = "three-domains"
DROPOUTS = (
    "dropout",
    "embedding_dropout",
    "interaction_dropout",
    "block_dropout",
    "explicit_dropout",
    "through_dropout",
    "dicefactor",
)
TRANSFORMS = [{"embedding_transform": "senet"}, {"embedding_transform": "sest"}]
NEIGHBOURS = {"neighbour_limit": 2}  # an option of every model but these, which refuse it
WITHOUT_NEIGHBOURS = ("disenctr", "autorec")


def cases(*, readings: bool = True, schemas: tuple[str, ...] = ()) -> list[Any]:
    """The product of models, readings and schemas, in three sizes by their markers.

    Unmarked are the defaults of each model on one schema. `slow` are its defaults on the others, and if
    `readings` its readings on that one. `full` is all the rest, which a landing need not run.
    """
    found = []
    for name, model in MODELS.items():
        general = [
            reading
            for reading in ({"batch_norm": True}, *TRANSFORMS)
            if reading.keys() <= arguments(model).keys()
        ]
        general += [NEIGHBOURS] if schemas and name not in WITHOUT_NEIGHBOURS else []
        for reading in ({}, *READINGS.get(name, []), *general):
            known = arguments(model).keys() | NEIGHBOURS
            assert reading.keys() <= known, f"{name} has no such option: {reading}"
            label = ",".join(f"{key}={value}" for key, value in reading.items())
            for schema in schemas or (BAGS,):
                landing = not reading or (readings and reading not in TRANSFORMS and schema == BAGS)
                quick = not reading and schema == BAGS
                values = (name, options(name, **reading), *([SCHEMAS[schema]] if schemas else []))
                words = [name, *([label] if label else []), *([schema] if schemas else [])]
                marks = () if quick else pytest.mark.slow if landing else pytest.mark.full
                found.append(pytest.param(*values, id=":".join(words), marks=marks))
    return found


def models_with(*keys: str) -> pytest.MarkDecorator:
    """Only the models that have one of these options."""
    chosen = [name for name, model in MODELS.items() if set(keys) & arguments(model).keys()]
    return pytest.mark.parametrize("name", chosen)


every_model = pytest.mark.parametrize(("name", "chosen"), cases(readings=False))
every_reading = pytest.mark.parametrize(("name", "chosen"), cases())
every_case = pytest.mark.parametrize(("name", "chosen", "schema"), cases(schemas=tuple(SCHEMAS)))


def ready(name: str, schema: Schema, chosen: dict[str, Any], seed: int = 1) -> nn.Module:
    """A model as it is before its first gradient step."""
    model = build(name, schema, chosen, seed=seed)
    rows = random_split(schema, 200)
    torch.manual_seed(seed)  # as in `fit`: FNN initialises a factorization machine here
    prepare(model, rows, rows, fit, seed=seed, epochs=1)
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


@every_case
def test_one_finite_logit_a_row(name: str, chosen: dict[str, Any], schema: Schema) -> None:
    for model in (ready(name, schema, chosen), awake(name, schema, chosen)):
        for mode in (True, False):
            logit = score(model.train(mode), random_ids(schema, 5))
            assert logit.shape == (5,)
            assert logit.dtype == torch.float32
            assert logit.isfinite().all()


@every_case
def test_a_row_is_scored_on_its_own(name: str, chosen: dict[str, Any], schema: Schema) -> None:
    model, ids = awake(name, schema, chosen).double(), random_ids(schema, 9)
    order = torch.randperm(9)
    together = score(model, ids)
    torch.testing.assert_close(score(model, ids[order]), together[order])
    alone = torch.cat([score(model, row[None]) for row in ids])
    torch.testing.assert_close(alone, together)
    if not chosen.get("batch_norm"):  # which needs two rows to learn from
        assert score(model.train(), ids[:1]).shape == (1,)


@every_case
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
def test_saved_weights_give_the_same_scores_and_more_empty_slots_change_nothing(
    name: str, chosen: dict[str, Any]
) -> None:
    narrow = SCHEMAS["two-domains"]
    user, genres, age, item = narrow.fields
    wide = Schema((user, Field("genres", genres.size, 5, "item"), age, item))
    ids = random_ids(narrow, 12)
    padded = torch.full((12, wide.slots), EMPTY, dtype=torch.int32)
    padded[:, [0, 2, 3, 5, 6, 7]] = ids
    assert same_bits(build(name, narrow, chosen, seed=1), build(name, wide, chosen, seed=1))
    model = awake(name, narrow, chosen)
    loaded, wider = (build(name, schema, chosen, seed=2).eval() for schema in (narrow, wide))
    for other_model in (loaded, wider):
        other_model.load_state_dict(model.state_dict())
    assert torch.equal(score(loaded, ids), score(model, ids))
    torch.testing.assert_close(score(wider, padded), score(model, ids))


@every_reading
def test_a_missing_bag_is_scored(name: str, chosen: dict[str, Any]) -> None:
    schema = SCHEMAS["three-domains"]
    model, ids = awake(name, schema, chosen), random_ids(schema, 4)
    ids[:, [s for s, field in enumerate(schema.field_of_slot) if schema.fields[field].slots > 1]] = EMPTY
    assert score(model, ids).isfinite().all()
    assert score(model, torch.full_like(ids, EMPTY)).isfinite().all()


def cannot_learn(key: str, chosen: dict[str, Any], schema: Schema) -> bool:
    """Whether a weight has no effect on this schema, so that its gradient is zero at every start.

    Where each field is a domain of its own, no pair lies within a domain. With as many fields as the
    order of FiiNet's crosses there is one cross, and its softmax is 1.
    """
    single = all(len(fields) == 1 for fields in schema.domains)
    one_cross = chosen.get("orders") == [len(schema.fields)]
    return (single and key.endswith("r_within")) or (one_cross and key in ("w1.weight", "w2.weight"))


@every_case
def test_every_parameter_learns(name: str, chosen: dict[str, Any], schema: Schema) -> None:
    """A unit may be dead at one start (ReLU), never at all of them."""
    ids = random_ids(schema, 64)
    label = (ids[:, 0] % 2).float()
    without: set[str] = set()
    for seed in range(20):
        model = ready(name, schema, chosen, seed)
        wake(model, seed)
        binary_cross_entropy_with_logits(score(model, ids), label).backward()
        gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
        assert gradients.keys() == dict(model.named_parameters()).keys()
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        zero = {key for key, gradient in gradients.items() if not gradient.any()}
        without = without & zero if seed else zero
        expected = {key for key in gradients if cannot_learn(key, chosen, schema)}
        if without == expected:
            return
    pytest.fail(f"never a gradient: {without}; expected of {expected}")


@every_reading
def test_all_that_is_learnt_is_saved_and_nothing_else(name: str, chosen: dict[str, Any]) -> None:
    model = build(name, SCHEMAS["two-domains"], chosen, seed=1)
    parameters = dict(model.named_parameters())
    prepared = {
        f"{path}.{key}".lstrip(".")
        for path, module in model.named_modules()
        if isinstance(module, Prepared)
        for key, _ in module.named_buffers(recurse=False)
    }
    saved = model.state_dict().keys()
    assert parameters.keys() <= saved
    statistics = ("running_mean", "running_var", "num_batches_tracked", BASE_LOGIT)
    assert all(key.rpartition(".")[2] in statistics for key in saved - parameters.keys() - prepared)


@every_model
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


@every_model
def test_ids_of_32_and_64_bits_agree(name: str, chosen: dict[str, Any]) -> None:
    schema = SCHEMAS["three-domains"]
    model, ids = awake(name, schema, chosen), random_ids(schema, 9)
    assert torch.equal(score(model, ids.int()), score(model, ids.long()))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_ids_stay_integers(name: str) -> None:
    """Two ids above 2^24, which float32 cannot tell apart, keep weights of their own."""
    schema = Schema(
        (
            Field("item", 2, role="item"),
            Field("hour", 2),
            Field("user", 2**24 + 4, domain="user", role="user"),
        )
    )
    tiny = options(name, embedding_size=1, intents=1, intent_size=1, hidden=[2], hidden_size=1)
    model = ready(name, schema, tiny).eval()
    ids = torch.tensor([[1, 3, 2**24], [1, 3, 2**24 + 1]])
    assert ids[0, 2].float() == ids[1, 2].float()
    for module in model.modules():
        if isinstance(getattr(module, "table", None), nn.Parameter):
            module.table.data[ids[0]] = 1.0
            # the users', however they are numbered: two signs, which cosines and ReLUs tell apart
            module.table.data[-12:] = torch.tensor([1.0, -2.0]).repeat(6).unsqueeze(1)
    assert score(model, ids)[0] != score(model, ids)[1]


@pytest.mark.slow
@every_model
def test_sixty_four_rows_are_learnt_by_heart(name: str, chosen: dict[str, Any]) -> None:
    """From one of three starts: a gate of ReLUs may be closed for good at one of them."""
    schema = Schema((Field("user", 65, 1, "user", "user"), *SCHEMAS["three-domains"].fields))
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


@every_model
def test_scoring_in_between_changes_nothing(name: str, chosen: dict[str, Any]) -> None:
    schema = SCHEMAS["two-domains"]
    rows = random_split(schema, 40)
    random = options(name, **{**chosen, "dropout": 0.5, "batch_norm": True})
    model = ready(name, schema, random).train()
    before = copy.deepcopy(model.state_dict())
    assert evaluate(model, rows) == evaluate(model, rows)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    evaluate(model.eval(), rows)
    assert not any(module.training for module in model.modules())


@models_with(*DROPOUTS)
def test_dropout_acts_in_training_only(name: str) -> None:
    schema = SCHEMAS["two-domains"]
    model, ids = awake(name, schema, options(name, **dict.fromkeys(DROPOUTS, 0.5))), random_ids(schema, 9)
    assert torch.equal(score(model, ids), score(model, ids))
    assert not torch.equal(score(model.train(), ids), score(model, ids))


@pytest.mark.slow
@pytest.mark.parametrize("reading", TRANSFORMS, ids=lambda reading: reading["embedding_transform"])
@models_with("embedding_transform")
def test_a_model_learns_with_a_transform_of_its_embedding(name: str, reading: dict[str, Any]) -> None:
    schema = SCHEMAS[BAGS]
    ids = random_ids(schema, 9)
    without = score(awake(name, schema, options(name)), ids)
    learns = False
    for seed in range(5):  # its ReLUs may be dead at one start
        model = ready(name, schema, options(name, **reading), seed)
        wake(model, seed)
        logit = score(model, ids)
        assert logit.isfinite().all()
        assert not torch.equal(logit, without)
        logit.square().sum().backward()
        inside = [parameter for key, parameter in model.named_parameters() if ".transform." in key]
        learns |= any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in inside)
    assert learns


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if arguments(model)])
def test_every_option_reaches_the_model(name: str) -> None:
    """Each keyword argument, changed alone, changes the model: none is accepted and forgotten."""
    schema = SCHEMAS["two-domains"]
    ids = random_ids(schema, 30)

    def result(chosen: dict[str, Any]) -> tuple[Tensor, int]:
        """The scores in training, what a step would minimise, and how much L2 the tables have."""
        model = ready(name, schema, chosen)
        wake(model)
        torch.manual_seed(3)
        scores = score(model.train(), ids)
        loss, _ = training_loss(model, Batch(ids, (ids[:, 0] % 2).float(), times(ids)), nullcontext())
        l2 = torch.tensor([layer.l2_factor for layer in model.modules() if hasattr(layer, "l2_factor")])
        return torch.cat([scores, loss[None], l2]), sum(p.numel() for p in model.parameters())

    for key, argument in arguments(MODELS[name]).items():
        base = options(name, **NEEDS.get(key, {}))
        value = base.get(key, argument.default)
        changed = OTHER[key] if key in OTHER else other(argument.hint, value)
        assert changed != value, key
        (scores, weights), (others, more) = result(base), result({**base, key: changed})
        assert torch.equal(result(base)[0], scores), "two models of the same options differ"
        assert weights != more or not torch.equal(scores, others), key


@pytest.mark.slow
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
    with pytest.raises(PipelineError, match=r"^orders \[2\]: fusion align weighs the orders"):
        build("fiinet", schema, {"orders": [2], "fusion": "align"}, seed=1)
    with pytest.raises(PipelineError, match=r"^use_fwbi and use_mlp are both off"):
        build("flsest", schema, {"use_fwbi": False, "use_mlp": False}, seed=1)
    with pytest.raises(TypeError, match="embeding_size"):
        build("fm", schema, {"embeding_size": 4}, seed=1)


def test_a_wrong_class_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLASSES, "fm", "Fm")
    with pytest.raises(PipelineError, match=r"models/fm\.py has no class 'Fm', which CLASSES"):
        build("fm", SCHEMAS["no-bags"], {}, seed=1)
