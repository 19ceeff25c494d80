"""What is not looked at or decided again would have come to the same: it is done all the same here.

Everything that a watch leaves out because nothing has changed is made up for in these hours of
trouble, and compared.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulate.test_faults import SEEDS
from vorch import simulate
from vorch.availability import Availability, Limits
from vorch.decide import ha, spared
from vorch.decide.errands import Round
from vorch.drivers.memory_state import MemoryStore
from vorch.model import Cluster
from vorch.ports import Document
from vorch.simulate import faults
from vorch.sparewatch import SpareWatch
from vorch.watch import Watch, _Mirror


class Made:
    """What was left out, made after all."""

    def __init__(self) -> None:
        self.decisions = self.looks = self.readings = 0

    def decide(
        self, came: Round, cluster: Cluster, seen: Availability, limits: Limits, now: float
    ) -> bool:
        """But for the time at which it is due again, which was reckoned then."""
        self.decisions += 1
        anew = ha.decide(cluster, seen, limits, now)
        assert anew.quiet
        assert anew.sentences == came.sentences
        return True

    def look(self, says: str, cluster: Cluster, seen: Availability, overhead_mib: int) -> bool:
        self.looks += 1
        assert spared.standing(cluster, seen, overhead_mib) == says
        return True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()
    monkeypatch.setattr(Watch, "skipped", staticmethod(made.decide))
    monkeypatch.setattr(SpareWatch, "skipped", staticmethod(made.look))
    value = _Mirror._value

    def compared(self: _Mirror, key: str, found: Document) -> Any:
        """What is kept of a document is what it says."""
        known = value(self, key, found)
        kind = self._kinds[key.partition("/")[0]]
        assert found.read(kind) == known
        made.readings += 1
        return known

    monkeypatch.setattr(_Mirror, "_value", compared)
    return made


def test_what_is_left_out_would_have_come_to_the_same(made: Made) -> None:
    for seed in SEEDS:
        assert faults.trouble_with(simulate.schedule(seed)) is None
    assert made.decisions > 20
    assert made.looks > 20
    assert made.readings > 1000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_would_in_a_hundred_hours(made: Made) -> None:
    for seed in range(1000, 1100):
        assert faults.trouble_with(simulate.schedule(seed)) is None


def test_a_wrong_word_would_be_noticed(monkeypatch: pytest.MonkeyPatch, made: Made) -> None:
    """What looks anew each time finds it when what it rests on is not all there is."""
    monkeypatch.setattr(spared, "rests_on", lambda cluster, seen: "always the same")
    # There the room for the loss of a host is gone for a while.
    with pytest.raises(AssertionError):
        faults.trouble_with(simulate.schedule(7, hosts=3, vms=40))


def test_a_text_is_asked_for_once_written() -> None:
    store = MemoryStore()
    store.write({"vm/a": '{"x":1}', "vm/b": '{"x":2}'})
    first = store.document("vm/a")
    store.write({"vm/a": '{"x":3}', "vm/b": None})
    assert (first.body, first.version) == ({"x": 1}, 1)
    assert (store.document("vm/a").body, store.document("vm/a").version) == ({"x": 3}, 2)
    assert store.documents(["vm/a"]).keys() == {"vm/a"}
    with pytest.raises(KeyError):
        store.document("vm/b")
