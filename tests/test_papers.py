"""The papers' tables and figures: what they claim, what is trained for them, how it is judged and shown."""

import csv
import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import project
import pytest

from docs import statements
from pipeline.__main__ import main
from pipeline.common.errors import PipelineError
from pipeline.common.files import make_folder, read_json, write_json
from pipeline.config.params import Params
from pipeline.papers import experiment, pages, pictures, report, results, schema
from pipeline.papers.exhibit import Claim, Exhibit, Figures, Row, Sweep
from pipeline.papers.exhibits import EXHIBITS
from pipeline.papers.experiment import Cell
from pipeline.statistics.significance import compare, estimate, holm

VALUES = project.own_params()
ALL = [
    "fiinet-figure-2", "fiinet-figure-3", "fiinet-figure-4", "fiinet-table-4",
    *(f"flsest-figure-{number}" for number in range(5, 10)), *(f"flsest-table-{n}" for n in range(1, 6)),
]  # fmt: skip


def test_every_table_and_figure_of_results_is_there_and_named_in_params_yaml() -> None:
    assert sorted(EXHIBITS) == ALL
    text = (project.ROOT / "params.yaml").read_text()
    comment = text[: text.index("\npapers: []")].rpartition("\n\n")[2]
    for part in ("fiinet-table-4", "fiinet-figure-2 to -4", "flsest-table-1 to -5", "flsest-figure-5 to -9"):
        assert part in " ".join(comment.replace("#", "").split())


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_its_settings_and_models_are_valid_on_every_dataset_of_the_paper(name: str) -> None:
    exhibit = EXHIBITS[name]
    labels = [row.label for row in exhibit.rows]
    assert len(set(labels)) == len(labels)
    assert {label for claim in exhibit.claims for label in (claim.better, claim.worse)} <= set(labels)
    for source in exhibit.sources:
        for row in exhibit.rows:
            last = None if exhibit.sweep is None else len(exhibit.sweep.values) - 1
            config = experiment.configured(exhibit, VALUES, source, row, "published", last)
            said = exhibit.settings(source)["train"]
            if exhibit.sweep is None or not exhibit.sweep.option.startswith("train."):
                assert {key: config.train.fit[key] for key in said} == said
            if exhibit.sweep is not None:
                block, option = exhibit.sweep.option.split(".")
                found = config.model if block == "model" else config.train.fit
                assert found[option] == exhibit.sweep.values[-1], row.label


@pytest.mark.parametrize(
    "folder", sorted((project.ROOT / "docs/papers").iterdir()), ids=lambda path: path.name
)
def test_pages_of_results_in_docs_are_what_their_values_say(folder: Path) -> None:
    values, exhibit = read_json(folder / "results.json"), EXHIBITS[folder.name]
    if exhibit.attention:
        page, table = (
            report.attention_page(exhibit, values, "picture.png"),
            report.attention_csv(values["logs"]),
        )
    else:
        page, table = report.to_markdown(exhibit, values, "picture.png"), report.to_csv(exhibit, values)
    assert (folder / "README.md").read_text() == page
    assert (folder / "table.csv").read_text() == table
    written = folder / pages.STATEMENTS
    told = None if exhibit.attention else report.statements_csv(exhibit, values)
    assert (written.read_text() if written.exists() else None) == told


def test_a_table_of_statements_has_what_the_page_says_of_each() -> None:
    exhibit, folder = EXHIBITS["flsest-table-2"], project.ROOT / "docs/papers/flsest-table-2"
    lines = list(csv.DictReader((folder / pages.STATEMENTS).read_text().splitlines()))
    page = (folder / "README.md").read_text()
    assert len(lines) == page.count(" > ") >= 2 * len(exhibit.claims)
    for line in lines:
        ends = " to ".join(f"{float(line[end]):+.4f}" for end in ("low", "high"))
        told = [f"{line['better']} > {line['worse']}", f"{float(line['difference']):+.4f} | {ends} |"]
        verdict = report.VERDICTS[int(line["verdict"])]
        assert any(all(part in row for part in (*told, verdict)) for row in page.splitlines()), line


def test_a_figures_statements_are_the_values_that_it_finds_best() -> None:
    written = project.ROOT / "docs/papers/flsest-figure-9" / pages.STATEMENTS
    line, _ = csv.DictReader(written.read_text().splitlines())  # on MovieLens-100K, and -1M
    assert (line["model"], line["paper"], line["chosen"]) == ("FLSEST", "1e-5", "1e-3")
    assert float(line["low"]) < float(line["difference"]) < float(line["high"]) < 0
    assert line["verdict"] == "-1"


def test_a_page_names_the_rows_whose_auc_it_shows() -> None:
    for name, rows in {"fiinet-figure-2": "Validation", "fiinet-figure-3": "Test"}.items():
        values = read_json(project.ROOT / "docs/papers" / name / "results.json")
        page = report.to_markdown(EXHIBITS[name], values, "picture.png")
        assert f"{rows} rows of book-crossing" in page


def test_a_page_says_which_datasets_the_paper_does_not_show() -> None:
    values = read_json(project.ROOT / "docs/papers/fiinet-figure-2/results.json")
    for log in values["logs"]:
        page = report.to_markdown(EXHIBITS["fiinet-figure-2"], {**values, "logs": [log]}, "x.png")
        is_shown = log["source"] == "book-crossing"
        assert ("**The paper does not show this dataset here.**" in page) != is_shown
    assert len(values["logs"]) == 2


def test_figures_are_those_that_were_printed() -> None:
    """Three cells of each paper's tables, read from the papers again."""
    found = {
        (name, row.label, source): figures
        for name, exhibit in EXHIBITS.items()
        for row in exhibit.rows
        for source, figures in row.published.items()
    }
    assert found["fiinet-table-4", "AutoInt", "book-crossing"] == (0.6534, 0.6804, None)
    assert found["fiinet-table-4", "FiiNet", "kuairec-big"] == (0.7983, 0.1310, None)
    assert found["flsest-table-1", "EDCN", "movielens-1m"] == (0.8153, 0.5151, None)
    assert found["flsest-table-4", "FiBiSEST", "avazu-1m"] == (0.7632, 0.3776, 39.4)
    assert found["flsest-table-5", "FwBI", "movielens-1m"] == Figures()


def test_datasets_are_those_of_the_paper_grouped_by_log() -> None:
    exhibit = EXHIBITS["flsest-table-1"]
    names = ["synthetic", "movielens-100k-s1", "movielens-1m", "movielens-100k-s2", "movielens-1m-drop3"]
    assert experiment.datasets(exhibit, {**VALUES, "datasets": names}) == {
        "movielens-100k-s1": ["movielens-100k-s1", "movielens-100k-s2"],
        "movielens-1m": ["movielens-1m"],
        "movielens-1m-drop3": ["movielens-1m-drop3"],
    }
    with pytest.raises(PipelineError, match=r"is about movielens-100k, .*`datasets` in params.yaml names no"):
        experiment.datasets(exhibit, VALUES)
    assert experiment.datasets(exhibit, VALUES, others=True) == {"synthetic": ["synthetic"]}
    with pytest.raises(PipelineError, match=r"such as `datasets: \[movielens-1m\]`"):
        experiment.datasets(EXHIBITS["flsest-figure-5"], {**VALUES, "datasets": ["movielens-100k"]})


def cell(
    label: str, dataset: str, shift: float, seed: int, condition: Any = "published", capped: int = 0
) -> Cell:
    """A model whose scores are the better, the larger the shift of clicks against the others."""
    rng = np.random.default_rng(seed)
    label_of_row = (np.arange(2000) % 2).astype(np.uint8)
    scores = [rng.normal(size=2000) + shift * label_of_row for _ in range(2)]
    of = estimate(label_of_row, scores)
    return Cell(
        Row(label, label, {"toy": Figures(0.7, 0.5)}),
        condition,
        None,
        dataset,
        0.7,
        [of.auc] * 2,
        [0.5] * 2,
        of,
        7,
        capped,
    )


TOY = Exhibit(
    "toy-table-1", "Toys", "A paper, Table 1", ("toy",),
    tuple(Row(name, name, {"toy": Figures(0.7, 0.5)}) for name in ("A", "B", "C")),
    lambda source: {},
    claims=(Claim("A", "B"), Claim("B", "A"), Claim("A", "C")),
)  # fmt: skip


@pytest.mark.parametrize("splits", [["one"], ["one", "two", "three", "four"]])
def test_a_claim_holds_is_reversed_or_cannot_be_told(splits: list[str]) -> None:
    cells = [
        cell(label, split, shift, 10 * number + place)
        for number, split in enumerate(splits)
        for place, (label, shift) in enumerate({"A": 1.0, "B": 0.5, "C": 1.0}.items())
    ]
    joined = results.join(TOY, {"log": ("toy", cells)}, {"log": 0.25})
    (log,) = joined["logs"]
    verdicts = {(c["better"], c["worse"]): c["verdict"] for c in log["claims"]}
    assert verdicts == {("A", "B"): 1, ("B", "A"): -1, ("A", "C"): 0}
    page = report.to_markdown(TOY, joined, "picture.png")
    assert "| A > B | their settings | +0.0000 | +0.1" in page
    assert "| **the reverse** |" in page
    assert ("corrected resampled t-test" in page) == (len(splits) > 1)
    assert report.to_csv(TOY, joined).count("\n") == 4


FIGURE = replace(
    TOY, name="toy-figure-1", claims=(), sweep=Sweep("model.hidden", (1, 2, 3), ("1", "2", "3"), 1)
)


def curve(label: str, split: str, valid: list[float], shifts: list[float]) -> list[Cell]:
    """A model at three values of an option, on one split."""
    made = [cell(label, split, shift, len(split) + place, "default") for place, shift in enumerate(shifts)]
    return [replace(one, value=value, valid=valid[value]) for value, one in enumerate(made)]


@pytest.mark.parametrize("splits", [["log-s1"], ["log-s1", "log-s22", "log-s333"]])
def test_the_papers_best_value_is_compared_with_the_one_that_validation_rows_choose(
    splits: list[str], tmp_path: Path
) -> None:
    """Not with the one that has the best test AUC: B's third, which is luckier than the chosen first."""
    shapes = {
        "A": ([0.7, 0.8, 0.7], [1.0, 1.0, 1.0]),
        "B": ([0.8, 0.7, 0.7], [1.0, 0.5, 1.5]),
        "C": ([0.7, 0.7, 0.8], [1.0, 1.0, 1.0]),
    }
    cells = [c for split in splits for label, shape in shapes.items() for c in curve(label, split, *shape)]
    joined = results.join(FIGURE, {"log-s1": ("toy", cells)}, {"log-s1": 0.25})
    found = {test["model"]: test for test in results.optima(FIGURE, joined["logs"][0])}
    assert {model: test["chosen"] for model, test in found.items()} == {"A": "2", "B": "1", "C": "3"}
    assert found["A"]["difference"] == 0
    assert found["B"]["difference"] < -0.1
    page = report.to_markdown(FIGURE, joined, "picture.png")
    assert "| A | our defaults | 2 | the same |  |\n| B | our defaults | 1 | " in page
    assert (found["B"]["verdict"], found["C"]["verdict"]) == (-1, 0)
    assert "| B | our defaults | 1 | **-0.1" in page
    values = dict(zip("123", (cell.estimate.auc for cell in cells if cell.row.label == "B"), strict=False))
    if len(splits) == 1:  # what is bold is not the best AUC that is shown, B's third
        assert values["3"] > values["1"]
        assert f"| B | our defaults | **{values['1']:.4f}** |" in page
    by = {1: "Intervals by test rows", 3: "Intervals by the corrected resampled t-test over the splits"}
    assert by[len(splits)] in page
    if len(splits) == 1:  # by the scores, which no later reader has
        of = {cell.value: cell.estimate for cell in cells if cell.row.label == "B"}
        assert compare(of[1], of[0]).items() <= found["B"].items()
    write_json(tmp_path / "results.json", joined)
    assert results.union(FIGURE, {"one": schema.load(tmp_path)}) == joined


def test_two_splits_or_results_of_older_code_have_no_interval_of_what_the_paper_finds_best() -> None:
    cells = [c for s in SPLITS[:2] for c in curve("B", s, [0.8, 0.7, 0.7], [1.0, 0.5, 1.5])]
    two = results.join(FIGURE, {"log-s1": ("toy", cells)}, {"log-s1": 0.25})
    old = results.join(FIGURE, {"log-s1": ("toy", cells[:3])}, {"log-s1": 0.25})
    del old["logs"][0]["optima"]
    for joined in (two, old):
        assert "p" not in results.optima(FIGURE, joined["logs"][0])[0]
        page = report.to_markdown(FIGURE, joined, "picture.png")
        assert "| not known |" in page
        assert "Intervals" not in page


def test_a_test_by_one_splits_rows_that_is_not_about_the_rows_is_refused(tmp_path: Path) -> None:
    cells = curve("B", "log-s1", [0.8, 0.7, 0.7], [1.0, 0.5, 1.5])
    joined = results.join(FIGURE, {"log-s1": ("toy", cells)}, {"log-s1": 0.25})
    (test,) = joined["logs"][0]["optima"]
    for wrong in ({"difference": test["difference"] + 0.01}, {"chosen": "3"}, {"paper": "9"}):
        changed = {**joined, "logs": [{**joined["logs"][0], "optima": [test | wrong]}]}
        write_json(tmp_path / "results.json", changed)
        with pytest.raises(PipelineError, match="is not that of the AUCs of the rows"):
            schema.load(tmp_path)


def test_a_page_names_the_models_whose_networks_are_dead() -> None:
    """At which values; results of older code do not say it, and are read all the same."""
    cells = curve("A", "log-s1", [0.7, 0.8, 0.7], [1.0, 1.0, 1.0])
    whole = results.join(FIGURE, {"log-s1": ("toy", cells)}, {"log-s1": 0.25})
    assert "switched off" not in report.to_markdown(FIGURE, whole, "x.png")
    cells = [replace(cell, dead=int(cell.value != 1)) for cell in cells]
    joined = results.join(FIGURE, {"log-s1": ("toy", cells)}, {"log-s1": 0.25})
    page = report.to_markdown(FIGURE, joined, "x.png")
    assert (
        "Networks that training switched off, or never got to (A, our defaults: 1 (1 of 2), 3 (1 of 2)).**"
        in page
    )
    assert "Not checked" not in page
    for row in joined["logs"][0]["rows"]:
        del row["dead"]
    old = report.to_markdown(FIGURE, results.union(FIGURE, {"old": joined}), "x.png")
    assert "Networks that training" not in old
    assert "Not checked for networks that training switched off, being older than that" in old
    assert "than that check: A (our defaults)." in old


def test_a_table_is_in_the_order_of_the_paper() -> None:
    shown = replace(FIGURE, rows=(FIGURE.rows[1], FIGURE.rows[0]))
    cells = [c for x in "AB" for c in curve(x, "log-s1", [0.7, 0.8, 0.7], [1.0, 1.0, 1.0])]
    cells += [replace(c, condition="published") for c in cells]
    joined = results.join(shown, {"log-s1": ("toy", cells)}, {"log-s1": 0.25})
    lines = csv.DictReader(report.to_csv(shown, joined).splitlines())
    values = [f"{of}{value}" for of in "BA" for value in "123"]
    found = [(line["condition"], line["model"] + line["value"]) for line in lines]
    assert found == [(kind, value) for kind in ("published", "default") for value in values]


@pytest.mark.parametrize(("end", "told"), [(-0.0000455, "-0.00005"), (0.0, "+0.0000"), (-0.0015, "-0.0015")])
def test_the_end_of_an_interval_says_on_which_side_of_nothing_it_is(end: float, told: str) -> None:
    log = results.join(TOY, {"log": ("toy", [cell(x, "one", 1.0, 3) for x in "ABC"])}, {"log": 0.25})["logs"][
        0
    ]
    log["claims"][0]["low"] = end
    assert f"| {told} to " in report.to_markdown(TOY, {"logs": [log]}, "x.png")


def test_nothing_of_a_papers_training_is_the_users() -> None:
    """What a paper does not say is not taken from `train` of params.yaml either."""
    own = {"l2_tables": "whole", "monitor": "auc", "clip_norm": 1.0, "lr_patience": 3, "lr_factor": 0.5}
    values = {**VALUES, "train": {**VALUES["train"], **own, "evaluations_per_epoch": 2, "grades": 0.5}}
    for name in ("flsest-table-1", "fiinet-table-4"):
        exhibit = EXHIBITS[name]
        data = {"flsest-table-1": "movielens-100k", "fiinet-table-4": "book-crossing"}[name]
        usual, changed = (
            experiment.configured(exhibit, each, data, exhibit.rows[0], "published").train.fit
            for each in (VALUES, values)
        )
        assert changed == usual


def test_where_the_paper_names_no_best_value_ours_is_shown_alone() -> None:
    unnamed = replace(FIGURE, sweep=replace(FIGURE.sweep, best=None))
    cells = curve("A", "log-s1", [0.7, 0.8, 0.7], [1.0, 1.0, 1.0])
    joined = results.join(unnamed, {"log-s1": ("toy", cells)}, {"log-s1": 0.25})
    assert "\n| A | our defaults | 2 |\n" in report.to_markdown(unnamed, joined, "picture.png")
    assert results.union(unnamed, {"one": joined}) == joined


@pytest.mark.parametrize("name", ["flsest-figure-5", "flsest-figure-6"])
@pytest.mark.parametrize("condition", ["default", "published"])
def test_deep_networks_have_decay_in_the_place_of_an_l2_that_switches_them_off(
    name: str, condition: Any
) -> None:
    exhibit = EXHIBITS[name]
    for row in exhibit.rows:
        fit = experiment.configured(exhibit, VALUES, "movielens-100k", row, condition, 2).train.fit
        ours = {"network_l2": 0.0, "network_decay": 0.5 if condition == "default" else 0.0}
        assert ours.items() <= fit.items(), row.label


def test_a_model_that_cannot_be_trained_on_a_log_is_named_and_the_others_are_shown() -> None:
    cells = [cell(label, "one", 1.0, 3) for label in "AB"]
    reasons = {"log": {"C": "it needs time stamps, which log does not have"}}
    joined = results.join(TOY, {"log": ("toy", cells)}, {"log": 0.25}, reasons)
    (log,) = joined["logs"]
    assert [(c["better"], c["worse"]) for c in log["claims"]] == [("A", "B"), ("B", "A")]
    page = report.to_markdown(TOY, joined, "picture.png")
    assert "| C | 0.7000 | 0.5000 | - | - |\n\nC is not trained here: it needs time stamps" in page
    cells += [cell(label, "one", 1.0, 3, "default") for label in "ABC"]
    page = report.to_markdown(
        TOY, results.join(TOY, {"log": ("toy", cells)}, {"log": 0.25}, reasons), "x.png"
    )
    assert "\n\nC is not trained with their settings: it needs time stamps" in page
    assert pictures.table(TOY, joined)
    assert report.to_csv(TOY, joined).count("\n") == 3


SPLITS = ["log-s1", "log-s2", "log-s3"]


def made(splits: list[str], conditions: tuple[str, ...] = ("default", "tuned"), labels: str = "ABC") -> Any:
    """What a run over these splits of one log writes."""
    cells = [
        cell(label, split, 0.5 + "CBA".index(label) / 4, 10 * SPLITS.index(split) + len(condition), condition)
        for split in splits
        for condition in conditions
        for label in labels
    ]
    return results.join(TOY, {splits[0]: ("toy", cells)}, {splits[0]: 0.25})


@pytest.mark.parametrize("places", [[SPLITS[:2], SPLITS[2:]], [[s] for s in SPLITS], [SPLITS], [SPLITS[:1]]])
def test_splits_that_were_made_in_several_places_are_one_table(places: list[list[str]]) -> None:
    found = {str(number): made(splits) for number, splits in enumerate(places)}
    assert results.union(TOY, found) == made([split for splits in places for split in splits])


def test_two_splits_stay_apart_since_a_test_over_them_tells_nothing() -> None:
    found = {"here": made(SPLITS[:1]), "there": made(SPLITS[1:2])}
    united = results.union(TOY, found)
    assert united["logs"] == [log for result in found.values() for log in result["logs"]]
    page = report.to_markdown(TOY, made(SPLITS[:2]), "x.png")
    assert "With 2 splits this test can hardly tell anything" in page


def test_a_condition_with_other_splits_is_a_table_of_its_own() -> None:
    """With the tests that were made there, and Holm's correction for as many as are left."""
    one = made(SPLITS[:1])
    united = results.union(TOY, {"here": one, "there": made(SPLITS[1:], ("tuned",))})
    shown = [(log["splits"], {row["condition"] for row in log["rows"]}) for log in united["logs"]]
    assert shown == [(SPLITS, {"tuned"}), (SPLITS[:1], {"default"})]
    tests = [claim["p"] for claim in one["logs"][0]["claims"] if claim["condition"] == "default"]
    left = united["logs"][1]["claims"]
    assert [claim["p"] for claim in left] == tests
    assert [claim["p_holm"] for claim in left] == holm(tests)


def test_a_row_that_some_splits_lack_is_left_out_and_named() -> None:
    united = results.union(TOY, {"here": made(SPLITS[:2]), "there": made(SPLITS[2:], labels="AB")})
    (log,) = united["logs"]
    assert {row["model"] for row in log["rows"]} == {"A", "B"}
    assert {(c["better"], c["worse"]) for c in log["claims"]} == {("A", "B"), ("B", "A")}
    page = report.to_markdown(TOY, united, "x.png")
    assert "C is not trained here: its trainings are of log-s1 and log-s2 alone." in page


def test_what_cannot_be_one_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="log-s2 is in here and in there: give one of them"):
        results.union(TOY, {"here": made(SPLITS[:2]), "there": made(SPLITS[1:])})
    more = made(SPLITS[1:])
    for row in more["logs"][0]["rows"]:
        row["seeds"] = 3
    with pytest.raises(PipelineError, match="there: A has 3 seeds on log-s2, and 2 on log-s1: train both"):
        results.union(TOY, {"here": made(SPLITS[:1]), "there": more})
    docs = project.ROOT / "docs/papers"
    with pytest.raises(PipelineError, match=r"has no results\.json: give folders such as data/papers"):
        pages.unite([docs], tmp_path)
    with pytest.raises(PipelineError, match="flsest-table-1 and flsest-table-2 are not one table"):
        pages.unite([docs / "flsest-table-2", docs / "flsest-table-1"], tmp_path)
    copytree(docs / "fiinet-figure-4", again := tmp_path / "again")
    with pytest.raises(PipelineError, match=r"book-crossing-s1 is in .*again and in another folder"):
        pages.unite([docs / "fiinet-figure-4", again], tmp_path / "out")


@pytest.mark.parametrize("name", ["fiinet-table-4", "fiinet-figure-2", "fiinet-figure-4"])
def test_the_command_puts_logs_beside_each_other(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = project.ROOT / "docs/papers" / name
    values = read_json(whole / "results.json")
    logs = values["logs"]
    parts = [{k: logs[k]} for k in logs] if isinstance(logs, dict) else [[log] for log in logs]
    for number, part in enumerate(parts):
        make_folder(folder := tmp_path / str(number))
        write_json(folder / "results.json", {**values, "logs": part})
    folders = [str(tmp_path / str(number)) for number in range(len(parts))]
    monkeypatch.setattr("sys.argv", ["ctr", "paper", *folders, "--out", str(tmp_path / "out")])
    main()
    assert capsys.readouterr().out == f"{tmp_path / 'out/README.md'}\n"
    for file in ("README.md", "table.csv", "results.json"):
        assert (tmp_path / "out" / file).read_bytes() == (whole / file).read_bytes()


def test_the_statements_of_the_article_are_those_of_the_tables() -> None:
    """`python -m docs.statements` prints them."""
    article = (project.ROOT / "docs/papers.md").read_text(encoding="utf-8")
    for printed in (statements.models(), statements.table(), statements.values()):
        assert f"\n\n{printed}\n\n" in article


def test_the_picture_of_the_article_has_every_statement_at_its_place_in_its_colour() -> None:
    claims = [(name, claim) for name in statements.TABLES for claim in EXHIBITS[name].claims]
    for ax, column in zip(statements.picture().axes, statements.DRAWN.values(), strict=True):
        log, condition = statements.COLUMNS[column]
        wanted = {
            (place, round(test["difference"], 6), statements.SIGNIFICANT[test["verdict"]])
            for place, (name, claim) in enumerate(claims)
            for each in read_json(project.ROOT / "docs/papers" / name / "results.json")["logs"]
            for test in each["claims"]
            if each["log"].startswith(log)
            and {**vars(claim), "condition": condition}.items() <= test.items()
            and test["difference"] < statements.SHOWN[1]
        }
        found = {
            (line.get_ydata()[0], round(line.get_xdata()[0], 6), line.get_color())
            for line in ax.lines
            if line.get_marker() == "o"
        }
        assert found == wanted
        assert len(found) > 20


@pytest.mark.parametrize(
    "folder", sorted((project.ROOT / "docs/papers").iterdir()), ids=lambda path: path.name
)
def test_a_table_put_together_with_nothing_is_itself(folder: Path, tmp_path: Path) -> None:
    """So that one's own splits can be added to a table of docs/papers."""
    pages.unite([folder], tmp_path)
    for file in ("README.md", "table.csv", "results.json"):
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()


def test_what_was_noted_by_hand_is_shown_and_stays_when_tables_are_put_together() -> None:
    (one,), (other,) = (made(SPLITS[:n])["logs"] for n in (1, 1))
    one["note"] = "Their network was another one."
    other |= {"log": "other", "splits": ["other"]}
    both = results.union(TOY, {"here": {**made(SPLITS[:1]), "logs": [one, other]}})
    assert [log.get("note") for log in both["logs"]] == [one["note"], None]
    assert f"\n\n{one['note']}\n\n" in report.to_markdown(TOY, both, "x.png")


def test_a_row_that_came_later_is_shown_as_missing() -> None:
    older = made(SPLITS[:1], labels="AB")
    page = report.to_markdown(TOY, results.union(TOY, {"here": older}), "x.png")
    assert "| C | 0.7000 | 0.5000 | - | - | - | - |" in page
    assert "C is not trained here: these results were made before the table had it" in page


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda v: v.pop("logs"), r"results\.json: logs: is missing"),
        (lambda v: v["logs"][0].pop("claims"), r"logs\.0\.claims: is missing"),
        (lambda v: v["logs"][0]["rows"][0].update(auc=1.7), r"logs\.0\.rows\.0\.auc: .*at most 1"),
        (lambda v: v["logs"][0]["rows"][0].update(auc=None), r"logs\.0\.rows\.0\.auc: "),
        (lambda v: v["logs"][0].update(absent=None), r"logs\.0\.absent: "),
        (lambda v: v["logs"][0]["rows"][0].update(auc=0.9), "the AUC of FM is not the mean of its splits"),
        (
            lambda v: v["logs"][0]["claims"][0].update(difference=0.05),
            r"FM\+SEST > FM \(default\) is not that",
        ),
        (lambda v: v["logs"][0]["rows"][0]["of_splits"].pop(), r"4 AUCs for 5 splits"),
        (lambda v: v["logs"][0]["rows"][0].update(condition="defualt"), r"'default'"),
        (lambda v: v["logs"][0]["rows"][0].update(model="FFM"), "flsest-table-2 has no row FFM"),
        (lambda v: v["logs"][-1]["claims"].pop(), r"FwFM\+SEST > FwFM has no test"),
    ],
)
def test_values_that_cannot_be_are_told_and_nothing_is_written(
    change: Callable[[Any], Any], told: str, tmp_path: Path
) -> None:
    values = read_json(project.ROOT / "docs/papers/flsest-table-2/results.json")
    change(values)
    make_folder(tmp_path / "in")
    write_json(tmp_path / "in/results.json", values)
    with pytest.raises(PipelineError, match=told) as error:
        pages.unite([tmp_path / "in"], tmp_path / "out")
    assert "make it again by `dvc repro paper@" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_what_is_put_together_is_not_written_over(tmp_path: Path) -> None:
    """A folder alone is written anew with what it has."""
    folder = tmp_path / "s1"
    copytree(project.ROOT / "docs/papers/flsest-table-2", folder)
    other = tmp_path / "other"
    copytree(project.ROOT / "docs/papers/flsest-table-2", other)
    with pytest.raises(PipelineError, match="s1 is one of the folders that are put together"):
        pages.unite([folder, other], folder)
    assert pages.unite([folder], folder) == folder / "README.md"


def test_a_folder_with_other_files_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(PipelineError, match="has files that are no paper's table: give a new folder"):
        pages.unite([project.ROOT / "docs/papers/flsest-table-2"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_statement_that_is_not_the_papers_is_marked() -> None:
    ours = replace(TOY, controls=("C",))
    joined = results.join(ours, {"log": ("toy", [cell(x, "one", 1.0, 3) for x in "ABC"])}, {"log": 0.25})
    page = report.to_markdown(ours, joined, "x.png")
    assert "| A > C \N{DAGGER} |" in page
    assert page.count("\N{DAGGER}") == 2
    assert page.count("\N{DAGGER}: ours, not a statement of the paper.") == 1
    assert "\N{DAGGER}" not in report.to_markdown(TOY, joined, "x.png")


@pytest.mark.parametrize(("printed", "panels"), [(0.7, 1), (0.2, 2), (None, 1)])
def test_a_paper_whose_figures_are_far_from_ours_has_a_panel_of_its_own(
    printed: float | None, panels: int
) -> None:
    """On one axis all of ours would be one point."""
    rows = tuple(Row(row.label, row.label, {"toy": Figures(printed, 0.5)}) for row in TOY.rows)
    cells = [
        replace(cell(row.label, "one", shift, 3), row=row)
        for row, shift in zip(rows, (0.7, 0.8, 0.9), strict=True)
    ]
    exhibit = replace(TOY, rows=rows)
    joined = results.join(exhibit, {"log": ("toy", cells)}, {"log": 0.25})
    axes = pictures.table(exhibit, joined).axes
    assert [ax.get_title(loc="left") for ax in axes] == ["in the paper", "log"][-panels:]


def test_which_models_are_not_trained_is_known_before_any_is(monkeypatch: pytest.MonkeyPatch) -> None:
    exhibit, names = EXHIBITS["flsest-table-1"], ["movielens-1m", "movielens-100k-s1"]
    has_times = {"movielens-1m": False, "movielens-100k-s1": True}
    monkeypatch.setattr(experiment, "has_column", lambda folder, *_: has_times[folder.name])
    (left_out,) = experiment.absent(exhibit, VALUES, names).items()
    assert left_out == ("DisenCTR", "it needs time stamps, and the rows of movielens-1m have none")
    assert experiment.absent(exhibit, VALUES, names[1:]) == {}


@pytest.mark.parametrize(("condition", "is_told"), [("default", True), ("published", False)])
def test_a_page_says_that_trainings_were_cut_off_but_for_those_that_the_paper_has_so(
    condition: str, is_told: bool
) -> None:
    cells = [cell(label, "one", 1.0, 3, condition, capped=1) for label in "ABC"]
    joined = results.join(TOY, {"log": ("toy", cells)}, {"log": 0.25})
    page = report.to_markdown(TOY, joined, "picture.png")
    assert ("**3 of 6 trainings ended at the last of `epochs`" in page) == is_told


@pytest.mark.parametrize(("condition", "is_told"), [("default", True), ("published", False)])
def test_a_page_of_attention_names_its_rows_and_a_training_that_was_cut_off(
    condition: str, is_told: bool
) -> None:
    exhibit, weights = EXHIBITS["fiinet-figure-4"], {"2": [0.5, 0.5]}
    of = {"channels": None, "before": weights, "after": weights}
    logs = {
        "book-crossing-s1": {"source": "book-crossing", "capped": False, **of},
        "mine": {"source": "tabular", "capped": True, **of},
        "ml": {"source": "movielens-1m", "capped": False, **of},
    }
    page = report.attention_page(exhibit, {"condition": condition, "logs": logs}, "x.png")
    settings = results.CONDITIONS[condition]
    elsewhere = "**The paper does not show this dataset here.**"
    for told in (
        f"Mean over the validation rows of book-crossing-s1; one training with {settings}.\n",
        f"rows of mine; one training with {settings}. {elsewhere}",
        f"rows of ml, which is movielens-1m; one training with {settings}. {elsewhere}",
    ):
        assert told in page
    assert "| field | pairs, before | pairs, after |" not in page
    assert "| channel | pairs, before | pairs, after |\n| --- | ---: | ---: |\n| 1 | 0.500 | 0.500 |" in page
    named = {"channels": ["user", "movie"], "before": {"3": [0.5, 0.5]}, "after": {"3": [0.1, 0.9]}}
    logs = {"mine": {**logs["mine"], **named}}
    fields = report.attention_page(exhibit, {"condition": condition, "logs": logs}, "x.png")
    assert "| field | triples, before | triples, after |" in fields
    assert "| movie | 0.500 | 0.900 |" in fields
    assert page.count("**It ended at the last of `epochs`, where it still became better.**") == is_told


@pytest.mark.parametrize(
    ("papers", "change", "told"),
    [
        (["flsest-figure-9"], {"conditions": ["tuned"]}, "flsest-figure-9 is a figure over the values of an"),
        (
            ["fiinet-figure-4"],
            {"conditions": ["tuned"]},
            "fiinet-figure-4 is a figure of attention, which needs",
        ),
        (["flsest-table-1"], {"other_datasets": False}, "flsest-table-1 is about movielens-100k, "),
        (["flsest-table-1"], {"conditions": ["tuned"]}, None),
    ],
)
def test_check_says_before_anything_is_trained_what_cannot_be_shown(
    papers: list[str],
    change: dict[str, Any],
    told: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paper = {"conditions": ["default"], "other_datasets": True, **change}
    project.make_project(tmp_path, papers=papers, paper=paper)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ctr", "check"])
    if told is None:
        main()
        return
    with pytest.raises(PipelineError, match=told):
        main()


@pytest.mark.thorough
@pytest.mark.slow
def test_the_stage_trains_takes_what_is_there_and_gives_the_same_bytes_again(
    tmp_path: Path,
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
    fits: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    toys = {
        "toy-table-1": replace(
            TOY,
            sources=("synthetic",),
            rows=(Row("LR", "lr", {"synthetic": Figures(0.7, 0.5)}), Row("FM", "fm")),
            settings=lambda source: {"train": {"epochs": 2, "batch_size": 256, "seeds": [1, 2]}},
            claims=(Claim("FM", "LR"),),
        ),
        "toy-figure-1": replace(
            TOY,
            name="toy-figure-1",
            sources=("synthetic",),
            rows=(Row("FM", "fm"),),
            settings=lambda source: {"train": {"epochs": 1, "seeds": [1]}},
            claims=(),
            sweep=Sweep("model.embedding_size", (2, 4), ("2", "4"), 1),
        ),
        "toy-figure-2": replace(
            EXHIBITS["fiinet-figure-4"],
            name="toy-figure-2",
            sources=("synthetic",),
            settings=lambda source: {"train": {"epochs": 1, "seeds": [1]}},
        ),
    }
    stage = importlib.import_module("stages.paper")
    monkeypatch.setattr(stage, "EXHIBITS", toys)
    run(tmp_path, "synthetic")
    contents = {}
    for name in toys:
        monkeypatch.setattr("sys.argv", ["paper", "--paper", name])
        for again in (False, True):
            fits.clear()
            stage.main()
            assert bool(fits) != again, "trained once, then taken from the cache"
            folder = tmp_path / "data/papers" / name
            files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
            statements = [] if name == "toy-figure-2" else ["statements.csv"]
            assert list(files) == ["README.md", "picture.png", "results.json", *statements, "table.csv"]
            assert contents.setdefault(name, files) == files
    capsys.readouterr()
    (log,) = read_json(tmp_path / "data/papers/toy-table-1/results.json")["logs"]
    conditions = {(row["model"], row["condition"]) for row in log["rows"]}
    assert conditions == {(model, c) for model in ("LR", "FM") for c in ("published", "tuned")}
    weights = read_json(tmp_path / "data/papers/toy-figure-2/results.json")["logs"]["synthetic"]
    assert (weights["source"], weights["capped"]) == ("synthetic", True)
    assert np.allclose(np.sum(list(weights["after"].values()), 0), 1, atol=1e-5)
    assert weights["before"] != weights["after"]


def test_a_name_that_is_none_is_told_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["paper", "--paper", "flsest-tabel-1"])
    with pytest.raises(PipelineError, match="flsest-table-1"):
        importlib.import_module("stages.paper").main()
    with pytest.raises(PipelineError, match="papers: unknown table or figure 'x'"):
        Params({**VALUES, "papers": ["x"]}, every_entry=False)
