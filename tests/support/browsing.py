"""Pages in a real browser, which notes whatever it complains about."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, expect, sync_playwright

WIDE: Final = 1280
NARROW: Final = 400
"""Pixels of a screen on a desk, and of a phone."""
OF_A_LOOK: Final = ("color-contrast", "scrollable-region-focusable", "target-size", "link-in-text-block")
"""The rules of axe that depend on width and theme."""
_WAIT: Final = 10_000
"""Milliseconds after which something that does not happen has failed."""
_VIOLATIONS: Final = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""
_LISTEN: Final = """() => {
  window.heard = [];
  const news = document.querySelector("[role=status]");
  new MutationObserver(() => window.heard.push(news.textContent)).observe(news, { childList: true });
}"""
_AXE: Final = """async (rules) => {
  const options = rules ? { runOnly: rules, resultTypes: ["violations"] } : { resultTypes: ["violations"] };
  const found = await axe.run(document, options);
  return found.violations.map((each) =>
    `${each.id}: ${each.help}: ` + each.nodes.slice(0, 3).map((node) => node.html).join(" "));
}"""
_SCREENSHOTS: Final = "VIRTUALCHAIN_SCREENSHOTS"
"""The environment variable with the folder that screenshots are kept in; without it there are none."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium; skip the test if there is none, except in CI."""
    program = shutil.which("chromium")
    if program is None:
        reason = "no chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} (in CI these tests must run)")
        pytest.skip(reason)
    expect.set_options(timeout=_WAIT)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visitor:
    """A tab, and what happened in it that must not."""

    page: Page
    base: str
    troubles: list[str] = field(default_factory=list)

    def goto(self, path: str) -> int:
        """Open a page of the site; return the status."""
        response = self.page.goto(self.base + path)
        assert response is not None
        return response.status

    @property
    def path(self) -> str:
        """The path of the open page, with its query string."""
        parts = urlsplit(self.page.url)
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    @property
    def main(self) -> str:
        """The words of the page's own part, as they can be read."""
        return " ".join(self.page.locator("main").inner_text().split())

    def follow(self, path: str) -> None:
        """Open a page that follows the chain, and wait until it does."""
        with self.page.expect_response(f"{self.base}/live"):
            self.goto(path)
        self.page.evaluate(_LISTEN)
        self.page.wait_for_timeout(300)  # the stream begins with the state that it finds

    def hear(self, words: str) -> None:
        """Wait until a page that follows the chain has said this, however short it was there."""
        for _ in range(_WAIT // 100):
            if any(words in text for text in self.page.evaluate("window.heard")):
                return
            self.page.wait_for_timeout(100)
        pytest.fail(f"not heard: {words!r}, but {self.page.evaluate('window.heard')}")

    def look(self, width: int, scheme: Any, name: str, *, rules: Sequence[str] | None = None) -> list[str]:
        """Show the page in a width and in light or dark; return what is wrong with it.

        `rules` are those that axe checks: all of them if it is empty, none if it is None.
        """
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme=scheme)
        folder = os.environ.get(_SCREENSHOTS)
        if folder:
            place = Path(folder) / f"{name}-{width}-{scheme}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=place, full_page=True)
        scrolled = self.page.evaluate("document.documentElement.scrollWidth")
        wrong = [f"the page is {scrolled} pixels wide"] if scrolled > width else []
        if rules is not None:
            if not self.page.evaluate("typeof axe === 'object'"):
                self.page.evaluate(AXE_SCRIPT)
            wrong += self.page.evaluate(_AXE, list(rules) or None)
        return [f"{width} {scheme}: {each}" for each in wrong]


@contextmanager
def visit(browser: Browser, base: str, *, scripts: bool = True, width: int = WIDE) -> Iterator[Visitor]:
    """Open a tab; fail if the site's policy is violated, a script fails, or anything else is asked for."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, java_script_enabled=scripts, reduced_motion="reduce"
    )
    context.set_default_timeout(_WAIT)
    if scripts:
        context.add_init_script(_VIOLATIONS)
    page = context.new_page()
    visitor = Visitor(page, base)

    def request(made: Request) -> None:
        if not made.url.startswith((base + "/", "data:")):
            visitor.troubles.append(f"asked for {made.url}")

    def dialog(opened: Dialog) -> None:
        visitor.troubles.append(f"dialog {opened.message}")
        opened.dismiss()

    def message(written: ConsoleMessage) -> None:
        # That a page has an error's status is the test's business.
        if written.type in ("error", "warning") and "Failed to load resource" not in written.text:
            visitor.troubles.append(written.text)

    context.on("request", request)
    page.on("pageerror", lambda error: visitor.troubles.append(f"error {error}"))
    page.on("dialog", dialog)
    page.on("console", message)
    try:
        yield visitor
        assert visitor.troubles == []
    finally:
        context.close()
