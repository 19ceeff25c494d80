"""What would come of a failure. Nothing is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from vorch.codec import decode
from vorch.decide import whatif
from vorch.decide.ha_status import NOBODY
from vorch.decide.whatif import WhatIf
from vorch.model import Task
from vorch.orchestrator import kept
from vorch.orchestrator.ha import LEASE, HighAvailability
from vorch.orchestrator.limits import limits_of


class Questions(HighAvailability):
    def whatif_fail(self, nodes: Sequence[str]) -> WhatIf:
        """Which VMs would restart where, and which not, if these hosts were lost at once now."""
        settings, now = self.settings, self.world.clock.now()
        cluster = self.look(None)
        ha = kept.availability(self.world.state)
        tasks = self.world.state.read(["task"]).values()
        timing = whatif.timing(
            [decode(Task, document.body) for document in tasks],
            detect={
                "2 x ha_every_s": 2 * settings.ha_every_s,
                "ha_answer_s": settings.ha_answer_s,
                "ha_gone_after_s": settings.ha_gone_after_s,
            },
        )
        answer = whatif.whatif_fail(
            cluster,
            ha,
            limits_of(settings),
            nodes,
            fenceable=[
                node.name
                for node in cluster.nodes.values()
                if any(fencer.covers(node) for fencer in self.world.fencers)
            ],
            timing=timing,
            now=now,
        )
        lease = self.world.state.lease(LEASE)
        if lease is not None and lease.expires_at > now:
            return answer
        return dataclasses.replace(answer, notes=(NOBODY, *answer.notes))
