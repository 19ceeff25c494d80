"""What the contract does not say of the state in Ceph: outages, limits, formats, processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vorch
from tests.contract.ceph import (
    TIMEOUT_S,
    Ceph,
    ceph_of,
    ioctx_of,
    namespace_of,
    rados_state,
    the_lab,
)
from vorch.drivers import rados_state as driver
from vorch.drivers.rados_connection import CephAddress, ceph_address, kept_cluster
from vorch.drivers.rados_state import HEAD, MIGRATIONS, OBJECT, RadosState
from vorch.errors import (
    BadConfig,
    Conflict,
    Denied,
    Invalid,
    NoRoom,
    NotFound,
    Unreachable,
    VorchError,
)
from vorch.lab import Lab
from vorch.ports import Change

ROOT = Path(__file__).parents[2]
# Shorter than the outages made here.
SHORT_S = 3.0


# ---------------------------------------------------------------------------------------------
# Addresses


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("rados://vms", ("vms", "vorch", "/etc/ceph/ceph.conf", "admin")),
        ("rados://vms/", ("vms", "vorch", "/etc/ceph/ceph.conf", "admin")),
        ("rados://vms/two?id=v", ("vms", "two", "/etc/ceph/ceph.conf", "v")),
        ("rados://a.b/n?conf=/x%20y/c&id=v", ("a.b", "n", "/x y/c", "v")),
    ],
)
def test_what_an_address_says(uri: str, parts: tuple[str, ...]) -> None:
    assert ceph_address(uri, namespace="vorch") == CephAddress(*parts)


@pytest.mark.parametrize(
    "uri",
    [
        "rados:",
        "rados:///vms",
        "rados://vms/a/b",
        "rados://vms?user=x",
        "rados://vms?id=",
        "rados://vms?id=a&id=b",
        "rados://vms?conf=ceph.conf",
        "rados://vms#x",
        "rados://v%0ams",
    ],
)
def test_an_address_that_makes_no_sense(uri: str) -> None:
    with pytest.raises(BadConfig):
        ceph_address(uri, namespace="vorch")


# ---------------------------------------------------------------------------------------------
# On a real Ceph


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Lab:
    return the_lab(request)


@pytest.fixture
def ceph(lab: Lab) -> Ceph:
    return ceph_of(lab)


@pytest.fixture
def uri(ceph: Ceph) -> Iterator[str]:
    with namespace_of(ceph) as made:
        yield made


Open = Callable[..., RadosState]


@pytest.fixture
def connect(uri: str) -> Iterator[Open]:
    with contextlib.ExitStack() as rest:

        def open_one(**more: Any) -> RadosState:
            return rest.enter_context(contextlib.closing(rados_state(uri, **more)))

        yield open_one


on_a_lab = pytest.mark.lab


def put(state: RadosState, key: str, **body: Any) -> int:
    return state.commit([Change(key, None, body)])


def body(state: RadosState, key: str) -> dict[str, Any] | None:
    found = state.get(key)
    return None if found is None else found.body


@on_a_lab
def test_a_kind_of_thousands_is_read_as_of_one_moment(connect: Open) -> None:
    state, other = connect(), connect()
    names = [f"vm/v{number:05d}" for number in range(2600)]
    for start in range(0, len(names), 500):
        state.commit([Change(name, 0, {"n": 0}) for name in names[start : start + 500]])
    ended = threading.Event()

    def write() -> None:
        # The first, the last and one that comes and goes: always all three together.
        number = 0
        while not ended.is_set():
            number += 1
            here = {"n": number} if number % 2 else None
            other.commit(
                [
                    Change(names[0], None, {"n": number}),
                    Change(names[-1], None, {"n": number}),
                    Change("vm/v01300x", None, here),
                ]
            )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = set()
        for _ in range(15):
            found = state.read(["vm"])
            number = found[names[0]].body["n"]
            seen.add(number)
            assert found[names[-1]].body["n"] == number
            assert ("vm/v01300x" in found) == (number % 2 == 1)
            assert set(names) <= set(found)
            assert len(found) == len(names) + number % 2
        assert len(seen) > 5
    finally:
        ended.set()
        writer.join()
    for start in range(0, len(names), 500):
        state.commit([Change(name, None, None) for name in names[start : start + 500]])
    assert set(state.read(["vm"])) <= {"vm/v01300x"}


@on_a_lab
def test_the_past_is_remembered_so_far_and_no_further(connect: Open, uri: str) -> None:
    state = connect(kept_commits=10)
    for number in range(30):
        put(state, f"vm/v{number}")
    state.commit([Change("vm/v0", None, None)])
    assert state.changes(21, 0) == (
        31,
        tuple(sorted([*(f"vm/v{number}" for number in range(21, 30)), "vm/v0"])),
    )
    revision, keys = state.changes(20, 0)
    assert (revision, keys[0]) == (31, "*")
    # What is there is named nevertheless.
    assert set(keys[1:]) == {f"vm/v{number}" for number in range(1, 30)} | {"vm/v0"}
    with ioctx_of(uri) as ioctx:
        assert sum(key.startswith("c/") for key in omap(ioctx)) == 10


@on_a_lab
def test_a_waiting_reader_is_told_and_need_not_look(connect: Open) -> None:
    state, other = connect(poll_watching_s=60), connect()
    revision = put(other, "vm/a")
    # Long enough for the watch to stand, which the first wait begins.
    assert state.changes(revision, 0.2) == (revision, ())
    timer = threading.Timer(0.2, lambda: put(other, "vm/b"))
    timer.start()
    began = time.monotonic()
    assert state.changes(revision, 30) == (revision + 1, ("vm/b",))
    # Told of by the watch: the poll would come after a minute, and the call would end before.
    assert time.monotonic() - began < 29
    timer.join()


@on_a_lab
def test_a_reader_that_is_not_told_looks_by_itself(
    connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, other = connect(poll_watching_s=0.5), connect()
    revision = put(other, "vm/a")
    monkeypatch.setattr(other, "_tell", lambda: None)
    timer = threading.Timer(0.2, lambda: put(other, "vm/b"))
    timer.start()
    assert state.changes(revision, 30) == (revision + 1, ("vm/b",))
    timer.join()


# -- limits


@on_a_lab
def test_more_than_one_write_takes_is_refused(
    connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = connect()
    put(state, "task/a", log="x" * (driver.COMMIT_LIMIT_BYTES - 1000))
    with pytest.raises(Invalid) as caught:
        put(state, "task/a", log="x" * driver.COMMIT_LIMIT_BYTES)
    assert caught.value.fields["limit_bytes"] == driver.COMMIT_LIMIT_BYTES
    # Also without looking first: Ceph says so itself.
    monkeypatch.setattr(driver, "COMMIT_LIMIT_BYTES", 1 << 40)
    with pytest.raises(Invalid, match="osd_max_write_size"):
        put(state, "task/a", log="x" * (91 << 20))
    state.commit([Change("task/a", None, None)])


@on_a_lab
def test_a_full_store_takes_deletions_only(connect: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    state = connect()
    monkeypatch.setattr(driver, "DOCUMENTS_LIMIT", 2)
    monkeypatch.setattr(driver, "BYTES_LIMIT", 1000)
    put(state, "vm/a")
    put(state, "vm/b")
    with pytest.raises(NoRoom):
        put(state, "vm/c")
    with pytest.raises(NoRoom):
        put(state, "vm/b", x="x" * 1000)
    put(state, "vm/b", x="x" * 500)
    state.commit([Change("vm/a", None, None)])
    put(state, "vm/c")


# -- who is there, and in what format


def omap(ioctx: Any) -> dict[str, bytes]:
    import rados

    with rados.ReadOpCtx() as operation:
        found, _ = ioctx.get_omap_vals(operation, "", "", 1000)
        ioctx.operate_read_op(operation, OBJECT)
        return dict(found)


def spoil(uri: str, entries: dict[str, bytes]) -> None:
    import rados

    with ioctx_of(uri) as ioctx, rados.WriteOpCtx() as operation:
        operation.new(0)
        ioctx.set_omap(operation, tuple(entries), tuple(entries.values()))  # type: ignore[attr-defined]
        ioctx.operate_write_op(operation, OBJECT)  # type: ignore[attr-defined]


@on_a_lab
@pytest.mark.parametrize(
    "entries",
    [{"other": b"1"}, {HEAD: b"no JSON"}, {HEAD: b'{"program": "x", "format": 1}'}, {HEAD: b"[]"}],
)
def test_what_is_not_vorchs_is_left_alone(entries: dict[str, bytes], uri: str) -> None:
    spoil(uri, entries)
    with pytest.raises(BadConfig):
        rados_state(uri)
    with ioctx_of(uri) as ioctx:
        assert omap(ioctx) == entries


def _from_1_to_2(entries: dict[str, bytes]) -> dict[str, bytes | None]:
    head = json.loads(entries[HEAD])
    # Everything is given, not only the head.
    assert sum(key.startswith("d/") for key in entries) == head["kinds"]["vm"] == 1500
    return {HEAD: json.dumps({**head, "format": 2}).encode(), "d/vm/v0": b'1 {"new": true}'}


@on_a_lab
def test_an_older_store_is_brought_up_to_date_and_a_newer_one_refused(
    connect: Open, uri: str
) -> None:
    old = connect()
    for start in (0, 750):
        old.commit([Change(f"vm/v{start + number}", 0, {}) for number in range(750)])
    address = ceph_address(uri)
    newer = RadosState(
        address.pool,
        address.namespace,
        conf=address.conf,
        user=address.user,
        migrations=(*MIGRATIONS, _from_1_to_2),
    )
    assert body(newer, "vm/v0") == {"new": True}
    assert len(newer.read(["vm"])) == 1500
    put(newer, "vm/w")
    with pytest.raises(BadConfig, match="format 2"):
        rados_state(uri)
    # One that was open all the time, too.
    for use in (lambda: old.get("vm/w"), lambda: put(old, "vm/x"), lambda: old.changes(0, 0)):
        with pytest.raises(BadConfig, match="format 2"):
            use()
    newer.close()


@on_a_lab
def test_a_store_that_was_removed_is_not_made_anew_by_a_write(connect: Open, uri: str) -> None:
    state = connect()
    put(state, "vm/a")
    with ioctx_of(uri) as ioctx:
        ioctx.remove_object(OBJECT)  # type: ignore[attr-defined]
    for use in (lambda: state.get("vm/a"), lambda: put(state, "vm/a"), lambda: state.read(["vm"])):
        with pytest.raises(Unreachable, match="removed"):
            use()
    assert connect().read(["vm"]) == {}


@on_a_lab
def test_a_pool_that_was_made_anew_meanwhile(ceph: Ceph) -> None:
    """An idle connection knows pools by the numbers that they had."""
    import rados

    pool = "again"
    with rados.Rados(conffile=ceph.conf, rados_id="admin") as other:

        def made() -> None:
            other.create_pool(pool)
            other.wait_for_latest_osdmap()

        made()
        idle = kept_cluster(ceph.conf, "admin", TIMEOUT_S)
        try:
            old = idle.ioctx(pool, "x").get_pool_id()
            other.delete_pool(pool)
            made()
            uri = f"rados://{pool}/x?conf={ceph.conf}&id=admin"
            with contextlib.closing(rados_state(uri)) as state:
                put(state, "vm/a")
            assert idle.ioctx(pool, "x").get_pool_id() != old
            with contextlib.closing(rados_state(uri)) as state:
                assert body(state, "vm/a") == {}
        finally:
            idle.release()
            other.delete_pool(pool)


@on_a_lab
def test_what_cannot_be_reached(ceph: Ceph, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="'none'"):
        rados_state(f"rados://none/x?conf={ceph.conf}&id={ceph.user}")
    with pytest.raises(BadConfig, match="cannot be read"):
        rados_state(f"rados://{ceph.pool}/x?conf={tmp_path}/no.conf&id={ceph.user}")
    with pytest.raises((BadConfig, Denied)):
        rados_state(f"rados://{ceph.pool}/x?conf={ceph.conf}&id=nobody")
    silent = tmp_path / "silent.conf"
    # Nobody listens there.
    silent.write_text(
        "[global]\nfsid = 00000000-0000-0000-0000-000000000001\n"
        "mon host = [v2:127.0.0.1:1]\nauth client required = none\n"
    )
    began = time.monotonic()
    with pytest.raises(Unreachable):
        rados_state(f"rados://{ceph.pool}/x?conf={silent}&id=vorch", timeout_s=SHORT_S)
    assert time.monotonic() - began < 10 * SHORT_S + 30
    with pytest.raises(BadConfig, match="ceph_timeout_s"):
        rados_state(f"rados://{ceph.pool}/x?conf={ceph.conf}&id={ceph.user}", timeout_s=0.0)


# -- processes


@on_a_lab
def test_a_fork_goes_on_by_itself_and_leaves_the_parent_alone(connect: Open) -> None:
    state = connect()
    revision = put(state, "vm/a")
    assert state.changes(revision, 0.1) == (revision, ())
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(BaseException):
            put(state, "vm/b", by="child")
            assert state.changes(revision, 5)[1] == ("vm/b",)
            state.close()
            code = 0
        os._exit(code)
    give_up = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > give_up:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    assert ended[1] == 0
    assert body(state, "vm/b") == {"by": "child"}
    put(state, "vm/c")


LEAVING = """
import sys, threading
from tests.contract.ceph import rados_state
from vorch.ports import Change
state, watcher = rados_state(sys.argv[1]), rados_state(sys.argv[1])
def watch():
    revision = 0
    try:
        while True:
            revision, _ = watcher.changes(revision, 5)
    except BaseException:
        pass
threading.Thread(target=watch, daemon=True).start()
for number in range(20):
    state.commit([Change("vm/a", None, {"number": number})])
"""


@on_a_lab
def test_a_process_may_just_end(uri: str) -> None:
    for _ in range(5):
        ended = subprocess.run(
            [sys.executable, "-c", LEAVING, uri],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (ended.returncode, ended.stderr) == (0, "")


@on_a_lab
def test_threads_share_one_state(connect: Open) -> None:
    state = connect()
    put(state, "counter/one", count=0)
    problems: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                while True:
                    document = state.get("counter/one")
                    assert document is not None
                    more = {"count": document.body["count"] + 1}
                    try:
                        state.commit([Change(document.key, document.version, more)])
                        break
                    except Conflict:
                        continue
        except BaseException as exc:  # noqa: BLE001 - told below
            problems.append(exc)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    assert body(state, "counter/one") == {"count": 120}


# -- outages


@pytest.fixture
def faulty(lab: Lab) -> Iterator[Lab]:
    try:
        yield lab
    finally:
        lab.heal()


def osd_processes(lab: Lab) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if words[0] == b"ceph-osd" and f"--conf={lab.spec.ceph_conf}".encode() in words:
                found.append(int(folder.name))
    return found


@contextlib.contextmanager
def hung(lab: Lab) -> Iterator[Callable[[], None]]:
    """All OSDs hang: what is sent to them waits in their sockets until they go on."""
    processes = osd_processes(lab)
    assert len(processes) == len(lab.spec.osd_numbers)

    def go_on() -> None:
        for process in processes:
            os.kill(process, signal.SIGCONT)

    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield go_on
    finally:
        go_on()


@on_a_lab
@pytest.mark.slow
def test_without_any_osd_it_says_unreachable_and_afterwards_all_goes_on(
    connect: Open, faulty: Lab
) -> None:
    # A poll so rare that only a watch that was begun anew can tell of the last commit in time.
    state = connect(timeout_s=SHORT_S)
    watcher, another = (connect(timeout_s=SHORT_S, poll_watching_s=60) for _ in range(2))
    revision = put(state, "vm/a", n=1)
    assert watcher.changes(revision, 0.1) == another.changes(revision, 0.1) == (revision, ())
    for osd in faulty.spec.osd_numbers:
        faulty.osd_kill(osd)
    outcomes = []
    for use in (
        lambda: state.get("vm/a"),
        lambda: put(state, "vm/a", n=2),
        lambda: state.acquire("leader", "a", 10, now=1.0),
        lambda: watcher.changes(revision, 30),
    ):
        began = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            use()
        assert time.monotonic() - began < 10 * SHORT_S + 30
        outcomes.append(caught.value.fields.get("outcome"))
    assert outcomes[1] == "not done"
    # Whoever has given up need not wait once more.
    began = time.monotonic()
    watcher.close()
    assert time.monotonic() - began < 30
    faulty.heal()
    assert answered(state, "vm/a") == answered(another, "vm/a") == {"n": 1}
    timer = threading.Timer(1, lambda: put(state, "vm/b"))
    timer.start()
    began = time.monotonic()
    assert another.changes(revision, 30) == (revision + 1, ("vm/b",))
    assert time.monotonic() - began < 29
    timer.join()


def answered(state: RadosState, key: str) -> dict[str, Any] | None:
    """On a busy machine the way back takes longer than one short timeout."""
    give_up = time.monotonic() + 30
    while True:
        try:
            return body(state, key)
        except Unreachable:
            if time.monotonic() > give_up:
                raise


class Committing(threading.Thread):
    """One commit on its way, and what came of it."""

    def __init__(self, state: RadosState, value: int) -> None:
        super().__init__()
        self._state = state
        self._value = value
        self.revision = 0
        self.error: VorchError | None = None

    def run(self) -> None:
        try:
            self.revision = put(self._state, "vm/a", n=self._value)
        except VorchError as exc:
            self.error = exc


@contextlib.contextmanager
def looked_but_not_sent(state: RadosState) -> Iterator[tuple[threading.Event, threading.Event]]:
    """A commit stops after its checks, just before it is sent, until it is told to go on."""
    there, go_on = threading.Event(), threading.Event()
    send = state._send

    def wait(*args: Any, **more: Any) -> bool:
        there.set()
        assert go_on.wait(30)
        return send(*args, **more)

    state._send = wait  # type: ignore[method-assign]
    try:
        yield there, go_on
    finally:
        state._send = send  # type: ignore[method-assign]


@on_a_lab
@pytest.mark.slow
@pytest.mark.parametrize("answer_after_s", [1.5, 1 + SHORT_S])
def test_a_commit_that_arrives_late_is_acknowledged(
    answer_after_s: float, connect: Open, faulty: Lab
) -> None:
    """Within the timeout, and when the answer is known only by looking it up."""
    state = connect(timeout_s=SHORT_S)
    put(state, "vm/a", n=1)
    with looked_but_not_sent(state) as (there, send):
        commit = Committing(state, 2)
        commit.start()
        assert there.wait(10)
        with hung(faulty) as go_on:
            send.set()
            time.sleep(answer_after_s)
            go_on()
            commit.join(30)
    assert commit.error is None
    found = state.get("vm/a")
    assert found is not None
    assert (found.version, found.body) == (commit.revision, {"n": 2})


@on_a_lab
@pytest.mark.slow
def test_nothing_happens_any_more_after_the_next_look(connect: Open, faulty: Lab) -> None:
    state, other = connect(timeout_s=SHORT_S), connect(timeout_s=60)
    put(state, "vm/a", n=1)
    with looked_but_not_sent(state) as (there, send):
        commit = Committing(state, 2)
        commit.start()
        assert there.wait(10)
        with hung(faulty) as go_on:
            send.set()
            commit.join(30)
            assert isinstance(commit.error, Unreachable)
            assert commit.error.fields["outcome"] == "unknown"
            go_on()
            seen = answered(state, "vm/a")
    # Whichever it was, it stays so, for others as well.
    for _ in range(5):
        assert body(other, "vm/a") == body(state, "vm/a") == seen
        time.sleep(0.2)
    put(state, "vm/a", n=3)
    assert body(other, "vm/a") == {"n": 3}


@on_a_lab
@pytest.mark.slow
def test_a_commit_that_was_lost_on_its_way_never_happens(connect: Open, faulty: Lab) -> None:
    state = connect(timeout_s=SHORT_S)
    version = put(state, "vm/a", n=1)
    with looked_but_not_sent(state) as (there, send):
        commit = Committing(state, 2)
        commit.start()
        assert there.wait(10)
        for osd in faulty.spec.osd_numbers:
            faulty.osd_kill(osd)
        send.set()
        commit.join(30)
    assert isinstance(commit.error, Unreachable)
    assert commit.error.fields["outcome"] == "unknown"
    faulty.heal()
    answered(state, "vm/a")
    found = state.get("vm/a")
    assert found is not None
    assert (found.version, found.body) == (version, {"n": 1})
    # The head is another since, on which that commit cannot follow; the revision is the same.
    assert state.changes(version, 0) == (version, ())
    assert put(state, "vm/a", n=3) == version + 1


@on_a_lab
def test_a_client_that_was_blocklisted_says_so_and_connects_again(
    connect: Open, ceph: Ceph
) -> None:
    state = connect(timeout_s=10.0)
    put(state, "vm/a")
    address = state._cluster.handle().get_addrs()
    assert state.changes(1, 0.1) == (1, ())
    boss = kept_cluster(ceph.conf, "admin", 20)
    try:
        command = {"prefix": "osd blocklist", "blocklistop": "add", "addr": plain(address)}
        code, _, said = boss.handle().mon_command(json.dumps(command), b"")
        assert code == 0, said
        # The OSDs learn of it a little later.
        with pytest.raises(Unreachable, match="blocklist"):
            look_for(state, 20)
        # Only that connection was meant, not this host.
        assert body(state, "vm/a") == {}
        put(state, "vm/b")
        command["blocklistop"] = "rm"
        boss.handle().mon_command(json.dumps(command), b"")
    finally:
        boss.release()


def look_for(state: RadosState, seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        state.get("vm/a")


def plain(address: str) -> str:
    """Out of "[v2:10.0.0.1:0/123,v1:…]"."""
    return address.strip("[]").split(",")[0].removeprefix("v2:")


# -- a cluster on it


@on_a_lab
def test_a_new_store_is_a_cluster_of_nothing(uri: str) -> None:
    with vorch.connect(uri, settings=vorch.Settings(ceph_timeout_s=20)) as cluster:
        found = cluster.look()
        assert (found.nodes, found.pools, found.vms) == ({}, {}, {})
        assert [check.level for check in cluster.doctor() if check.name == "cluster"] == ["error"]
        assert cluster.world.state.changes(0, 0) == (0, ())
