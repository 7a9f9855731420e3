import csv
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline import __main__ as commands
from pipeline.common.errors import PipelineError
from pipeline.common.files import seal, write_json
from pipeline.evaluate import compare, plots
from pipeline.statistics.significance import corrected_resampled_t, holm
from tests import project
from tests.fixtures_report import both, made_up_report, made_up_runs

SPLITS = {
    "train": {"rows": 720, "clicks": 300},
    "valid": {"rows": 80, "clicks": 30},
    "test": {"rows": 200, "clicks": 90},
}
VALID = {"lr": 0.7, "fm": 0.78, "deepfm": 0.77}


def entry(
    name: str, test: dict[str, float] | None = None, *, clicks: int = 90, **valid: float
) -> dict[str, Any]:
    """A report in which a model has this test AUC as default, and .001 more when tuned."""
    runs = made_up_runs(both(**(valid or VALID)))
    auc = {
        key: value - 0.001 * (key[1] == "tuned") for key, value in both(**(test or valid or VALID)).items()
    }
    splits = {**SPLITS, "test": {"rows": 200, "clicks": clicks}}
    return {**made_up_report(runs, auc), "dataset": name, "splits": splits}


def five() -> list[dict[str, Any]]:
    """fm leads on validation rows, deepfm on the test rows of most splits; lr is far behind."""
    rng = np.random.default_rng(0)
    return [
        entry(
            f"ml-s{i}",
            {"lr": 0.70 + noise[0], "fm": 0.78 + noise[1], "deepfm": 0.781 + noise[2]},
        )
        for i, noise in enumerate(rng.normal(scale=0.002, size=(5, 3)), 1)
    ]


def rows_of(joined: dict[str, Any], log: int = 0) -> dict[str, dict[str, Any]]:
    return {row["model"]: row for row in joined["logs"][log]["rows"]}


def test_splits_of_one_log_are_compared_by_the_corrected_test_with_the_best_on_validation() -> None:
    reports = five()
    (log,) = compare.join(reports)["logs"]
    rows = {row["model"]: row for row in log["rows"]}
    assert (log["log"], log["best"], log["ratio"]) == ("ml", "fm", pytest.approx(200 / 720))
    assert "to_best" not in rows["fm"]
    test = {
        model: [
            next(
                r["mean"]["auc"] for r in report["results"] if (r["model"], r["variant"]) == (model, "tuned")
            )
            for report in reports
        ]
        for model in VALID
    }
    for model in ("lr", "deepfm"):
        expected = corrected_resampled_t(list(np.subtract(test["fm"], test[model])), 200 / 720)
        assert {key: rows[model]["to_best"][key] for key in expected} == pytest.approx(expected)
    tests = [row[name] for row in log["rows"] for name in ("tuning", "to_best") if name in row]
    assert [t["p_holm"] for t in tests] == pytest.approx(holm([t["p"] for t in tests]))
    assert rows["lr"]["to_best"]["p_holm"] < 0.05 < rows["deepfm"]["to_best"]["p_holm"]


def test_test_rows_choose_neither_the_variant_nor_the_best() -> None:
    reports = five()
    first = rows_of(compare.join(reports))
    for report in reports:
        for result in report["results"]:
            result["mean"]["auc"] = 1 - result["mean"]["auc"]
    joined = compare.join(reports)
    assert joined["logs"][0]["best"] == "fm"
    assert {m: row["variant"] for m, row in rows_of(joined).items()} == {
        m: row["variant"] for m, row in first.items()
    }


def test_a_model_that_one_split_lacks_is_left_out() -> None:
    reports = five()
    reports[2]["results"] = [r for r in reports[2]["results"] if r["model"] != "lr"]
    joined = compare.join(reports)
    assert rows_of(joined).keys() == {"fm", "deepfm"}
    assert "Not in all of these reports, and left out: lr." in compare.to_markdown(joined)


def test_entries_with_the_same_test_rows_are_no_two_splits() -> None:
    """They differ in their settings, and a test over splits would find them all but certain."""
    reports = five()
    for number, report in enumerate(reports):
        report["test_rows"] = f"{number}"
    compare.join(reports)
    reports[3]["test_rows"] = "1"
    with pytest.raises(PipelineError, match="ml-s2 and ml-s4 have the same test rows"):
        compare.join(reports)


def test_other_rows_or_clicks_are_another_log() -> None:
    joined = compare.join([*five(), entry("other", clicks=91)])
    assert [log["splits"] for log in joined["logs"]] == [[f"ml-s{i}" for i in range(1, 6)], ["other"]]
    assert "to_best" not in rows_of(joined, 1)["lr"]
    assert "One split allows no test" in compare.to_markdown(joined)


def logs() -> list[dict[str, Any]]:
    """Four logs with four models; on the last, two are equal."""
    auc = [(0.7, 0.72, 0.75, 0.78), (0.6, 0.64, 0.62, 0.66), (0.71, 0.7, 0.74, 0.75), (0.5, 0.55, 0.6, 0.6)]
    names = ("lr", "fm", "deepfm", "dcn")
    return [
        entry(f"log{i}", clicks=90 + i, **dict(zip(names, row, strict=True))) for i, row in enumerate(auc)
    ]


def test_ranks_over_logs_have_friedmans_test_and_nemenyis_distance() -> None:
    ranks = compare.join(logs())["ranks"]
    assert ranks["models"] == ["dcn", "deepfm", "fm", "lr"]
    assert ranks["mean_ranks"] == pytest.approx([1.125, 2.125, 3.0, 3.75])
    chi = 12 * 4 / (4 * 5) * (sum(r**2 for r in ranks["mean_ranks"]) - 4 * 25 / 4)
    ties = 1 - (2**3 - 2) / (4 * (4**3 - 4))
    assert ranks["friedman_p"] == pytest.approx(stats.chi2.sf(chi / ties, 3))
    assert ranks["critical_difference"] == pytest.approx(
        2.569 * np.sqrt(4 * 5 / (6 * 4)), abs=1e-3
    )  # Demsar, table 5


def test_ranks_need_two_logs_and_three_models() -> None:
    assert compare.join(five())["ranks"] is None
    assert compare.join([entry(f"log{i}", clicks=i, fm=0.7, lr=0.6) for i in (1, 2)])["ranks"] is None


def test_the_table_has_a_row_per_log_and_model() -> None:
    joined = compare.join(five())
    table = list(csv.DictReader(io.StringIO(compare.to_csv(joined))))
    assert [(row["model"], row["best"]) for row in table] == [("fm", "1"), ("deepfm", "0"), ("lr", "0")]
    assert table[0]["to_best_p"] == ""
    assert float(table[2]["to_best_p_holm"]) == pytest.approx(
        rows_of(joined)["lr"]["to_best"]["p_holm"], abs=1e-6
    )


def test_the_page_marks_the_best_and_who_cannot_be_told_from_it() -> None:
    page = compare.to_markdown(compare.join(five()))
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert [line.split(" |")[0] for line in lines[2:]] == ["| fm ★", "| deepfm ≈", "| lr"]
    assert "for all 5 comparisons" in page
    assert "**+0.0" in lines[-1]
    assert [line.count("✓") for line in lines[2:]] == [1, 1, 1]
    assert all("**" not in cell for line in lines[2:] for cell in line.split(" | ")[1:3]), "no test was made"


@pytest.mark.slow
def test_the_command_writes_page_table_and_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for report in logs():
        write_json(tmp_path / "data/reports" / report["dataset"] / "report.json", report)
        seal(tmp_path / "data/reports" / report["dataset"])
    out = tmp_path / "out"
    names = [f"log{i}" for i in range(4)]
    monkeypatch.setattr(
        sys, "argv", ["pipeline", "--root", str(tmp_path), "compare", *names, "--out", str(out)]
    )
    commands.main()
    assert "# Mean ranks over 4 logs" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        "comparison.md",
        "comparison.csv",
        "critical_difference.png",
    }
    assert "![critical difference](critical_difference.png)" in (out / "comparison.md").read_text()
    first = (out / "critical_difference.png").read_bytes()
    commands.main()
    assert (out / "critical_difference.png").read_bytes() == first


@pytest.mark.parametrize(
    "command", ["compare synthetik --out x", "predict --dataset synthetik --out x.csv y"]
)
def test_a_misspelt_dataset_is_answered_with_the_nearest(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["pipeline", "--root", str(project.ROOT), *command.split()])
    told = "params.yaml: data: unknown dataset 'synthetik'; did you mean 'synthetic'"
    with pytest.raises(PipelineError, match=told):
        commands.main()


def test_the_picture_has_every_model_once(tmp_path: Path) -> None:
    figure = plots.critical_difference(compare.join(logs())["ranks"])
    words = [text.get_text().strip() for text in figure.axes[0].texts]
    assert {word.split()[0] for word in words if "." in word and "critical" not in word} >= {"dcn", "deepfm"}
    assert sum("fm" in word or "dcn" in word or "lr" in word for word in words) == 4


def test_reports_that_are_missing_or_old_are_named_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"dvc repro evaluate@ml"):
        compare.read_reports(tmp_path, ["ml"])
    write_json(tmp_path / "ml/report.json", {**entry("ml"), "splits": None})
    seal(tmp_path / "ml")
    with pytest.raises(PipelineError, match=r"lacks the rows of each split; run `dvc repro evaluate@ml`"):
        compare.read_reports(tmp_path, ["ml"])
    with pytest.raises(PipelineError, match="given twice: ml"):
        compare.read_reports(tmp_path, ["ml", "ml"])
