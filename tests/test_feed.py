"""The generated feed log: its bytes, and that it has what it was made for."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import metrics
from pipeline.common.files import sha256
from pipeline.datasets import feed
from pipeline.preprocess.rejects import RejectLog

ROWS = 60_000


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("feed")
    feed.download(folder, folder, rows=ROWS, seed=7)
    return folder


@pytest.fixture(scope="module")
def log(generated: Path) -> dict[str, np.ndarray]:
    rejects = RejectLog()
    table = pa.concat_tables(feed.read(generated, rejects).tables)
    rejects.check(len(table), max_rejected=0, name="feed")
    assert len(table) == ROWS
    return {name: np.array(table[name].to_pylist(), dtype=object) for name in table.column_names}


def test_the_feed_log_has_exactly_these_bytes(tmp_path: Path):
    feed.download(tmp_path, tmp_path, rows=2000, seed=7)
    assert (
        sha256(tmp_path / "clicks.csv") == "7476ef1ad59c57f4690d0011a3202778b43cfc519ff7d63d54b37d4420905495"
    )
    assert (
        sha256(tmp_path / "truth.csv") == "92c0a4af979793441a3176aba1fa27c6fd1c3596338c25ca43ec87739dc0d9b5"
    )


@pytest.mark.slow
def test_rows_depend_neither_on_the_block_nor_on_a_slate_cut_at_the_end(
    tmp_path: Path, generated: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(feed, "REQUESTS_PER_BLOCK", 777)
    feed.download(tmp_path, tmp_path, rows=ROWS, seed=7)
    assert (tmp_path / "clicks.csv").read_bytes() == (generated / "clicks.csv").read_bytes()
    feed.download(tmp_path, tmp_path, rows=10, seed=7)
    assert [len((tmp_path / name).read_text().splitlines()) for name in ("clicks.csv", "truth.csv")] == [
        11,
        11,
    ]


@pytest.mark.slow
def test_clicks_are_rare_and_drawn_from_the_truth(log: dict[str, np.ndarray]):
    label, truth = log["label"].astype(int), log["truth"].astype(float)
    assert 0.05 < label.mean() < 0.09
    assert abs(label.mean() - truth.mean()) < 0.003
    assert metrics.calibration_error(label, truth) < 0.01


def test_tails_are_long_and_many_ids_of_tomorrow_are_new(log: dict[str, np.ndarray]):
    for name, rare in (("user", 0.8), ("item", 0.7)):
        _, count = np.unique(log[name].astype(str), return_counts=True)
        assert (count < 20).mean() > rare
        assert count.max() > 100 * np.median(count)
        seen = set(log[name][: 4 * ROWS // 5])
        assert 0.1 < np.mean([value not in seen for value in log[name][4 * ROWS // 5 :]]) < 0.5


def test_a_position_is_looked_at_less_than_the_one_before_and_a_slate_shows_an_item_once(
    log: dict[str, np.ndarray],
):
    position, truth = log["position"].astype(int), log["truth"].astype(float)
    rate = np.array([truth[position == at].mean() for at in range(1, feed.SLATE + 1)])
    assert (rate[1:] / rate[:-1] < feed.EXAMINED + 0.05).all()  # the policy puts the best first besides
    assert (rate[1:] / rate[:-1] > 0.4).all()
    slates = log["item"].reshape(-1, feed.SLATE)
    assert all(len(set(slate)) == feed.SLATE for slate in slates.tolist())


def test_the_category_clicked_last_is_clicked_sooner_again(generated: Path, log: dict[str, np.ndarray]):
    """The log alone does not say so of a row: what a user clicked before does."""
    last: dict[str, str] = {}
    slate = feed.SLATE
    same, before = np.zeros(ROWS, bool), np.zeros(ROWS, bool)
    for start in range(0, ROWS, slate):
        rows, user = slice(start, start + slate), log["user"][start]
        before[rows] = user in last
        same[rows] = log["category"][rows] == last.get(user)
        clicked = np.flatnonzero(log["label"][rows])
        if len(clicked):
            last[user] = log["category"][start + clicked[-1]]
    position, truth = log["position"].astype(int), log["truth"].astype(float)
    logit = np.log(looked := truth / feed.EXAMINED ** (position - 1.0)) - np.log1p(-looked)
    memory = logit[before & same].mean() - logit[before & ~same].mean()
    assert memory > feed.MEMORY - 0.2
