"""What all verbs stand on: look once, decide, act."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from vorch.codec import decode
from vorch.config import Settings
from vorch.decide import abilities, baseline, crush, storage
from vorch.decide.fresh import Fresh
from vorch.decide.records import hosts_of, is_on, known_power, networks_for, save
from vorch.decide.seen import seen
from vorch.errors import Conflict, Invalid, TimedOut, Unreachable, VorchError
from vorch.execute import Executor, Hook, Watcher
from vorch.model import (
    Baseline,
    Clients,
    Cluster,
    CrushTree,
    HostFacts,
    Image,
    Network,
    Node,
    Pool,
    Room,
    Silence,
    StorageClass,
    Task,
    Trashed,
    Vm,
    check_vm_name,
)
from vorch.orchestrator import kept, silence
from vorch.orchestrator.asking import Hosts
from vorch.orchestrator.noting import Noter
from vorch.orchestrator.picture import REFRESH_S, Picture
from vorch.plan import Plan
from vorch.ports import (
    Document,
    Hypervisor,
    World,
    no_progress,
)

T = TypeVar("T")
KINDS: dict[str, type[Any]] = {
    "vm": Vm,
    "node": Node,
    "pool": Pool,
    "image": Image,
    "network": Network,
    "class": StorageClass,
    "trash": Trashed,
    "silence": Silence,
    "clients": Clients,
    "cpu": Baseline,
}
# How often a task that waits looks again.
WAIT_POLL_S = 0.2
# A decision is made anew this often when what it rested on changed under it.
FRESH_LOOKS = 10


@dataclass(frozen=True, slots=True)
class Done:
    """What a verb came to: the plan, and the record of its execution (None after a dry run)."""

    plan: Plan
    task: Task | None

    def __str__(self) -> str:
        return str(self.plan)


class Core:
    """Everything but the verbs. Safe to use from several threads."""

    def __init__(
        self,
        world: World,
        settings: Settings,
        *,
        watch: Watcher | None = None,
        hook: Hook | None = None,
    ) -> None:
        self.world = world
        self.settings = settings
        self.noter = Noter(world)
        self.executor = Executor(world, settings, watch=watch, hook=hook, beside=self.noter.markers)
        self.hosts = Hosts(world, settings.host_timeout_s)
        # What else is to be said about a plan before it begins: rights and quotas of whoever asks.
        self.judge: Callable[[Plan], Plan] = lambda plan: plan
        # What the documents of the last look said. They change rarely, and reading one costs more
        # than fetching it.
        self._known: dict[str, tuple[Document, Any]] = {}
        # A picture that is kept anyway, and follows the store: looks need not read all of it.
        self._picture: Picture | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.noter.close()
        if self.world.past is not None:
            self.world.past.close()
        self.world.close()

    def now(self) -> float:
        """The time that records are written in."""
        return self.world.clock.now()

    def look(self, hosts: Iterable[str] | None = ()) -> Cluster:
        """What the store says, and what these hosts show (None: all of them)."""
        picture = self._picture
        cluster = (
            self.cluster_of(self.world.state.read([*KINDS]))
            if picture is None
            else picture.documents()
        )
        return self._seen(cluster, sorted(cluster.nodes) if hosts is None else hosts)

    def picture(self, *, refresh_s: float = REFRESH_S) -> Picture:
        """A look that keeps itself fresh, for a process that lives long; its owner closes it."""
        return Picture(self, tuple(KINDS), refresh_s=refresh_s)

    def lean_on(self, picture: Picture | None) -> None:
        """For as long as that picture is open: what the store says is taken from there.

        It reads what has changed up to that very moment, so it is as fresh as if all were read.
        """
        self._picture = picture if self.world.threads else None

    def cluster_of(self, documents: Mapping[str, Document]) -> Cluster:
        parts: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        versions = {}
        before, known = self._known, {}
        for key, document in documents.items():
            kind, _, name = key.partition("/")
            value = before.get(key)
            # The body, too, is compared: a store that was put back begins its versions anew.
            if value is None or value[0] != document:
                value = (document, decode(KINDS[kind], document.body))
            known[key] = value
            parts[kind][name] = value[1]
            versions[key] = document.version
        self._known = known
        cluster = Cluster(
            vms=parts["vm"],
            nodes=parts["node"],
            pools=parts["pool"],
            images=parts["image"],
            networks=parts["network"],
            classes=parts["class"],
            trash=parts["trash"],
            silences=parts["silence"],
            clients=parts["clients"],
            baselines=parts["cpu"],
            versions=versions,
        )
        self.world.seen(cluster)
        return cluster

    def _seen(self, cluster: Cluster, hosts: Iterable[str]) -> Cluster:
        """The same with what these hosts show."""
        asked = [name for name in dict.fromkeys(hosts) if name in cluster.nodes]
        if not asked:
            return cluster
        hasty = silence.brief(cluster.silences, self.world.clock.now())
        # Who asks for one host wants to know of that one.
        found = self.hosts.ask(
            asked, lambda host: host.domains(), hasty=hasty if len(asked) > 1 else ()
        )
        cluster = seen(
            cluster,
            {
                name: answer.message if isinstance(answer, VorchError) else answer
                for name, answer in found.items()
            },
        )
        if not self.world.threads:
            return cluster
        silences = silence.note(self.world, cluster.silences, asked, cluster.silent)
        return dataclasses.replace(cluster, silences=silences)

    def _connected(
        self, cluster: Cluster, hosts: Iterable[str], networks: Iterable[Network]
    ) -> Cluster:
        """The same with what keeps those hosts from having these networks."""
        wanted = tuple(networks)
        asked = [name for name in dict.fromkeys(hosts) if name in cluster.nodes]
        asked = [name for name in asked if name not in cluster.silent]
        if not wanted or not asked:
            return cluster

        def ask(host: Hypervisor) -> dict[str, str]:
            told = {one.name: host.network_lack(one, hosts_of(cluster, one)) for one in wanted}
            return {network: why for network, why in told.items() if why}

        lacks: dict[str, dict[str, str]] = {}
        silent = dict(cluster.silent)
        for name, answer in self.hosts.ask(asked, ask).items():
            if isinstance(answer, (Unreachable, TimedOut)):
                silent[name] = answer.message
            elif isinstance(answer, VorchError):
                lacks[name] = {one.name: answer.message for one in wanted}
            else:
                lacks[name] = answer
        return dataclasses.replace(cluster, lacks=lacks, silent=silent)

    def _at(self, name: str) -> Cluster:
        """A look that knows what this VM does, without asking about any other."""
        cluster = self.look()
        return self._seen_alone(cluster, cluster.vm(name))

    def _seen_alone(self, cluster: Cluster, vm: Vm) -> Cluster:
        """What one VM does. A host that is busy with another one is not waited for."""
        asked = self.hosts.ask([vm.node], lambda host: host.domain(vm.id))
        domain = asked[vm.node]
        if isinstance(domain, VorchError):
            return dataclasses.replace(cluster, silent={vm.node: domain.message})
        if domain is None:
            return cluster
        domain = dataclasses.replace(domain, node=vm.node)
        return dataclasses.replace(cluster, domains={vm.id: domain})

    def _running(self, name: str, verb: str) -> Vm:
        cluster = self._at(name)
        vm = cluster.vm(name)
        if not is_on(known_power(cluster, vm, verb)):
            raise Conflict(f"cannot {verb} VM {name!r}: it is off; start it first", vm=name)
        return vm

    def _do(
        self,
        decide: Callable[[Cluster], Plan],
        *,
        dry_run: bool,
        wait_s: float | None,
        hosts: Callable[[Cluster], Iterable[str]] | None = None,
        alone: str | None = None,
        about: tuple[str, ...] = (),
        networks: Callable[[Cluster], Iterable[Network]] | None = None,
    ) -> Done:
        """Look, decide, act; look again when what was decided from has changed meanwhile.

        `networks`: those that the hosts looked at are asked about.
        """
        clock = self.world.clock
        until = clock.now() + (self.settings.wait_s if wait_s is None else wait_s)
        looks = 0
        while True:
            cluster = self.look()
            names: tuple[str, ...] = ()
            if hosts is not None:
                names = tuple(hosts(cluster))
                cluster = self._seen(cluster, names)
                # To find out takes seconds, and is not tried on a host that is silent.
                if self._find_facts(cluster, (one for one in names if one not in cluster.silent)):
                    cluster = self.look(names)
            elif alone is not None:
                names = (cluster.vm(alone).node,)
                cluster = self._seen_alone(cluster, cluster.vm(alone))
            if networks is not None:
                cluster = self._connected(cluster, names, networks(cluster))
            try:
                plan = self.judge(decide(cluster))
                abilities.check(plan, cluster)
            except VorchError as exc:
                # What was seen may be half of what another process is doing (a domain that is just
                # being started looks paused), so it counts only when nobody is at it.
                if dry_run or not any(self.executor.holder(key) for key in about):
                    raise
                if self._give_way(about, until):
                    continue
                raise self._busy("work on", about[0].partition("/")[2], about) from exc
            if dry_run or plan.empty:
                return Done(plan, None)
            try:
                task = self.executor.run(plan)
                self.noter.wake()
                return Done(plan, task)
            except Conflict as exc:
                key = str(exc.fields.get("key", ""))
                if key.startswith("claim/"):
                    if self._give_way(plan.claims, until):
                        continue
                    raise self._busy(plan.verb, plan.subject, plan.claims) from exc
                # Of its own plan: another process has taken that over, and not to do it twice.
                if not key or key.startswith("plan/") or looks >= FRESH_LOOKS:
                    raise
                looks += 1

    def _find_facts(self, cluster: Cluster, names: Iterable[str]) -> bool:
        """Find out about hosts of which nobody has yet; True when something new was recorded."""
        found = False
        for name in names:
            node = cluster.nodes.get(name)
            if node is not None and (node.facts is None or not node.facts.accelerator):
                try:
                    self.node_probe(name)
                    found = True
                except Unreachable:
                    continue
        return found

    def _give_way(self, keys: tuple[str, ...], until: float) -> bool:
        """True when it is worth another try: the holder is gone, or there is time to wait."""
        for key in keys:
            held = self.executor.holder(key)
            if held is None:
                continue
            document, journal = held
            if self.executor.abandoned(journal):
                self.executor.take_over(document, journal)
                return True
            if self.world.clock.now() < until:
                self.world.clock.sleep(WAIT_POLL_S)
                return True
            return False
        return True

    def _busy(self, verb: str, subject: str, keys: tuple[str, ...]) -> Conflict:
        """Who is at it, and since it is somebody else, what to do."""
        for key in keys:
            held = self.executor.holder(key)
            if held is not None:
                journal = held[1]
                kind, _, name = key.partition("/")
                stuck = not journal.runner
                what = f"{journal.plan.verb} {journal.plan.subject!r}"
                return Conflict(
                    f"cannot {verb} {subject!r}: {what} (task {journal.id})"
                    + (" was left unfinished" if stuck else " is at work")
                    + f" on {kind} {name!r}; "
                    + (
                        "see `vorch task show` and try `vorch recover`"
                        if stuck
                        else "wait for it (--wait), or cancel it (vorch task cancel)"
                    ),
                    task=journal.id,
                    **{kind: name},
                )
        return Conflict(f"cannot {verb} {subject!r}: it was busy; try again")

    def _fresh(self) -> Fresh:
        chance = self.world.chance
        return Fresh(uuid=chance.uuid(), token=chance.take(8).hex(), now=self.world.clock.now())

    def _pool_for(
        self,
        cluster: Cluster,
        pool: str | None,
        storage_class: str | None,
        *,
        or_default: bool = True,
        node: str | None = None,
        beside: str | None = None,
        needed_bytes: int = 0,
    ) -> str | None:
        """The pool that was named, or the best one of a class; None: nobody said.

        Pools are asked for their room only if that counts, and those that do not answer are passed
        over.
        """
        if pool is not None and storage_class is not None:
            raise Invalid("cannot use a pool and a class at once; name one of the two")
        if pool is not None:
            return cluster.pool(pool).name
        if storage_class is not None:
            wanted = cluster.storage_class(storage_class)
        else:
            default = storage.default_class(cluster) if or_default else None
            if default is None:
                return None
            wanted = default
        names = [name for name in wanted.pools if name in cluster.pools]
        rooms = dict(zip(names, self.world.each(self._room, names), strict=True))
        return storage.choose(
            cluster, wanted, rooms, node=node, beside=beside, needed_bytes=needed_bytes
        )

    def _room(self, pool: str) -> Room | str:
        try:
            return self.world.images(pool).room()
        except VorchError as exc:
            return exc.message

    def _on_vm(
        self,
        name: str,
        decide: Callable[[Cluster], Plan],
        *,
        dry_run: bool,
        wait_s: float | None,
        whole_host: bool = False,
        networks: Callable[[Cluster], Iterable[Network]] | None = None,
    ) -> Done:
        """Decide about one VM. `whole_host`: the decision needs to know what else runs there.

        And on all other hosts, where room is kept for the loss of one.
        """
        state = self.world.state
        return self._do(
            decide,
            dry_run=dry_run,
            wait_s=wait_s,
            hosts=(lambda c: kept.with_spare(state, c, [c.vm(name).node])) if whole_host else None,
            alone=None if whole_host else name,
            about=(f"vm/{check_vm_name(name)}",),
            networks=networks,
        )

    @staticmethod
    def _networks_of(name: str) -> Callable[[Cluster], Iterable[Network]]:
        """What a VM is plugged into, for the hosts that it may come to be on."""
        return lambda cluster: networks_for(cluster, cluster.vm(name))

    @staticmethod
    def _networks_called(names: Iterable[str]) -> Callable[[Cluster], Iterable[Network]]:
        """The same for a VM that is new; a name that is none is refused later, in better words."""
        return lambda cluster: [
            dataclasses.replace(cluster.networks[name], forwards=())
            for name in dict.fromkeys(names)
            if name in cluster.networks
        ]

    def node_probe(self, name: str) -> HostFacts:
        """Find out anew what the host is and can, by asking it and by booting something tiny."""
        node = self.look().node(name)
        facts = self.world.hypervisor(name).probe(no_progress)
        facts = dataclasses.replace(facts, probed_at=self.world.clock.now())
        places = self._places(node)
        probed = dataclasses.replace(
            node, facts=facts, ceph_tags=node.ceph_tags if places is None else places
        )
        self._record("node", name, node, probed)
        nodes = self.look().nodes
        # Whether the hosts have a CPU in common is told when a host joins, not here.
        with contextlib.suppress(VorchError):
            common = self._common_cpu(nodes, probed, self.world.hypervisor(name))
            if common is not None:
                before = self.look().baselines.get(common.architecture)
                self._record("cpu", common.architecture, before, common)
        return facts

    def _trees(self) -> tuple[CrushTree, ...] | None:
        """Ceph's CRUSH trees; None: nobody could be asked."""
        if self.world.witness is None:
            return None
        try:
            return self.world.witness.crush()
        except VorchError:
            return None

    def _places(self, node: Node) -> tuple[str, ...] | None:
        """Where it stands by them."""
        trees = self._trees()
        return None if trees is None else crush.placed(trees, node)

    def _record_places(self) -> None:
        """Of all hosts, where that is new."""
        trees = self._trees()
        for name, node in self.look().nodes.items() if trees is not None else ():
            after = dataclasses.replace(node, ceph_tags=crush.placed(trees or (), node))
            if after != node:
                self._record("node", name, node, after)

    @staticmethod
    def _common_cpu(nodes: Mapping[str, Node], node: Node, host: Hypervisor) -> Baseline | None:
        """What these hosts can all give, as this one of them finds out. None: nothing counts."""
        facts = node.facts
        if facts is None or facts.accelerator != "kvm":
            return None
        cpus = baseline.counted(nodes, facts.architecture)
        if not cpus:
            return None
        unlike = list({repr(cpu): cpu for cpu in cpus.values()}.values())
        cpu = unlike[0] if len(unlike) == 1 else host.common_cpu(unlike)
        return Baseline(architecture=facts.architecture, cpu=cpu, nodes=tuple(cpus))

    def _record(self, kind: str, name: str, before: Any, after: Any) -> None:
        """Write one document by a plan of its own, so that it is claimed and logged like any."""
        key = f"{kind}/{name}"

        def decide(cluster: Cluster) -> Plan:
            there = cluster.versions.get(key, 0)
            step = save(kind, name, before if there else None, after)
            steps = () if step.before == step.after else (step,)
            return Plan(
                verb=f"{kind} record",
                subject=name,
                why="what was found out about it",
                steps=steps,
                claims=(key,),
                reads={key: there},
            )

        self._do(decide, dry_run=False, wait_s=max(5.0, self.settings.wait_s))
