"""Moving a cluster's documents between stores: all of it or nothing, and one store in use."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vorch
from tests.contract.ceph import ceph_of, namespace_of, the_lab
from tests.contract.states import ON_A_LAB
from vorch import BadConfig, Conflict, Invalid, NotFound, Settings, VorchError, wiring
from vorch.drivers import memory, state_copy
from vorch.ports import Change, State
from vorch_cli.main import main

KINDS = ("sqlite", "memory", "rados")
BODIES: dict[str, dict[str, Any]] = {
    "vm/web": {"name": "web", "n": 1.5, "list": [1, None, True], "ü": "\ud800"},
    "vm/db": {},
    "node/h1": {"uri": "qemu:///system"},
    "task/1": {"log": "x" * 100_000},
    "claim.x/1": {"a": "\x00"},
    "cluster/name": {"name": "home"},
}
NewStore = Callable[[str], str]


@pytest.fixture
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewStore]:
    """The URI of an empty store of that kind."""
    names: list[str] = []
    with contextlib.ExitStack() as rest:

        def make(kind: str) -> str:
            if kind == "sqlite":
                return f"sqlite://{tmp_path}/{len(names)}.{len(list(tmp_path.iterdir()))}.db"
            if kind == "memory":
                names.append(f"copy-{request.node.name}-{len(names)}".replace("?", ""))
                rest.callback(memory.forget, names[-1])
                return f"memory:{names[-1]}"
            return rest.enter_context(namespace_of(ceph_of(the_lab(request))))

        yield make


def pairs() -> list[Any]:
    return [
        pytest.param(
            source,
            target,
            marks=[pytest.mark.lab] if {source, target} & set(ON_A_LAB) else [],
        )
        for source in KINDS
        for target in KINDS
    ]


SETTINGS = Settings(ceph_timeout_s=20)


@contextlib.contextmanager
def opened(uri: str) -> Iterator[State]:
    with wiring._store(uri, SETTINGS, new=True) as state:
        yield state


def fill(uri: str) -> str:
    with opened(uri) as state:
        for key, body in BODIES.items():
            state.commit([Change(key, 0, body)])
        state.commit([Change("vm/gone", 0, {})])
        state.commit([Change("vm/gone", None, None)])
    return uri


def contents(uri: str) -> dict[str, dict[str, Any]]:
    with opened(uri) as state:
        kinds = sorted({key.partition("/")[0] for key in (*BODIES, "plan/x", "claim/x", "other/x")})
        return {key: one.body for key, one in state.read(kinds).items()}


def marks(uri: str) -> set[str]:
    return set(contents(uri)) & {state_copy.MOVED, state_copy.ARRIVING}


def copy(source: str, target: str, *, force: bool = False) -> vorch.StateCopy:
    return vorch.copy_state(source, target, force=force, settings=SETTINGS)


@pytest.mark.parametrize(("kind", "other"), pairs())
def test_there_and_back(kind: str, other: str, new_store: NewStore) -> None:
    source, target = fill(new_store(kind)), new_store(other)
    copied = copy(source, target)
    assert contents(target) == BODIES
    assert copied.documents == len(BODIES)
    assert copied.kinds == {"vm": 2, "node": 1, "task": 1, "claim.x": 1, "cluster": 1}
    assert copied.size_bytes > 100_000
    # The old one keeps everything, and says where it went.
    assert {key: contents(source)[key] for key in BODIES} == BODIES
    with opened(source) as state, pytest.raises(BadConfig, match="was moved") as caught:
        state_copy.check_in_use(state, source)
    assert caught.value.fields["moved_to"] == target
    with opened(target) as state:
        state_copy.check_in_use(state, target)
        state.commit([Change("vm/new", 0, {})])
    copy(target, source, force=True)
    assert contents(source) == {**BODIES, "vm/new": {}}


def test_connecting_to_a_store_that_was_left_is_refused(tmp_path: Path) -> None:
    source, target = fill(f"sqlite://{tmp_path}/a.db"), f"sqlite://{tmp_path}/b.db"
    copy(source, target)
    with pytest.raises(BadConfig) as caught:
        vorch.connect(source, recover=False, prepare=False)
    assert target in caught.value.message
    vorch.connect(target, recover=False, prepare=False).close()
    with pytest.raises(Conflict, match="already"):
        copy(source, f"sqlite://{tmp_path}/c.db")
    vorch.reopen_state(source)
    vorch.connect(source, recover=False, prepare=False).close()
    with pytest.raises(NotFound):
        vorch.reopen_state(source)


def test_a_target_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    source, target = fill(f"sqlite://{tmp_path}/a.db"), f"sqlite://{tmp_path}/b.db"
    with opened(target) as state:
        state.commit([Change("other/x", 0, {"n": 1})])
    with pytest.raises(Conflict, match="1 documents"):
        copy(source, target)
    assert contents(target) == {"other/x": {"n": 1}}
    assert marks(source) == set()
    copy(source, target, force=True)
    assert contents(target) == BODIES


@pytest.mark.parametrize("key", ["plan/1", "claim/vm.web"])
def test_nothing_is_moved_while_somebody_is_at_work(key: str, tmp_path: Path) -> None:
    source, target = fill(f"sqlite://{tmp_path}/a.db"), f"sqlite://{tmp_path}/b.db"
    with opened(source) as state:
        state.commit([Change(key, 0, {})])
    with pytest.raises(Conflict, match="at work") as caught:
        copy(source, target)
    assert caught.value.fields["busy"] == [key]
    assert contents(target) == {}


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    source = fill(f"sqlite://{tmp_path}/a.db")
    with pytest.raises(NotFound, match="no such file"):
        copy(f"sqlite://{tmp_path}/typo.db", f"sqlite://{tmp_path}/b.db")
    assert not (tmp_path / "typo.db").exists()
    (tmp_path / "other.db").symlink_to(tmp_path / "a.db")
    for same in (source, f"sqlite://{tmp_path}/other.db"):
        with pytest.raises(VorchError) as caught:
            copy(source, same, force=True)
        assert isinstance(caught.value, Invalid)
    assert contents(source) == BODIES
    with opened(f"sqlite://{tmp_path}/empty.db"):
        pass
    with pytest.raises(NotFound, match="nothing in"):
        copy(f"sqlite://{tmp_path}/empty.db", f"sqlite://{tmp_path}/b.db")


class Killed(BaseException):
    """The process ends here."""


class Dying:
    """A store whose process is killed before or after its commit number `at`."""

    def __init__(self, state: State, at: int, *, after: bool) -> None:
        self._state = state
        self._left = at
        self._after = after

    def __getattr__(self, name: str) -> Any:
        if self._left < 0:
            raise Killed
        return getattr(self._state, name)

    def commit(self, changes: list[Change]) -> int:
        self._left -= 1
        if self._left < 0 and not self._after:
            raise Killed
        revision = self._state.commit(changes)
        if self._left < 0:
            raise Killed
        return revision


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("dying", ["source", "target"])
@pytest.mark.parametrize("at", range(5))
def test_killed_anywhere_one_store_is_in_use_or_it_is_repeated(
    dying: str, at: int, after: bool, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_copy, "BATCH_DOCUMENTS", 3)
    source, target = fill(new_store("memory")), new_store("memory")
    with opened(source) as old, opened(target) as new:
        stores = {"source": old, "target": new}
        stores[dying] = Dying(stores[dying], at, after=after)  # type: ignore[assignment]
        with contextlib.suppress(Killed):
            state_copy.copy_documents(
                stores["source"],
                stores["target"],
                source_uri=source,
                target_uri=target,
                force=False,
            )
    usable = []
    for uri in (source, target):
        with opened(uri) as state, contextlib.suppress(BadConfig):
            state_copy.check_in_use(state, uri)
            if contents(uri):
                usable.append(uri)
    assert len(usable) <= 1
    if usable != [target]:
        copy(source, target, force=True)
    assert contents(target) == BODIES
    assert marks(source) == {state_copy.MOVED}


@pytest.mark.parametrize("key", ["vm/web", "vm/new"])
def test_somebody_who_writes_meanwhile_is_not_left_behind(
    key: str, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = fill(new_store("memory")), new_store("memory")
    verify = state_copy._verify

    def and_write(what: str, found: Any, state: State) -> None:
        verify(what, found, state)
        with opened(source) as other:
            other.commit([Change(key, None, {"late": True})])

    monkeypatch.setattr(state_copy, "_verify", and_write)
    with pytest.raises(Conflict, match="meanwhile"):
        copy(source, target)
    assert marks(source) == set()
    assert contents(source)[key] == {"late": True}
    assert contents(target) == {}


def test_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VORCH_CONFIG", str(tmp_path / "vorch.toml"))
    (tmp_path / "vorch.toml").touch()
    source, target = fill(f"sqlite://{tmp_path}/a.db"), f"sqlite://{tmp_path}/b.db"
    assert main(["state", "copy", source, target, "--json"]) == 0
    copied = json.loads(capsys.readouterr().out)
    assert copied == {
        **dataclasses.asdict(copied_of(source, target)),
        "size_bytes": copied["size_bytes"],
    }
    assert main(["state", "copy", target, source]) == Conflict.exit_code
    assert main(["state", "copy", target, source, "--force"]) == Invalid.exit_code
    capsys.readouterr()
    assert main(["state", "copy", target, source, "--force", "--yes"]) == 0
    shown = capsys.readouterr().out
    assert "6 (" in shown
    assert source in shown
    assert main(["--uri", target, "list"]) == BadConfig.exit_code
    assert main(["state", "reopen", target, "--yes"]) == 0


def copied_of(source: str, target: str) -> vorch.StateCopy:
    kinds = {"claim.x": 1, "cluster": 1, "node": 1, "task": 1, "vm": 2}
    return vorch.StateCopy(source, target, 6, 0, kinds)
