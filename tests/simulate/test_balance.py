"""Hours of trouble with a cluster that evens itself out all the while: nothing is lost by that."""

from __future__ import annotations

import pytest

from vorch.autobalance import Autobalance, Turned
from vorch.decide.balance_settings import BalancePolicy
from vorch.simulate import play_seed, player

SEEDS = 6


def test_hosts_are_evened_out_among_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = 0
    set_up, decide = player._Player._set_up, Autobalance.decide

    def switched_on(self: player._Player) -> None:
        set_up(self)
        self._put("balance/policy", BalancePolicy(auto=True, every_s=60.0, moves_max=None))

    def counted(self: Autobalance, *words: object, **more: object) -> Turned:
        nonlocal moved
        turn = decide(self, *words, **more)  # type: ignore[arg-type]
        moved += len(turn.errands)
        return turn

    monkeypatch.setattr(player._Player, "_set_up", switched_on)
    monkeypatch.setattr(Autobalance, "decide", counted)
    for seed in range(SEEDS):
        play_seed(seed)
    assert moved > SEEDS
