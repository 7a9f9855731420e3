"""The study of planted pairs measures what it says."""

import pytest
import torch
from rows import SCHEMAS, random_split, wake

from benchmarks.planted_pairs import SCORES, double_difference, kind
from pipeline.models import build

SCHEMA = SCHEMAS["two-domains"]


def test_kinds_of_pairs() -> None:
    assert kind("category", "age") == kind("age", "category") == "planted"
    assert kind("user", "category") == "stand-in", "the user has one age"
    assert kind("user", "city") == "nested"
    assert kind("gender", "device") == "in triple"
    assert kind("weekday", "price") == "other"


def test_a_double_difference_sees_the_pairs_of_a_logit_and_nothing_else() -> None:
    model = build("fm", SCHEMA, {"embedding_size": 4}, seed=1)
    wake(model)
    age = slice(SCHEMA.offsets[2], SCHEMA.offsets[3])
    with torch.inference_mode():
        model.embedding.table[age] = 0
        model.linear.table[age] *= 10
        found = double_difference(model.eval(), random_split(SCHEMA, 400))
    user_genres, user_age, user_item, genres_age, genres_item, age_item = found
    assert min(user_genres, user_item, genres_item) > 1e-3
    assert max(user_age, genres_age, age_item) < 1e-9


@pytest.mark.parametrize("name", SCORES)
def test_each_model_says_something_of_each_pair(name: str) -> None:
    model = build(name, SCHEMA, {"embedding_size": 4}, seed=1)
    wake(model)
    with torch.inference_mode():
        found = SCORES[name](model.eval(), random_split(SCHEMA, 20).ids)
    for values in found.values():
        assert values.shape == (6,)
        assert (values >= 0).all()
        assert values.std() > 0
