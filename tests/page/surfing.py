"""A person with a browser: pages logged in as somebody, whose errors fail the test.

The browser is Debian's Chromium. What it reports in its console, scripts that end with an error and
whatever the Content-Security-Policy refuses is kept, and `check` raises it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect

from tests.page import apart
from tests.page.worlds import PASSWORD

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser")
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
# The browser itself tells of answers that are no success; whether those were right is told by what
# the page makes of them.
_REFUSED = re.compile(
    r"Failed to load resource: the server responded with a status of (4\d\d|501|507)"
)
_WATCH = """
window.refused = [];
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`CSP refuses ${event.blockedURI} by ${event.violatedDirective}`);
});
"""
DESKTOP = {"width": 1360, "height": 860}
PHONE = {"width": 390, "height": 844}
# What of axe's findings counts. A minor one is a matter of taste.
BAD = ("serious", "critical")


# The network of each browser, where it has one of its own.
_apart: dict[Browser, apart.Apart] = {}


def chromium() -> str | None:
    return next((one for one in CHROMIUM if Path(one).exists()), None)


def launched(playwright: Playwright) -> Browser:
    path = chromium()
    assert path is not None
    # A sandbox of its own cannot be had by root. The service is on loopback: no proxy of the
    # environment belongs between.
    inside = apart.Apart() if apart.can_be() else None
    browser = playwright.chromium.launch(
        executable_path=path if inside is None else inside.program(path),
        args=["--no-sandbox", "--no-proxy-server", "--disable-dev-shm-usage"],
    )
    if inside is not None:
        _apart[browser] = inside
        browser.on("disconnected", lambda gone: _apart.pop(gone).close())
    return browser


class Surfer:
    """One window of somebody."""

    def __init__(self, context: BrowserContext, base: str) -> None:
        self.context = context
        self.base = base
        self.errors: list[str] = []
        context.add_init_script(_WATCH)
        self.page: Page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.on("console", lambda one: self._heard(one.type, one.text, str(one.location)))
        self.page.on("pageerror", lambda one: self.errors.append(f"{one.name}: {one.message}"))

    def _heard(self, kind: str, text: str, where: str) -> None:
        if kind == "error" and not _REFUSED.match(text):
            self.errors.append(f"{text} ({where})")

    def check(self) -> None:
        errors, self.errors = self.errors, []
        assert not errors, "the browser complains: " + "; ".join(errors)

    def log_in(self, user: str) -> None:
        """Past the form, which has tests of its own."""
        answer = self.context.request.post(
            f"{self.base}/v1/login", data={"user": user, "password": PASSWORD}
        )
        assert answer.ok, answer.text()

    def show(self, path: str = "/") -> Page:
        """A view, drawn and at rest."""
        self.page.goto(f"{self.base}/#{path}")
        self.page.locator("main .view, main > .empty").first.wait_for()
        self.settled()
        return self.page

    def settled(self) -> None:
        """Nothing says any more that it is being read."""
        reading = self.page.locator("main").locator(".loading:visible, .spin:visible")
        expect(reading).to_have_count(0, timeout=60_000)

    def faults(self) -> list[str]:
        """What axe-core finds that keeps somebody from using the page."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found: dict[str, Any] = self.page.evaluate(
            "axe.run(document, {resultTypes: ['violations']})"
        )
        return [
            f"{one['impact']} {one['id']}: {node['failureSummary']} {json.dumps(node['target'])}"
            for one in found["violations"]
            if one["impact"] in BAD
            for node in one["nodes"][:3]
        ]


@contextmanager
def surfing(
    browser: Browser,
    base: str,
    user: str = "",
    *,
    size: dict[str, int] | None = None,
    scheme: Literal["light", "dark"] = "light",
    language: str = "en-US",
    checked: bool = True,
    **more: Any,
) -> Iterator[Surfer]:
    """A window of its own, with nothing kept from others; its complaints fail the test."""
    if browser in _apart:
        port = urlsplit(base).port
        assert port is not None
        _apart[browser].pass_on(port)
    context = browser.new_context(
        viewport=size or DESKTOP,  # type: ignore[arg-type]
        color_scheme=scheme,
        locale=language,
        reduced_motion="reduce",
        **more,
    )
    try:
        found = Surfer(context, base)
        if user:
            found.log_in(user)
        yield found
        if checked:
            found.check()
    finally:
        context.close()
