"""On whose behalf this thread acts: who asked, within which job, from what they had seen.

It is no argument of the verbs, because it is the same for all that one of them does, plans that it
makes on the way included. Without it, it is the user of this process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class Acting:
    who: str
    job: str = ""
    # Documents that must be at these versions still when the first plan begins.
    expected: Mapping[str, int] = field(default_factory=dict)
    # The plans that were begun, by their tasks' ids.
    tasks: list[str] = field(default_factory=list)


_acting: ContextVar[Acting | None] = ContextVar("acting", default=None)


def now_acting() -> Acting | None:
    return _acting.get()


@contextmanager
def acting(one: Acting) -> Iterator[Acting]:
    """Threads that are begun inside must be given the context (`contextvars.copy_context`)."""
    token = _acting.set(one)
    try:
        yield one
    finally:
        _acting.reset(token)
