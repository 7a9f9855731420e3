"""MLflow's own page shows what was tracked, seen as a person would: in a browser."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fixtures_mlflow
import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from pipeline import tracking
from pipeline.common.files import read_json

# MLflow and torch.export warn of their own doings.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PATIENCE = 90  # seconds; a page is up in 2 where nothing else runs
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1900,1200"
)


class Page:
    """The page in a browser; every look waits until what it looks for is there."""

    def __init__(self, browser: webdriver.Chrome, address: str) -> None:
        self.browser, self.address = browser, address

    def open(self, path: str) -> None:
        self.browser.get("about:blank")  # a change behind the # alone would not load the page anew
        self.browser.get(f"{self.address}/#{path}")

    def wait(self, what: str, found: Callable[[], Any]) -> Any:
        def look(_: webdriver.Chrome) -> Any:
            try:
                return found()
            except StaleElementReferenceException:
                return None

        return WebDriverWait(self.browser, PATIENCE, poll_frequency=0.2).until(look, f"never saw {what}")

    def text(self) -> str:
        return self.browser.find_element(By.TAG_NAME, "body").text

    def shows(self, *texts: str) -> None:
        for text in texts:
            self.wait(text, lambda text=text: text in self.text())

    def find(self, selector: str) -> WebElement:
        return self.wait(
            selector, lambda: next(iter(self.browser.find_elements(By.CSS_SELECTOR, selector)), None)
        )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    fixtures_mlflow.write_project(root, models=("lr", "fm"))
    tracking.sync(root)
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[str]:
    """Plain `mlflow ui` in the project's folder, on a free port of this machine alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    env |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "-w", "1"]
    with open(root / "ui.log", "w") as log:
        process = subprocess.Popen(
            command, cwd=root, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        address = f"http://127.0.0.1:{port}"
        try:
            end = time.monotonic() + PATIENCE
            while not _answers(address):
                assert process.poll() is None and time.monotonic() < end, (root / "ui.log").read_text()
                time.sleep(0.2)
            yield address
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


@pytest.fixture(scope="module")
def page(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium: install the packages `chromium` and `chromium-driver` (Debian's names)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield Page(browser, server)
    browser.quit()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2):
            return True
    except OSError:
        return False


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
    page.shows("Leaderboard", "test_auc", "best_valid_auc", "4 matching runs")
    page.shows(*(f"{result['mean']['auc']:.8f}"[:8] for result in results))
    order = sorted(results, key=lambda result: -result["mean"]["auc"])
    text = page.text()
    names = [f"{ {'default': 'train', 'tuned': 'tune'}[r['variant']] }-{r['model']}" for r in order]
    assert sorted(names, key=text.index) == names


def test_the_addresses_that_ui_prints_open_in_the_mode_for_training(page: Page, root: Path) -> None:
    """Not in that for traces, which a new browser has; with the view, and without one that is not there."""
    first, (board,) = tracking.start_page(page.address), tracking.leaderboards(root, page.address).values()
    assert "viewStateShareKey=leaderboard" in board
    for address, words in ((first, "toy"), (board, "Leaderboard")):
        page.browser.execute_script("localStorage.clear()")
        page.browser.get("about:blank")
        page.browser.get(address)
        page.shows("Model registry", words)
    client = tracking.configure(root).client
    empty = client.create_experiment("empty", tags={"pipeline.dataset": "empty"})
    plain = tracking.leaderboards(root, page.address)["empty"]
    client.delete_experiment(empty)
    assert "viewStateShareKey" not in plain


def test_a_run_shows_settings_figures_dataset_and_model(page: Page, root: Path) -> None:
    run = read_json(root / "data/runs/toy/fm/tuned/run.json")
    page.open(_run(root, "tune-fm"))
    page.shows("tune-fm", "fm on toy, tuned configuration", "best_valid_auc", "test_auc", "trial-001")
    page.shows(f"toy ({run['input']})", "fm-tuned", "model.embedding_size", "Finished")
    assert "mlflow.pipeline" not in page.text()


def test_a_seed_shows_its_learning_curve(page: Page, root: Path) -> None:
    client = tracking.configure(root).client
    parent = _run(root, "tune-fm").rpartition("/")[2]
    (seed,) = client.search_runs(
        ["1"], f"tags.`mlflow.parentRunId` = '{parent}' AND attributes.run_name = 'seed-1'"
    )
    curve = read_json(root / "data/runs/toy/fm/tuned/run.json")["seeds"][0]["curve"]
    page.open(f"/experiments/1/runs/{seed.info.run_id}/model-metrics")
    page.shows("train_logloss", "valid_auc")
    charts = "[data-testid='experiment-view-compare-runs-card'], .js-plotly-plot"
    page.wait("a curve", lambda: len(page.browser.find_elements(By.CSS_SELECTOR, charts)) >= 3)
    line = page.find(".js-plotly-plot .scatterlayer path.js-line")
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
    page.shows(
        "ctr-toy", "Version 1", "champion", f"{best['model']} ({best['variant']}), seed {best['seed']}"
    )
