"""MLflow's own page shows what was tracked, seen as a person would: in a browser."""

from collections.abc import Iterator
from pathlib import Path

import fixtures_mlflow
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from pipeline import tracking
from pipeline.common.files import read_json
from pipeline.tracking import record
from tests.browser import Page, browsing, serving

# MLflow and torch.export warn of their own doings.
pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    fixtures_mlflow.write_project(root, models=("lr", "fm"))
    tracking.sync(root)
    return root


@pytest.fixture(scope="module")
def page(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with serving(root) as address:
        try:
            with browsing(tmp_path_factory.mktemp("browser"), address) as page:
                yield page
        except FileNotFoundError as error:
            pytest.skip(str(error))


def _further(page: Page, selector: str) -> WebElement | None:
    """Scroll on, since a chart is drawn when it comes into view, and look for something."""
    boxes = "[...document.querySelectorAll('*')].filter(each => each.scrollHeight > each.clientHeight)"
    page.browser.execute_script(f"for (const each of {boxes}) each.scrollTop += 300")
    return next(iter(page.browser.find_elements(By.CSS_SELECTOR, selector)), None)


def _run(root: Path, name: str) -> str:
    """Address of a run on the page."""
    client = tracking.configure(root).client
    experiment = client.get_experiment_by_name("toy").experiment_id
    (run,) = client.search_runs([experiment], f"attributes.run_name = '{name}'")
    return f"/experiments/{experiment}/runs/{run.info.run_id}"


def test_experiments_are_listed_with_their_best(page: Page, root: Path) -> None:
    best = read_json(root / "data/reports/toy/report.json")["champion"]
    page.open("/experiments")
    page.shows("toy", f"Best on validation data: **{best['model']}")


def test_the_leaderboard_view_has_runs_in_order_with_their_metrics(page: Page, root: Path) -> None:
    results = read_json(root / "data/reports/toy/report.json")["results"]
    page.open("/experiments/1/runs?viewStateShareKey=leaderboard")
    page.shows("Leaderboard", "test/auc", "best/valid_auc", "4 matching runs")
    page.shows(*(str(record.rounded(result["mean"]["auc"])) for result in results))
    order = sorted(results, key=lambda result: -result["mean"]["auc"])
    text = page.text()
    names = [f"{result['model']}-{result['variant']}" for result in order]
    assert sorted(names, key=text.index) == names


WORDS = {
    "leaderboard": ("Leaderboard", "test/auc_std"),
    "curves": ("valid/auc", "valid/logloss", "train/logloss"),
    "size": ("model/weights vs. test/auc",),
    "trials": ("Parallel Coordinates", "trial-002 (pruned)"),
}


def test_the_addresses_that_ui_prints_open_in_the_mode_for_training(page: Page, root: Path) -> None:
    """Not in that for traces, which a new browser has; with a view, and without one that is not there."""
    views = tracking.saved_views(root, page.address)
    assert list(views) == [f"toy: {name}" for name in ("leaderboard", "curves", "size", "trials")]
    addresses = {tracking.start_page(page.address): ("toy",)}
    addresses |= {views[f"toy: {name}"]: words for name, words in WORDS.items()}
    for address, words in addresses.items():
        page.browser.execute_script("localStorage.clear()")
        page.open(address)
        page.shows("Model registry", *words)
    client = tracking.configure(root).client
    empty = client.create_experiment("empty", tags={"pipeline.dataset": "empty"})
    plain = tracking.saved_views(root, page.address)["empty: runs"]
    client.delete_experiment(empty)
    assert "viewStateShareKey" not in plain


@pytest.mark.parametrize(("view", "charts"), [("curves", 3), ("size", 2), ("trials", 1)])
def test_the_charts_of_a_view_have_data(page: Page, root: Path, view: str, charts: int) -> None:
    page.open(tracking.saved_views(root, page.address)[f"toy: {view}"])
    drawn = ".js-plotly-plot path.js-line, .js-plotly-plot path.point, .js-plotly-plot .y-axis, .parcoords"
    page.wait("a chart", lambda: page.browser.find_elements(By.CSS_SELECTOR, drawn))
    cards = "[data-testid='experiment-view-compare-runs-card']"
    assert page.wait("all", lambda: len(page.browser.find_elements(By.CSS_SELECTOR, cards)) >= charts)


def test_the_description_of_a_run_leads_to_its_report(page: Page, root: Path) -> None:
    page.open(_run(root, "fm-tuned"))
    page.wait("the link", lambda: page.browser.find_elements(By.LINK_TEXT, "The report"))
    address = page.browser.find_element(By.LINK_TEXT, "The report").get_attribute("href")
    assert address is not None
    page.open(address)
    page.shows("toy: test part")


def test_a_run_shows_settings_figures_dataset_and_model(page: Page, root: Path) -> None:
    run = read_json(root / "data/runs/toy/fm/tuned/run.json")
    page.open(_run(root, "fm-tuned"))
    page.shows("fm-tuned", "fm on toy, tuned configuration", "best/valid_auc", "test/auc", "trial-001")
    page.shows(f"toy ({run['input']})", "fm-tuned", "model.embedding_size", "Finished")
    assert "mlflow.pipeline" not in page.text()


def test_a_seed_shows_its_learning_curve(page: Page, root: Path) -> None:
    client = tracking.configure(root).client
    parent = _run(root, "fm-tuned").rpartition("/")[2]
    (seed,) = client.search_runs(
        ["1"], f"tags.`mlflow.parentRunId` = '{parent}' AND attributes.run_name = 'seed-1'"
    )
    curve = read_json(root / "data/runs/toy/fm/tuned/run.json")["seeds"][0]["curve"]
    page.open(f"/experiments/1/runs/{seed.info.run_id}/model-metrics")
    line = page.wait("a curve", lambda: _further(page, ".js-plotly-plot .scatterlayer path.js-line"))
    assert "train/l" in page.text() or "valid/" in page.text()
    assert line.get_attribute("d").count("L") >= 1
    assert len(curve) > 1


def test_a_plot_is_an_image_on_the_page(page: Page, root: Path) -> None:
    page.open(f"{_run(root, 'evaluate')}/artifacts/roc.png")
    page.shows("leaderboard.md", "report.json")

    def sizes() -> list[list[int]]:
        script = "return [...document.images].map(image => [image.naturalWidth, image.naturalHeight])"
        return page.browser.execute_script(script)

    page.wait("the image", lambda: [400, 300] in sizes())


def test_the_champion_is_in_the_registry(page: Page, root: Path) -> None:
    best = read_json(root / "data/reports/toy/report.json")["champion"]
    page.open("/models/ctr-toy")
    page.shows("ctr-toy", "Version 1", "champion", "Best on validation data")
    page.open("/models/ctr-toy/versions/1")
    page.shows(f"{best['model']} ({best['variant']}) on toy, seed {best['seed']}", "on 200 test rows")
