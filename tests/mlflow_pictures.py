"""Pictures of MLflow's page for docs/mlflow.md: `python -m tests.mlflow_pictures` after `make repro`.

Of the dataset `synthetic`, in a browser with an empty profile, at the addresses that `make ui` prints.
"""

import io
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from selenium.webdriver.common.by import By

from pipeline import tracking
from pipeline.common.files import read_json
from pipeline.tracking.addresses import MODE
from tests.browser import Page, browsing, serving

DATASET, SIZE, COLOURS = "synthetic", "1500,1000", 64
SETTLE_SECONDS = 4.0  # charts are drawn a while after their frames
LARGEST_BYTES = 80_000
HEIGHTS = {"registry": 460}  # pixels; below are the names of a machine and its folders


def main() -> None:
    """Write docs/mlflow/*.png."""
    root = Path.cwd()
    out = root / "docs/mlflow"
    out.mkdir(exist_ok=True)
    with (
        serving(root) as address,
        tempfile.TemporaryDirectory() as profile,
        browsing(Path(profile), address, SIZE) as page,
    ):
        for name, (where, words) in pages(root, address).items():
            page.open(where)
            page.shows(*words)
            _close_hints(page)
            time.sleep(SETTLE_SECONDS)
            picture = out / f"{name}.png"
            save(page.browser.get_screenshot_as_png(), picture, HEIGHTS.get(name))
            print(f"{picture.relative_to(root)}: {picture.stat().st_size:,} bytes")
            assert picture.stat().st_size <= LARGEST_BYTES, f"{picture} is too large for git"


def pages(root: Path, address: str) -> dict[str, tuple[str, list[str]]]:
    """Return address and first words of each page."""
    views = tracking.saved_views(root, address)
    client = tracking.configure(root).client
    report = read_json(root / f"data/reports/{DATASET}/report.json")
    keys = {(each["model"], each["variant"]): each["key"] for each in report["results"]}
    best = report["champion"]["model"]
    (experiment,) = client.search_experiments(filter_string=f"tags.`pipeline.dataset` = '{DATASET}'")
    runs = f"/experiments/{experiment.experiment_id}/runs"

    def run(condition: str) -> str:
        found = client.search_runs([experiment.experiment_id], condition)
        return str(found[0].info.run_id)

    default, tuned = (run(f"tags.`pipeline.key` = '{keys[best, each]}'") for each in ("default", "tuned"))
    trial = run(f"tags.`mlflow.parentRunId` = '{tuned}' AND attributes.run_name LIKE 'trial-%'")
    several = [run(f"tags.`pipeline.key` = '{key}'") for (_, each), key in keys.items() if each == "default"]
    names = ",".join(f"%22{each}%22" for each in several)
    version = client.get_model_version_by_alias(f"ctr-{DATASET}", "champion").version
    return {
        "landing": (tracking.start_page(address), [DATASET, "Best on validation data"]),
        "leaderboard": (views[f"{DATASET}: leaderboard"], ["Leaderboard", "test/auc"]),
        "curves": (views[f"{DATASET}: curves"], ["valid/logloss"]),
        "size": (views[f"{DATASET}: size"], ["model/weights vs. test/auc"]),
        "trials": (views[f"{DATASET}: trials"], ["Parallel Coordinates"]),
        "run": (f"{runs}/{default}?{MODE}", ["best/valid_auc", "Description"]),
        "trial": (f"{runs}/{trial}?{MODE}", ["best/valid_auc", "trial-"]),
        "compare": (
            f"/compare-runs?runs=[{names}]&experiments=[%22{experiment.experiment_id}%22]&{MODE}",
            [f"Comparing {len(several)} Runs"],
        ),
        "registry": (f"/models/ctr-{DATASET}/versions/{version}?{MODE}", ["champion", "test rows"]),
    }


def _close_hints(page: Page) -> None:
    """Close what the page explains of itself at a first visit."""
    for button in page.browser.find_elements(By.CSS_SELECTOR, "[aria-label='Close'], [aria-label='close']"):
        if button.is_displayed():
            button.click()


def save(png: bytes, path: Path, height: int | None) -> None:
    """Write a picture of a page with few colours, as it has."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image = image.crop((0, 0, image.width, height or image.height))
    small = image.quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
