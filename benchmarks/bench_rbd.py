"""What vorch's RBD driver costs on top of bare librbd: linked clones and full copies.

`python -m benchmarks.bench_rbd [--runs 30] [--lab NAME]`, as root. Without --lab a lab is made for
it and taken down again. The two sides take turns, so that a noisy machine slows both; the figures
are medians and the ratio of the medians. Each result is looked at before its time counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import rados
import rbd

from vorch.drivers.rbd_images import RbdImages
from vorch.lab import lab as labs
from vorch.ports import no_progress

GIB = 1024**3
PIECE = 4 * 1024**2
SIZE = 32 * GIB
THREADS = 16
CLONES = 100
FEATURES = (
    rbd.RBD_FEATURE_LAYERING
    | rbd.RBD_FEATURE_EXCLUSIVE_LOCK
    | rbd.RBD_FEATURE_OBJECT_MAP
    | rbd.RBD_FEATURE_FAST_DIFF
    | rbd.RBD_FEATURE_DEEP_FLATTEN
)
NAMESPACE = "bench"


@contextmanager
def connected(conf: str) -> Iterator[Any]:
    """librados itself, making clones of the kind that the driver makes."""
    cluster = rados.Rados(conffile=conf, rados_id="vorch")
    cluster.conf_set("rbd_default_clone_format", "2")
    cluster.connect()
    try:
        yield cluster
    finally:
        cluster.shutdown()


class Sides:
    """One namespace, seen by the driver and by librbd."""

    def __init__(self, conf: str, data_bytes: int) -> None:
        self._connection = connected(conf)
        self.cluster = self._connection.__enter__()
        self.ioctx = self.cluster.open_ioctx("vms")
        if not rbd.RBD().namespace_exists(self.ioctx, NAMESPACE):
            rbd.RBD().namespace_create(self.ioctx, NAMESPACE)
        self.ioctx.set_namespace(NAMESPACE)
        self.images = RbdImages("bench", f"rbd://vms/{NAMESPACE}?conf={conf}&id=vorch")
        self.data_bytes = data_bytes
        self.block = os.urandom(PIECE)

    def prepare(self) -> None:
        """A base of 32 GiB with that many bytes in it, all over."""
        self.clear()
        self.images.create("base", SIZE)
        count = self.data_bytes // PIECE
        with rbd.Image(self.ioctx, "base") as image, ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda n: image.write(self.block, self.place(n)), range(count)))
        # Both sides clone from one snapshot, that of the driver's first clone.
        self.images.clone("base", "first", SIZE)

    def place(self, number: int) -> int:
        return number * (SIZE // (self.data_bytes // PIECE) // PIECE * PIECE)

    def bare_clone(self, name: str) -> None:
        rbd.RBD().clone(self.ioctx, "base", ".base", self.ioctx, name, features=FEATURES)

    def bare_copy(self, name: str) -> None:
        with rbd.Image(self.ioctx, "base", read_only=True) as image:
            image.copy(self.ioctx, name, features=FEATURES)

    def check(self, name: str, *, linked: bool) -> None:
        last = self.place(self.data_bytes // PIECE - 1)
        with rbd.Image(self.ioctx, name, read_only=True) as image:
            assert image.size() == SIZE
            for offset in (0, last):
                assert image.read(offset, PIECE) == self.block, (name, offset)
            assert image.read(PIECE, 4096) == bytes(4096) or self.place(1) == PIECE
            try:
                above = image.get_parent_image_spec()["image_name"]
            except rbd.ImageNotFound:
                above = None
            assert above == ("base" if linked else None), above

    def remove(self, name: str) -> None:
        rbd.RBD().remove(self.ioctx, name)

    def clear(self) -> None:
        for one in self.images.list():
            self.images.purge(one.name)

    def close(self) -> None:
        self.clear()
        self.images.close()
        self.ioctx.set_namespace("")
        rbd.RBD().namespace_remove(self.ioctx, NAMESPACE)
        self.ioctx.close()
        self._connection.__exit__(None, None, None)


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def compared(ours: list[float], bare: list[float]) -> dict[str, float]:
    result = {
        "vorch_ms": 1000 * statistics.median(ours),
        "bare_ms": 1000 * statistics.median(bare),
        "vorch_p99_ms": 1000 * sorted(ours)[min(len(ours) - 1, int(len(ours) * 0.99))],
        "ratio": statistics.median(ours) / statistics.median(bare),
    }
    return {key: round(value, 2) for key, value in result.items()}


def linked_clones(sides: Sides, runs: int) -> dict[str, float]:
    ours: list[float] = []
    bare: list[float] = []
    for number in range(runs):
        names = (f"ours{number}", f"bare{number}")
        ours.append(timed(partial(sides.images.clone, "base", names[0], SIZE)))
        bare.append(timed(partial(sides.bare_clone, names[1])))
        for name in names:
            sides.check(name, linked=True)
            sides.remove(name)
    return compared(ours, bare)


def parallel_clones(sides: Sides, runs: int) -> dict[str, float]:
    def all_of(act: Callable[[str], Any], names: list[str]) -> None:
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(act, names))

    ours: list[float] = []
    bare: list[float] = []
    for turn in range(runs):
        names = [f"p{number}" for number in range(CLONES)]
        both = [
            (ours, lambda name: sides.images.clone("base", name, SIZE)),
            (bare, sides.bare_clone),
        ]
        for times, act in both if turn % 2 == 0 else reversed(both):
            times.append(timed(partial(all_of, act, names)))
            for name in (names[0], names[-1]):
                sides.check(name, linked=True)
            all_of(sides.remove, names)
    return compared(ours, bare)


def full_copies(sides: Sides, runs: int) -> dict[str, float]:
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(runs):
        ours.append(timed(lambda: sides.images.copy("base", None, "ours", no_progress)))
        sides.check("ours", linked=False)
        sides.remove("ours")
        bare.append(timed(lambda: sides.bare_copy("bare")))
        sides.check("bare", linked=False)
        sides.remove("bare")
    return compared(ours, bare)


def listing(sides: Sides, count: int) -> dict[str, float]:
    for number in range(count):
        sides.bare_clone(f"l{number}")
    times = []
    for _ in range(3):
        times.append(timed(lambda: sides.images.list()))
    assert len(sides.images.list()) == count + 2
    for number in range(count):
        sides.remove(f"l{number}")
    return {"images": count + 2, "vorch_ms": round(1000 * statistics.median(times), 1)}


@contextmanager
def ceph(name: str | None) -> Iterator[str]:
    if name is not None:
        yield str(labs.Lab.find(name).spec.ceph_conf)
        return
    made = labs.up("bench", hosts=1, osds=3)
    try:
        yield str(made.spec.ceph_conf)
    finally:
        labs.down("bench")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--lab")
    parser.add_argument("--data-mib", type=int, default=1024)
    options = parser.parse_args()
    few = max(1, options.runs // 10)
    with ceph(options.lab) as conf:
        sides = Sides(conf, options.data_mib * 1024**2)
        try:
            sides.prepare()
            result = {
                "clone": linked_clones(sides, options.runs),
                f"{CLONES} clones on {THREADS} threads": parallel_clones(sides, few),
                "copy": full_copies(sides, few),
                "list": listing(sides, 200),
            }
        finally:
            sides.close()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
