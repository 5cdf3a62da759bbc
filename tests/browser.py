"""A Chromium without a window, and what it saw: requests, errors, and every control moved."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ElementHandle, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_MS = 120_000
"""For a page to load: a loaded machine takes its time."""


@dataclass
class Watched:
    """A page, and what it did that it should not: each list is to stay empty.

    errors: what its console and its scripts complained of. requests: addresses that it asked for
    beside those that `allowed` begins.
    """

    page: Page
    allowed: tuple[str, ...]
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on(
            "console",
            lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None,
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "request",
            lambda r: None if r.url.startswith(self.allowed) else self.requests.append(r.url),
        )

    def check(self) -> None:
        """Nothing was complained of, and nothing asked for elsewhere."""
        assert self.errors == []
        assert self.requests == []

    def move_everything(self) -> int:
        """Move every control that shows, by the keyboard where it can be; how many there were."""
        page, moved = self.page, 0
        for summary in page.locator("summary:visible").all():
            summary.focus()
            page.keyboard.press("Enter")
            moved += 1
        for slider in page.locator("input[type=range]:visible").all():
            slider.focus()
            met = set()
            for key in ("Home", "ArrowRight", "End", "ArrowLeft"):
                page.keyboard.press(key)
                met.add(slider.input_value())
            assert len(met) > 1
            moved += 1
        for select in page.query_selector_all("select:enabled"):
            if select.is_visible():  # by itself: moving one may disable others for a while
                self._each_option(select)
                moved += 1
        for group in page.locator("[role=radiogroup]:visible").all():
            buttons = group.locator("button").all()
            group.locator("button[aria-checked=true]").focus()
            for _ in buttons:
                page.keyboard.press("ArrowRight")
            moved += 1
        for box in page.locator("input[type=checkbox]:visible").all():
            box.focus()
            page.keyboard.press("Space")
            page.keyboard.press("Space")
            moved += 1
        for number in range(page.locator("button:visible:enabled").count()):
            button = page.locator("button:visible:enabled").nth(number)
            if button.count() and button.is_visible():
                button.focus()
                page.keyboard.press("Enter")
                moved += 1
        return moved

    def _each_option(self, select: ElementHandle) -> None:
        def values() -> list[str]:
            found: list[str] = select.evaluate("one => [...one.options].map(each => each.value)")
            return found

        first = select.input_value()
        for value in [*values(), first]:
            if value in values():  # a choice may change what there is to choose
                select.select_option(value)

    def fits(self) -> bool:
        """Whether nothing sticks out to the right."""
        wide: int = self.page.evaluate("document.documentElement.scrollWidth")
        size = self.page.viewport_size
        assert size is not None
        return wide <= size["width"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium here: install Debian's package `chromium`")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()
