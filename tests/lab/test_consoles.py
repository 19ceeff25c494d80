"""Consoles of VMs on hosts reached by TLS, that move: by the library and in a browser."""

from __future__ import annotations

import base64
import importlib.util
import struct
import time
from collections.abc import Iterator

import pytest

from tests.api.serving import served
from tests.lab import bare
from tests.lab.places import Kept, Place
from tests.rfb import Viewer
from tests.screens import ALIKE, Screen, alike, screen_in, seen_by
from vorch import Conflict, Console, Unreachable, connect
from vorch.lab import Lab
from vorch_api import Service

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE_S = 60.0
_PIXELS = """() => {
  const canvas = document.querySelector(".console-screen canvas");
  if (!canvas || !canvas.width) return null;
  const paint = canvas.getContext("2d", {willReadFrequently: true});
  const data = paint.getImageData(0, 0, canvas.width, canvas.height).data;
  let text = "";
  for (let at = 0; at < data.length; at += 4) {
    text += String.fromCharCode(data[at], data[at + 1], data[at + 2]);
  }
  return [canvas.width, canvas.height, btoa(text)];
}"""


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


def screenshot(lab: Lab, host: str, name: str) -> Screen:
    """As libvirt makes it there: width, height, red, green and blue of each pixel."""
    with bare.connected(lab, host) as connection:
        stream = connection.newStream()
        connection.lookupByName(name).screenshot(stream, 0)
        told = b""
        while data := stream.recv(65536):
            told += data
        stream.finish()
    return screen_in(told)


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
                await_picture(screen, place, "h1")
                place.cluster.migrate("writer", "h2")
                rows(serial, said)
                await_picture(screen, place, "h2")
                assert serial.locator(".console-status").inner_text() == "Connected"
            browser.close()
    finally:
        place.cluster.user_remove("ann")


def rows(page: object, before: str) -> str:
    """The text in the terminal, when it is another and the guest's own."""
    end = time.monotonic() + PATIENCE_S
    while True:
        text = str(page.locator(".xterm-rows").inner_text()) if page else ""  # type: ignore[attr-defined]
        if text != before and any(len(line) > 10 for line in text.splitlines()):
            return text
        assert time.monotonic() < end, text
        time.sleep(0.5)


def await_picture(page: object, place: Place, host: str) -> None:
    end = time.monotonic() + PATIENCE_S
    found = 0.0
    while found < ALIKE:
        assert time.monotonic() < end, found
        time.sleep(1.0)
        told = page.evaluate(_PIXELS)  # type: ignore[attr-defined]
        if told is not None:
            width, height, text = told
            shown = (int(width), int(height), base64.b64decode(text))
            assert len(shown[2]) == 3 * shown[0] * shown[1]
            if len(set(struct.iter_unpack("3B", shown[2]))) > 1:
                found = alike(shown, screenshot(place.lab, host, "writer"))
