"""Consoles of VMs on hosts reached by TLS, that move: by the library and in a browser."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator

import pytest

from tests.api.serving import served
from tests.lab import bare
from tests.lab.pictures import PATIENCE_S, await_picture, rows, screenshot
from tests.lab.places import Kept, Place
from tests.rfb import Viewer
from tests.screens import ALIKE, alike, seen_by
from vorch import Conflict, Console, Unreachable, connect
from vorch.lab import Lab
from vorch_api import Service

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def kept(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    found = Kept(lab, tmp_path_factory.mktemp("place"))
    yield found
    found.close()


@pytest.fixture
def place(kept: Kept) -> Place:
    found = kept.ready()
    found.settle(migration_bandwidth_mib_s=0)
    return found


@pytest.fixture
def service(place: Place) -> Iterator[Service]:
    with served(place.cluster) as found:
        yield found


def more_text(stream: Console) -> bytes:
    """What the guest says from now on; it says something at each of its writes."""
    end, told = time.monotonic() + PATIENCE_S, b""
    while told.count(b"\n") < 5:
        assert time.monotonic() < end, told
        told += stream.read(1.0)
    return told


def no_port_is_open(lab: Lab, host: str, name: str) -> bool:
    with bare.connected(lab, host) as connection:
        text = connection.lookupByName(name).XMLDesc(0)
    return (
        "<listen type='socket'" in text
        and "port=" not in text.partition("<graphics")[2].partition(">")[0]
    )


def test_by_the_library_and_a_service(place: Place, service: Service) -> None:
    with connect(service.address, token=service.token) as far:
        serial, screen = far.console("writer"), far.display("writer")
        more_text(serial)
        assert alike(seen_by(Viewer(screen)), screenshot(place.lab, "h1", "writer")) > ALIKE
        assert no_port_is_open(place.lab, "h1", "writer")
        # It is one's at a time there.
        with pytest.raises(Unreachable) as caught:
            read_to_the_end(far.display("writer"))
        assert caught.value.fields["taken"]
        with pytest.raises(Conflict):
            place.cluster.display("writer")
        place.cluster.migrate("writer", "h2")
        # The same stream goes on.
        more_text(serial)
        with pytest.raises(Unreachable):
            read_to_the_end(screen)
        again = far.display("writer")
        assert alike(seen_by(Viewer(again)), screenshot(place.lab, "h2", "writer")) > ALIKE
        assert no_port_is_open(place.lab, "h2", "writer")
        taken = far.display("writer", force=True)
        Viewer(taken)
        for one in (serial, screen, again, taken):
            one.close()
    place.check_on("h2")


def read_to_the_end(stream: Console) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        stream.read(1.0)


def test_in_a_browser(place: Place, service: Service) -> None:
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("the Python package playwright is not installed")
    from playwright.sync_api import sync_playwright

    from tests.page.surfing import chromium, launched, surfing
    from tests.page.worlds import PASSWORD

    if chromium() is None:
        pytest.skip("Chromium is not installed")
    place.cluster.user_add("ann", role="admin", password=PASSWORD)
    try:
        with sync_playwright() as playwright:
            browser = launched(playwright)
            with (
                surfing(browser, service.address, "ann") as one,
                surfing(browser, service.address, "ann") as two,
            ):
                serial, screen = one.show("/vms/writer/consoles"), two.show("/vms/writer/consoles")
                screen.get_by_role("button", name="Screen", exact=True).click()
                said = rows(serial, "")
                await_picture(screen, place.lab, "h1", "writer")
                place.cluster.migrate("writer", "h2")
                rows(serial, said)
                await_picture(screen, place.lab, "h2", "writer")
                assert serial.locator(".console-status").inner_text() == "Connected"
            browser.close()
    finally:
        place.cluster.user_remove("ann")
