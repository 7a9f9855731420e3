"""What came before a moment, against a loop over all events."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import SCHEMAS, random_split
from torch import Tensor

from pipeline.data.batches import Batch, Split
from pipeline.layers.memory import Memory, clicks
from pipeline.models import build
from pipeline.schema import EMPTY
from pipeline.train.loop import fit
from pipeline.train.predict import predict
from pipeline.train.start import prepare

Event = tuple[int, int, int]  # key, value, time
EVENTS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(-3, 6)), max_size=30)
QUERIES = st.lists(st.tuples(st.integers(0, 6), st.integers(-9, 12)), min_size=1, max_size=9)
SCHEMA = SCHEMAS["two-domains"]  # user 1-8 in column 0, item 19-25 in column 5


def filled(events: list[Event], offset: int = 0) -> Memory:
    memory = Memory()
    memory.remember(
        *torch.tensor([(k, v, t + offset) for k, v, t in events], dtype=torch.int64).view(-1, 3).unbind(1)
    )
    return memory


def before(events: list[Event], key: int, time: int, n: int) -> list[tuple[int, int]]:
    """The last n (time, value) of a key strictly before a time, the latest first, padded."""
    past = sorted(((t, v) for k, v, t in events if k == key and t < time), reverse=True)[:n]
    return past + [(time, EMPTY)] * (n - len(past))


def ask(memory: Memory, key: int, time: int, n: int) -> list[tuple[int, int]]:
    values, moments = memory.recent(torch.tensor([key]), torch.tensor([time]), n)
    return list(zip(moments[0].tolist(), values[0].tolist(), strict=True))


@given(EVENTS, QUERIES, st.integers(1, 5), st.sampled_from([0, 1_500_000_000]))
@settings(deadline=None)
def test_it_finds_what_a_loop_finds(
    events: list[Event], queries: list[tuple[int, int]], n: int, offset: int
) -> None:
    """With keys and times that no event has, several events at once, and none at all."""
    memory = filled(events, offset)
    shifted = [(k, v, t + offset) for k, v, t in events]
    key, time = torch.tensor(queries).unbind(1)
    values, moments = memory.recent(key.int(), time + offset, n)
    for row, (k, t) in enumerate(queries):
        found = list(zip(moments[row].tolist(), values[row].tolist(), strict=True))
        assert found == before(shifted, k, t + offset, n)


@given(EVENTS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_rows_does_not_matter(events: list[Event], random: object) -> None:
    shuffled = list(events)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    a, b = filled(events).state_dict(), filled(shuffled).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_queries_of_any_shape() -> None:
    memory = filled([(1, 5, 10), (1, 6, 20), (2, 7, 15)])
    values, moments = memory.recent(torch.tensor([[1, 2], [1, 3]]), torch.tensor([[20, 20], [21, 99]]), 2)
    assert values.tolist() == [[[5, EMPTY], [7, EMPTY]], [[6, 5], [EMPTY, EMPTY]]]
    assert moments.tolist() == [[[10, 20], [15, 20]], [[20, 10], [99, 99]]]


def test_ids_above_float32_and_times_of_decades_stay_apart() -> None:
    memory = filled([(2**31 - 2, 3, 0), (2**31 - 1, 4, 2_000_000_000)])
    assert ask(memory, 2**31 - 2, 2**40, 1) == [(0, 3)]
    assert ask(memory, 2**31 - 1, 2_000_000_001, 1) == [(2_000_000_000, 4)]
    assert ask(memory, 2**31 - 1, 2_000_000_000, 1) == [(2_000_000_000, EMPTY)]


def test_a_new_memory_is_empty_and_takes_the_sizes_of_what_it_loads() -> None:
    fresh, full = Memory(), filled([(1, 5, 10), (1, 6, 20)])
    assert ask(fresh, 1, 15, 2) == [(15, EMPTY), (15, EMPTY)]
    fresh.load_state_dict(full.state_dict())
    assert ask(fresh, 1, 25, 2) == [(20, 6), (10, 5)]


def rows(split: Split) -> Batch:
    return Batch(split.ids, split.label, split.time)


@pytest.mark.parametrize("which", [True, False])
def test_clicks_are_the_positive_rows_of_known_users_and_items(which: bool) -> None:
    """Or the negative ones."""
    split = random_split(SCHEMA, 300)
    found = torch.stack(clicks(rows(split), SCHEMA, 0, 5, label=which), 1)
    expected = [
        [row[0], row[5], time]
        for row, label, time in zip(
            split.ids.tolist(), split.label.tolist(), split.time.tolist(), strict=True
        )
        if label == which and row[0] != SCHEMA.offsets[0] and row[5] != SCHEMA.offsets[3]
    ]
    assert found.tolist() == expected
    assert 0 < len(expected) < 300


def scored(train: Split, split: Split, name: str, **options: bool) -> Tensor:
    model = build(name, SCHEMA, {"history": 3, **options}, seed=1)
    prepare(model, train, split, fit)
    return predict(model, split)


def test_what_comes_later_or_at_the_same_time_changes_nothing() -> None:
    """Nor what was not clicked: only clicks strictly earlier count, and they do.

    The rows before and after it stay, and with them the time that all clicks span.
    """
    seen = random_split(SCHEMA, 200)
    moment = int(seen.time.median())
    train, target = seen.time != moment, seen.time == moment
    asked = Split(SCHEMA, seen.ids[target][:1], seen.label[target][:1], seen.time[target][:1])

    def more(ids: Tensor, label: float, shift: int) -> Split:
        """The train rows, and for each of these one more."""
        time = torch.full((len(ids),), moment + shift)
        parts = [(seen.ids[train], ids), (seen.label[train], torch.full((len(ids),), label))]
        return Split(SCHEMA, *(torch.cat(part) for part in parts), torch.cat([seen.time[train], time]))

    other = asked.ids.repeat(6, 1)
    other[:, 5] = torch.arange(20, 26)  # every item, clicked by the user of the row
    for name in ("din", "disenctr"):
        expected = scored(more(other[:0], 1, 0), asked, name)
        for unseen in (more(other, 1, 0), more(other, 1, 9), more(other, 0, -1)):
            torch.testing.assert_close(scored(unseen, asked, name), expected, rtol=1e-6, atol=0)
        assert not torch.allclose(scored(more(other, 1, -1), asked, name), expected)
    expected = scored(more(other[:0], 1, 0), asked, "din", negatives=True)
    for label in (0, 1):
        for shift in (0, 9):
            found = scored(more(other, label, shift), asked, "din", negatives=True)
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
        assert not torch.allclose(scored(more(other, label, -1), asked, "din", negatives=True), expected)


def test_only_train_rows_are_remembered() -> None:
    train, valid = random_split(SCHEMA, 100, seed=1), random_split(SCHEMA, 100, seed=2)
    for name in ("din", "disenctr"):
        model = build(name, SCHEMA, {}, seed=1)
        prepare(model, train, valid, fit)
        expected = build(name, SCHEMA, {}, seed=1)
        prepare(expected, train, train, fit)
        for key, value in expected.state_dict().items():
            assert torch.equal(model.state_dict()[key], value)
