import csv
import io
import re
from dataclasses import replace
from typing import Any

import pytest

from pipeline.evaluate import leaderboard
from pipeline.tracking import record
from tests.fixtures_report import both, made_up_report, made_up_runs


def board(**more: Any) -> dict[str, Any]:
    """fm leads on validation data, deepfm on the test part."""
    runs = made_up_runs(both(lr=0.7, fm=0.78, deepfm=0.77), seeds=more.pop("seeds", 3))
    return made_up_report(runs, {("deepfm", "tuned"): 0.8}, **more)


def rows(report: dict[str, Any]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(leaderboard.to_csv(report))))


def table(report: dict[str, Any], which: int) -> list[list[str]]:
    """The cells of a Markdown table, head first, without the line under the head."""
    blocks = re.findall(
        r"(?:^\|.*\|\n)+", leaderboard.to_markdown(report).replace("\u00a0", " "), re.MULTILINE
    )
    lines = [line.strip("|\n ").split(" | ") for line in blocks[which].splitlines()]
    return [lines[0], *lines[2:]]


def test_a_narrow_page_breaks_no_cell_at_its_sign() -> None:
    page = leaderboard.to_markdown(board())
    cells = [cell for line in page.splitlines() if line.startswith("|") for cell in line.split("|")]
    assert any("\u00a0±\u00a0" in cell for cell in cells)
    assert not any(" ± " in cell or " → " in cell for cell in cells)


def test_csv_has_every_figure_of_every_row_to_six_decimals() -> None:
    report = board(bayes=True)
    found = {(row["model"], row["variant"]): row for row in rows(report)}
    assert len(found) == len(report["results"]) == 6
    for result in report["results"]:
        row = found[result["model"], result["variant"]]
        for key, value in result["mean"].items():
            assert row[key] == f"{value:.6f}"
            assert row[f"{key}_std"] == f"{result['std'][key]:.6f}"
        for key in ("valid_auc", "valid_logloss", "relaimpr", "learned", "auc_standard_error", "auc_low"):
            assert row[key] == f"{result[key]:.6f}"
        for key in ("p", "p_holm"):
            assert row[key] == ("" if result[key] is None else f"{result[key]:.6f}")
        assert (row["key"], row["seeds"], row["trials"]) == (result["key"], "3", str(result["trials"]))


def test_rows_are_ordered_by_test_auc_whatever_the_order_of_the_report() -> None:
    report = board()
    text = leaderboard.to_csv(report)
    aucs = [float(row["auc"]) for row in rows(report)]
    assert aucs == sorted(aucs, reverse=True)
    report["results"].reverse()
    assert leaderboard.to_csv(report) == text


def test_missing_metrics_are_empty_cells() -> None:
    runs = made_up_runs(both(fm=0.78), seeds=1)
    report = made_up_report(runs, gauc=False)
    for row in rows(report):
        for column in ("gauc", "gauc_std", "auc_std", "relaimpr", "learned"):
            assert row[column] == ""
    head, *lines = table(report, 0)
    assert "gAUC" not in head
    assert "learnable" not in head
    assert not any("±" in cell for line in lines for cell in line)
    page = leaderboard.to_markdown(report)
    assert "gAUC" not in page
    assert "RelaImpr is" not in page
    assert "nan" not in page.lower()


def test_the_champion_is_bold_and_not_the_best_test_row() -> None:
    head, *lines = table(board(), 0)
    bold = [line for line in lines if line[0].startswith("**")]
    assert [line[:3] for line in bold] == [["**fm**", "**tuned ★**", "**0.7820 ± 0.0010**"]]
    assert lines[0][:3] == ["deepfm", "tuned ≈", "0.8000 ± 0.0010"]
    assert {len(line) for line in lines} == {len(head)}


def test_the_first_table_has_the_validation_metric_that_chose_the_champion() -> None:
    runs = [replace(run, metric="logloss") for run in made_up_runs(both(lr=0.75, fm=0.78), seeds=2)]
    report = made_up_report(runs)
    head, *lines = table(report, 0)
    assert "valid logloss" in head
    assert "valid AUC" not in head
    shown = {line[head.index("valid logloss")].strip("*") for line in lines}
    assert shown == {f"{result['valid_logloss']:.4f}" for result in report["results"]}
    assert "valid logloss" in record.note(report)


def test_models_that_cannot_be_told_from_the_champion_are_marked_and_counted() -> None:
    report = board()
    assert [line[1] for line in table(report, 0)[1:] if "≈" in line[1]] == ["tuned ≈"] * 2
    assert "2 of the 2 other models (≈" in leaderboard.to_markdown(report)
    next(r for r in report["results"] if (r["model"], r["variant"]) == ("lr", "tuned"))["p_holm"] = 0.049
    assert [line[0] for line in table(report, 0)[1:] if "≈" in line[1]] == ["deepfm"]
    assert "1 of the 2 other models (≈" in leaderboard.to_markdown(report)
    report["results"] = [r for r in report["results"] if r["model"] != "deepfm"]
    text = " The other model ({}with its better variant on validation data) {} be distinguished from it"
    assert text.format("", "can") in leaderboard.to_markdown(report)
    next(r for r in report["results"] if (r["model"], r["variant"]) == ("lr", "tuned"))["p_holm"] = 0.05
    assert text.format("≈, ", "cannot") in leaderboard.to_markdown(report)


def test_probabilities_stand_raw_and_calibrated() -> None:
    head, first, *_ = table(board(), 2)
    assert head == ["model", "variant", "logloss", "NE", "ECE", "calibration", "mean / rate"]
    expected = ["0.5000 → 0.4900", "0.8000 → 0.7800", "0.0120 → 0.0100", "temperature 1.20", "1.02"]
    assert first == ["deepfm", "tuned", *expected]


def test_the_page_says_how_far_chance_moves_the_mean_prediction_over_the_rate() -> None:
    """93 clicks of 10,000 rows: a ratio of 1.11 is nothing."""
    page = leaderboard.to_markdown(board() | {"base_rate": 0.0093, "rows": 10_000})
    assert f"chance alone moves it by ±{2 * (0.9907 / 93) ** 0.5:.1%}" in " ".join(page.split())


def test_the_page_names_networks_that_training_switched_off_before_any_figure_is_explained() -> None:
    report = board()
    assert "switched off" not in leaderboard.to_markdown(report)
    report["results"][0] |= {"dead_networks": ["mlp"]}
    told = f"switched off: {report['results'][0]['model']} ({report['results'][0]['variant']}: mlp)."
    page = leaderboard.to_markdown(report)
    assert told in page
    assert page.index(told) < page.index("## ")


def test_the_page_says_what_was_thinned_out() -> None:
    report = board() | {"base_rate": 0.2, "negatives_kept": 0.1}
    assert "kept 0.1 of its rows without a click" in leaderboard.to_markdown(report)
    # 20 clicks beside 80 rows that stand for 800
    assert f"base rate of 0.2 is {20 / 820:.4g}." in leaderboard.to_markdown(report)
    assert "without a click" not in leaderboard.to_markdown(report | {"negatives_kept": 1.0})


def test_probabilities_that_are_wrong_are_named_on_the_page_and_in_the_terminal() -> None:
    report = board()
    assert "Not to be trusted" not in leaderboard.to_markdown(report)
    report["results"][0]["warning"] = "NE 1.155"
    assert "by validation rows: lr (default): NE 1.155.**" in leaderboard.to_markdown(report)
    assert "warning: lr (default): NE 1.155" in leaderboard.to_text(report).splitlines()


def test_the_text_names_rows_seeds_budget_champion_and_how_it_was_chosen() -> None:
    page = leaderboard.to_markdown(board())
    assert "3 seeds (1, 2, 3) on 20,000 test rows" in page
    assert "best of 8 trials" in page
    assert "champion (★) is fm (tuned), seed 3" in page
    assert "by its mean AUC on validation data, 0.7820" in page


def test_a_model_that_trains_twice_is_called_so() -> None:
    report = board()
    assert "whole budget" not in leaderboard.to_markdown(report)
    report["results"][0]["trainings"] = 2
    name = report["results"][0]["model"]
    assert f"each with the whole budget of epochs (all others one): {name} 2." in leaderboard.to_markdown(
        report
    )


def test_generated_data_shows_what_could_be_learned() -> None:
    report = board(bayes=True)
    page = leaderboard.to_markdown(report)
    assert "AUC 0.8500 and logloss 0.4500" in page
    head, first, *_ = table(report, 0)
    assert first[head.index("learnable")] == "85.7%"


def test_the_page_says_what_the_intervals_cover() -> None:
    report = board()
    page = leaderboard.to_markdown(report)
    assert "clustered by their 900 users" in page
    assert "the variation of the training over 3 seeds" in page
    assert "0.7820 [0.7760, 0.7880], its standard error 0.0030" in page
    assert "all 5 comparisons" in page
    alone = leaderboard.to_markdown({**board(seeds=1), "clusters": None})
    assert "each taken as independent" in alone
    assert "a single seed says nothing" in alone
    assert "Obuchowski" not in alone


def test_differences_are_bold_only_where_they_are_significant_after_holm() -> None:
    report = board()
    head, *lines = table(report, 1)
    assert head == ["model", "tuned - default", "fm (tuned) - this model"]
    cells = {line[0]: line[1:] for line in lines}
    assert list(cells) == ["deepfm", "fm", "lr"]
    assert cells["deepfm"] == [
        "**+0.0100 [+0.0040, +0.0160]**",
        "+0.0010 [-0.0040, +0.0060] (tuned)",
    ]
    assert [cell.strip() for cell in cells["fm"][1:]] in ([], [""])
    for comparison in report["comparisons"]:
        comparison["p_holm"] = 0.06  # the interval excludes zero, but there are many comparisons
    assert not any("**" in cell for line in table(report, 1)[1:] for cell in line)


def test_a_search_that_kept_the_default_is_no_comparison() -> None:
    report = board()
    report["comparisons"][0] |= {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "p_holm": 1.0}
    assert table(report, 1)[-1][1] == "the same"
    assert "all 4 comparisons" in leaderboard.to_markdown(report)


def test_the_searches_tell_what_they_cost_and_what_so_many_trials_find() -> None:
    report = board()
    head, *lines = table(report, 3)
    assert head[:5] == [
        "model",
        "came to their end",
        "winner",
        "less the default, in the finals",
        "million rows",
    ]
    assert head[5:] == ["after 1", "after 2", "after 4", "after 8", "best trial"]
    reached = "0.7620", "0.7649", "0.7706", "0.7820", "0.7820"
    assert lines[1] == ["fm", "6 of 8", "trial 7", "+0.0200 ± 0.0040", "0.1", *reached]
    report["budget"][1] |= {
        "winner": 0,
        "against_default": {"trial": 7, "difference": 0.0031, "error": 0.004},
    }
    report["budget"][0] |= {
        "winner": 0,
        "against_default": {"trial": 2, "difference": -0.0031, "error": None},
    }
    gains = [line[3] for line in table(report, 3)[1:3]]
    assert gains == ["-0.0031 (trial 2)", "+0.0031 ± 0.0040 (trial 7)"]
    assert {(row["variant"], row["completed"], row["capped"]) for row in rows(report)} == {
        ("default", "0", "0"),
        ("tuned", "6", "0"),
    }
    assert "`epochs`" not in leaderboard.to_markdown(report)


@pytest.mark.parametrize(
    ("margins", "words"),
    [
        ([0.0, 0.0], "and the best mean won (`tune.margin: 0`)."),
        ([1.0, 1.0], "larger than its standard error (`±`"),
        ([2.5, 2.5], "larger than 2.5 of its standard errors"),
        ([1.0, 2.0], "as `tune.margin` says"),
    ],
)
def test_the_searches_say_by_which_rule_the_finals_were_won(margins: list[float], words: str) -> None:
    report = board()
    for search, margin in zip(report["budget"][:2], margins, strict=True):
        search["margin"] = margin
    report["budget"] = report["budget"][:2]
    assert words in leaderboard.to_markdown(report)


@pytest.mark.parametrize(
    ("margins", "words"),
    [
        ([], "the best mean over these seeds among the best trials and the default. **"),
        ([0.0, 0.0], "the best mean over these seeds among the best trials and the default. **"),
        ([1.0, 1.0], "whose gain over the default is larger than its standard error, else the default. **"),
        ([2.5], "larger than 2.5 of its standard errors, else the default. **"),
        ([0.0, 1.0], "so many of its standard errors as `tune.margin` says, else the default. **"),
    ],
)
def test_what_a_tuned_row_is_follows_the_rule_of_the_finals(margins: list[float], words: str) -> None:
    report = board()
    searches = zip(report.pop("budget"), margins, strict=False)
    if margins:
        report["budget"] = [search | {"margin": margin} for search, margin in searches]
    assert words in leaderboard.to_markdown(report)


def test_trainings_that_their_epochs_ended_are_named() -> None:
    runs = made_up_runs(both(lr=0.7, fm=0.78))
    for seed, ended in zip(runs[3].info["seeds"], (True, False, True), strict=True):
        seed["capped"] = ended
    page = leaderboard.to_markdown(made_up_report(runs))
    said = "**2 trainings ended at the last of `epochs` and not by patience, and might have become better: "
    assert f"{said}fm (tuned, 2).**" in page


def test_trainings_of_a_search_that_kept_the_default_are_counted_once() -> None:
    report = board()
    default, tuned = (
        next(r for r in report["results"] if (r["model"], r["variant"]) == ("fm", v))
        for v in ("default", "tuned")
    )
    tuned["seeds"], tuned["capped"], default["capped"] = default["seeds"], 3, 3
    assert "**3 trainings ended" in leaderboard.to_markdown(report)


def test_a_picture_stands_with_its_section_and_the_leaderboard_first() -> None:
    names = ["leaderboard.png", "learning_curves.png", "roc.png", "calibration.png", "budget.png", "new.png"]
    page = leaderboard.to_markdown(board(), names)
    parts = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    where = {name: title for name in names for title, text in parts.items() if f"]({name})" in text}
    assert where == {
        "roc.png": "Are the differences real?",
        "calibration.png": "Are the probabilities right?",
        "learning_curves.png": "The trainings",
        "budget.png": "The searches",
        "new.png": "The searches",  # of no section: at the end
    }
    assert page.index("(leaderboard.png)") < page.index("| model | variant |")
    assert page.endswith("![new](new.png)\n")
    assert "The trainings" not in leaderboard.to_markdown(board())


def test_the_page_begins_with_who_leads_and_how_sure_that_is() -> None:
    report = board()
    said = "**fm (tuned) is the champion, chosen on validation data: its test AUC is 0.7820 with a standard "
    said += "error of 0.0030"

    def first() -> str:
        return leaderboard.to_markdown(report).splitlines()[2]

    assert first() == f"{said}; none of 2 other models can be told from it.**"
    next(r for r in report["results"] if (r["model"], r["variant"]) == ("lr", "tuned"))["p_holm"] = 0.049
    assert first() == f"{said}; 1 of 2 other models cannot be told from it.**"
    for result in report["results"]:
        result["p_holm"] = None if result["p_holm"] is None else 0.01
    assert first() == f"{said}; each of 2 other models can be told from it.**"
    report["results"] = [r for r in report["results"] if r["model"] != "lr"]
    assert first() == f"{said}; the other model can be told from it.**"
    report["results"] = [r for r in report["results"] if r["model"] == "fm"]
    assert first() == f"{said}.**"


def test_a_search_that_kept_the_default_has_one_row_but_in_the_files_for_programs() -> None:
    report = board()
    found = {(r["model"], r["variant"]): r for r in report["results"]}
    found["lr", "tuned"] |= {key: found["lr", "default"][key] for key in ("seeds", "mean", "std")}
    for variant in ("default", "tuned"):
        found["lr", variant] |= {"dead_networks": ["mlp"], "warning": "NE 1.155"}
    for number in (0, 2):
        assert [line[1] for line in table(report, number) if line[0] == "lr"] == ["default = tuned"]
    page = leaderboard.to_markdown(report)
    assert "switched off: lr (default = tuned: mlp)." in page
    assert "by validation rows: lr (default = tuned): NE 1.155.**" in page
    assert leaderboard.to_text(report).count("warning: ") == 1
    assert [line[1] for line in table(report, 2) if line[0] == "fm"] == ["tuned", "default"]
    assert len([row for row in rows(report) if row["model"] == "lr"]) == 2


def test_a_probability_that_is_not_calibrated_stands_once() -> None:
    report = board()
    for result in report["results"]:
        result["calibrations"] = [{"method": "none"}] * 3
    assert table(report, 2)[1][2:6] == ["0.5000", "0.8000", "0.0120", "none"]
    platt = {"method": "platt", "slope": 0.9, "intercept": 0.1}
    report["results"][0]["calibrations"] = [platt, {"method": "none"}, {"method": "none"}]
    cells = next(line for line in table(report, 2) if line[:2] == ["lr", "default"])
    assert cells[2:6] == ["0.5000 → 0.4900", "0.8000 → 0.7800", "0.0120 → 0.0100", "2 none, 1 platt"]


@pytest.mark.parametrize("bayes", [True, False])
def test_the_terminal_table_is_aligned(bayes: bool) -> None:
    lines = leaderboard.to_text(board(bayes=bayes)).splitlines()
    body = lines[2:10]
    assert body[0].startswith("model")
    assert len({len(line) for line in body}) == 1
    assert lines[-1] == "champion by validation AUC: fm (tuned), seed 3"


def test_data_that_are_not_the_publishers_are_called_so() -> None:
    files = {"differs": ["a.csv", "b.csv"], "missing": ["c.csv"]}
    origin = {"source": "toys", "matches_publisher": False, **files}
    said = "**Not the data of toys as its publisher has them: other bytes in a.csv, b.csv; without c.csv.**"
    assert said in leaderboard.to_markdown({**board(), "origin": origin})
    for answer in (True, None):
        fine = {**origin, "matches_publisher": answer}
        assert "publisher" not in leaderboard.to_markdown({**board(), "origin": fine})


def test_copies_of_train_rows_are_told_from_one_in_a_hundred_on() -> None:
    said = (
        "**1.5% of the test rows equal a train row in all fields, label, group and time (`split.repeated`).**"
    )
    assert said in leaderboard.to_markdown({**board(), "copies": 300})
    assert "equal a train row" not in leaderboard.to_markdown({**board(), "copies": 200})
