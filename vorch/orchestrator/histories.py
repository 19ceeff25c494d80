"""What VMs and hosts did of late, as the service on this machine has measured it."""

from __future__ import annotations

from collections.abc import Mapping

from vorch.codec import decode
from vorch.decide.rates import rates
from vorch.errors import Invalid, Unsupported
from vorch.model import Cluster, History, HostFigures, Load, Vm, check_name, check_vm_name
from vorch.orchestrator.core import Core
from vorch.ports import Past

LONGEST_S = 86400.0


class Histories(Core):
    def history(self, name: str, *, for_s: float = 3600.0) -> History:
        """What a VM did: every 15 s of the last hour; for longer, means over 5 minutes."""
        return self._past.read(
            "vm", self._vm_id(name), now=self.world.clock.now(), for_s=_span(for_s)
        )

    def node_history(self, name: str, *, for_s: float = 3600.0) -> History:
        """What a host did, its disks and network being those of its VMs."""
        if self.world.state.get(f"node/{check_name(name, 'node name')}") is None:
            # In the words of everybody else.
            Cluster().node(name)
        return self._past.read("node", name, now=self.world.clock.now(), for_s=_span(for_s))

    def loads(self) -> tuple[Load, ...]:
        """What each host does, as the service on this machine has measured it last."""
        names = {key.partition("/")[2] for key in self.world.state.read(["node"])}
        found = self._past.latest("node", now=self.world.clock.now())
        return tuple(
            Load(node=name, at=found[name].at, rates=found[name].rates)
            for name in sorted(names & set(found))
        )

    def _vm_id(self, name: str) -> str:
        """Plots ask often: of one VM, and not for all of the cluster."""
        document = self.world.state.get(f"vm/{check_vm_name(name)}")
        if document is None:
            return Cluster().vm(name).id
        return decode(Vm, document.body).id

    @property
    def _past(self) -> Past:
        if self.world.past is None:
            raise Unsupported("cannot show what was before: this connection keeps no history")
        return self.world.past


class Recorder:
    """Writes down what came of each round of measurements. For one thread."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._before: Mapping[str, HostFigures] = {}

    def take(self, figures: Mapping[str, HostFigures]) -> None:
        """What every host says now; what it did since the last time is kept."""
        vms, hosts = rates(self._before, figures)
        # Of a host that was silent this time the next difference is a longer one.
        self._before = {**self._before, **figures}
        if self._core.world.past is not None and (vms or hosts):
            self._core.world.past.write(self._core.world.clock.now(), vms, hosts)


def _span(for_s: float) -> float:
    if not 0 < for_s <= LONGEST_S:
        raise Invalid(f"cannot look back {for_s!r} s: it is kept for a day, 86400 s")
    return for_s
