"""The reader of KuaiRec on a few lines in the true format, the awkward ones among them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import logs
from pipeline.common.errors import PipelineError
from pipeline.datasets import kuairec_big
from pipeline.preprocess import clean_table
from pipeline.preprocess.clean_table import CleanTable
from pipeline.preprocess.rejects import RejectLog
from pipeline.split.vocabulary import Encoder, fit_vocabulary

VIEWS = (
    "0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.2733965215790926\n"
    "1,9598,13665,1084,2020-07-05 00:13:41.297,20200705,1593879221.297,12.6060885608856\n"
    "7175,5262,851,7908,2020-07-06 23:59:59.999,20200706,1594051199.999,3.0\n"
    "9999,1,862,,,,,3.1\n"
)
USER = {
    "user_active_degree": "full_active", "is_lowactive_period": "0", "is_live_streamer": "0",
    "is_video_author": "1", "follow_user_num": "5", "follow_user_num_range": '"(0,10]"',
    "fans_user_num": "0", "fans_user_num_range": "0", "friend_user_num": "0",
    "friend_user_num_range": '"[1,5)"', "register_days": "107", "register_days_range": "61-90",
    **{f"onehot_feat{i}": str(i) for i in range(18)},
}  # fmt: skip


def users(*changes: dict[str, str]) -> str:
    rows = [{"user_id": str(number), **USER, **change} for number, change in enumerate(changes)]
    return "\n".join([",".join(kuairec_big.USERS), *(",".join(row.values()) for row in rows)]) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def write(views: str = VIEWS, **changed: str) -> Path:
        files = {
            "big_matrix": ",".join(kuairec_big.VIEWS) + "\n" + views,
            "user_features": users({}, {"user_active_degree": "UNKNOWN", "onehot_feat4": ""}),
            "item_categories": 'video_id,feat\n3649,"[27, 9]"\n9598,[8]\n1,[]\n',
            **changed,
        }
        for name, text in files.items():
            (tmp_path / f"{name}.csv").write_text(text, newline="")
        return tmp_path

    return write


def read(folder: Path, **options: Any) -> tuple[list[dict[str, Any]], RejectLog]:
    rejects = RejectLog()
    table = pa.concat_tables(kuairec_big.read(folder, rejects, **options).tables)
    return table.to_pylist(), rejects


def test_views_are_joined_with_users_and_videos(folder: Callable[..., Path]):
    rows, rejects = read(folder())
    first, second, third, fourth = rows
    assert [row["label"] for row in rows] == [0, 1, 0, 1]  # 3.0 is not above 3
    assert (first["user"], first["video"], first["categories"]) == ("0", "3649", "27|9")
    assert (first["follow_user_num_range"], first["friend_user_num_range"]) == ("(0,10]", "[1,5)")
    assert first["onehot_feat17"] == "17"
    # 2020-07-05 was a Sunday in China, where the file's clock is
    assert (first["hour"], first["weekday"], first["time"]) == ("0", "sun", 1593878903)
    assert first["duration"] == 10867.0
    assert (third["hour"], third["weekday"]) == ("23", "mon")
    # UNKNOWN and an empty feature are missing; so is all of a user or video that no side table knows
    assert (second["user_active_degree"], second["onehot_feat4"]) == (None, None)
    assert (third["user"], third["user_active_degree"], third["categories"]) == ("7175", None, None)
    # a view without time and length stays
    assert (fourth["hour"], fourth["weekday"], fourth["time"], fourth["categories"]) == (None, None, None, "")
    assert np.isnan(fourth["duration"])
    assert rejects.check(4, max_rejected=0, name="k")["rows_in"] == 4


def test_the_threshold_is_the_label_rule(folder: Callable[..., Path]):
    rows, _ = read(folder(), above=1.0)
    assert [row["label"] for row in rows] == [1, 1, 1, 1]
    assert all(row["grade"] >= 4 for row in rows)  # the cuts up to 1.0 are four


def test_the_columns_of_the_label_are_not_fields():
    names = {column.name for column in kuairec_big.COLUMNS}
    assert not names & {"play_duration", "watch_ratio", "time", "timestamp", "date"}
    assert [column.domain for column in kuairec_big.COLUMNS].count("user") == 27


def test_damaged_views_are_rejected_with_line_and_reason(folder: Callable[..., Path]):
    bad = (
        "x,1,1,1,,,1.0,1.0\n"
        "1,2,3\n"
        "1,1,1,1,,,1.0,\n"
        "1,1,1,1,,,soon,1.0\n"
        "1,1,1,long,,,1.0,1.0\n"
        "1,1,1,0,,,1.0,inf\n"
    )
    rows, rejects = read(folder(VIEWS + bad))
    assert len(rows) == 4
    assert sorted(rejects.first, key=lambda text: int(text.split(":")[1])) == [
        "big_matrix.csv:6: user_id 'x' is not a whole number",
        "big_matrix.csv:7: 3 fields where 8 belong: '1,2,3'",
        "big_matrix.csv:8: watch_ratio '' is not a number",
        "big_matrix.csv:9: timestamp 'soon' is not a number",
        "big_matrix.csv:10: video_duration 'long' is not a number",
        "big_matrix.csv:11: watch_ratio 'inf' is not a number",
    ]


def test_a_side_table_with_other_columns_is_an_error(folder: Callable[..., Path]):
    with pytest.raises(PipelineError, match=r"user_features.csv:1: the header is 'user_id'"):
        read(folder(user_features="user_id\n1\n"))
    with pytest.raises(PipelineError, match=r"item_categories.csv:1: the header is"):
        read(folder(item_categories="video,feat\n1,[2]\n"))


def test_a_generated_log_of_the_benchmarks_goes_all_the_way(tmp_path: Path):
    logs.kuairec(tmp_path, 5000)
    rejects = RejectLog()
    report = clean_table.write(tmp_path, kuairec_big.read(tmp_path, rejects), rejects, "k", max_rejected=0.0)
    assert (report["rows_in"], report["rows_out"]) == (5000, 5000)
    assert 0.005 < report["clicks"] / 5000 < 0.1
    table = CleanTable(tmp_path)
    vocabulary = fit_vocabulary(table.column_blocks, table.columns)
    ids = np.vstack(list(Encoder(vocabulary, table.column_blocks).ids(0, next(iter(table.field_blocks())))))
    assert ids.shape == (5000, len(kuairec_big.COLUMNS) - 1 + 3)
