"""A headless Chromium that opens pages from file:// and notes their errors and requests."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

NAMES = ["chromium", "chromium-browser", "google-chrome"]


@dataclass
class Opened:
    """A page in the browser."""

    page: Page
    errors: list[str] = field(default_factory=list)  # of the console, and uncaught ones
    requests: list[str] = field(default_factory=list)  # addresses other than what is in the page


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; skips the test if none is installed."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser: Browser, file: Path, width: int = 1300) -> Opened:
    """Open a file `width` pixels wide; wait until it is ready."""
    opened = Opened(browser.new_page(viewport={"width": width, "height": 900}))
    address = file.absolute().as_uri()

    def note_request(request: Request) -> None:
        if not request.url.startswith(("data:", "blob:")) and request.url != address:
            opened.requests.append(request.url)

    def note_line(line: ConsoleMessage) -> None:
        if line.type in ("error", "warning"):
            opened.errors.append(line.text)

    opened.page.on("request", note_request)
    opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.page.on("console", note_line)
    opened.page.goto(address)
    opened.page.wait_for_selector("body[data-ready]", state="attached")
    return opened
