"""Many short calls at the same time, by threads that do not hold up the end of the process.

Those of `concurrent.futures` are waited for when a process ends; a call to a daemon that hangs
would keep it from ending.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

S = TypeVar("S")
T = TypeVar("T")


def side_by_side(act: Callable[[S], T], items: Sequence[S], *, most: int) -> list[T]:
    """What `act` makes of each, in their order. The first error of any is raised."""
    answers: list[T | None] = [None] * len(items)
    errors: list[BaseException] = []
    numbers = itertools.count()

    def work() -> None:
        # Counting is one operation to other threads.
        while (number := next(numbers)) < len(items) and not errors:
            try:
                answers[number] = act(items[number])
            except BaseException as exc:  # noqa: BLE001 - raised below
                errors.append(exc)

    threads = [
        threading.Thread(target=work, name="vorch-aside", daemon=True)
        for _ in range(min(most, len(items)))
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    if errors:
        raise errors[0]
    return cast(list[T], answers)
