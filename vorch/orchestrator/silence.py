"""Hosts that were silent are noted in the store, so that the next process does not wait for each.

A note saves time and decides nothing: a host that it names is asked all the same, only not for
long, and now and then for as long as any other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

from vorch.codec import encode
from vorch.errors import VorchError
from vorch.model import Silence
from vorch.ports import Change, World

# After this a host may be slow rather than silent, and is waited for in full once more.
PATIENT_EVERY_S = 60.0


def brief(known: Mapping[str, Silence], now: float) -> frozenset[str]:
    """The hosts that somebody has waited for in vain just now."""
    return frozenset(
        name for name, one in known.items() if 0 <= now - one.waited_at < PATIENT_EVERY_S
    )


def note(
    world: World, known: Mapping[str, Silence], asked: Iterable[str], silent: Iterable[str]
) -> dict[str, Silence]:
    """Write down who began to be silent, and who ended. What is known then."""
    now = world.clock.now()
    silent, hasty = set(silent), brief(known, now)
    changed: dict[str, Silence | None] = {}
    for name in asked:
        if name not in silent:
            if name in known:
                changed[name] = None
        elif name not in known:
            changed[name] = Silence(since=now, waited_at=now)
        elif name not in hasty:
            changed[name] = Silence(since=known[name].since, waited_at=now)
    if changed:
        # Who only looks must not fail because this cannot be written.
        with contextlib.suppress(VorchError):
            world.state.commit(
                [
                    Change(f"silence/{name}", None, None if one is None else encode(one))
                    for name, one in changed.items()
                ]
            )
    after = {**known, **changed}
    return {name: one for name, one in after.items() if one is not None}
