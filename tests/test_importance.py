"""What a model has learnt: fields, pairs and rows, on logits that are known, and on the planted effects."""

import importlib
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rows import SCHEMAS, random_split, wake
from ruamel.yaml import YAML
from torch import Tensor, nn

from benchmarks import importance as planted
from benchmarks.planted_pairs import SCORES
from pipeline import __main__ as commands
from pipeline import metrics
from pipeline.common.errors import PipelineError
from pipeline.common.files import read_json
from pipeline.data.batches import Split
from pipeline.data.streaming import StreamedSplit
from pipeline.evaluate import plot_style
from pipeline.explain import effects, importance, pairs, picture, summary
from pipeline.explain.mixing import TIME, balanced, spread, units
from pipeline.explain.pairs import own_weights
from pipeline.models import build
from pipeline.schema import Schema
from tests import project

SCHEMA = SCHEMAS["no-bags"]  # user, item, city, hour


class Known(nn.Module):
    """A logit that is a function of the ids of each field, counted from 0."""

    def __init__(self, logit: Callable[..., Tensor], *, timed: bool = False) -> None:
        super().__init__()
        self.logit, self.timed = logit, timed

    def forward(self, ids: Tensor, *time: Tensor) -> Tensor:
        first = torch.tensor(SCHEMA.offsets)
        return self.logit(*(ids - first).double().unbind(1), *time)


def sign(level: Tensor) -> Tensor:
    """Of user and hour, that of `random_split`, whose ids are odd where it is positive."""
    return 1 - level % 2 * 2


def table(found: pd.DataFrame) -> dict[str, Any]:
    return {row.pop("field"): row for row in found.to_dict("records")}


# ---- fields ----


def test_a_field_that_the_logit_does_not_read_loses_exactly_nothing() -> None:
    rows = random_split(SCHEMA, 500)
    found = table(importance(Known(lambda user, item, city, hour: sign(user) + 0.3 * sign(hour)), rows))
    nothing = dict.fromkeys(("auc_lost", "low", "high", "logloss_rise"), pytest.approx(0, abs=1e-12))
    assert found["item"] == nothing
    assert found["city"] == nothing
    assert found["user"]["low"] > 0.1
    assert next(iter(found)) == "user"


def test_without_a_field_that_is_all_there_is_auc_falls_to_a_half() -> None:
    rows = random_split(SCHEMA, 4000)
    network = Known(lambda user, item, city, hour: sign(user))
    lost = table(importance(network, rows))["user"]
    whole = metrics.auc(rows.label.numpy(), sign(rows.ids[:, 0] - SCHEMA.offsets[0]).numpy())
    assert lost["low"] < whole - 0.5 < lost["high"]
    assert lost["auc_lost"] == pytest.approx(whole - 0.5, abs=0.03)


def test_fields_that_say_the_same_hide_each_other_unless_they_belong_together() -> None:
    rows = random_split(SCHEMA, 2000)
    twin = SCHEMA.offsets[3] + (rows.ids[:, 0] - SCHEMA.offsets[0]) % 2
    rows = Split(SCHEMA, torch.cat([rows.ids[:, :3], twin[:, None].int()], 1), rows.label)
    network = Known(lambda user, item, city, hour: sign(user) + sign(hour))
    alone = table(importance(network, rows))
    joined = table(importance(network, rows, together=[["hour", "user"]]))
    assert set(joined) == {"hour + user", "item", "city"}
    assert joined["hour + user"]["auc_lost"] > 1.5 * max(alone["user"]["auc_lost"], alone["hour"]["auc_lost"])


def test_rows_of_one_user_count_once() -> None:
    """Every row five times: the rows alone would promise an interval that is far too short."""
    once = random_split(SCHEMA, 400)
    often = Split(SCHEMA, once.ids.repeat(5, 1), once.label.repeat(5))
    network = Known(lambda user, item, city, hour: sign(user))

    def width(rows: Split, group: Any = None) -> float:
        user = table(importance(network, rows, group=group, shuffles=1))["user"]
        return float(user["high"] - user["low"])

    by_user = width(often, [f"u{i}" for i in np.tile(np.arange(400), 5)])
    assert 0.7 * width(once) < by_user < 1.1 * width(once)
    assert width(often) < 0.6 * by_user


def test_the_time_of_a_row_is_a_field_of_models_that_read_it() -> None:
    rows = random_split(SCHEMA, 500)
    network = Known(lambda user, item, city, hour, time: sign(user) + 0.001 * time, timed=True)
    assert [unit.name for unit in units(network, SCHEMA)] == ["user", "item", "city", "hour", TIME]
    assert table(importance(network, rows))[TIME]["logloss_rise"] != 0
    assert table(importance(network, rows, together=[["hour", TIME]]))[f"hour + {TIME}"]["logloss_rise"] != 0
    first = Split(SCHEMA, rows.ids[:1], rows.label[:1], rows.time[:1] if rows.time is not None else None)
    found = table(effects(network, first, rows).table)
    assert found[TIME]["effect"] != 0
    assert found["hour"]["effect"] == 0


def test_rows_drawn_by_their_labels_give_the_logloss_of_the_log() -> None:
    rows = random_split(SCHEMA, 6000)
    rare = torch.cat([torch.nonzero(rows.label < 0.5)[:, 0], torch.nonzero(rows.label > 0.5)[:300, 0]])
    log = Split(SCHEMA, rows.ids[rare], rows.label[rare])
    some, number = balanced(log, 600)
    assert len(some) == len(set(number)) == 600
    assert some.label.sum() == 300
    network, rate = Known(lambda user, item, city, hour: sign(user) - 2), float(log.label.mean())
    rise, plain, whole = (
        table(importance(network, which, rate=share))["user"]["logloss_rise"]
        for which, share in ((some, rate), (some, None), (log, None))
    )
    assert rise == pytest.approx(whole, rel=0.2)
    assert plain > 2 * whole


@pytest.mark.parametrize(
    ("together", "message"),
    [([["usr"]], "unknown field 'usr'; did you mean 'user'"), ([["user", "city"], ["user"]], "named twice")],
)
def test_fields_that_cannot_be_together_are_named(together: Any, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        importance(build("lr", SCHEMA, {}, seed=1), random_split(SCHEMA, 50), together=together)


def test_importance_needs_both_labels() -> None:
    rows = random_split(SCHEMA, 50)
    with pytest.raises(PipelineError, match="0 of 50 rows are positive"):
        importance(build("lr", SCHEMA, {}, seed=1), Split(SCHEMA, rows.ids, torch.zeros(50)))


def test_some_rows_are_spread_over_all_also_where_they_stay_on_disk() -> None:
    rows = random_split(SCHEMA, 100)
    streamed = StreamedSplit(SCHEMA, rows.ids, rows.label, rows.time, target=torch.device("cpu"))
    for split in (rows, streamed):
        some, number = spread(split, 10)
        assert number.tolist() == list(range(0, 100, 10))
        assert torch.equal(some.ids, rows.ids[::10])
        assert type(some) is Split
    assert len(spread(rows, 1000)[0]) == 100


# ---- pairs ----


@pytest.mark.slow
def test_an_interaction_is_the_standard_deviation_of_what_a_pair_adds() -> None:
    """A cross of strength c has c, a sum nothing, and a cross of three fields all three pairs."""
    rows = random_split(SCHEMA, 20_000)

    def logit(user: Tensor, item: Tensor, city: Tensor, hour: Tensor) -> Tensor:
        return 3 * user + item + 0.7 * sign(user) * sign(hour)

    found = pairs(Known(logit), rows)
    assert tuple(found.iloc[0][["first", "second"]]) == ("user", "hour")
    assert found["interaction"][0] == pytest.approx(0.7, abs=0.02)
    assert found["interaction"][1:].max() < 1e-12
    three = pairs(Known(lambda user, item, city, hour: sign(user) * sign(city) * sign(hour)), rows)
    assert {frozenset(pair) for pair in three[["first", "second"]].to_numpy()[:3]} == {
        frozenset(pair) for pair in (("user", "city"), ("user", "hour"), ("city", "hour"))
    }


def test_pairs_among_some_fields_are_those_of_all() -> None:
    network, rows = build("fwfm", SCHEMA, {"embedding_size": 4}, seed=1), random_split(SCHEMA, 60)
    wake(network)
    whole, some = pairs(network, rows), pairs(network, rows, among={"user", "city", "hour"})
    assert len(some) == 3
    both = whole.merge(some, on=["first", "second"])
    assert both["interaction_x"].equals(both["interaction_y"])
    assert both["size of r_x"].equals(both["size of r_y"])


@pytest.mark.parametrize("name", SCORES)
def test_a_models_own_weights_are_those_of_its_equation(name: str) -> None:
    """Through the mechanisms as by its layers, one after another."""
    network, rows = build(name, SCHEMA, {"embedding_size": 4}, seed=1).eval(), random_split(SCHEMA, 40)
    wake(network)
    found = own_weights(network, rows)
    with torch.inference_mode():
        naive = {key: value.double().numpy() for key, value in SCORES[name](network, rows.ids).items()}
    if name == "fiinet":
        naive["attention"] = (
            naive["attention"] * network.select.split[0].weight.detach().abs().squeeze(1).numpy()
        )  # type: ignore[index,union-attr]
    for key, weights in found.items():
        np.testing.assert_allclose(weights, naive[key], rtol=1e-4)
    assert found


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("fmfm", {}, "norm of M"),
        ("fiinet", {"fusion": "concat"}, "attention"),
        ("fiinet", {"fusion": "align"}, "attention"),
        ("fiinet", {"fusion": "project"}, "size of w"),
        ("fiinet", {"attention": False}, "size of w"),
        ("fiinet", {"orders": [3], "separate": True}, None),
        ("deepfm", {}, None),
        ("fwfm", {"neighbour_limit": 5}, None),
    ],
)
def test_who_has_weights_of_pairs(name: str, options: dict[str, Any], key: str | None) -> None:
    network, rows = build(name, SCHEMA, {"embedding_size": 4, **options}, seed=1), random_split(SCHEMA, 40)
    wake(network)
    found = own_weights(network, rows)
    assert list(found) == ([] if key is None else [key])
    assert all(weights.shape == (6,) and (weights > 0).all() for weights in found.values())


# ---- a row ----


def test_effects_add_up_to_the_logit_whatever_the_model() -> None:
    rows = random_split(SCHEMAS["two-domains"], 300)
    network = build("deepfm", rows.schema, {"embedding_size": 4, "hidden": [8]}, seed=1)
    wake(network)
    found = effects(network, spread(rows, 1)[0], rows, samples=100)
    assert found.logit == pytest.approx(found.mean + found.table["effect"].sum(), abs=1e-5)
    with torch.inference_mode():
        assert found.logit == pytest.approx(float(network.eval()(rows.ids[:1]).double()), abs=1e-4)
    again = effects(network, spread(rows, 1)[0], rows, samples=100)
    assert again.table.equals(found.table)


def test_of_a_sum_each_field_has_its_own_distance_from_the_mean() -> None:
    rows = random_split(SCHEMA, 50)
    found = effects(
        Known(lambda user, item, city, hour: user + 2 * hour), spread(rows, 1)[0], rows, samples=100
    )
    level = (rows.ids - torch.tensor(SCHEMA.offsets)).double()
    here = level[0] - level.mean(0)
    effect = table(found.table)
    assert effect["user"]["effect"] == pytest.approx(float(here[0]), abs=1e-9)
    assert effect["hour"]["effect"] == pytest.approx(2 * float(here[3]), abs=1e-9)
    assert effect["item"]["effect"] == effect["city"]["effect"] == 0


def test_two_fields_share_what_only_both_bring() -> None:
    """Shapley's value of a product that is 0 with either of the other row's values: a half each, exactly."""
    one = torch.tensor(SCHEMA.offsets).int()
    rows = Split(SCHEMA, torch.stack([one + 1, one]), torch.zeros(2))
    row, other = (Split(SCHEMA, rows.ids[i : i + 1], rows.label[:1]) for i in (0, 1))
    found = effects(Known(lambda user, item, city, hour: user * hour), row, other, samples=40)
    assert table(found.table)["user"]["effect"] == table(found.table)["hour"]["effect"] == 0.5
    joined = effects(
        Known(lambda user, item, city, hour: user * hour), row, other, together=[["user", "hour"]]
    )
    assert table(joined.table)["user + hour"]["effect"] == 1


@pytest.mark.parametrize(("row", "others"), [(0, 5), (2, 5), (1, 0)])
def test_one_row_is_explained_beside_others(row: int, others: int) -> None:
    rows = random_split(SCHEMA, 5)
    some = [Split(SCHEMA, rows.ids[:n], rows.label[:n]) for n in (row, others)]
    with pytest.raises(PipelineError, match="give one row, and at least one other"):
        effects(build("lr", SCHEMA, {}, seed=1), *some)


# ---- the cost ----


def test_no_more_rows_are_predicted_than_was_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    network, rows, seen = build("lr", SCHEMA, {}, seed=1), random_split(SCHEMA, 3000), list[int]()
    network.register_forward_hook(lambda _module, args, _out: seen.append(len(args[0])))
    monkeypatch.setattr(summary, "LEAST_ROWS", 10)
    found = summary.summarise(network, rows, predictions=5000)
    assert 2 * 5000 * 0.9 < sum(seen) <= 2 * 5000
    assert found["fields"]["rows"] == 5000 // (1 + 3 * 4)
    assert found["pairs"]["rows"] == 5000 // (1 + 4 + 6)


@pytest.mark.slow
def test_fields_of_any_name_can_be_shown(tmp_path: Path) -> None:
    names = ["a|b", "$x_{$", "<b>", "é 漢"]
    schema = Schema(tuple(replace(f, name=name) for f, name in zip(SCHEMA.fields, names, strict=True)))
    rows = replace(random_split(SCHEMA, 100), schema=schema)
    found = summary.summarise(build("fm", schema, {"embedding_size": 4}, seed=1), rows)
    for line in summary.to_markdown(found, "fm").splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 5), line
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font that comes with matplotlib has no Chinese
        plot_style.save(picture.learnt(found, "log", "fm"), tmp_path / "learnt.png")


@pytest.mark.slow
def test_the_picture_has_a_panel_for_pairs_only_if_there_are_some() -> None:
    one = {"field": "user", "auc_lost": 0.1, "low": 0.08, "high": 0.12}
    pair = {"first": "user", "second": "item", "interaction": 0.5}
    words = []
    for few in ([], [pair]):
        found = {"fields": {"rows": 2000, "found": [one]}, "pairs": {"rows": 1500, "found": few}}
        figure = picture.learnt(found, "log", "lr")
        assert len(figure.axes) == 1 + len(few)
        words.append(figure.texts[1].get_text())
    assert "no pair of them interacts" in words[0]
    assert "on 1,500 rows" in words[1]


@pytest.mark.slow
@pytest.mark.parametrize(("high", "said"), [(0.07, "lives by user most"), (0.09, "others may count as much")])
def test_the_title_ranks_fields_only_if_their_intervals_do(high: float, said: str) -> None:
    first = {"field": "user", "auc_lost": 0.1, "low": 0.08, "high": 0.12}
    other = {"field": "item", "auc_lost": 0.06, "low": 0.05, "high": high}
    found = {"fields": {"rows": 2000, "found": [first, other]}, "pairs": {"rows": 1500, "found": []}}
    assert said in picture.learnt(found, "log", "lr").texts[0].get_text()


# ---- the planted effects, and the commands ----


@pytest.fixture(scope="module", name="root")
def _root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic log at its full size, one training of DeepFM with its defaults, and the report."""
    folder = tmp_path_factory.mktemp("learnt")
    values = project.own_params()
    values |= {"datasets": ["synthetic"], "models": ["deepfm"], "variants": []}
    settings = values["data"]["synthetic"]["settings"]
    settings["train"] |= {"seeds": [1], "threads": 1}
    settings["tune"]["trials"] = 1
    with open(folder / "params.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(values, file)
    project.prepare(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CTR_TRACKING", "off")
        for stage, *words in (("train", "--model", "deepfm"), ("tune", "--model", "deepfm"), ("evaluate",)):
            patch.setattr("sys.argv", [stage, "--dataset", "synthetic", *words])
            importlib.import_module(f"stages.{stage}").main()
    return folder


def call(root: Path, *words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["ctr", "--root", str(root), *words])
        commands.main()


@pytest.mark.thorough
@pytest.mark.slow
def test_the_truth_is_the_logit_that_made_the_clicks(root: Path) -> None:
    true = planted.Truth()(planted.levels(root).ids).sigmoid().numpy()
    np.testing.assert_allclose(true, np.load(root / "data/processed/synthetic/test.truth.npy"), atol=1e-6)


@pytest.mark.thorough
@pytest.mark.slow
def test_the_planted_effects_are_found_in_their_order(root: Path) -> None:
    """By a trained network, on the report's sample of rows, against the true logit on all test rows."""
    rows, truth = planted.levels(root), planted.Truth()
    fields, crosses = importance(truth, rows), pairs(truth, rows)
    learnt = read_json(root / "data/reports/synthetic/report.json")["learnt"]
    assert planted.agreement(pd.DataFrame(learnt["fields"]["found"]), fields) >= 0.9
    assert planted.planted_first(pd.DataFrame(learnt["pairs"]["found"]), crosses) == 6
    real = crosses[crosses["interaction"] > planted.ZERO]
    assert len(real) == 7, "four planted pairs and the three of the planted triple"


@pytest.mark.thorough
@pytest.mark.slow
def test_the_report_shows_what_the_champion_has_learnt(root: Path) -> None:
    page = (root / "data/reports/synthetic/leaderboard.md").read_text(encoding="utf-8")
    assert "## What the champion has learnt\n\n| field | AUC lost |" in page
    assert "What deepfm (default) loses when" in page
    assert "![learnt](learnt.png)" in page
    assert 'src="data:image/png' in (root / "data/reports/synthetic/report.html").read_text(encoding="utf-8")


@pytest.mark.thorough
@pytest.mark.slow
def test_importance_of_a_dataset_a_package_and_a_file(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(
        root,
        "importance",
        "--dataset",
        "synthetic",
        "--together",
        "hour+weekday",
        "-o",
        str(tmp_path / "out"),
    )
    assert "| hour + weekday |" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("importance.md", "importance.png", "fields.csv", "pairs.csv")
    }
    call(root, "package", "--dataset", "synthetic", "-o", str(tmp_path / "champion"))
    table = root / "data/interim/synthetic/table.parquet"
    call(root, "importance", str(table), "--package", str(tmp_path / "champion"), "--label", "label")
    assert "\n| category | 0.1" in capsys.readouterr().out
    for words, message in (
        (["--package", str(tmp_path / "champion")], "a package has no rows"),
        ([], "either --dataset or --package"),
        ([str(table), "--dataset", "synthetic"], "name its column of labels"),
        ([str(table), "--dataset", "synthetic", "--label", "labl"], "unknown column 'labl'"),
    ):
        with pytest.raises(PipelineError, match=message):
            call(root, "importance", *words)


@pytest.mark.thorough
@pytest.mark.slow
def test_the_score_of_a_row_is_explained(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, scores = root / "data/interim/synthetic/table.parquet", tmp_path / "scores.csv"
    call(root, "package", "--dataset", "synthetic", "-o", str(tmp_path / "champion"))
    call(root, "predict", str(rows), "--dataset", "synthetic", "-o", str(scores))
    probability = pd.read_csv(scores).set_index("row")["probability"][7]
    capsys.readouterr()
    for model in (["--dataset", "synthetic"], ["--package", str(tmp_path / "champion")]):
        call(root, "explain", str(rows), "--row", "7", *model)
        text = capsys.readouterr().out
        assert f"row 7: probability {probability:.4f} by deepfm" in text
        effect = {line.split()[0]: float(line.split()[1]) for line in text.splitlines()[3:14]}
        logit, mean = (float(text.splitlines()[-1].split()[i].rstrip(":,")) for i in (1, 2))
        assert set(effect) == {column.name for column in planted.synthetic.COLUMNS}
        assert logit == pytest.approx(mean + sum(effect.values()), abs=0.02)
    with pytest.raises(PipelineError, match="has no row 70000 that can be scored"):
        call(root, "explain", str(rows), "--row", "70000", "--dataset", "synthetic")


@pytest.mark.thorough
@pytest.mark.slow
def test_raw_rows_become_what_the_network_reads(root: Path, tmp_path: Path) -> None:
    from pipeline.scoring import load

    call(root, "package", "--dataset", "synthetic", "-o", str(tmp_path / "champion"))
    model = load(tmp_path / "champion")
    frame = pd.read_parquet(root / "data/interim/synthetic/table.parquet").head(500)
    rows = model.rows(frame, frame["label"])
    assert json.dumps(rows.schema.to_json()) == json.dumps(model.package.schema.to_json())
    assert importance(model.network, rows, group=frame["user"])["auc_lost"].max() > 0.05
    for labels in (frame["label"][1:], frame["label"] + 1, frame["label"].where(frame["label"] > 0)):
        with pytest.raises(PipelineError, match="labels of 500 rows: give one per row, 0 or 1"):
            model.rows(frame, labels)
