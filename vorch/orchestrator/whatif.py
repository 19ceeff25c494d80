"""What would come of a failure, of more or fewer hosts, of more VMs. Nothing is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vorch.decide import whatif
from vorch.decide.ha_status import NOBODY
from vorch.decide.whatif import WhatIf
from vorch.dumped import Dump
from vorch.orchestrator.limits import limits_of
from vorch.orchestrator.room import RoomQuestions

# NumPy comes with the first question, and not with the connection.
if TYPE_CHECKING:
    from vorch.decide.room.imagine import Change


def whatif_fail(dump: Dump, nodes: Sequence[str]) -> WhatIf:
    """Which VMs would restart where, and which not, if these hosts were lost at once then."""
    answer = whatif.whatif_fail(
        dump.cluster,
        dump.availability,
        limits_of(dump.settings),
        nodes,
        fenceable=dump.fenceable,
        timing=dump.timing,
        now=dump.at,
    )
    if dump.watched:
        return answer
    return dataclasses.replace(answer, notes=(NOBODY, *answer.notes))


class Questions(RoomQuestions):
    def whatif_fail(self, nodes: Sequence[str]) -> WhatIf:
        """Which VMs would restart where, and which not, if these hosts were lost at once now."""
        return whatif_fail(self._input(), nodes)

    def whatif_add_host(
        self, name: str, *, cpus: int, memory_mib: int, tags: Sequence[str] = ()
    ) -> Change:
        """What one more host would do: what would move onto it, and what may be lost then."""
        from vorch.decide.room.imagine import add_host

        fleet = self._input().balanced_fleet
        return add_host(fleet, name, cpus=cpus, memory_mib=memory_mib, tags=tags)

    def whatif_remove_host(self, names: Sequence[str]) -> Change:
        """Where the VMs of these hosts would go, and what may still be lost without them."""
        from vorch.decide.room.imagine import remove_hosts

        return remove_hosts(self._input().fleet, names)

    def whatif_add_vms(
        self, *, count: int, vcpus: int, memory_mib: int, require_tags: Sequence[str] = ()
    ) -> Change:
        """Where new VMs of one size would be, and what may still be lost with them."""
        from vorch.decide.room.imagine import add_guests

        return add_guests(
            self._input().fleet,
            count=count,
            vcpus=vcpus,
            memory_mib=memory_mib,
            tags=require_tags,
        )
