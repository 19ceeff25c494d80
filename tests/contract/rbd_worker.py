"""Another process at work on an RBD pool, to be killed: python -m …rbd_worker URL ACT WORDS

It says "at PERCENT" as it goes, and stops for ever at the percent that it was given.
"""

from __future__ import annotations

import struct
import sys
import time

from vorch.drivers.rbd_images import RbdImages


def main(url: str, act: str, *words: str) -> None:
    images = RbdImages("ceph", url)

    def say(text: str) -> None:
        print(text, flush=True)

    def until(limit: float, percent: float | None) -> None:
        if percent is not None and percent >= limit:
            say(f"at {percent}")
            time.sleep(600)

    if act == "copy":
        source, target, limit = words
        images.copy(
            source, None, target, lambda percent=None, line=None: until(float(limit), percent)
        )
    elif act == "import":
        path, target, limit = words
        images.import_file(
            path, target, "disk", "", lambda percent=None, line=None: until(float(limit), percent)
        )
    elif act == "snapshot":
        images.list()
        say("ready")
        images.snapshot(words[1:], words[0])
    elif act == "clone":
        base, size, *names = words
        say("ready")
        sys.stdin.readline()
        for name in names:
            images.clone(base, name, int(size))
    elif act == "call":
        images.list()
        say("ready")
        getattr(images, words[0])(*words[1:])
    elif act == "write":
        _write_in_turn(images, words)
        return
    say("done")


def _write_in_turn(images: RbdImages, names: tuple[str, ...]) -> None:
    """The same growing number to the first, then to the second, as a database with two disks."""
    import rbd

    ioctx = images._pool.ioctx()
    disks = [rbd.Image(ioctx, name) for name in names]
    number = 0
    while True:
        number += 1
        for disk in disks:
            disk.write(struct.pack(">Q", number) + bytes(504), 0)
        if number == 1:
            print("ready", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
