"""A page in Chromium, as the tests of the page open it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tiny

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=tiny.NO_CHROMIUM)


@dataclass
class Opened:
    """A page in a browser, with everything it said and asked for."""

    page: sync_api.Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def open(self, file: Path) -> Opened:
        self.said.clear()
        self.asked.clear()
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("html[data-ready]", timeout=10_000)
        return self

    def count(self, what: str = "edges") -> int:
        return int(self.page.locator("#count").get_attribute(f"data-{what}") or -1)

    def shows(self, edges: int, what: str = "edges") -> None:
        """Wait until so many edges are shown."""
        sync_api.expect(self.page.locator("#count")).to_have_attribute(f"data-{what}", str(edges))

    def drawn(self) -> set[str]:
        """The edges on the canvas, port edges aside."""
        return set(self.page.evaluate(f"() => {GRAPH}.drawn()"))

    def bright(self) -> set[str]:
        return set(self.page.evaluate(f"() => {GRAPH}.bright()"))

    def boxes(self) -> dict[str, dict[str, Any]]:
        """What stands on the canvas, by every node's full name."""
        found = self.page.evaluate(f"() => {GRAPH}.standing()")
        return {name: box for box in found for name in box["names"]}

    def at(self, node: str) -> tuple[float, float]:
        """Where a node is on the screen."""
        x, y, _, _ = self.boxes()[node]["box"]
        left, top = self.page.evaluate(
            """(y) => {
              const sheet = document.querySelector("#graph .sheet");
              const at = sheet.getBoundingClientRect().top + y;
              if (at < 10 || at > innerHeight - 20) scrollBy({ top: at - innerHeight / 2, behavior: "instant" });
              const { left, top } = sheet.getBoundingClientRect();
              return [left, top];
            }""",
            y,
        )
        return left + x, top + y

    def choose(self, name: str) -> None:
        """Choose a node or an edge by its name, as the search does."""
        search = self.page.locator("#search")
        search.fill(name)
        search.press("Enter")
        search.fill("")

    def slide(self, stop: int) -> None:
        slider = self.page.locator("#slider")
        slider.evaluate("(input, to) => { input.value = to; input.dispatchEvent(new Event('input')); }", stop)


GRAPH = "document.querySelector('#graph').graph"
