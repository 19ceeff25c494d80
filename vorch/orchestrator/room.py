"""Questions about room: what the cluster could lose and take, and all that the answers rest on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from vorch.availability import HaPolicy
from vorch.codec import decode
from vorch.decide import whatif
from vorch.decide.ha_status import SPARE
from vorch.decide.room.loads import Loads, is_fresh
from vorch.decide.spared import HELD
from vorch.dumped import Dump, without_secrets
from vorch.model import Task
from vorch.orchestrator import kept
from vorch.orchestrator.ha import HighAvailability
from vorch.orchestrator.room_hint import busy_vms
from vorch.orchestrator.writing import measured_before

# NumPy comes with the first question, and not with the connection.
if TYPE_CHECKING:
    from vorch.decide.room.capacity import Capacity


class RoomQuestions(HighAvailability):
    def capacity(
        self,
        *,
        vcpus: int | None = None,
        memory_mib: int | None = None,
        require_tags: Sequence[str] = (),
        over: str | None = None,
        hosts_lost: int | None = None,
    ) -> Capacity:
        """Whether any host may die, which is the worst to lose, and how many more VMs fit.

        `over`: the same for each failure domain of that key, as "rack". `vcpus` and `memory_mib`:
        the size of the VMs that are counted. `hosts_lost`: so many that die at once.
        """
        from vorch.decide.room.imagine import capacity

        found = self._input()
        answer = capacity(
            found.fleet,
            vcpus=vcpus,
            memory_mib=memory_mib,
            require_tags=require_tags,
            over=over,
            hosts_lost=hosts_lost,
        )
        return dataclasses.replace(answer, since=self._since(answer, found.availability.policy))

    def _since(self, answer: Capacity, policy: HaPolicy) -> float | None:
        """Since when whoever watches says the same."""
        report = self._report()
        said = None if report is None else report.said.get(SPARE)
        if said is None or answer.hosts_lost != policy.spare_hosts:
            return None
        held = [answer.verdict.value, *(one.verdict.value for one in answer.domains.values())]
        same = (said.text == HELD) == (set(held) == {"yes"})
        return said.since if same else None

    def dump(self) -> Dump:
        """All that a decision is made from, without secrets: to be kept, or mailed."""
        return without_secrets(self._input())

    def _input(self) -> Dump:
        from vorch.decide.balance import link_mib_s, moved_at

        settings, now = self.settings, self.world.clock.now()
        cluster = self.look(None)
        # Nobody can count on a host whose size is not known.
        if self._find_facts(cluster, (one for one in cluster.nodes if one not in cluster.silent)):
            cluster = self.look(None)
        cluster = self._connected(cluster, cluster.nodes, cluster.networks.values())
        found = self.world.state.read(["task", "load"])
        tasks = [decode(Task, one.body) for key, one in found.items() if key.startswith("task/")]
        load = found.get("load/vms")
        loads = None if load is None else decode(Loads, load.body)
        return Dump(
            at=now,
            vorch=version("vorch"),
            cluster=cluster,
            availability=kept.availability(self.world.state),
            settings=settings,
            timing=whatif.timing(
                tasks,
                detect={
                    "2 x ha_every_s": 2 * settings.ha_every_s,
                    "ha_answer_s": settings.ha_answer_s,
                    "ha_gone_after_s": settings.ha_gone_after_s,
                },
            ),
            fenceable=tuple(
                node.name
                for node in cluster.nodes.values()
                if any(fencer.covers(node) for fencer in self.world.fencers)
            ),
            watched=kept.leader(self.world.state, now) is not None,
            loads=loads.cores if loads is not None and is_fresh(loads, now) else {},
            writes=measured_before(self.world.state, now),
            moved_at=moved_at(tasks),
            busy=tuple(sorted(busy_vms(self.world.state))),
            link_mib_s=link_mib_s(tasks, settings.migration_bandwidth_mib_s),
        )
