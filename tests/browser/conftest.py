"""Pages in the system's Chromium: what a reader sees, and that no page asks the network for anything."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

WIDTHS = {"light": 1100, "dark": 1100, "narrow": 375}
SCREENSHOTS = os.environ.get("AMR_SCREENSHOTS")  # a folder: each page that is shown is also kept as a picture


@pytest.fixture(scope="session")
def chromium():
    """The browser of this process."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium on this machine")
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@pytest.fixture(params=list(WIDTHS))
def look(request):
    """How a page is looked at: light, dark or narrow. A test that takes it runs once for each."""
    return request.param


@pytest.fixture
def show(chromium, tmp_path, request):
    """Show HTML in the browser; see ``Shower.__call__``. What is wrong with a page fails the test, at once or at its end."""
    name = re.sub(r"\W+", "-", request.node.name).strip("-")
    shower = Shower(chromium, tmp_path, name)
    yield shower
    shower.close()


@dataclass
class Shower:
    """Shows pages, and notes what they ask for and complain about.

    Attributes:
        problems: requests and errors of the pages that are open. A test may ``clear()`` it after it has asserted that
            the browser refused what it should refuse.
    """

    browser: Any
    folder: Path
    test: str
    problems: list[str] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)
    numbers: Any = field(default_factory=itertools.count)

    def __call__(self, html: str | Path, look: str = "light", *, body: str = "") -> Any:
        """Open a page (playwright's ``Page``) and check that it is quiet and no wider than the window.

        Args:
            html: a file, a whole document, or a fragment as a notebook shows it.
            look: ``light``, ``dark`` (what the system prefers) or ``narrow`` (375 pixels).
            body: attributes of the body around a fragment, such as ``data-jp-theme-light="false"``.
        """
        number = next(self.numbers)
        path = html if isinstance(html, Path) else self._write(html, body, number)
        context = self.browser.new_context(
            color_scheme="dark" if look == "dark" else "light",
            viewport={"width": WIDTHS[look], "height": 800},
        )
        self.contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        address = path.absolute().as_uri()
        page.route(lambda url: url.partition("#")[0] != address, self._refuse)
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.goto(address)
        if SCREENSHOTS:
            self.picture(page, Path(SCREENSHOTS) / f"{self.test}-{number}.png")
        self.check(page)
        return page

    def _write(self, html: str, body: str, number: int) -> Path:
        if not html.lstrip().lower().startswith("<!doctype"):
            html = f"<!doctype html><html><head><meta charset='utf-8'></head><body {body}>{html}</body></html>"
        path = self.folder / f"shown-{number}.html"
        path.write_text(html, encoding="utf-8")
        return path

    def _refuse(self, route: Any) -> None:
        self.problems.append(f"request: {route.request.url[:200]}")
        route.abort()

    def _note_message(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.problems.append(f"console: {message.text[:300]}")

    def check(self, page: Any) -> None:
        """Fail if a page has asked for something, complained, or scrolls to the side as a whole."""
        assert self.problems == []
        width, window = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert width <= window, f"the page is {width} pixels wide, the window {window}"

    def picture(self, page: Any, path: Path) -> None:
        """Keep the whole page as a picture."""
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path, full_page=True)

    def close(self) -> None:
        for context in self.contexts:
            context.close()
        assert self.problems == []
