"""Browser, service and cluster for the tests of the page, or the reason why there are none."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.serving import served
from tests.page import worlds
from vorch import Orchestrator

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.page.surfing import Surfer

As = Callable[..., "Surfer"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For a file: as long as Playwright is there, its thread has an event loop that runs."""
    if importlib.util.find_spec("playwright") is None:
        _missing("the Python package playwright is not installed")
    from playwright.sync_api import sync_playwright

    from tests.page.surfing import chromium, launched

    if chromium() is None:
        _missing("Chromium is not installed")
    with sync_playwright() as playwright:
        found = launched(playwright)
        yield found
        found.close()


def _missing(what: str) -> None:
    """In CI all is there, or something is wrong with packaging/prepare.sh."""
    words = f"{what}: packaging/prepare.sh test installs it"
    if os.environ.get("CI"):
        pytest.fail(words)
    pytest.skip(words)


@pytest.fixture(scope="module")
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Orchestrator, str]]:
    """A cluster for a file, and the address at which it is served."""
    name = re.sub(r"\W+", "-", f"page-{Path(str(request.node.path)).stem}-{os.getpid()}")
    folder = tmp_path_factory.mktemp("page")
    hosts: Any = getattr(request.module, "HOSTS", ("h1", "h2", "h3"))
    with worlds.cluster_in(name, folder, hosts=hosts) as cluster:
        fill: Any = getattr(request.module, "fill", None)
        if fill is not None:
            fill(cluster)
        with served(cluster) as service:
            yield cluster, service.address


@pytest.fixture
def cluster(place: tuple[Orchestrator, str]) -> Orchestrator:
    return place[0]


@pytest.fixture
def surf(browser: Browser, place: tuple[Orchestrator, str]) -> Iterator[As]:
    """surf("admin", scheme="dark", …): a window of that user, closed and checked at the end."""
    from tests.page.surfing import surfing

    with ExitStack() as stack:

        def opened(user: str = "", **how: Any) -> Surfer:
            window: AbstractContextManager[Surfer] = surfing(browser, place[1], user, **how)
            return stack.enter_context(window)

        yield opened
