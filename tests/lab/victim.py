"""A process that is killed on its way: `-m tests.lab.victim SETTINGS STORY POINT WORDS`.

It does what the story says and ends itself by SIGKILL at that point: counted are the executor's
points and, between them, each call into librbd. Without being killed it says how many there were.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import rbd

import vorch
from vorch.plan import Journal

STORIES: dict[str, Callable[..., object]] = {
    "import": lambda cluster, name, path: cluster.image_import(name, path, pool="fast"),
    "at-once": lambda cluster, name, url: cluster.image_import(
        name, url, pool="fast", at_once=True
    ),
    "clone": lambda cluster, name, copy: cluster.clone(name, copy),
    "snapshot": lambda cluster, name, taken: cluster.snapshot_create(name, taken),
    "send": lambda cluster, name, other: cluster.send(name, other),
    "drain": lambda cluster, host: cluster.node_maintenance(host, True),
}


class Points:
    """Counts them from the moment that a plan is open."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.count = 0
        self.open = False

    def hook(self, point: str, journal: Journal) -> None:
        self.open = True
        self.passed()

    def passed(self) -> None:
        if not self.open:
            return
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def counted(self, kind: type) -> type:
        """The same class of librbd's, of which each call is a point."""

        def wrap(name: str) -> Callable[..., Any]:
            def call(this: Any, *words: Any, **options: Any) -> Any:
                self.passed()
                return getattr(kind, name)(this, *words, **options)

            return call

        calls = [name for name in dir(kind) if not name.startswith("_") and name != "close"]
        methods = {name: wrap(name) for name in calls if callable(getattr(kind, name))}
        return type(kind.__name__, (kind,), methods)


def main(given: str, story: str, last: str, *words: str) -> None:
    points = Points(int(last))
    for kind in (rbd.RBD, rbd.Image, rbd.Group):
        setattr(rbd, kind.__name__, points.counted(kind))
    settings = vorch.Settings(**json.loads(given))
    with vorch.connect(settings=settings, hook=points.hook, recover=False) as cluster:
        STORIES[story](cluster, *words)
    print(points.count)


if __name__ == "__main__":
    main(*sys.argv[1:])
