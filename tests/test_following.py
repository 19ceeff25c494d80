"""A serial port that is followed from host to host: what is waited for, and what ends it."""

from __future__ import annotations

import threading
import time

import pytest

from vorch.errors import Conflict, NotFound, Unreachable
from vorch.orchestrator.consoles import Following


class Port:
    """A stream that says one thing, and ends."""

    def __init__(self, *says: bytes) -> None:
        self._says = list(says)
        self.heard = b""
        self.ended = False

    def read(self, timeout_s: float) -> bytes:
        if self._says:
            return self._says.pop(0)
        self._check()
        time.sleep(min(timeout_s, 0.01))
        return b""

    def write(self, data: bytes) -> None:
        self._check()
        self.heard += data

    def close(self) -> None:
        self.ended = True

    def _check(self) -> None:
        if self.ended:
            raise Unreachable("cannot read it: its VM has ended; start it")


def test_it_waits_for_the_next_one_and_goes_on_there() -> None:
    first, second = Port(b"one"), Port(b"two")
    coming: list[Port | None] = [None, None, second]
    stream = Following(first, lambda: coming.pop(0))
    assert stream.read(1.0) == b"one"
    first.close()
    assert stream.read(0.0) == b""
    assert stream.read(5.0) == b"two"
    stream.write(b"keys")
    assert second.heard == b"keys"
    stream.close()
    assert second.ended


def test_keys_wait_for_it_too_and_a_reader_is_not_held_up_by_that() -> None:
    first, second = Port(), Port()
    there = threading.Event()
    stream = Following(first, lambda: second if there.is_set() else None)
    first.close()
    writing = threading.Thread(target=stream.write, args=(b"typed",))
    writing.start()
    began = time.monotonic()
    assert stream.read(0.1) == b""
    assert time.monotonic() - began < 2.0
    there.set()
    writing.join(5.0)
    assert second.heard == b"typed"


@pytest.mark.parametrize("taken", [False, True])
def test_it_ends_when_none_will_come(taken: bool) -> None:
    def again() -> None:
        if taken:
            raise Conflict("cannot open it: somebody else has it", taken=True)
        raise NotFound("cannot open it: the VM does not run")

    first = Port()
    first.close()
    stream = Following(first, again)
    with pytest.raises(Unreachable, match="somebody else" if taken else "has ended") as caught:
        stream.read(1.0)
    assert caught.value.fields.get("taken", False) is taken


def test_it_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vorch.orchestrator.consoles.FOLLOW_S", 0.1)
    first = Port()
    first.close()
    with pytest.raises(Unreachable, match="has ended"):
        Following(first, lambda: None).read(5.0)


def test_whoever_waits_is_woken_by_its_end() -> None:
    first = Port()
    first.close()
    stream = Following(first, lambda: None)
    threading.Timer(0.1, stream.close).start()
    with pytest.raises(Unreachable):
        stream.write(b"x")
