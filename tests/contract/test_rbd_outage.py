"""Linked clones come and go while every OSD falls silent: whatever call that hits, nothing is left.

Ten threads do as a plan does: forward, and when Ceph does not answer, back, again and again. The
states that this reaches by chance are made by hand in test_rbd_halves.py.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract import ceph_images
from tests.contract.ceph import the_lab
from vorch.drivers.rbd_images import RbdImages
from vorch.errors import Unreachable
from vorch.lab.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]

SIZE = 8 * 1024**2
WORKERS = 10
# Shorter than the outage, so that what is under way is given up in it.
TIMEOUT_S = 4.0
OUTAGE_S = 8.0
PATIENCE_S = 240.0


def until_answered(act: Callable[..., object], *words: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            act(*words)
        except Unreachable:
            assert time.monotonic() < deadline
            # Not all at the same time.
            time.sleep(random.random())
        else:
            return


class Cloner:
    """Volume `vN`: a base made of it and a clone of that, and both deleted, over and over."""

    def __init__(self, images: RbdImages, number: int) -> None:
        self.images = images
        self.volume = f"v{number}"
        self.text = bytes([number + 1]) * 4096
        self.rounds = 0
        images.write_file(self.volume, self.text + bytes(SIZE - len(self.text)))

    def work(self, over: threading.Event) -> None:
        while not over.is_set():
            self.rounds += 1
            base, clone = f"{self.volume}b{self.rounds}", f"{self.volume}c{self.rounds}"
            try:
                self.images.make_base(self.volume, base)
                self.images.clone(base, clone, SIZE)
            except Unreachable:
                until_answered(self.images.purge, clone)
                until_answered(self.images.unmake_base, self.volume, base)
                continue
            until_answered(self.images.purge, base)
            until_answered(self.images.purge, clone)

    def check(self) -> None:
        assert self.images.read_file(self.volume, SIZE)[: len(self.text)] == self.text


@pytest.fixture
def pool(request: pytest.FixtureRequest) -> Iterator[tuple[Lab, Any, RbdImages]]:
    lab = the_lab(request)
    with ceph_images.connected(lab) as cluster, ceph_images.namespace(cluster) as name:
        images = ceph_images.images(lab, name, timeout_s=TIMEOUT_S)
        with cluster.open_ioctx(ceph_images.POOL) as ioctx:
            ioctx.set_namespace(name)
            yield lab, ioctx, images
        images.close()


def objects(ioctx: Any) -> list[str]:
    """Of images, down to what no command of RBD shows. A few bytes that only hold a name of a
    volume that was being written are let pass: they are no volume and in nobody's way.
    """
    return [
        one.key
        for one in ioctx.list_objects()
        if one.key.startswith(("rbd_id.", "rbd_header.", "rbd_object_map.", "rbd_data."))
        and not one.key.startswith("rbd_id..work~")
    ]


@pytest.mark.thorough
def test_nothing_is_left_of_clones_that_an_outage_hits(pool: tuple[Lab, Any, RbdImages]) -> None:
    import rbd

    lab, ioctx, images = pool
    cloners = [Cloner(images, number) for number in range(WORKERS)]
    over = threading.Event()
    with ThreadPoolExecutor(WORKERS + len(lab.spec.osd_numbers)) as threads:
        working = [threads.submit(one.work, over) for one in cloners]
        try:
            # From here on the calls of all of them are spread out.
            deadline = time.monotonic() + PATIENCE_S
            while not all(one.rounds > 1 for one in cloners):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            list(threads.map(lab.osd_kill, lab.spec.osd_numbers))
            time.sleep(OUTAGE_S)
        finally:
            over.set()
            lab.heal()
        for each in working:
            each.result()
    for one in cloners:
        until_answered(one.check)
        until_answered(images.purge, one.volume)
    assert rbd.RBD().list(ioctx) == []
    assert list(rbd.RBD().trash_list(ioctx)) == []
    assert objects(ioctx) == []
