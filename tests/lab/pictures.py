"""What a console in a browser shows, beside what the host itself has of the guest's screen."""

from __future__ import annotations

import base64
import struct
import time
from typing import TYPE_CHECKING

from tests.lab import bare
from tests.screens import ALIKE, Screen, alike, screen_in
from vorch.lab import Lab

if TYPE_CHECKING:
    from playwright.sync_api import Page

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


def rows(page: Page, before: str) -> str:
    """The text in the terminal, when it is another and the guest's own."""
    end = time.monotonic() + PATIENCE_S
    while True:
        text = page.locator(".xterm-rows").inner_text()
        if text != before and any(len(line) > 10 for line in text.splitlines()):
            return text
        assert time.monotonic() < end, text
        time.sleep(0.5)


def await_picture(page: Page, lab: Lab, host: str, name: str) -> None:
    end = time.monotonic() + PATIENCE_S
    found = 0.0
    while found < ALIKE:
        assert time.monotonic() < end, found
        time.sleep(1.0)
        told = page.evaluate(_PIXELS)
        if told is not None:
            width, height, text = told
            shown = (int(width), int(height), base64.b64decode(text))
            assert len(shown[2]) == 3 * shown[0] * shown[1]
            if len(set(struct.iter_unpack("3B", shown[2]))) > 1:
                found = alike(shown, screenshot(lab, host, name))
