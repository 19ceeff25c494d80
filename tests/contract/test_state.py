"""The contract of the State port, for every driver of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.contract.states import STORES, Store, made, parameters
from tests.thorough import much
from vorch.availability import VmRecord
from vorch.codec import Coded, encode
from vorch.errors import Conflict, Invalid, Unreachable
from vorch.ports import Change, Lease, State

NOW = 1_900_000_000.0

# A busy machine is no failure.
QUIETLY = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture(params=parameters(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    yield from made(request.param, tmp_path, request)


@pytest.fixture
def state(store: Store) -> State:
    return store.connect()


def put(state: State, key: str, **body: Any) -> int:
    return state.commit([Change(key, None, body)])


def body(state: State, key: str) -> dict[str, Any] | None:
    document = state.get(key)
    return None if document is None else document.body


# ---------------------------------------------------------------------------------------------
# Documents


def test_a_new_store_is_empty(state: State) -> None:
    assert state.get("vm/web") is None
    assert state.read(["vm", "node"]) == {}
    assert state.changes(0, 0) == (0, ())


def test_a_document_comes_back_as_it_was_written(store: Store, state: State) -> None:
    written = {"a": [1, 2.5, None, True], "ü": "\ud800 \x00 '\"; DROP TABLE documents; --", "": {}}
    revision = state.commit([Change("vm/web", 0, written)])
    for reader in (state, store.connect()):
        document = reader.get("vm/web")
        assert document is not None
        assert (document.key, document.name) == ("vm/web", "web")
        assert document.version == revision > 0
        assert document.body == written


@pytest.mark.parametrize("why", ["größer", "half a pair: \ud800", "NaN"])
def test_a_value_is_written_as_it_is_encoded(store: Store, state: State, why: str) -> None:
    value = VmRecord(vm="web", why=why, failed=("h1",), since=1.9e9 + 0.1)
    state.commit([Change("havm/web", 0, Coded(value))])
    document = store.connect().get("havm/web")
    assert document is not None
    assert document.body == encode(value)
    assert document.read(VmRecord) == value
    with pytest.raises(Invalid):
        state.commit([Change("havm/web", None, Coded(VmRecord(vm="web", since=math.nan)))])
    with pytest.raises(Invalid):
        document.read(Lease)


def test_names_may_hold_slashes_and_odd_characters(state: State) -> None:
    for key in ("claim/vm/web", "vm/a%b_c*", "vm/ü", "vm/'"):
        put(state, key, own=key)
    assert set(state.read(["vm"])) == {"vm/a%b_c*", "vm/ü", "vm/'"}
    assert body(state, "claim/vm/web") == {"own": "claim/vm/web"}


def test_what_was_given_or_got_can_be_changed_without_changing_the_store(state: State) -> None:
    given_body: dict[str, Any] = {"disks": [1]}
    state.commit([Change("vm/web", 0, given_body)])
    given_body["disks"].append(2)
    got = state.read(["vm"])["vm/web"]
    got.body["disks"].append(3)
    assert body(state, "vm/web") == {"disks": [1]}


def test_read_gives_whole_kinds_and_no_others(state: State) -> None:
    for key in ("vm/a", "vm/b", "vmx/a", "v/a", "node/h1", "vm-old/a"):
        put(state, key)
    assert list(state.read(["vm"])) == ["vm/a", "vm/b"]
    assert set(state.read(["node", "vm"])) == {"vm/a", "vm/b", "node/h1"}
    assert state.read([]) == {}
    assert state.read(["nothing"]) == {}


def test_each_commit_is_one_revision_and_the_version_of_what_it_wrote(state: State) -> None:
    first = state.commit([Change("vm/a", 0, {}), Change("vm/b", 0, {})])
    second = put(state, "vm/b", x=1)
    assert second > first
    assert {key: one.version for key, one in state.read(["vm"]).items()} == {
        "vm/a": first,
        "vm/b": second,
    }


def test_a_commit_holds_only_if_the_versions_do(store: Store, state: State) -> None:
    version = put(state, "vm/a", n=1)
    other = store.connect()
    newer = put(other, "vm/a", n=2)
    for expected in (version, 0, newer + 1):
        with pytest.raises(Conflict) as caught:
            state.commit([Change("vm/a", expected, {"n": 3})])
        assert caught.value.fields["key"] == "vm/a"
    with pytest.raises(Conflict):
        state.commit([Change("vm/none", 7, {})])
    state.commit([Change("vm/a", newer, {"n": 3})])
    assert body(other, "vm/a") == {"n": 3}


def test_a_commit_is_all_or_nothing(state: State) -> None:
    version = put(state, "vm/a", n=1)
    put(state, "vm/c")
    revision, _ = state.changes(0, 0)
    with pytest.raises(Conflict) as caught:
        state.commit(
            [
                Change("vm/a", version, {"n": 2}),
                Change("vm/b", 0, {}),
                Change("vm/c", None, None),
                Change("vm/d", 5, check_only=True),
            ]
        )
    assert caught.value.fields["key"] == "vm/d"
    assert body(state, "vm/a") == {"n": 1}
    assert set(state.read(["vm"])) == {"vm/a", "vm/c"}
    assert state.changes(revision, 0) == (revision, ())


def test_check_only_asks_and_changes_nothing(state: State) -> None:
    version = put(state, "vm/a", n=1)
    assert state.commit([Change("vm/a", version, check_only=True)]) == version
    state.commit([Change("vm/a", version, check_only=True), Change("vm/b", 0, {})])
    document = state.get("vm/a")
    assert document is not None
    assert (document.version, document.body) == (version, {"n": 1})
    state.commit([Change("vm/none", 0, check_only=True)])
    with pytest.raises(Conflict):
        state.commit([Change("vm/a", 0, check_only=True)])


def test_deleting(state: State) -> None:
    version = put(state, "vm/a")
    with pytest.raises(Conflict):
        state.commit([Change("vm/a", version + 1, None)])
    gone = state.commit([Change("vm/a", version, None)])
    assert gone > version
    assert state.get("vm/a") is None
    assert state.read(["vm"]) == {}
    # Again, and one that never was: quietly, and without a new revision.
    assert state.commit([Change("vm/a", None, None), Change("vm/x", 0, None)]) == gone
    again = state.commit([Change("vm/a", 0, {})])
    assert again > gone


@pytest.mark.parametrize(
    "key", ["", "vm", "vm/", "/web", "vm/a\nb", "vm/\x00", "*/a", "vm/" + "x" * 600]
)
def test_what_is_no_key_is_refused(state: State, key: str) -> None:
    with pytest.raises(Invalid):
        state.commit([Change("vm/good", 0, {}), Change(key, None, {})])
    with pytest.raises(Invalid):
        state.get(key)
    assert state.read(["vm"]) == {}


@pytest.mark.parametrize("kind", ["", "vm/", "a/b", "*"])
def test_what_is_no_kind_is_refused(state: State, kind: str) -> None:
    with pytest.raises(Invalid):
        state.read([kind])


@pytest.mark.parametrize(
    "bad", [{"x": float("nan")}, {"x": float("inf")}, {"x": object()}, {"x": b"y"}, {"x": {1, 2}}]
)
def test_what_is_no_json_is_refused(state: State, bad: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        state.commit([Change("vm/a", 0, {}), Change("vm/b", 0, bad)])
    assert state.read(["vm"]) == {}


def test_a_key_stands_in_a_commit_once(state: State) -> None:
    with pytest.raises(Invalid):
        state.commit([Change("vm/a", 0, {}), Change("vm/a", None, {"n": 1})])
    assert state.get("vm/a") is None


def test_an_empty_commit_changes_nothing(state: State) -> None:
    revision = put(state, "vm/a")
    assert state.commit([]) == revision


def test_many_documents_at_once(state: State) -> None:
    state.commit([Change(f"vm/v{number}", 0, {"n": number}) for number in range(1000)])
    assert len(state.read(["vm"])) == 1000


def test_a_large_document(state: State) -> None:
    put(state, "task/big", log="x" * 3_000_000)
    assert len((body(state, "task/big") or {})["log"]) == 3_000_000


# ---------------------------------------------------------------------------------------------
# Changes


def test_changes_name_what_was_written_or_deleted_since(store: Store, state: State) -> None:
    first = put(state, "vm/a")
    second = put(store.connect(), "vm/b")
    third = state.commit([Change("vm/a", first, None)])
    assert state.changes(0, 0) == (third, ("vm/a", "vm/b"))
    assert state.changes(first, 0) == (third, ("vm/a", "vm/b"))
    assert state.changes(second, 0) == (third, ("vm/a",))
    assert state.changes(third, 0) == (third, ())
    fourth = put(state, "vm/a")
    assert state.changes(third, 0) == (fourth, ("vm/a",))


def test_waiting_for_changes_ends_when_another_makes_one(store: Store, state: State) -> None:
    revision = put(state, "vm/a")
    other = store.connect()
    store.meanwhile(lambda: put(other, "vm/b"))
    assert state.changes(revision, 20) == (revision + 1, ("vm/b",))


def test_waiting_for_changes_ends_when_the_time_is_over(state: State) -> None:
    revision = put(state, "vm/a")
    assert state.changes(revision, 0.05) == (revision, ())


def test_leases_are_no_changes(state: State) -> None:
    revision = put(state, "vm/a")
    assert state.acquire("leader", "a", 10, now=NOW) is not None
    assert state.changes(revision, 0) == (revision, ())


def test_a_revision_of_the_future_means_that_all_must_be_read_again(state: State) -> None:
    revision = put(state, "vm/a")
    assert state.changes(revision + 5, 0) == (revision, ("*",))


# ---------------------------------------------------------------------------------------------
# Leases


def test_a_lease_has_one_holder(store: Store, state: State) -> None:
    lease = state.acquire("leader", "a", 10, now=NOW)
    assert lease == Lease("leader", "a", 1, NOW + 10)
    other = store.connect()
    assert other.acquire("leader", "b", 10, now=NOW + 9.9) is None
    assert other.lease("leader") == lease
    assert other.acquire("another", "b", 10, now=NOW) is not None
    assert other.lease("nobody's") is None


def test_the_holder_may_acquire_again_and_keeps_its_epoch(state: State) -> None:
    state.acquire("leader", "a", 10, now=NOW)
    assert state.acquire("leader", "a", 10, now=NOW + 5) == Lease("leader", "a", 1, NOW + 15)


def test_after_its_end_its_holder_has_it_again_with_a_greater_epoch(state: State) -> None:
    state.acquire("leader", "a", 10, now=NOW)
    # It does not know what happened in between.
    assert state.acquire("leader", "a", 10, now=NOW + 10) == Lease("leader", "a", 2, NOW + 20)


def test_it_is_taken_over_as_it_was_seen_or_not_at_all(store: Store, state: State) -> None:
    seen = state.acquire("leader", "a", 10, now=NOW)
    assert seen is not None
    other = store.connect()
    # Whatever the clocks say: its holder's may be right, and the other one's wrong.
    assert other.acquire("leader", "b", 10, now=NOW + 9999) is None
    renewed = state.renew(seen, 10, now=NOW + 1)
    assert other.acquire("leader", "b", 10, now=NOW + 9999, over=seen) is None
    assert state.lease("leader") == renewed
    taken = other.acquire("leader", "b", 10, now=NOW - 500, over=renewed)
    assert taken == Lease("leader", "b", 2, NOW - 490)
    assert other.lease("leader") == taken
    # Of two that have seen the same, one has it.
    assert state.acquire("leader", "c", 10, now=NOW + 99, over=renewed) is None
    assert state.renew(seen, 10, now=NOW + 2) is None


def test_each_renewal_can_be_seen(store: Store, state: State) -> None:
    """Also by a holder whose clock stands still."""
    other = store.connect()
    looks = []
    for now in (NOW, NOW, NOW - 60, NOW - 60):
        lease = state.acquire("leader", "a", 10, now=now)
        assert lease is not None
        looks.append(other.lease("leader"))
        assert state.renew(lease, 10, now=now) == other.lease("leader")
        looks.append(other.lease("leader"))
    assert all(one != following for one, following in itertools.pairwise(looks))


def test_renewing(state: State) -> None:
    lease = state.acquire("leader", "a", 10, now=NOW)
    assert lease is not None
    later = state.renew(lease, 10, now=NOW + 8)
    assert later == Lease("leader", "a", 1, NOW + 18)
    assert state.lease("leader") == later
    # Too late, but nobody came in between.
    assert state.renew(lease, 10, now=NOW + 50) == Lease("leader", "a", 1, NOW + 60)
    state.acquire("leader", "b", 10, now=NOW + 60, over=state.lease("leader"))
    assert state.renew(lease, 10, now=NOW + 61) is None
    # Not even when the other has ended since.
    assert state.renew(lease, 10, now=NOW + 99) is None


def test_releasing(state: State) -> None:
    lease = state.acquire("leader", "a", 10, now=NOW)
    assert lease is not None
    state.release(lease)
    state.release(lease)
    assert state.renew(lease, 10, now=NOW + 1) is None
    taken = state.acquire("leader", "b", 10, now=NOW + 1)
    assert taken is not None
    assert taken.epoch == 2
    # Somebody else's is not released.
    state.release(lease)
    assert state.lease("leader") == taken
    state.release(Lease("unknown", "a", 1, NOW))
    assert state.lease("unknown") is None


def test_epochs_grow_for_ever(store: Store) -> None:
    epochs = []
    for number in range(5):
        state = store.connect()
        over = state.lease("leader")
        lease = state.acquire("leader", f"h{number % 2}", 1, now=NOW + 10 * number, over=over)
        assert lease is not None
        epochs.append(lease.epoch)
        if number % 2:
            state.release(lease)
    assert epochs == sorted(set(epochs))


def test_a_commit_under_a_lease_holds_only_without_a_newer_one(state: State) -> None:
    lease = state.acquire("leader", "a", 10, now=NOW)
    assert lease is not None
    state.commit([Change("ha/x", 0, {"n": 1})], lease=lease)
    renewed = state.renew(lease, 10, now=NOW + 5)
    assert renewed is not None
    for own in (lease, renewed):
        state.commit([Change("ha/x", None, {"n": 2})], lease=own)
    newer = state.acquire("leader", "b", 10, now=NOW + 30, over=renewed)
    with pytest.raises(Conflict) as caught:
        state.commit([Change("ha/x", None, {"n": 3})], lease=lease)
    assert caught.value.fields["key"] == "lease/leader"
    assert body(state, "ha/x") == {"n": 2}
    state.commit([Change("ha/x", None, {"n": 4})], lease=newer)
    with pytest.raises(Conflict):
        state.commit([], lease=Lease("never", "a", 1, NOW))


@pytest.mark.parametrize("ttl", [0, -1, float("inf"), float("nan")])
def test_a_lease_needs_an_end(state: State, ttl: float) -> None:
    with pytest.raises(Invalid):
        state.acquire("leader", "a", ttl, now=NOW)
    assert state.lease("leader") is None


@pytest.mark.parametrize(("name", "holder"), [("", "a"), ("leader", ""), ("a\nb", "a")])
def test_a_lease_needs_names(state: State, name: str, holder: str) -> None:
    with pytest.raises(Invalid):
        state.acquire(name, holder, 1, now=NOW)


# ---------------------------------------------------------------------------------------------
# The end


def test_a_closed_connection_says_so_and_others_go_on(store: Store, state: State) -> None:
    other = store.connect()
    put(state, "vm/a")
    state.close()
    state.close()
    with pytest.raises(Unreachable):
        state.get("vm/a")
    with pytest.raises(Unreachable):
        put(state, "vm/b")
    with pytest.raises(Unreachable):
        state.changes(0, 0)
    assert body(other, "vm/a") == {}


# ---------------------------------------------------------------------------------------------
# Against a model: whatever is done in whatever order, a dict with versions does the same.

KEYS = [f"{kind}/{name}" for kind in ("vm", "node") for name in ("a", "b", "c")]
BODIES = st.dictionaries(
    st.text(max_size=5), st.none() | st.integers(-(2**60), 2**60) | st.text(max_size=8), max_size=3
)


class StateMachine(RuleBasedStateMachine):
    """Two connections take turns on one store; `model` is what it should hold."""

    new_store: Callable[[], Store]

    def __init__(self) -> None:
        super().__init__()
        # A new one for each example: what happens must hang on nothing that was before.
        self.store = type(self).new_store()
        self.connections = [self.store.connect(), self.store.connect()]
        self.turn = itertools.cycle([0, 1])
        self.revision = 0
        self.model: dict[str, tuple[int, dict[str, Any]]] = {}
        self.history: list[tuple[int, str]] = []
        self.leases: dict[str, Lease] = {}
        self.now = NOW

    @property
    def state(self) -> State:
        return self.connections[next(self.turn)]

    def _change(self, data: st.DataObject, key: str) -> tuple[Change, bool]:
        version = self.model.get(key, (0, {}))[0]
        expected = data.draw(st.sampled_from([None, version, version, version, 0, version + 1]))
        check_only = data.draw(st.integers(0, 4)) == 0
        new = None if check_only else data.draw(st.none() | BODIES)
        return Change(key, expected, new, check_only), expected in (None, version)

    @rule(data=st.data(), keys=st.lists(st.sampled_from(KEYS), unique=True, max_size=4))
    def commit(self, data: st.DataObject, keys: list[str]) -> None:
        made_changes = [self._change(data, key) for key in keys]
        changes = [change for change, _ in made_changes]
        leased = data.draw(st.sampled_from([None, None, *self.leases.values()]))
        stale = data.draw(st.booleans()) if leased else False
        if leased is not None and stale:
            leased = Lease(leased.name, leased.holder, leased.epoch - 1, leased.expires_at)
        if stale or not all(good for _, good in made_changes):
            with pytest.raises(Conflict) as caught:
                self.state.commit(changes, lease=leased)
            wrong = {change.key for change, good in made_changes if not good}
            assert caught.value.fields["key"] in wrong | {"lease/x", "lease/y"}
            return
        effective = [
            one
            for one in changes
            if not one.check_only and (one.body is not None or one.key in self.model)
        ]
        revision = self.state.commit(changes, lease=leased)
        if not effective:
            assert revision == self.revision
            return
        assert revision > self.revision
        self.revision = revision
        for change in effective:
            self.history.append((revision, change.key))
            if change.body is None:
                del self.model[change.key]
            else:
                assert isinstance(change.body, dict)
                self.model[change.key] = (revision, change.body)

    @rule(kinds=st.lists(st.sampled_from(["vm", "node", "other"]), unique=True))
    def read(self, kinds: list[str]) -> None:
        found = {key: (one.version, one.body) for key, one in self.state.read(kinds).items()}
        assert found == {
            key: value for key, value in self.model.items() if key.partition("/")[0] in kinds
        }

    @rule(key=st.sampled_from(KEYS))
    def get(self, key: str) -> None:
        document = self.state.get(key)
        found = None if document is None else (document.version, document.body)
        assert found == self.model.get(key)

    @rule(back=st.integers(0, 10))
    def changes(self, back: int) -> None:
        since = max(0, self.revision - back)
        expected = sorted({key for revision, key in self.history if revision > since})
        assert self.state.changes(since, 0) == (self.revision, tuple(expected))

    @rule()
    def reconnect(self) -> None:
        self.connections.pop(0).close()
        self.store.opened.pop(0)
        self.connections.append(self.store.connect())

    @rule(seconds=st.floats(0, 20))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        name=st.sampled_from(["x", "y"]),
        holder=st.sampled_from(["a", "b"]),
        over=st.sampled_from(["nothing", "the last", "one before"]),
    )
    def acquire(self, name: str, holder: str, over: str) -> None:
        last = self.leases.get(name)
        seen = last if over != "nothing" else None
        if seen is not None and over == "one before":
            seen = Lease(seen.name, seen.holder, seen.epoch, seen.expires_at - 1)
        lease = self.state.acquire(name, holder, 10, now=self.now, over=seen)
        if last is None:
            self._has(lease, Lease(name, holder, 1, self.now + 10))
        elif last.holder == holder and last.expires_at > self.now:
            self._has(lease, Lease(name, holder, last.epoch, self.now + 10))
        elif last.holder == holder or last.given_back or over == "the last":
            self._has(lease, Lease(name, holder, last.epoch + 1, self.now + 10))
        else:
            assert lease is None

    def _has(self, lease: Lease | None, expected: Lease) -> None:
        assert lease is not None
        last = self.leases.get(lease.name)
        assert lease != last
        if last is not None and expected == last:
            # It was renewed at the same moment, and has to look different all the same.
            expected = Lease(
                last.name, last.holder, last.epoch, math.nextafter(last.expires_at, math.inf)
            )
        assert lease == expected
        self.leases[lease.name] = lease

    @precondition(lambda self: bool(self.leases))
    @rule(data=st.data(), old=st.booleans())
    def renew(self, data: st.DataObject, old: bool) -> None:
        last = self.leases[data.draw(st.sampled_from(sorted(self.leases)))]
        own = Lease(last.name, last.holder, last.epoch - 1, 0.0) if old else last
        lease = self.state.renew(own, 10, now=self.now)
        if old or last.given_back:
            assert lease is None
        else:
            self._has(lease, Lease(last.name, last.holder, last.epoch, self.now + 10))

    @precondition(lambda self: bool(self.leases))
    @rule(data=st.data(), old=st.booleans())
    def release(self, data: st.DataObject, old: bool) -> None:
        last = self.leases[data.draw(st.sampled_from(sorted(self.leases)))]
        if old:
            self.state.release(Lease(last.name, last.holder, last.epoch - 1, 0.0))
        else:
            self.state.release(last)
            self.leases[last.name] = Lease(last.name, last.holder, last.epoch, 0.0)

    @invariant()
    def the_epochs_are_known(self) -> None:
        for name, lease in self.leases.items():
            found = self.state.lease(name)
            assert found is not None
            assert (found.holder, found.epoch) == (lease.holder, lease.epoch)

    def teardown(self) -> None:
        self.store.close()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", parameters(STORES))
def test_it_does_what_a_dict_with_versions_does(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folders = (tmp_path / str(number) for number in itertools.count())

    class OnThisStore(StateMachine):
        new_store = staticmethod(lambda: STORES[name](next(folders), request))

    # Each step of one is several calls to a real Ceph.
    examples = much(40, 12) if name == "rados" else 40
    run_state_machine_as_test(OnThisStore, settings=settings(QUIETLY, max_examples=examples))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_all_json_comes_back_as_it_was(state: State) -> None:
    @settings(QUIETLY, max_examples=100)
    @given(st.dictionaries(st.text(), JSON, max_size=4))
    def check(written: dict[str, Any]) -> None:
        state.commit([Change("vm/a", None, written)])
        assert body(state, "vm/a") == written

    check()
