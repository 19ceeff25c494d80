"""A process that is killed on its way: `-m tests.real.victim SETTINGS STORY POINT [DELAY_MS]`.

It carries out the story's verb and ends itself by SIGKILL at the given point (counted over all
points where a crash could fall), or that many milliseconds after it.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import time

import vorch
from tests.execute.scenarios import stories
from vorch.plan import Journal


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    given = json.loads(sys.argv[1])
    name, number = sys.argv[2], int(sys.argv[3])
    delay_s = int(sys.argv[4]) / 1000 if len(sys.argv) > 4 else 0.0
    seen = itertools.count()

    def later() -> None:
        time.sleep(delay_s)
        kill_self()

    def hook(point: str, journal: Journal) -> None:
        if next(seen) != number:
            return
        if delay_s:
            threading.Thread(target=later, daemon=True).start()
        else:
            kill_self()

    story = next(s for s in stories(**given["stories"]) if s.name == name)
    with vorch.connect(settings=vorch.Settings(**given["settings"]), hook=hook) as cluster:
        story.act(cluster)


if __name__ == "__main__":
    main()
