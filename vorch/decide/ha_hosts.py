"""One round about the hosts: what each is now, and which are to be fenced or taken back. Pure."""

from __future__ import annotations

from vorch.availability import (
    PROVEN_DEAD,
    Availability,
    Evidence,
    HaVm,
    HostOrder,
    Knock,
    Limits,
    NodeRecord,
    NodeState,
    Sign,
    VmState,
)
from vorch.codec import encode
from vorch.decide.errands import Errand, Timers, listed
from vorch.decide.records import failed_disks
from vorch.decide.signs import patience_s, seen, sign_of, spoken, when_not_well, when_well
from vorch.frozen import replace
from vorch.model import Cluster
from vorch.plan import FenceNode, Plan, Save, UnfenceNode

# Signs by which a host counts as silent, when it is asked how many are.
SILENT = (Sign.GONE, Sign.STORAGE_CUT, Sign.DAEMON_SILENT, Sign.PARTED, Sign.HOLLOW)
# Somebody is at home there.
ALIVE = (Sign.DAEMON_SILENT, Sign.PARTED, Sign.HOLLOW)
# VMs in these states are nobody's business when their host is lost.
LEFT_ALONE = (VmState.ERROR, VmState.FROZEN, VmState.IGNORED)


# How soon a host is let at its disks once more when that did not help.
LIFT_AGAIN_AFTER_S = 300.0


def believed(evidence: Evidence, record: NodeRecord) -> Evidence:
    """A storage address that has never answered is filtered, or wrong: its silence is no sign."""
    if evidence.storage is Knock.SILENCE and not record.storage_answered:
        return replace(evidence, storage=None)
    return evidence


class Hosts:
    """The hosts of one round. `records` are as they are after it."""

    def __init__(self, cluster: Cluster, ha: Availability, limits: Limits, timers: Timers) -> None:
        self.cluster = cluster
        self.ha = ha
        self.limits = limits
        self.timers = timers
        self.records: dict[str, NodeRecord] = {}
        self.orders: dict[str, HostOrder | None] = {}
        self.sentences: dict[str, str] = {}
        self.errands: list[Errand] = []
        self.at_stake = self._at_stake()

    def decide(self) -> None:
        for name in sorted(self.cluster.nodes):
            self.records[name] = self._look(name)
        doubt = self._doubt()
        for name in sorted(self.cluster.nodes):
            if name in self.ha.busy_nodes:
                self.sentences[name] = "a plan is at work on it"
                continue
            self._decide(name, doubt or self._doubt_of(name))

    # -- what there is

    def _at_stake(self) -> dict[str, list[HaVm]]:
        """The VMs that somebody has to look after if their host is lost, by host."""
        found: dict[str, list[HaVm]] = {}
        for name in sorted(self.ha.vms):
            vm, settings = self.cluster.vms.get(name), self.ha.vms[name]
            record = self.ha.vm_records.get(name)
            left = record is not None and record.state in LEFT_ALONE
            # One that was left alone while it was ignored, and is not any more.
            back = record is not None and record.state is VmState.IGNORED
            if vm is not None and settings.counts and (back or not left):
                found.setdefault(vm.node, []).append(settings)
        return found

    def _look(self, name: str) -> NodeRecord:
        now = self.timers.now
        record = self.ha.node_records.get(name)
        if record is None:
            record = NodeRecord(node=name, since=now, sign_since=now)
        if name in self.ha.busy_nodes:
            return record
        evidence = self._evidence(name)
        if not record.storage_answered and evidence.storage not in (None, Knock.SILENCE):
            record = replace(record, storage_answered=True)
        sign = sign_of(believed(evidence, record))
        record = seen(record, sign, now)
        if sign is not Sign.WELL:
            return when_not_well(record, now)
        if record.state is NodeState.FENCING and not self._runs_there(name):
            why = "it answers itself, and none of its VMs runs there"
            return self._fenced(record, why)
        return when_well(record, self._order(name, record), now)

    def _evidence(self, name: str) -> Evidence:
        return self.ha.evidence.get(name) or Evidence(node=name, libvirt=False)

    def _runs_there(self, name: str) -> bool:
        """Whether a VM that was to be looked after is to be seen on it."""
        ids = {self.cluster.vms[one.vm].id for one in self.at_stake.get(name, ())}
        return any(one.id in ids and one.node == name for one in self.cluster.domains.values())

    def _fenced(self, record: NodeRecord, why: str) -> NodeRecord:
        return replace(record, state=NodeState.FENCED, since=self.timers.now, why=why, proven=True)

    def _order(self, name: str, record: NodeRecord) -> HostOrder | None:
        """What is wanted of it. To have gone down and come back is to have done that."""
        order = self.ha.orders.get(name)
        if order is not None and order.leaving and record.state is NodeState.DOWN:
            order = replace(order, leaving="") if order.maintenance else None
            self.orders[name] = order
        return order

    # -- vorch suspects itself first

    def _doubt(self) -> str:
        """Why nobody is fenced now; "" when there is no reason."""
        asked = [name for name, one in self.records.items() if one.state not in PROVEN_DEAD]
        silent = [name for name in asked if self._silent_now(name)]
        share = self.ha.policy.silent_share
        if len(silent) <= share * len(asked):
            return ""
        return (
            f"{len(silent)} of {len(asked)} hosts are silent at once ({listed(silent)}), more than"
            f" {share:.0%}: that is rather vorch's own trouble, so nobody is fenced"
        )

    def _doubt_of(self, name: str) -> str:
        """Why a host that is alive, and silent on the management network, is not fenced now."""
        if self.records[name].sign not in ALIVE:
            return ""
        asked = [one for one in self.records.values() if one.state not in PROVEN_DEAD]
        silent = [one for one in asked if one.sign in ALIVE and self._unheard(one.node)]
        if not self._unheard(name) or 2 * len(silent) < len(asked):
            return ""
        return (
            f"{len(silent)} of {len(asked)} hosts are alive and silent on the management network:"
            " that may as well be vorch's own cable, so it is left alone"
        )

    def _unheard(self, name: str) -> bool:
        seen = self._evidence(name)
        return not seen.libvirt and seen.management is Knock.SILENCE

    def _silent_now(self, name: str) -> bool:
        record = self.records[name]
        if record.sign not in SILENT or record.state not in (NodeState.SUSPECT, NodeState.FENCING):
            return False
        # Those that are off and empty since long are no sign of anything. Those that are alive are:
        # who is cut off from them since long is still cut off.
        lately = self.timers.now - record.sign_since < self.limits.silent_window_s
        return lately or name in self.at_stake or record.sign in ALIVE

    # -- deciding

    def _decide(self, name: str, doubt: str) -> None:
        record, evidence = self.records[name], self._evidence(name)
        said = spoken(evidence, record.sign)
        match record.state:
            case NodeState.SUSPECT:
                said = self._suspect(name, said, doubt)
            case NodeState.FENCING:
                said = self._fencing(name, said, doubt)
            case NodeState.FENCED:
                said = f"it is cut off for certain: {record.why}"
            case NodeState.RETURNING:
                said = self._returning(name)
            case NodeState.DOWN:
                said = record.why
            case _:
                if self._evidence(name).libvirt and self.cluster.nodes[name].cordoned:
                    said += "; it is cordoned"
                said += self._lift(name)
        self.sentences[name] = f"{self.records[name].state.value}: {said}"

    def _suspect(self, name: str, said: str, doubt: str) -> str:
        record = self.records[name]
        if name not in self.at_stake:
            return f"{said}; nothing on it is looked after, so it is left alone"
        isolation = [
            one.isolation_after_s for one in self.at_stake[name] if one.isolation == "fence"
        ]
        limit_s = patience_s(record.sign, self.limits, min(isolation, default=None))
        if limit_s is None:
            return f"{said}; its VMs go on there, so it is left alone"
        if doubt:
            return f"{said}; {doubt}"
        # No host is fenced on what an earlier leader saw alone: its clock may have been another.
        if not self.timers.due(max(record.sign_since, self.ha.looking_since) + limit_s):
            return f"{said}; it is fenced if that lasts for {limit_s:g} s"
        clients = sorted(
            address
            for one in self.cluster.clients.values()
            if one.node == name
            for address in one.disks.values()
            if address
        )
        self.records[name] = replace(
            record,
            state=NodeState.FENCING,
            since=self.timers.now,
            why=said,
            retry_at=0.0,
            begun=True,
            clients=tuple(dict.fromkeys((*record.clients, *clients))),
        )
        return self._fencing(name, said, doubt)

    def _fencing(self, name: str, said: str, doubt: str) -> str:
        record = self.records[name]
        if name not in self.at_stake:
            self.records[name] = replace(record, state=NodeState.SUSPECT, since=self.timers.now)
            return f"{said}; nothing on it is looked after any more, so its fencing is called off"
        if doubt:
            return f"{said}; {doubt}"
        if self.timers.due(record.retry_at):
            self.errands.append(self._fence(name))
        return f"{said}; it is being fenced, and until that is proven nothing starts elsewhere"

    def _fence(self, name: str) -> Errand:
        record = self.records[name]
        fenced = encode(self._fenced(record, ""))
        return Errand(
            purpose="fence",
            node=name,
            plan=Plan(
                verb="fence",
                subject=name,
                why=record.why,
                steps=(
                    FenceNode(
                        node=self.cluster.nodes[name],
                        clients=record.clients,
                        unknown=self._unknown(name),
                    ),
                    Save(
                        key=f"hanode/{name}",
                        before=encode(record),
                        after=fenced,
                        fill={"why": "proof"},
                    ),
                ),
                claims=(f"hanode/{name}",),
            ),
        )

    def _unknown(self, name: str) -> tuple[str, ...]:
        """VMs that may run there by addresses that nobody has noted. All VMs, not only ours."""
        found = []
        for vm in self.cluster.vms.values():
            seen = self.cluster.clients.get(vm.id)
            noted = seen.disks if seen is not None and seen.node == name else {}
            may_run = (vm.node == name and vm.wanted == "running") or vm.name in self.ha.busy
            if may_run and any(disk.name not in noted for disk in vm.written_disks):
                found.append(vm.name)
        return tuple(sorted(found))

    def _returning(self, name: str) -> str:
        record = self.records[name]
        if record.sign is not Sign.WELL:
            return "it was let in again, and is silent"
        if self.timers.due(record.retry_at):
            self.errands.append(self._unfence(name))
        return "it is back, and is cleaned up before anything starts there"

    def _lift(self, name: str) -> str:
        """Of a host that is well and that nobody has cut off, as far as the records know.

        A leader that stood still in the middle of a fence may have gone on with it when it woke
        up, long after the host was back. Then nothing can use disks there. It costs little to make
        sure that it is let at them.
        """
        record = self.records[name]
        if not self._without_disks(name):
            return ""
        if not self.timers.due(record.lifted_at + LIFT_AGAIN_AFTER_S):
            return ""
        self.records[name] = replace(record, lifted_at=self.timers.now)
        why = "VMs on it do not get at their disks; a fence that came late would do that"
        node = self.cluster.nodes[name]
        step = UnfenceNode(node=node, clients=record.clients, keep=True)
        plan = Plan(
            verb="unfence", subject=name, why=why, steps=(step,), claims=(f"hanode/{name}",)
        )
        self.errands.append(Errand(purpose="unfence", node=name, plan=plan))
        return f"; {why}, so that is lifted"

    def _without_disks(self, name: str) -> bool:
        """Whether a VM there stands still for an error of its disks, or cannot be started."""
        for one in self.at_stake.get(name, ()):
            record = self.ha.vm_records.get(one.vm)
            if record is None:
                continue
            if record.state is VmState.STARTING and (record.tries or name in record.failed):
                return True
            domain = self.cluster.domains.get(self.cluster.vms[one.vm].id)
            if domain is not None and failed_disks(domain, name):
                return True
        return False

    def _unfence(self, name: str) -> Errand:
        record = self.records[name]
        online = NodeRecord(
            node=name,
            since=self.timers.now,
            sign_since=record.sign_since,
            storage_answered=record.storage_answered,
            lifted_at=record.lifted_at,
        )
        return Errand(
            purpose="unfence",
            node=name,
            plan=Plan(
                verb="unfence",
                subject=name,
                why="it answers again",
                steps=(
                    UnfenceNode(
                        node=self.cluster.nodes[name],
                        clients=record.clients,
                        keep=not record.proven,
                    ),
                    Save(key=f"hanode/{name}", before=encode(record), after=encode(online)),
                ),
                claims=(f"hanode/{name}",),
            ),
        )
