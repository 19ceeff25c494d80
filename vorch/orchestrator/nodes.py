"""Hosts that come, are tried out, emptied and let go."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from vorch.decide import agree, baseline, convoy, cordons, crush, hosts, spared
from vorch.decide.abilities import abilities
from vorch.decide.records import hosts_of
from vorch.errors import Conflict, VorchError
from vorch.model import (
    Ability,
    Baseline,
    Check,
    Cluster,
    Cpu,
    HostFacts,
    Network,
    Node,
    NodeStatus,
    Pool,
    Source,
)
from vorch.orchestrator import kept
from vorch.orchestrator.core import Done
from vorch.orchestrator.room_hint import busy_vms
from vorch.orchestrator.rounds import Rounds
from vorch.orchestrator.writing import measured_before
from vorch.plan import Plan
from vorch.ports import (
    Change,
    Hypervisor,
    Images,
    PowerSwitch,
    no_progress,
)

# A volume that hosts open to show that they can.
TRIAL_BYTES = 1024**2


# So many of the other hosts exchange a test machine with one that is tried out.
MOVE_TRIALS = 3


def hosts_told(cluster: Cluster) -> Iterable[str]:
    """The hosts that are told when one comes or goes: all, where an overlay is between them."""
    overlay = any(network.kind == "overlay" for network in cluster.networks.values())
    return cluster.nodes if overlay else ()


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of trying a host out."""

    checks: tuple[Check, ...]
    facts: HostFacts | None = None
    # Where its Ceph traffic was seen to come from.
    addresses: tuple[str, ...] = ()
    # What all hosts can give with it.
    baseline: Baseline | None = None
    # Where Ceph says that it stands; None: nobody could be asked.
    places: tuple[str, ...] | None = None


class Nodes(Rounds):
    def node_list(self) -> tuple[NodeStatus, ...]:
        """All hosts by name, with what is on them now: one call per host."""
        cluster = self.look(None)
        nodes = [cluster.nodes[name] for name in sorted(cluster.nodes)]
        return hosts.statuses(cluster, nodes, self.settings.vm_overhead_mib)

    def node_show(self, name: str) -> NodeStatus:
        """The host, its accelerator having been found out by booting something if it never was."""
        node = self.look().node(name)
        if node.facts is None or not node.facts.accelerator:
            self.node_probe(name)
        cluster = self.look([name])
        return hosts.status(cluster, cluster.node(name), self.settings.vm_overhead_mib)

    def node_abilities(self, name: str) -> tuple[Ability, ...]:
        """What the host can and what it cannot, and why not, as far as it was asked by now."""
        return abilities(self.look().node(name).facts)

    def node_change(
        self,
        name: str,
        *,
        reserve_mib: int | None = None,
        storage_address: str | None = None,
        bmc: str | None = None,
        bmc_password: str | None = None,
        tags: Sequence[str] | None = None,
        cpu_ratio: float | None = None,
        ssh: str | None = None,
        install_hook: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """What vorch knows of a host beside its URI. "" takes an address or a BMC away.

        `tags` are all that it has from then on. `cpu_ratio`: vCPUs per processor at most; 0: as is
        usual. A BMC is read once before it is taken; with a password alone, that one is. `ssh`:
        how a Xen host is reached for what libvirt does not do. `install_hook`: put this version's
        hook onto it.
        """
        changes = hosts.NodeChanges(
            reserve_mib=reserve_mib,
            storage_address=storage_address,
            bmc=bmc,
            tags=None if tags is None else tuple(tags),
            cpu_ratio=cpu_ratio,
            ssh=ssh,
        )
        node = self.look().node(name)
        after = dataclasses.replace(node, bmc=node.bmc if bmc is None else bmc)
        if after.bmc and (bmc or bmc_password is not None):
            secret = self._bmc_password(name) if bmc_password is None else bmc_password
            hosts.refuse(f"change host {name!r}", self._try_bmc(after, secret))
        done = self._said(lambda cluster: hosts.change(cluster, name, changes), dry_run, wait_s)
        if not dry_run:
            self._keep_password(name, bmc_password if bmc != "" else "")
            if install_hook:
                self._install_hook(self.look().node(name))
        return done

    def _install_hook(self, node: Node) -> None:
        host = self.world.new_host(node)
        try:
            if host.hook_way() and host.hook_lack():
                host.install_hook()
        finally:
            host.close()

    # -- the BMC's password. It goes past plans, whose steps are kept in tasks and shown to people.

    def _bmc_password(self, name: str) -> str:
        document = self.world.state.get(f"secret/bmc.{name}")
        return "" if document is None else str(document.body["password"])

    def _keep_password(self, name: str, password: str | None) -> None:
        """None: it stays; "": it goes."""
        if password is None:
            return
        key = f"secret/bmc.{name}"
        body = {"password": password} if password else None
        self.world.state.commit([Change(key, None, body)])

    def _power_switch(self, node: Node, password: str | None = None) -> PowerSwitch:
        secret = self._bmc_password(node.name) if password is None else password
        return self.world.power_switch(node, secret)

    def _try_bmc(
        self, node: Node, password: str | None = None, *, answers: bool = True
    ) -> tuple[Check, ...]:
        """Whether it answers, and speaks of this host, which itself `answers` or does not."""
        try:
            switch = self._power_switch(node, password)
            try:
                return (hosts.of_power(node, switch.is_on(), answers),)
            finally:
                switch.close()
        except VorchError as exc:
            return (hosts.failed("BMC", exc, hosts.REMEDY_FOR_BMC),)

    def node_add(
        self,
        name: str,
        uri: str,
        *,
        reserve_mib: int | None = None,
        storage_address: str = "",
        bmc: str = "",
        bmc_password: str = "",
        tags: Sequence[str] = (),
        cpu_ratio: float | None = None,
        ssh: str = "",
        install_hook: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Take a host in. First it is tried out: what it cannot do is said before it joins.

        A Xen host is also reached by `ssh` (as root at the host of its URI, where none is given),
        and needs a hook of libvirt's for disks in Ceph: `install_hook` says that vorch may put it
        there.
        """
        kept = self.settings.node_reserve_mib if reserve_mib is None else reserve_mib
        node = Node(
            name=name,
            uri=uri,
            reserve_mib=kept,
            storage_address=storage_address,
            bmc=bmc,
            tags=tuple(tags),
            cpu_ratio=cpu_ratio or None,
            ssh=ssh,
        )
        cluster = self.look(None)
        hosts.add(cluster, node, ())
        hook: Literal["install", "would", ""] = "" if not install_hook else "install"
        if hook and dry_run:
            hook = "would"
        trial = self._try_host(node, cluster, bmc_password, hook)
        node = dataclasses.replace(node, facts=trial.facts)
        if not node.storage_address and trial.addresses:
            node = dataclasses.replace(node, storage_address=trial.addresses[0])
        node = dataclasses.replace(node, ceph_tags=trial.places or ())
        done = self._do(
            lambda cluster: hosts.add(cluster, node, trial.checks, trial.baseline),
            dry_run=dry_run,
            wait_s=wait_s,
            hosts=hosts_told,
        )
        if not dry_run:
            self._keep_password(name, bmc_password)
        return done

    def node_check(self, name: str) -> tuple[Check, ...]:
        """Try a host out as when it joined, one line for each thing that it must be able to do.

        Where Ceph says that it stands is recorded, if that is new.
        """
        cluster = self.look(None)
        node = cluster.node(name)
        trial = self._try_host(node, cluster)
        if trial.places is not None and trial.places != node.ceph_tags:
            after = dataclasses.replace(node, ceph_tags=trial.places)
            self._record("node", name, node, after)
        return trial.checks

    def _try_host(
        self,
        node: Node,
        cluster: Cluster,
        bmc_password: str | None = None,
        hook: Literal["install", "would", ""] = "",
    ) -> Trial:
        """By doing it: connect, boot something, open a disk of every shared pool, move something.

        Its BMC is asked even when the host itself does not answer.
        """
        of_bmc = self._try_bmc(node, bmc_password) if node.bmc else ()
        host = self.world.new_host(node)
        try:
            try:
                facts = host.probe(no_progress)
            except VorchError as exc:
                silent = hosts.failed("libvirt", exc, "see that its libvirtd listens there")
                return Trial((silent, *of_bmc))
            facts = dataclasses.replace(facts, probed_at=self.world.clock.now())
            node = dataclasses.replace(node, facts=facts)
            needed = any(pool.shared for pool in cluster.pools.values())
            checks = [*hosts.judged(node, facts, cluster), self._clock_check(host, needed=needed)]
            of_hook = self._try_hook(host, hook, needed=needed)
            checks += of_hook
            # Without it nothing in Ceph can be opened, and that is said already.
            able = all(one.level == "ok" for one in of_hook) and hook != "would"
            found: list[str] = []
            for pool in cluster.pools.values():
                if pool.shared and able:
                    checks += self._try_pool(self.world.images(pool.name), pool, host, found)
            joined = dataclasses.replace(cluster, nodes={**cluster.nodes, node.name: node})
            for network in cluster.networks.values():
                checks += self._try_network(network, joined, host)
            addresses = tuple(dict.fromkeys(found))
            if needed and able:
                checks.append(hosts.of_storage(node, addresses))
            common, of_cpu = self._try_baseline(node, cluster, host)
            checks += of_cpu
            seen = node.storage_address or next(iter(addresses), "")
            places = self._places(dataclasses.replace(node, storage_address=seen))
            checks += crush.check_of(node, places or ())
            if not any(check.level == "error" for check in checks):
                checks += self._try_moves(node, cluster, host, common)
            return Trial((*checks, *of_bmc), facts, addresses, common, places)
        finally:
            host.close()

    @staticmethod
    def _clock_check(host: Hypervisor, *, needed: bool) -> Check:
        try:
            return hosts.of_clock(*host.clock())
        except VorchError as exc:
            if host.hook_way():
                return hosts.not_told("clock", exc, needed=needed)
            return hosts.failed("clock", exc, "check the host again")

    @staticmethod
    def _try_hook(
        host: Hypervisor, hook: Literal["install", "would", ""], *, needed: bool
    ) -> tuple[Check, ...]:
        """Whether it is there, and libvirt runs it; nothing for hosts that need none."""
        way = host.hook_way()
        if not way:
            return ()
        try:
            lack = host.hook_lack()
            if lack and hook == "install":
                host.install_hook()
                lack = host.hook_lack()
        except VorchError as exc:
            return (hosts.not_told("hook", exc, needed=needed),)
        return (hosts.of_hook(lack, way, needed=needed, would=hook == "would"),)

    def _try_baseline(
        self, node: Node, cluster: Cluster, host: Hypervisor
    ) -> tuple[Baseline | None, tuple[Check, ...]]:
        """The CPU of all hosts, this one included."""
        if node.facts is not None and node.facts.hypervisor == "xen":
            return None, (hosts.of_own_cpu(),)
        try:
            common = self._common_cpu({**cluster.nodes, node.name: node}, node, host)
        except VorchError as exc:
            return None, (hosts.failed("CPU baseline", exc, hosts.REMEDY_FOR_CPU),)
        return common, () if common is None else (baseline.judged(cluster, common),)

    def _try_moves(
        self, node: Node, cluster: Cluster, host: Hypervisor, common: Baseline | None
    ) -> tuple[Check, ...]:
        """Whether a machine comes here from other hosts, and gets back to them."""
        if (len(cluster.nodes) < 2 and node.name in cluster.nodes) or not cluster.nodes:
            return ()
        if node.local:
            return (hosts.no_moves(node),)
        if node.facts is not None and node.facts.hypervisor == "xen":
            return (hosts.unlike_moves(),)
        cpu = None if common is None else common.cpu
        partners = hosts.partners(cluster, node, MOVE_TRIALS)
        if not partners:
            return (hosts.no_partner(),)
        checks = []
        for other in partners:
            there = self.world.hypervisor(other.name)
            for source, target, uri, words in (
                (there, host, node.peer_uri, f"from {other.name!r} to here"),
                (host, there, other.peer_uri, f"from here to {other.name!r}"),
            ):
                checks.append(self._try_move(source, target, uri, words, cpu))
        return tuple(checks)

    def _try_move(
        self, source: Hypervisor, target: Hypervisor, uri: str, words: str, cpu: Cpu | None
    ) -> Check:
        identifier = self.world.chance.uuid()
        try:
            source.try_move(identifier, uri, cpu)
        except VorchError as exc:
            return hosts.failed(f"move {words}", exc, hosts.REMEDY_FOR_MOVES)
        finally:
            for one in (source, target):
                with contextlib.suppress(VorchError):
                    one.cut(identifier)
        return Check(name=f"move {words}", level="ok", detail="a test machine was moved")

    def _try_pool(
        self, images: Images, pool: Pool, host: Hypervisor, found: list[str]
    ) -> tuple[Check, ...]:
        """Whether a host opens a volume of the pool, by each of its ways.

        What Ceph shows of where the host comes from is put into `found`.
        """
        token = self.world.chance.take(6).hex()
        volume = f"vorch-trial-{token}"

        def see() -> None:
            # Nobody else knows of this volume.
            for one in images.holders(volume) or ():
                found.append(hosts.address_of(one))

        try:
            images.create(volume, TRIAL_BYTES)
            try:
                secret = images.secret()
                if secret is not None:
                    host.ensure_secret(secret)
                return tuple(
                    self._try_source(host, f"vorch-trial-{token}", label, source, see)
                    for label, source in hosts.ways(pool.name, images.locate(volume))
                )
            finally:
                images.purge(volume)
        except VorchError as exc:
            return (hosts.failed(f"pool {pool.name}", exc, "see `vorch doctor`"),)

    @staticmethod
    def _try_network(network: Network, cluster: Cluster, host: Hypervisor) -> tuple[Check, ...]:
        """Whether a host can have a network; one that cannot is kept clear of VMs on it."""
        try:
            why = host.network_lack(network, hosts_of(cluster, network))
        except VorchError as exc:
            why = exc.message
        return (hosts.network_check(f"network {network.name}", network, why),)

    @staticmethod
    def _try_source(
        host: Hypervisor, name: str, label: str, source: Source, see: Callable[[], None]
    ) -> Check:
        try:
            host.try_source(name, source, see)
        except VorchError as exc:
            return hosts.failed(label, exc, hosts.REMEDY_FOR_POOLS)
        return Check(name=label, level="ok", detail="a disk in it was opened on the host")

    def node_remove(
        self, name: str, *, force: bool = False, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        """Let a host go. Refused while VMs belong to it. The keys that it was given go, too.

        `force`: also one that is cut off, and stays so; and where that takes the room away that VMs
        need when another one is lost.
        """
        cluster, state = self.look(), self.world.state
        common = self._common_without(cluster, cluster.node(name))

        def decide(cluster: Cluster) -> Plan:
            ha = kept.availability(state)
            plan = agree.let_go(hosts.remove(cluster, name, common), ha, name, force=force)
            overhead, what = self.settings.vm_overhead_mib, f"remove host {name!r}"
            return spared.held(plan, cluster, ha, overhead, what, force=force)

        done = self._do(
            decide,
            dry_run=dry_run,
            wait_s=wait_s,
            hosts=lambda cluster: kept.with_spare(state, cluster, hosts_told(cluster)),
        )
        if not dry_run:
            self._keep_password(name, "")
            self._clear(cluster, cluster.node(name))
        return done

    def _common_without(self, cluster: Cluster, node: Node) -> Baseline | None:
        """The CPU of the hosts that stay. When none of them answers, the old one goes on."""
        rest = {name: one for name, one in cluster.nodes.items() if name != node.name}
        facts = node.facts
        for name in () if facts is None else baseline.counted(rest, facts.architecture):
            with contextlib.suppress(VorchError):
                return self._common_cpu(rest, rest[name], self.world.hypervisor(name))
        return None

    def _clear(self, cluster: Cluster, node: Node) -> None:
        """Take back what vorch left on a host. One that does not answer keeps it."""
        host = self.world.new_host(node)
        try:
            with contextlib.suppress(VorchError):
                host.sweep()
                if any(domain.ours for domain in host.domains()):
                    # Another cluster's, which may have the same key.
                    return
                for pool in cluster.pools.values():
                    secret = self.world.images(pool.name).secret() if pool.shared else None
                    if secret is not None:
                        host.forget_secret(secret)
                host.remove_hook()
        finally:
            host.close()

    def node_cordon(self, name: str, *, dry_run: bool = False, wait_s: float | None = None) -> Done:
        """Start and place nothing on a host any more; what runs there goes on."""
        return self._said(lambda cluster: cordons.cordon(cluster, name, True), dry_run, wait_s)

    def _said(self, decide: Callable[[Cluster], Plan], dry_run: bool, wait_s: float | None) -> Done:
        """It says so when it takes the room away that VMs need when a host is lost."""
        state, overhead = self.world.state, self.settings.vm_overhead_mib
        return self._do(
            lambda cluster: spared.said(
                decide(cluster), cluster, kept.availability(state), overhead
            ),
            dry_run=dry_run,
            wait_s=wait_s,
            hosts=lambda cluster: kept.with_spare(state, cluster, ()),
        )

    def node_uncordon(
        self, name: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        """Use it again. One in maintenance is let out of that instead."""

        def decide(cluster: Cluster) -> Plan:
            agree.need_no_maintenance(kept.availability(self.world.state), name)
            return cordons.cordon(cluster, name, False)

        return self._do(decide, dry_run=dry_run, wait_s=wait_s)

    def _begin_maintenance(self, name: str, on: bool) -> Done:
        """The cordon, and for whoever watches the word that it is on purpose: one commit."""

        def decide(cluster: Cluster) -> Plan:
            ha, names = kept.availability(self.world.state), cordons.called(cluster, name)
            plan = cordons.cordon_all(cluster, name, names, on)
            for one in names:
                plan = agree.emptied(plan, ha, one, on)
            return plan

        return self._do(decide, dry_run=False, wait_s=None)

    def _make_way(self, names: Sequence[str], wait_s: float | None) -> list[Done]:
        """Empty hosts by one decision, in which others may have to make way.

        For one host only where not all that is on it finds room without.
        """
        cluster, state = self.look(None), self.world.state
        cluster = self._connected(cluster, cluster.nodes, tuple(cluster.networks.values()))
        ha = kept.availability(state)
        there = sorted(vm.name for vm in cluster.vms.values() if vm.node in names)
        _, stayed = convoy.trips(
            cluster, there, lambda then, one: self._goal(then, ha, one, None, away=True)
        )
        if not stayed and len(names) == 1:
            return []
        from vorch.decide.balance import link_mib_s
        from vorch.decide.emptying import way_out

        found = way_out(
            cluster,
            ha,
            names,
            overhead_mib=self.settings.vm_overhead_mib,
            busy=busy_vms(state),
            per_host=max(1, self.settings.migrations_per_host),
            link_mib_s=link_mib_s(self._tasks(), self.settings.migration_bandwidth_mib_s),
            writes=measured_before(state, self.world.clock.now()),
        )
        if stayed and len(found.left) >= len(stayed):
            return []
        # Whoever is skipped is moved as all others, or said, in the end.
        done, _ = self._carry_out(found.rounds, cluster.vms, wait_s, leaving=names)
        return done

    def node_maintenance(
        self, name: str, on: bool, *, wait_s: float | None = None
    ) -> tuple[Done, ...]:
        """Empty a host so that it can be switched off; or bring back what left it.

        `name`: a host, or a failure domain as hosts are tagged with it (rack:r1), of which all
        hosts are emptied by one decision. Who watches knows of it, and moves the VMs that are
        looked after just so. Each VM is a task of its own; several move at once. Where there is not
        room for all, others make way, as few as possible. What cannot move stays, and is said when
        all others have. Safe to repeat.
        """
        done = [self._begin_maintenance(name, on)]
        cluster = self.look()
        emptied = cordons.called(cluster, name)
        if on:
            done += self._make_way(emptied, wait_s)
        vms = sorted(self.look().vms.values(), key=lambda one: one.name)
        goals = {vm.name: vm.home for vm in vms if vm.home in emptied}
        names = [vm.name for vm in vms if vm.node in emptied] if on else list(goals)
        moved, stayed = self._move_all(names, {} if on else goals, away=on, wait_s=wait_s)
        done += moved
        if stayed:
            reasons = "; ".join(stayed[one] for one in names if one in stayed)
            what = f"host {name!r}" if name in cluster.nodes else f"the hosts in {name!r}"
            raise Conflict(
                f"cannot {'empty' if on else 'bring everything back to'} {what}:"
                f" {reasons}; move or stop those by hand, and do this again",
                node=name,
                stayed=stayed,
            )
        return tuple(done)
