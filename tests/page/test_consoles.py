"""Both consoles in a browser: what the guest says and shows, moves, taking over, keys, axe."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.page.surfing import PHONE
from tests.page.worlds import world_of
from vorch import Orchestrator
from vorch.drivers.memory_screen import STRIPES

pytestmark = [pytest.mark.real, pytest.mark.slow]

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.page.conftest import As

# The colours in the middle of the four stripes of a guest's screen, out of the canvas.
_COLOURS = """() => {
  const canvas = document.querySelector(".console-screen canvas");
  if (!canvas || canvas.width !== 160) return null;
  const paint = canvas.getContext("2d", {willReadFrequently: true});
  return [20, 60, 100, 140].map((x) => [...paint.getImageData(x, 50, 1, 1).data].slice(0, 3));
}"""


def fill(cluster: Orchestrator) -> None:
    for name, screen in (("web", True), ("dark", False)):
        cluster.create(
            name, disk_gib=1, pool="fast", networks=(), graphics=screen, tags=("owner:user",)
        )
        cluster.start(name)


def until(page: Page, what: str, argument: Any = None) -> None:
    page.wait_for_function(what, arg=argument, timeout=60_000)


def says(page: Page, text: str) -> None:
    """What the terminal shows, as somebody reads it."""
    until(
        page,
        "(text) => document.querySelector('.xterm-rows')?.innerText.replace(/\\u00a0/g, ' ')"
        ".includes(text)",
        text,
    )


def status(page: Page, text: str) -> None:
    until(
        page, "(text) => document.querySelector('.console-status')?.innerText.includes(text)", text
    )


def shows_the_screen(page: Page) -> None:
    wanted = [list(colour) for colour in STRIPES]
    until(page, f"(wanted) => JSON.stringify(({_COLOURS})()) === JSON.stringify(wanted)", wanted)


def other_host(cluster: Orchestrator) -> str:
    return "h2" if cluster.show("web").vm.node == "h1" else "h1"


def test_a_terminal_and_a_screen_that_follow_their_vm(surf: As, cluster: Orchestrator) -> None:
    window = surf("user")
    page = window.show("/vms/web/consoles")
    says(page, "web login:")
    status(page, "Connected")
    page.keyboard.type("bob", delay=10)
    says(page, "web login: bob")
    cluster.migrate("web", other_host(cluster))
    # What was there stays, and what comes is behind it.
    says(page, "web login: bob\nweb login:")
    page.keyboard.type("again", delay=10)
    says(page, "web login: again")

    page.get_by_role("button", name="Screen", exact=True).click()
    shows_the_screen(page)
    page.get_by_role("button", name="Ctrl+Alt+Del").click()
    guest = world_of(cluster).guest(cluster.show("web").vm.id)
    until_true(lambda: guest.keys[-3:] == (0xFFE3, 0xFFE9, 0xFFFF), page)
    page.keyboard.type("x")
    until_true(lambda: guest.keys[-1:] == (0x78,), page)
    cluster.migrate("web", other_host(cluster))
    until(page, "() => document.querySelector('.console').dataset.state !== 'open'")
    shows_the_screen(page)
    status(page, "Connected")


def until_true(what: Callable[[], bool], page: Page) -> None:
    for _ in range(100):
        if what():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not happen")


def test_text_is_pasted(surf: As, cluster: Orchestrator) -> None:
    page = surf("user").show("/vms/web/consoles")
    says(page, "web login:")
    page.get_by_role("button", name="Paste").click()
    page.get_by_role("textbox", name="Text for the VM").fill("from elsewhere")
    page.get_by_role("dialog").get_by_role("button", name="Paste").click()
    says(page, "from elsewhere")
    page.get_by_role("button", name="Screen", exact=True).click()
    shows_the_screen(page)
    page.get_by_role("button", name="Paste").click()
    page.get_by_role("textbox", name="Text for the VM").fill("Hi\n")
    page.get_by_role("dialog").get_by_role("button", name="Paste").click()
    guest = world_of(cluster).guest(cluster.show("web").vm.id)
    until_true(lambda: guest.keys[-4:] == (0xFFE1, 0x48, 0x69, 0xFF0D), page)


def test_it_waits_for_a_vm_that_is_off(surf: As, cluster: Orchestrator) -> None:
    page = surf("user").show("/vms/web/consoles")
    says(page, "web login:")
    cluster.stop("web", force=True)
    status(page, "the VM is off")
    before = len(cluster.audit_list(limit=1000))
    page.wait_for_timeout(4000)
    # To wait is nothing that happens.
    assert len(cluster.audit_list(limit=1000)) == before
    cluster.start("web")
    status(page, "Connected")
    # One that is opened while the VM is off waits as well.
    cluster.stop("web", force=True)
    page.close()
    page = surf("user").show("/vms/web/consoles")
    status(page, "off")
    cluster.start("web")
    says(page, "web login:")


def test_one_has_it_and_another_takes_it(surf: As) -> None:
    first = surf("user").show("/vms/web/consoles")
    says(first, "web login:")
    second = surf("admin").show("/vms/web/consoles")
    status(second, "Somebody else has this console.")
    second.get_by_role("button", name="Take it over").click()
    says(second, "web login:")
    status(first, "Somebody else has this console.")


def test_for_keys_and_screen_readers(surf: As) -> None:
    window = surf("user", size=PHONE)
    page = window.show("/vms/web/consoles")
    says(page, "web login:")
    page.keyboard.press("Control+F6")
    focused = page.evaluate("document.activeElement.textContent")
    assert focused == "Terminal"
    assert window.faults() == []
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    shows_the_screen(page)
    page.keyboard.press("Control+F6")
    assert page.evaluate("document.activeElement.textContent") == "Screen"
    assert window.faults() == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_who_may_only_look_is_told_so(surf: As) -> None:
    page = surf("viewer", language="fr-FR").show("/vms/web/consoles")
    status(page, "who is viewer")
    assert page.get_by_role("button", name="Coller").is_disabled()


def test_a_vm_without_a_screen(surf: As) -> None:
    page = surf("user").show("/vms/dark/consoles")
    says(page, "dark login:")
    assert page.get_by_role("button", name="Screen", exact=True).is_disabled()
