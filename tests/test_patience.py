"""How long a lease is left to its holder: by what was seen of it, whatever anybody's clock says."""

from __future__ import annotations

import dataclasses

from vorch.drivers.memory_time import HostClock, MemoryClock
from vorch.patience import Patience
from vorch.ports import GIVEN_BACK, Lease

TTL_S = 15.0


def test_a_lease_that_is_renewed_is_its_holders_however_late_its_clock() -> None:
    clock = MemoryClock()
    patience = Patience(clock, TTL_S)
    lease = Lease("ha", "a", 1, clock.now() + TTL_S)
    for _ in range(10):
        patience.look(lease)
        assert patience.left_s == TTL_S
        clock.advance(TTL_S - 1)
        patience.look(lease)
        assert patience.left_s == 1
        # Its holder's clock runs back all the while.
        lease = dataclasses.replace(lease, expires_at=lease.expires_at - 50)


def test_one_that_is_not_renewed_is_left_for_its_time_however_far_ahead_its_end() -> None:
    clock = MemoryClock()
    patience = Patience(clock, TTL_S)
    lease = Lease("ha", "a", 1, clock.now() + 3600)
    patience.look(lease)
    assert patience.left_s == TTL_S
    clock.advance(TTL_S)
    patience.look(lease)
    assert patience.left_s == 0


def test_one_that_ended_before_it_was_seen_first_is_free_at_once() -> None:
    clock = MemoryClock()
    patience = Patience(clock, TTL_S)
    patience.look(Lease("ha", "a", 1, clock.now() - 3600))
    assert patience.left_s == 0
    # What comes after that was seen to come.
    patience.look(Lease("ha", "b", 2, clock.now() - 60))
    assert patience.left_s == TTL_S


def test_at_first_sight_the_rest_of_its_time_is_enough() -> None:
    clock = MemoryClock()
    patience = Patience(clock, TTL_S)
    patience.look(Lease("ha", "a", 1, clock.now() + 4))
    assert patience.left_s == 4


def test_one_that_was_given_back_is_free_at_once() -> None:
    clock = MemoryClock()
    patience = Patience(clock, TTL_S)
    assert patience.left_s == 0
    lease = Lease("ha", "a", 1, clock.now() + TTL_S)
    patience.look(lease)
    patience.look(dataclasses.replace(lease, expires_at=GIVEN_BACK))
    assert patience.left_s == 0


def test_it_is_counted_by_a_clock_that_nobody_sets() -> None:
    true = MemoryClock()
    clock = HostClock(true)
    patience = Patience(clock, TTL_S)
    patience.look(Lease("ha", "a", 1, clock.now() + TTL_S))
    true.advance(5)
    for ahead_s in (120.0, -120.0, 0.0):
        clock.set(ahead_s)
        assert patience.left_s == TTL_S - 5
    # Whoever stood still has seen nothing meanwhile.
    true.advance(60)
    clock.stood_still(60)
    assert patience.left_s == TTL_S - 5
    assert clock.now() == true.now() - 60
    # A clock that runs too slow has its owner wait longer.
    clock.set(0.0, gains=-0.5)
    assert clock.lasts_s(patience.left_s) == 2 * (TTL_S - 5)
    true.advance(10)
    assert patience.left_s == TTL_S - 10
