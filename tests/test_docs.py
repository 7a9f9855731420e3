"""The site of docs/: it builds without network, none of its links is broken, its pictures are current."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from docs import architecture

ROOT = Path(__file__).parents[1]
PICTURE_BYTES = 80_000
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")


@pytest.fixture(scope="module", name="site")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, **NO_NETWORK, "NO_MKDOCS_2_WARNING": "1"},  # of the theme, on its successor
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.mark.slow
def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages | {"reference"} <= {path.parent.name for path in site.glob("*/index.html")}
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|link)[^>]+?(?:src|href)=\"?(https?://[^\s\">]+)", text)
        assert loaded == [], path


@pytest.mark.slow
def test_every_link_of_the_site_leads_to_a_page_and_a_heading(site: Path) -> None:
    """Those of the reference, too, which mkdocs does not check."""
    broken = []
    for path in site.rglob("*.html"):
        if path.name == "404.html":
            continue
        for link in re.findall(r"<a[^>]+?href=\"?([^\s\">]+)", path.read_text(encoding="utf-8")):
            address, _, heading = link.partition("#")
            if re.match(r"\w+:", address) or (not address and not heading):
                continue
            target = (path.parent / address).resolve() if address else path
            target = target / "index.html" if target.is_dir() else target
            found = target.exists() and (
                not heading
                or f'id="{heading}"' in target.read_text()
                or f"id={heading}" in target.read_text()
            )
            if not found:
                broken.append((path.relative_to(site).as_posix(), link))
    assert broken == []


@pytest.mark.slow
def test_the_reference_has_what_somebody_calls(site: Path) -> None:
    text = (site / "reference/index.html").read_text(encoding="utf-8")
    for name in (
        "pipeline.scoring",
        "pipeline.models.deepfm",
        "pipeline.train.loop",
        "y_FM the factorization",
    ):
        assert name in text


def test_the_picture_of_the_stages_is_that_of_dvc_yaml() -> None:
    """`python docs/architecture.py` makes it again."""
    drawn = architecture.PICTURE.read_text(encoding="utf-8")
    assert drawn == architecture.picture()
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert re.findall(r'class="name"[^>]*>([^<]+)<', drawn) == list(stages)
    before = architecture.edges(stages)
    assert before["evaluate"] == {"split", "train", "tune", "train-variant", "tune-variant"}
    assert before["paper"] == {"split"}


def test_the_pictures_of_the_pages_are_small_and_used() -> None:
    shown = set()
    for page in (ROOT / "docs").rglob("*.md"):
        links = re.findall(r"\(([^()\s]+\.png)\)", page.read_text(encoding="utf-8"))
        shown |= {(page.parent / link).resolve() for link in links}
    for picture in (ROOT / "docs").rglob("*.png"):
        assert picture.stat().st_size <= PICTURE_BYTES, picture
        assert picture in shown
