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

FOCUSED = "one => { one.focus(); return document.activeElement === one; }"
"""Focuses an element and says whether that worked; it does not once the element is gone."""


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
        for summary in self._visible("summary"):
            summary.focus()
            page.keyboard.press("Enter")
            moved += 1
        for slider in self._visible("input[type=range]"):
            slider.focus()
            met = set()
            for key in ("Home", "ArrowRight", "End", "ArrowLeft"):
                page.keyboard.press(key)
                met.add(slider.input_value())
            assert len(met) > 1
            moved += 1
        for select in self._visible("select:enabled"):
            self._each_option(select)
            moved += 1
        for group in self._visible("[role=radiogroup]"):
            chosen = group.query_selector("button[aria-checked=true]")
            assert chosen is not None
            chosen.focus()
            for _ in group.query_selector_all("button"):
                page.keyboard.press("ArrowRight")
            moved += 1
        for box in self._visible("input[type=checkbox]"):
            box.focus()
            page.keyboard.press("Space")
            page.keyboard.press("Space")
            moved += 1
        for number in range(len(self._visible("button:enabled"))):
            buttons = self._visible("button:enabled")
            # A redraw may take a button away between two calls; only one that is there is pressed.
            if number < len(buttons) and buttons[number].evaluate(FOCUSED):
                page.keyboard.press("Enter")
                moved += 1
        return moved

    def _visible(self, selector: str) -> list[ElementHandle]:
        """The elements that show just now, each held by itself: a redraw may change their number,
        and a locator would then mean the next one.
        """
        return [one for one in self.page.query_selector_all(selector) if one.is_visible()]

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
