"""A real browser without a window: Debian's chromium, driven through its own driver."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

PROGRAMS = ("chromium", "chromedriver")
SECONDS = 30


class Browser:
    """A page in it, and what a person does there."""

    def __init__(self, driver: webdriver.Chrome, downloads: Path) -> None:
        self.driver = driver
        self.downloads = downloads
        behaviour = {"behavior": "allow", "downloadPath": str(downloads)}
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)

    def open(self, page: Path) -> None:
        self.driver.get(page.as_uri())

    def resize(self, width: int, height: int = 900) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def press(self, *keys: str) -> None:
        """Keys go wherever the focus is."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def undo(self) -> None:
        """Control and Z."""
        chord = ActionChains(self.driver).key_down(Keys.CONTROL).send_keys("z")
        chord.key_up(Keys.CONTROL).perform()

    def __getitem__(self, name: str) -> WebElement:
        """The element with this id."""
        return self.driver.find_element(By.ID, name)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def ask(self, script: str, *arguments: Any) -> Any:
        """What a function body of JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    @property
    def complaints(self) -> list[str]:
        """What the browser's console has said since it was last asked."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]

    def downloaded(self, name: str) -> bytes:
        """A file that the page has just offered; it is taken away."""
        file = self.downloads / name
        WebDriverWait(self.driver, SECONDS).until(lambda _: file.exists())
        data = file.read_bytes()
        file.unlink()
        return data


@contextmanager
def browser(downloads: Path) -> Iterator[Browser]:
    """A browser with an empty profile; the test is skipped where there is none."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"{' and '.join(missing)} not installed (Debian: chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    if os.geteuid() == 0:  # whom chromium gives no sandbox
        options.add_argument("--no-sandbox")
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        yield Browser(driver, downloads)
    finally:
        driver.quit()
