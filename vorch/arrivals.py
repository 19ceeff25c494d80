"""What a cluster writes into the store of another one that it sends a VM to.

`arrival/MARK` is there from before the first byte is copied until the sender has nothing left of
the VM. The commit that records the VM also writes there that it has arrived, so a sender that never
heard the answer can find out, whatever became of the VM since. Who calls the VM back deletes the
mark, without which a recording that comes late is refused.
"""

from __future__ import annotations

from typing import Any

from vorch.codec import decode, encode
from vorch.decide.rebuild import marker
from vorch.errors import BadConfig, Conflict, NotFound
from vorch.model import Vm
from vorch.ports import Change, Document, State, World

KIND = "arrival"
# The mark of a store that was left for another one, which is none to arrive in.
MOVED = "cluster/moved"
# Documents there may be written by others between the look at them and the commit.
TRIES = 10


def announce(state: State, arrival: str, vm: Vm) -> None:
    """Safe to repeat."""
    if state.get(_key(arrival)) is not None:
        return
    _need_free(state, vm)
    try:
        state.commit(
            [Change(MOVED, 0, check_only=True), Change(_key(arrival), 0, _body(vm, arrived=False))]
        )
    except Conflict as exc:
        raise _moved_away(state, vm) or exc from exc


def has_arrived(state: State, arrival: str) -> bool:
    found = state.get(_key(arrival))
    return found is not None and bool(found.body["arrived"])


def record(there: World, arrival: str, vm: Vm) -> None:
    """One commit: it is a VM of that cluster, and is marked as arrived. Safe to repeat."""
    state = there.state
    tries = 0
    while True:
        mark = state.get(_key(arrival))
        if mark is None:
            raise Conflict(
                f"cannot send VM {vm.name!r}: it was called back meanwhile; send it again",
                vm=vm.name,
            )
        if mark.body["arrived"]:
            return
        _need_free(state, vm)
        needed = [_needed(state, key, vm) for key in _rests_on(vm)]
        try:
            state.commit(
                [
                    Change(MOVED, 0, check_only=True),
                    *(Change(one.key, one.version, check_only=True) for one in needed),
                    Change(mark.key, mark.version, _body(vm, arrived=True)),
                    Change(f"vm/{vm.name}", 0, encode(vm)),
                    *_to_be_noted(there, vm),
                ]
            )
        except Conflict as exc:
            tries += 1
            if tries >= TRIES:
                raise _moved_away(state, vm) or exc from exc
            continue
        return


def withdraw(state: State, arrival: str, vm: Vm) -> bool:
    """Call it back; True: it has arrived, so that cannot be. Safe to repeat."""
    while True:
        mark = state.get(_key(arrival))
        if mark is None:
            return any(one.id == vm.id for one in _vms(state))
        if mark.body["arrived"]:
            return True
        try:
            state.commit([Change(mark.key, mark.version, None)])
        except Conflict:
            continue
        return False


def forget(state: State, arrival: str) -> None:
    """Safe to repeat."""
    state.commit([Change(_key(arrival), None, None)])


def _key(arrival: str) -> str:
    return f"{KIND}/{arrival}"


def _body(vm: Vm, *, arrived: bool) -> dict[str, Any]:
    volumes = [str(disk.volume) for disk in vm.disks if disk.owned and disk.volume is not None]
    return {"vm": vm.name, "id": vm.id, "volumes": volumes, "arrived": arrived}


def _vms(state: State) -> list[Vm]:
    return [decode(Vm, document.body) for document in state.read(["vm"]).values()]


def _need_free(state: State, vm: Vm) -> None:
    for one in _vms(state):
        if vm.id == one.id or vm.name == one.name:
            raise Conflict(
                f"cannot send VM {vm.name!r}: the other cluster has one of that"
                f" {'name' if vm.name == one.name else 'id'} already; rename or delete that one",
                vm=vm.name,
            )


def _rests_on(vm: Vm) -> list[str]:
    pools = [f"pool/{disk.volume.pool}" for disk in vm.disks if disk.volume is not None]
    networks = [f"network/{nic.network}" for nic in vm.nics]
    return [f"node/{vm.node}", *dict.fromkeys(pools), *dict.fromkeys(networks)]


def _needed(state: State, key: str, vm: Vm) -> Document:
    document = state.get(key)
    if document is None:
        kind, _, name = key.partition("/")
        raise NotFound(
            f"cannot send VM {vm.name!r}: {kind} {name!r} of the other cluster is there no more;"
            " name another one",
            vm=vm.name,
            **{kind: name},
        )
    return document


def _moved_away(state: State, vm: Vm) -> BadConfig | None:
    moved = state.get(MOVED)
    if moved is None:
        return None
    return BadConfig(
        f"cannot send VM {vm.name!r}: the other cluster was moved to {moved.body['to']!r}; send it"
        " there",
        vm=vm.name,
    )


def _to_be_noted(there: World, vm: Vm) -> list[Change]:
    """Its definition belongs onto its disks, where pools keep notes; a process there does it."""
    pools = sorted({disk.volume.pool for disk in vm.disks if disk.volume is not None})
    keeping = [pool for pool in pools if there.images(pool).keeps_notes]
    if not keeping:
        return []
    key, body = marker("vm", vm.name, keeping)
    return [Change(key, None, body)]
