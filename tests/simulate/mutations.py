"""Each takes one safeguard out of vorch. What the simulator is for is that it sees that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from vorch import acts
from vorch.drivers import documents
from vorch.drivers.memory_fence import MemoryStorageFencer
from vorch.execute import _Run
from vorch.plan import FenceNode, MigrateDomain, StartDomain
from vorch.ports import Progress, World

Mutation = Callable[[pytest.MonkeyPatch], None]


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """The fence says that it has done it, and does nothing."""
    patch.setitem(acts.DO, FenceNode, lambda step, world, progress: {"proof": "none"})


def no_map_wait(patch: pytest.MonkeyPatch) -> None:
    """An entry in the blocklist counts before every OSD has the map."""

    def cut_off(self: MemoryStorageFencer, entries: Sequence[str]) -> None:
        self._ceph.block(entries)

    patch.setattr(MemoryStorageFencer, "cut_off", cut_off)


def lock_before_blocklist(patch: pytest.MonkeyPatch) -> None:
    """The locks are broken while their owners still write."""

    def fence(
        self: MemoryStorageFencer, node: Any, clients: Sequence[str], progress: Progress
    ) -> str:
        entries = self._entries(node, clients)
        broken = self.break_locks(entries)
        self.cut_off(entries)
        return f"{broken} lock(s) broken"

    patch.setattr(MemoryStorageFencer, "fence", fence)


def no_epoch(patch: pytest.MonkeyPatch) -> None:
    """Nobody asks whether who writes or acts still leads."""
    patch.setattr(documents, "check_lease", lambda lease, last: None)
    patch.setattr(_Run, "_check_lease", lambda self: None)


def no_address_after_migration(patch: pytest.MonkeyPatch) -> None:
    """Of a VM that has moved, the addresses of before are taken for those of now."""
    migrate = acts.DO[MigrateDomain]

    def forgetful(step: MigrateDomain, world: World, progress: Progress) -> dict[str, Any]:
        came = dict(migrate(step, world, progress) or {})
        names = [disk.name for disk in step.vm.written_disks]
        came["clients"] = dict(zip(names, step.left, strict=False))
        return came

    patch.setitem(acts.DO, MigrateDomain, forgetful)


def no_second_look(patch: pytest.MonkeyPatch) -> None:
    """A VM starts right after one look at who has its disks open."""

    def start(step: StartDomain, world: World, progress: Progress) -> dict[str, Any]:
        host = world.hypervisor(step.vm.node)
        sources = acts._sources(step.vm, world)
        if host.domain(step.vm.id) is None:
            acts._ensure_unused(step.vm, world)
        host.start(step.vm, sources, {one.name: one for one in step.networks}, cpu=step.cpu)
        return acts.clients_seen(step.vm, world, progress)

    patch.setitem(acts.DO, StartDomain, start)


MUTATIONS: dict[str, Mutation] = {
    one.__name__.replace("_", "-"): one
    for one in (
        no_fence,
        no_map_wait,
        lock_before_blocklist,
        no_epoch,
        no_address_after_migration,
        no_second_look,
    )
}
