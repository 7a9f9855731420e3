"""What is said of models before the first training: those that cannot be built, and those that need much."""

import pytest
import torch

from pipeline.schema import Field, Schema
from pipeline.train.feasibility import obstacles

pytestmark = pytest.mark.slow  # tensors without values load torch._dynamo, which takes seconds


def schema(fields: int) -> Schema:
    return Schema(tuple(Field(f"f{i}", 1000, 1, "context") for i in range(fields)))


def test_models_without_enough_fields_are_named() -> None:
    (words,) = obstacles(schema(2), {"lr": ("lr", {}), "mine": ("fiinet", {}), "deepfm": ("deepfm", {})}, 64)
    assert words.startswith("mine cannot be trained on these fields (orders [2, 3] must rise")
    assert obstacles(schema(7), {"mine": ("fiinet", {})}, 64) == []


def test_memory_of_a_step_is_told_and_grows_with_rows() -> None:
    (words,) = obstacles(schema(39), {"lr": ("lr", {}), "afm": ("afm", {"embedding_size": 16})}, 4096)
    assert words.startswith("afm needs some ")
    assert "a step of 4,096 rows with 39 fields" in words
    assert obstacles(schema(39), {"afm": ("afm", {"embedding_size": 16})}, 16) == []


def test_nothing_is_drawn_from_the_generator_of_the_training() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    obstacles(schema(5), {"deepfm": ("deepfm", {})}, 64)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("name", ["din", "fnn", "gbdt_lr", "flsest"])
def test_models_that_learn_before_the_first_step_or_look_at_values_pass(name: str) -> None:
    domains = ("user", "item", "context")
    roles = ("user", "item", None)
    fields = tuple(Field(f"f{i}", 9, 1, domains[i], roles[i]) for i in range(3))
    assert obstacles(Schema(fields), {name: (name, {})}, 64) == []
