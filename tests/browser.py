"""MLflow's page in a headless browser with an empty profile."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 90  # seconds; a page is up in 2 where nothing else runs
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars"
)


class Page:
    """The page in a browser; every look waits until what it looks for is there."""

    def __init__(self, browser: webdriver.Chrome, address: str) -> None:
        self.browser, self.address = browser, address

    def open(self, path: str) -> None:
        """Open a path of the page, or an address."""
        self.browser.get("about:blank")  # a change behind the # alone would not load the page anew
        self.browser.get(path if path.startswith("http") else f"{self.address}/#{path}")

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


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """Run plain `mlflow ui` in the project's folder, on a free port of this machine alone."""
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
    (root / "ui.log").unlink()


@contextmanager
def browsing(profile: Path, address: str, size: str = "1900,1200") -> Iterator[Page]:
    """Open a browser whose profile is this empty folder.

    Raises:
        FileNotFoundError: there is no Chromium.
    """
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        raise FileNotFoundError(
            "no Chromium: install the packages `chromium` and `chromium-driver` (Debian's names)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS.split(), f"--window-size={size}", f"--user-data-dir={profile}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield Page(browser, address)
    finally:
        browser.quit()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2):
            return True
    except OSError:
        return False
