"""What is looked after and how: settings, rules, the policy, and how far it all is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from vorch.availability import (
    Availability,
    HaPolicy,
    HaStatus,
    HaVmStatus,
    NodeChoice,
    Report,
    Requested,
    RuleStatus,
)
from vorch.decide import ha_settings, ha_status, rule_settings, spared
from vorch.decide.ha_settings import HaChanges, PolicyChanges
from vorch.decide.rules import resolve
from vorch.errors import Invalid
from vorch.model import Cluster
from vorch.orchestrator import kept
from vorch.orchestrator.core import Done
from vorch.orchestrator.fencing import Fencing
from vorch.orchestrator.words import checked_seconds, one_of, word_of
from vorch.plan import Plan


class HighAvailability(Fencing):
    # -- VMs

    def ha_set(
        self,
        name: str,
        *,
        requested: Requested | str | None = None,
        nodes: Sequence[NodeChoice] | None = None,
        restricted: bool | None = None,
        failback: bool | None = None,
        max_restart: int | None = None,
        max_relocate: int | None = None,
        start_order: int | None = None,
        start_delay_s: float | None = None,
        moves: str | None = None,
        stop_timeout_s: float | None = None,
        isolation: str | None = None,
        isolation_after_s: float | None = None,
        guest_shutdown: str | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Have a VM looked after, or change how. What is not given stays as it is.

        `nodes`: an empty list takes all hosts from its own list.
        """
        changes = HaChanges(
            requested=None
            if requested is None
            else one_of(Requested, requested, "requested state"),
            nodes=None if nodes is None else tuple(nodes),
            restricted=restricted,
            failback=failback,
            max_restart=max_restart,
            max_relocate=max_relocate,
            start_order=start_order,
            start_delay_s=start_delay_s,
            moves=word_of(HaChanges, "moves", moves),
            stop_timeout_s=stop_timeout_s,
            isolation=word_of(HaChanges, "isolation", isolation),
            isolation_after_s=isolation_after_s,
            guest_shutdown=word_of(HaChanges, "guest_shutdown", guest_shutdown),
        )
        state, overhead = self.world.state, self.settings.vm_overhead_mib

        def decide(cluster: Cluster) -> Plan:
            ha = kept.availability(state)
            plan = ha_settings.ha_set(cluster, ha, name, changes)
            return spared.said(plan, cluster, ha, overhead)

        return self._do(
            decide,
            dry_run=dry_run,
            wait_s=wait_s,
            # To say whether all that is looked after has room then when a host is lost.
            hosts=lambda cluster: kept.with_all(state, cluster),
        )

    def ha_show(self, name: str) -> HaVmStatus:
        """How one VM is looked after, and how far that is."""
        cluster, ha = self.look(), kept.availability(self.world.state)
        cluster.vm(name)
        ha_settings.looked_after(ha, name, "show how the cluster looks after")
        return self._told(cluster, ha, name)

    def ha_list(self) -> tuple[HaVmStatus, ...]:
        """All VMs that are looked after, by name."""
        cluster, ha = self.look(), kept.availability(self.world.state)
        return tuple(self._told(cluster, ha, name) for name in sorted(ha.vms))

    def _told(self, cluster: Cluster, ha: Availability, name: str) -> HaVmStatus:
        placement = resolve(ha.vms, ha.rules, cluster.nodes)
        return ha_status.vm_status(cluster, ha, self._report(), name, placement)

    def ha_remove(self, name: str, *, dry_run: bool = False, wait_s: float | None = None) -> Done:
        """Look after a VM no more. It stays as it is, and its rules go on holding."""
        return self._set(
            lambda cluster, ha: ha_settings.ha_remove(cluster, ha, name), dry_run, wait_s
        )

    # -- the whole

    def ha_status(self) -> HaStatus:
        """Who leads, what every host and VM is, and what a person has to know. No host is asked."""
        return kept.status_of(self.world.state, self.look(), self.world.clock.now())

    def _report(self) -> Report | None:
        return kept.report(self.world.state)

    def ha_policy(
        self,
        *,
        shutdown: str | None = None,
        silent_share: float | None = None,
        balance_on_start: bool | None = None,
        spare: str | None = None,
        spare_hosts: int | None = None,
        spare_over: str | None = None,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """How the whole cluster is looked after. With nothing given it is only said.

        `spare_hosts`: how many may be lost at once. `spare_over`: a key of hosts' tags, as "rack",
        of which any one may be lost as well; "" takes that away.
        """
        changes = PolicyChanges(
            shutdown=word_of(PolicyChanges, "shutdown", shutdown),
            silent_share=silent_share,
            balance_on_start=balance_on_start,
            spare=word_of(PolicyChanges, "spare", spare),
            spare_hosts=spare_hosts,
            spare_over=spare_over,
        )
        return self._set(
            lambda cluster, ha: ha_settings.ha_policy(cluster, ha, changes), dry_run, wait_s
        )

    def ha_disarm(
        self,
        for_s: float,
        *,
        as_: str = "freeze",
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """Hands off for so long. `as_`: freeze, or ignore, where nothing is even watched."""
        if checked_seconds(for_s) == 0:
            raise Invalid("cannot disarm for 0 s: say for how long, as in 2h")
        word = word_of(HaPolicy, "disarmed_as", as_)
        now = self.world.clock.now()
        return self._set(
            lambda cluster, ha: ha_settings.ha_disarm(ha, word, for_s=for_s, now=now),
            dry_run,
            wait_s,
        )

    def ha_arm(self, *, dry_run: bool = False, wait_s: float | None = None) -> Done:
        """Watch again, before the time of a disarming is over."""
        return self._set(lambda cluster, ha: ha_settings.ha_arm(ha), dry_run, wait_s)

    # -- rules

    def rule_add(
        self,
        name: str,
        kind: Literal["together", "apart", "nodes", "spread"],
        vms: Sequence[str],
        *,
        nodes: Sequence[NodeChoice] = (),
        strict: bool = True,
        over: str = "",
        max_skew: int = 1,
        weight: float = 1.0,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """VMs that are to be together, apart, on certain `nodes`, or spread evenly.

        `over`: not over hosts, but over their tags of that key, as "rack". `max_skew`: how many
        more of those that are spread one may hold than another. A wish if not `strict`, which
        counts `weight` beside others.
        """

        def decide(cluster: Cluster) -> Plan:
            ha = kept.availability(self.world.state)
            plan = rule_settings.rule_add(
                cluster,
                ha,
                name,
                kind,
                vms,
                nodes=nodes,
                strict=strict,
                over=over,
                max_skew=max_skew,
                weight=weight,
            )
            return spared.said(plan, cluster, ha, self.settings.vm_overhead_mib)

        return self._do(
            decide,
            dry_run=dry_run,
            wait_s=wait_s,
            # To say what is otherwise now.
            hosts=lambda cluster: cluster.nodes,
        )

    def rule_list(self, *, seen: bool = True) -> tuple[RuleStatus, ...]:
        """All rules by name, with what is otherwise now: one call per host, unless not `seen`."""
        cluster = self.look(None if seen else ())
        return rule_settings.statuses(cluster, kept.availability(self.world.state))

    def rule_show(self, name: str) -> RuleStatus:
        rule_settings.found(kept.availability(self.world.state), name)
        return next(one for one in self.rule_list() if one.name == name)

    def rule_remove(self, name: str, *, dry_run: bool = False, wait_s: float | None = None) -> Done:
        """Forget a rule. Its VMs stay where they are."""
        return self._set(lambda cluster, ha: rule_settings.rule_remove(ha, name), dry_run, wait_s)

    def _set(
        self,
        decide: Callable[[Cluster, Availability], Plan],
        dry_run: bool,
        wait_s: float | None,
    ) -> Done:
        return self._do(
            lambda cluster: decide(cluster, kept.availability(self.world.state)),
            dry_run=dry_run,
            wait_s=wait_s,
        )
