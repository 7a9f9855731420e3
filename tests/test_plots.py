import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from pipeline.evaluate import plot_style, plots
from pipeline.evaluate.runs import STAGES, Run
from pipeline.statistics import chance
from tests.fixtures_report import both, made_up_curves, made_up_report, made_up_runs

pytestmark = pytest.mark.slow

ALWAYS = ["leaderboard", "learning_curves", "roc", "calibration", "tuning_history", "budget"]
MANY = {f"flsest-fwbi-sest-{i}": 0.75 + 0.001 * i for i in range(23)} | {"lr": 0.7}


def drawn(runs: list[Run], **more: Any) -> dict[str, Figure]:
    return plots.draw(made_up_report(runs, **more), made_up_curves(runs), runs)


def texts(figure: Figure) -> str:
    found = list(figure.texts) + [text for ax in figure.axes for text in ax.texts]
    return "\n".join(text.get_text() for text in found)


@pytest.fixture(scope="module", name="figures")
def _figures() -> dict[str, Figure]:
    return drawn(made_up_runs(both(lr=0.7, fm=0.78, deepfm=0.77)), bayes=True)


def test_every_picture_is_a_png_of_readme_width_with_a_title(
    figures: dict[str, Figure], tmp_path: Path
) -> None:
    assert list(figures) == [f"{name}.png" for name in [*ALWAYS, "importances"]]
    for name, figure in figures.items():
        plot_style.save(figure, tmp_path / name)
        data = (tmp_path / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert struct.unpack(">I", data[16:20])[0] == plot_style.WIDTH_INCHES * plot_style.DOTS_PER_INCH
        assert texts(figure)


def test_a_picture_is_small_and_keeps_the_colours_of_its_areas_and_lines(tmp_path: Path) -> None:
    figure = Figure(figsize=(9, 4), facecolor="white")
    figure.subplots().plot([0, 1], [0, 1], color="#009E73", linewidth=20)
    plot_style.save(figure, tmp_path / "line.png")
    image = Image.open(tmp_path / "line.png")
    assert (image.mode, image.size) == ("P", (1350, 600))
    seen = {colour for _, colour in image.convert("RGB").getcolors()}
    assert {(255, 255, 255), (0, 0x9E, 0x73)} <= seen
    assert len(seen) <= plot_style.PALETTE


def test_the_palette_is_the_most_frequent_colours_and_those_far_from_them_and_the_rest_gets_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dot of one pixel keeps its colour, before a rim that is more frequent and like a frequent colour."""
    monkeypatch.setattr(plot_style, "FREQUENT", 2)
    monkeypatch.setattr(plot_style, "PALETTE", 3)
    red, green, blue, rim, rare = (255, 0, 0), (0, 255, 0), (0, 1, 255), (3, 2, 200), (200, 9, 0)
    image = Image.new("RGB", (3, 4))
    image.putdata([red, red, red, red, blue, blue, blue, rim, rim, rare, rare, green])
    small = plot_style.with_palette(image)
    assert small.mode == "P"
    assert small.getpalette()[:9] == [*red, *blue, *green]
    kept = [red] * 4 + [blue] * 3 + [blue] * 2 + [red] * 2 + [green]
    assert small.convert("RGB").tobytes() == bytes(value for colour in kept for value in colour)


def test_the_same_values_give_the_same_bytes_whatever_the_users_style(
    figures: dict[str, Figure], tmp_path: Path
) -> None:
    with rc_context({"font.size": 20, "axes.grid": False, "savefig.bbox": "tight", "lines.linewidth": 9}):
        again = drawn(made_up_runs(both(lr=0.7, fm=0.78, deepfm=0.77)), bayes=True)
        for name, figure in again.items():
            plot_style.save(figure, tmp_path / f"again-{name}")
    for name, figure in figures.items():
        plot_style.save(figure, tmp_path / name)
        data = (tmp_path / name).read_bytes()
        assert data == (tmp_path / f"again-{name}").read_bytes()
        assert b"tEXt" not in data  # no version, no time


def test_titles_say_what_one_sees(figures: dict[str, Figure]) -> None:
    title = {name: figure.texts[0].get_text() for name, figure in figures.items()}
    assert title["leaderboard.png"] == "fm (tuned) is champion; none of 2 other models can be told from it"
    assert "≈ not distinguishable" in figures["leaderboard.png"].texts[1].get_text()
    assert title["learning_curves.png"] == "fm (tuned) reaches the best validation AUC, 0.7820"
    assert "fm finds" in title["roc.png"]
    assert title["tuning_history.png"].startswith("The search helps")
    assert title["budget.png"] == "fm has the best expected validation AUC after 8 trials, 0.7820"
    assert title["importances.png"] == "train.lr matters most on average"
    assert "true probabilities 0.8500" in texts(figures["leaderboard.png"])


@pytest.mark.thorough
@pytest.mark.parametrize(
    "auc", [{"lr": 0.7}, {"fm": 0.75, "lr": 0.7}, MANY], ids=["one model", "two models", "many models"]
)
def test_any_number_of_models_can_be_drawn(auc: dict[str, float], tmp_path: Path) -> None:
    for name, figure in drawn(made_up_runs(both(**auc)), gauc=False).items():
        plot_style.save(figure, tmp_path / name)
        inside = figure.get_tightbbox()
        assert inside.x0 >= -0.05, name
        assert inside.x1 <= plot_style.WIDTH_INCHES + 0.05, name
        assert inside.y0 >= -0.05, name
        assert inside.y1 <= figure.get_figheight() + 0.05, name


def test_one_seed_no_lr_and_no_importances_can_be_drawn(tmp_path: Path) -> None:
    figures = drawn(made_up_runs(both(fm=0.75, deepfm=0.76), seeds=1, importances=False))
    assert list(figures) == [f"{name}.png" for name in ALWAYS]
    for name, figure in figures.items():
        plot_style.save(figure, tmp_path / name)
    assert "±" not in texts(figures["leaderboard.png"])


def test_a_search_by_logloss_is_drawn_with_lower_as_better() -> None:
    figure = plots.tuning_history(made_up_runs(both(lr=0.7, fm=0.78), metric="logloss"))
    assert figure.texts[0].get_text().endswith("most: -0.0200 validation logloss against its default")
    low, high = figure.axes[0].get_ylim()
    assert low < -0.02 < 0 < high  # less is better


def test_a_search_without_a_gain_says_so() -> None:
    runs = made_up_runs(both(fm=0.78))
    search = runs[1].info["search"]
    for trial in search["trials"][1:]:
        trial["value"] = 0.5
    search["best"], search["against_default"]["difference"] = 0, -0.2
    figure = plots.tuning_history(runs)
    assert figure.texts[0].get_text() == "No search finds anything better than the default"
    assert "no gain" in texts(figure)


@pytest.mark.parametrize(("margin", "much"), [(1.0, "its error"), (2.0, "2 of its errors")])
def test_a_search_that_kept_the_default_for_the_error_says_what_was_too_little(
    margin: float, much: str
) -> None:
    runs = made_up_runs(both(fm=0.78))
    runs[1].info["tune"] = {"margin": margin}
    search = runs[1].info["search"]
    search["best"] = 0
    search["against_default"] = {"trial": 7, "difference": 0.0011, "error": 0.004}
    figure = plots.tuning_history(runs)
    assert figure.texts[0].get_text().endswith(f"is better than the default by more than {much}")
    assert "+0.0011 is too little" in texts(figure)


def test_a_pruned_trial_is_drawn_at_the_best_that_it_had_reached() -> None:
    """As the expected best of the searches' table counts it."""
    runs = made_up_runs(both(fm=0.78))
    first, pruned = (runs[1].info["search"]["trials"][i] for i in (0, 2))
    pruned["curve"] = [{"valid_auc": first["value"] + 0.004}, {"valid_auc": first["value"] - 0.004}]
    lines = plots.tuning_history(runs).axes[0].lines
    drawn = [tuple(line.get_xydata()[0]) for line in lines if line.get_marker() == "x"]
    assert drawn == [pytest.approx((2, 0.004))]


def test_the_gain_of_a_search_is_that_of_its_finals() -> None:
    runs = made_up_runs(both(fm=0.78))
    runs[1].info["search"]["against_default"]["difference"] = 0.011  # on the seed of the trials it is .02
    text = plots.tuning_history(runs).texts[0].get_text()
    assert text == "The search helps fm most: +0.0110 validation AUC against its default"


def test_colours_are_distinct_and_the_rest_is_light() -> None:
    few = plot_style.colours_of(made_up_runs(both(lr=0.7, fm=0.78, deepfm=0.77)))
    assert len(set(few.values())) == 3
    assert few["lr"] == plot_style.SLATE
    many = plot_style.colours_of(made_up_runs(both(**MANY)))
    strong = {model for model, colour in many.items() if colour != plot_style.OTHER}
    assert strong == {"lr", *(f"flsest-fwbi-sest-{i}" for i in range(17, 23))}


def test_a_model_has_the_same_colour_whoever_else_is_drawn() -> None:
    for others in ({"lr": 0.7, "fm": 0.78}, {"fm": 0.6, "fiinet": 0.79}, {"deepfm": 0.9}):
        assert plot_style.colours_of(made_up_runs(both(flsest=0.75, **others)))["flsest"] == "#CC79A7"


def test_all_figures_have_one_order_that_of_the_leaderboard() -> None:
    """By test AUC, whatever the validation data and params.yaml say."""
    runs = made_up_runs(both(lr=0.8, fm=0.7, deepfm=0.75))
    report = made_up_report(runs, both(lr=0.7, fm=0.78, deepfm=0.77))
    figures = plots.draw(report, made_up_curves(runs), runs)
    for name in ("calibration.png", "tuning_history.png"):
        titles = [ax.get_title(loc="left").strip() for ax in figures[name].axes]
        assert [title for title in titles if title] == ["fm", "deepfm", "lr"], name


def test_a_model_far_behind_does_not_flatten_the_others(tmp_path: Path) -> None:
    """Its figure is in the column of figures, as it is."""
    runs = made_up_runs(both(lr=0.70, fm=0.75, deepfm=0.775, fiinet=0.777, flsest=0.776))
    figure = plots.draw(made_up_report(runs), made_up_curves(runs), runs)["leaderboard.png"]
    low, high = figure.axes[0].get_xlim()
    assert 0.70 < low < 0.775
    assert high > 0.779
    assert "0.7000 ± 0.0010" in texts(figure)
    assert "further to the left: 2 models" in figure.axes[0].get_xlabel()


@pytest.mark.parametrize(
    "name", ["calibration.png", "tuning_history.png", "importances.png", "leaderboard.png"]
)
def test_many_models_fit_on_a_screen(name: str) -> None:
    figure = drawn(made_up_runs(both(**{f"model{i}": 0.7 + i / 1000 for i in range(42)})))[name]
    assert figure.get_figheight() * 100 < 1300  # as wide as 900 pixels


def test_words_have_the_contrast_that_makes_them_readable() -> None:
    """At least 4.5 to 1 on white (WCAG 2.2), in every figure."""
    for name, figure in drawn(made_up_runs(both(**MANY)), bayes=True).items():
        for text in figure.findobj(Text):
            if text.get_text().strip(" ●") and name != "importances.png":  # those stand on their cells
                assert contrast(to_rgb(text.get_color())) >= 4.5, (name, text.get_text(), text.get_color())


def contrast(rgb: tuple[float, ...]) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 1.05 / (sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) + 0.05)


@pytest.mark.parametrize("auc", [{"lr": 0.7, "fm": 0.78, "deepfm": 0.77}, MANY], ids=["few", "many"])
def test_curves_are_named_in_their_colours_from_top_to_bottom(auc: dict[str, float]) -> None:
    runs = made_up_runs(both(**auc))
    figure, colours = plots.learning_curves(runs), plot_style.colours_of(runs)
    for ax, metric in zip(figure.axes, ("auc", "auc", "logloss", "logloss"), strict=True):
        named = [run for run in runs if run.variant == ax.get_title() or not ax.get_title()]
        entries, lines = ax.get_legend().get_texts(), ax.get_legend().get_lines()
        values = [float(entry.get_text().split()[-1]) for entry in entries]
        assert values == sorted(values, reverse=True)
        assert len(entries) == sum(colour != plot_style.OTHER for colour in colours.values())
        for entry, line in zip(entries, lines, strict=True):
            model = entry.get_text().split()[0]
            assert line.get_color() == colours[model]
            assert any(run.model == model and f"{run.valid(metric):.4f}" in entry.get_text() for run in named)


def test_a_title_too_long_for_the_picture_is_smaller(tmp_path: Path) -> None:
    for title in ("short", "a title with words that go on " * 5):
        figure = plot_style.titled_figure(2, title, "")
        plot_style.save(figure, tmp_path / "title.png")
        assert figure.get_tightbbox().x1 <= plot_style.WIDTH_INCHES


def test_the_leaderboard_tells_the_error_of_the_auc_from_the_spread_of_seeds(
    figures: dict[str, Figure],
) -> None:
    """The bracket is the champion's AUC and its standard error, 0.0030, three times its bar."""
    figure = figures["leaderboard.png"]
    words = figure.texts[1].get_text()
    assert "bars: standard deviation over these alone" in words
    assert "standard error of the champion's AUC by test users and seeds, 0.0030" in words
    assert "learnt 80.6 % of what can be" in words  # one decimal, as in the table
    assert "by validation AUC 0.7820 " in words
    (bracket,) = (line for line in figure.axes[0].lines if line.get_marker() == "|")
    assert list(bracket.get_xdata()) == pytest.approx([0.779, 0.785])


def test_a_search_that_kept_the_default_has_one_mark_and_the_champion_a_filled_star() -> None:
    runs = made_up_runs({(m, v): auc for (m, _), auc in both(lr=0.7, fm=0.78).items() for v in STAGES})
    report = made_up_report(runs)
    report["champion"]["variant"] = "default"
    figure = plots.leaderboard(report)
    marks = [line for line in figure.axes[0].lines if line.get_marker() in ("o", "*", "<")]
    assert len(marks) == 2
    (star,) = (line for line in marks if line.get_marker() == "*")
    assert star.get_markerfacecolor() == star.get_color() != plot_style.GREY
    assert "= default" in texts(figure)


@pytest.mark.parametrize(("fall", "goes_on"), [(0.005, False), (0.3, True)])
def test_the_train_logloss_stays_in_its_axes_or_says_that_it_goes_on(fall: float, goes_on: bool) -> None:
    runs = made_up_runs(both(lr=0.7, fm=0.78))
    for point in (point for run in runs for seed in run.seeds for point in seed["curve"]):
        point["train_logloss"] = point["valid_logloss"] - fall
    ax = plots.learning_curves(runs).axes[2]
    assert "train" in ax.get_ylabel()
    below = [line for line in ax.lines if line.is_dashed() and min(line.get_ydata()) < ax.get_ylim()[0]]
    assert bool(below) == goes_on
    assert len(below) == sum(line.get_marker() == "v" for line in ax.lines)


def drawn_calibration(error: float, **more: Any) -> Figure:
    """With a calibration error of lr, the other model having none."""
    runs = made_up_runs(both(lr=0.7, fm=0.78))
    report = made_up_report(runs) | more
    for result in report["results"]:
        result["mean"]["ece"] = error if result["model"] == "lr" else 0.0
    rate = 2 * report["base_rate"]
    curves = {
        entry: replace(curve, predicted=curve.predicted * rate, observed=curve.observed * rate)
        for entry, curve in made_up_curves(runs).items()
    }
    return plots.calibration(report, curves, runs)


def test_a_calibration_that_chance_explains_makes_no_headline() -> None:
    """Of a bin of 1,000 rows a rate of 0.4 is off by 0.012 on average; 20 bins together never by 0.05."""
    figure = drawn_calibration(0.012)
    assert figure.texts[0].get_text() == (
        "No model is off by more than chance explains: at most 1.20 points on average"
    )
    assert "ECE ○ 0.0120   ● 0.0120" in texts(figure)
    title = drawn_calibration(0.05).texts[0].get_text()
    assert title.startswith(
        "lr (tuned) and 1 more are off by more than chance explains: 5.00 points on average, "
    )
    assert title.endswith(" for the first")


def test_what_chance_explains_is_what_a_calibrated_model_has() -> None:
    rng, predicted, rows = np.random.default_rng(1), np.linspace(0.01, 0.6, 20), 4000
    rates = rng.binomial(rows // 20, predicted, (4000, 20)) / (rows // 20)
    errors = np.abs(rates - predicted).mean(1)
    expected = chance.calibration_error(predicted, rows)
    assert expected.mean == pytest.approx(errors.mean(), rel=0.02)
    assert expected.std == pytest.approx(errors.std(), rel=0.05)


def test_rare_clicks_have_logarithmic_axes_and_two_panels_fill_the_picture(tmp_path: Path) -> None:
    for rate, scale in ((0.4, "linear"), (0.02, "log")):
        figure = drawn_calibration(0.01, base_rate=rate)
        plot_style.save(figure, tmp_path / "calibration.png")
        assert {ax.get_xscale() for ax in figure.axes} == {scale}
        assert max(ax.get_position().x1 for ax in figure.axes if ax.axison) > 0.95


def test_a_bin_without_a_click_is_shown_on_logarithmic_axes() -> None:
    runs = made_up_runs(both(fm=0.78))
    curves = made_up_curves(runs)
    for entry, curve in curves.items():
        observed = curve.observed.copy()
        observed[0] = 0
        curves[entry] = replace(curve, observed=observed)
    ax, *_ = plots.calibration(made_up_report(runs) | {"base_rate": 0.02}, curves, runs).axes
    marks = [line for line in ax.lines if line.get_marker() == "v" and len(line.get_xdata())]
    assert [list(line.get_ydata()) for line in marks] == [[ax.get_ylim()[0]]] * 2
