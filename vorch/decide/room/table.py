"""A fleet as arrays: sums per host, masks per needs, rules as indices. What all searches share.

Mutable within one decision: `move` touches two rows. Rows are in order of names, so that ties go by
name and the order of the input has no influence. NumPy is loaded here, and by nothing that `import
vorch` loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vorch.decide.room.fleet import HOST, Fleet, Guest, Host, Needs, Rule, Spread, Together
from vorch.errors import NotFound
from vorch.xen_guests import no_such_kind

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NOWHERE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A rule about guests, as row numbers."""

    name: str
    kind: Literal["together", "apart", "spread"]
    members: tuple[int, ...]
    # The same as an array.
    rows: Ints = field(compare=False, repr=False)
    # Key of the domains that it is about.
    over: str
    hard: bool
    weight: float
    max_skew: int = 0


class Table:
    """Rows of hosts and of guests. Quantities of hosts are capacities and what is used of them."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.policy = fleet.policy
        self._take_hosts(sorted(fleet.hosts, key=lambda host: host.name))
        self._take_guests(sorted(fleet.guests, key=lambda guest: guest.name))
        self._take_rules(sorted(fleet.rules, key=lambda rule: rule.name))
        self._masks: dict[int, Bools] = {}
        self._domains: dict[str, tuple[Ints, list[str]]] = {}

    def _take_hosts(self, hosts: list[Host]) -> None:
        self.hosts = hosts
        self.host_names = [host.name for host in hosts]
        self.host_row = {host.name: row for row, host in enumerate(hosts)}
        self.cpus: Floats = np.array([host.cpus for host in hosts], dtype=np.float64)
        # All memory of the host: what shares are counted of.
        self.size_mib: Floats = np.array([host.memory_mib for host in hosts], dtype=np.float64)
        # Kept for the host, set aside as huge pages, or in use by others.
        taken = [host.reserve_mib + host.pages_mib + host.other_memory_mib for host in hosts]
        self.kept_mib: Ints = np.array(taken, dtype=np.int64)
        self.room_mib: Ints = np.array([host.memory_mib for host in hosts], dtype=np.int64)
        self.room_mib -= self.kept_mib
        self.room_vcpus: Floats = np.array(
            [host.cpus * self.ratio(row) - host.other_vcpus for row, host in enumerate(hosts)],
            dtype=np.float64,
        )
        self.other_vcpus: Floats = np.array([host.other_vcpus for host in hosts], dtype=np.float64)
        self.other_load: Floats = np.array([host.other_load for host in hosts], dtype=np.float64)
        self.open: Bools = np.array([not host.closed for host in hosts], dtype=np.bool_)

    def _take_guests(self, guests: list[Guest]) -> None:
        self.guests = guests
        self.guest_names = [guest.name for guest in guests]
        self.guest_row = {guest.name: row for row, guest in enumerate(guests)}
        guess = self.policy.load_per_vcpu
        self.memory: Ints = np.array([guest.takes_mib for guest in guests], dtype=np.int64)
        self.vcpus: Floats = np.array([guest.vcpus for guest in guests], dtype=np.float64)
        self.load: Floats = np.array(
            [g.vcpus * guess if g.cpu_load is None else g.cpu_load for g in guests],
            dtype=np.float64,
        )
        self.net: Floats = np.array([guest.net_load for guest in guests], dtype=np.float64)
        rows = self.host_row
        self.at: Ints = np.array(
            [rows[guest.host] if guest.host else NOWHERE for guest in guests], dtype=np.int64
        )
        self.ha: Bools = np.array([guest.ha for guest in guests], dtype=np.bool_)
        # Equal needs have one number.
        self.needs: list[Needs] = []
        kinds: dict[Needs, int] = {}
        # A value that many share is hashed once.
        seen: dict[int, int] = {}
        self.kind: Ints = np.array(
            [
                seen[id(guest.needs)]
                if id(guest.needs) in seen
                else seen.setdefault(id(guest.needs), self._kind(guest.needs, kinds))
                for guest in guests
            ],
            dtype=np.int64,
        )
        # Guests that a cell or huge pages are counted for, beside the host's memory.
        celled = [bool(needs.one_cell or needs.pages_kib) for needs in self.needs]
        self.celled: Bools = np.array(celled, dtype=np.bool_)[self.kind] if guests else self.ha
        self.recount()

    def _kind(self, needs: Needs, kinds: dict[Needs, int]) -> int:
        if needs not in kinds:
            kinds[needs] = len(self.needs)
            self.needs.append(needs)
        return kinds[needs]

    def _take_rules(self, rules: list[Rule]) -> None:
        rows = self.guest_row
        self.groups = [_group(rule, rows) for rule in rules]
        # The groups that each guest is in, hard ones and wishes.
        self.groups_of: list[list[int]] = [[] for _ in self.guests]
        for number, group in enumerate(self.groups):
            for row in group.members:
                self.groups_of[row].append(number)

    def recount(self) -> None:
        """Sums per host anew, from where each guest is."""
        count = len(self.hosts)
        there = self.at >= 0
        at = self.at[there]
        self.used_mib: Ints = _sums(at, self.memory[there], count).astype(np.int64)
        self.used_vcpus: Floats = _sums(at, self.vcpus[there], count)
        self.used_load: Floats = _sums(at, self.load[there], count) + self.other_load
        self.used_net: Floats = _sums(at, self.net[there], count)
        self.free_mib: Ints = self.room_mib - self.used_mib
        self.free_vcpus: Floats = self.room_vcpus - self.used_vcpus

    # -- rows

    def host(self, name: str) -> int:
        if name not in self.host_row:
            raise NotFound(
                f"cannot find host {name!r}: there is none of that name; check it", host=name
            )
        return self.host_row[name]

    def guest(self, name: str) -> int:
        if name not in self.guest_row:
            raise NotFound(
                f"cannot find guest {name!r}: there is none of that name; check it", guest=name
            )
        return self.guest_row[name]

    def ratio(self, host: int) -> float:
        """vCPUs per processor at most."""
        own = self.hosts[host].cpu_ratio
        return self.policy.cpu_ratio if own is None else own

    def on(self, host: int) -> Ints:
        """The guests on a host."""
        return np.flatnonzero(self.at == host)

    def domain(self, key: str) -> Ints:
        """The number of each host's domain. A host without one has a number of its own."""
        return self._domain(key)[0]

    def domain_names(self, key: str) -> list[str]:
        """Names by number; numbers beyond belong to hosts that are in no domain of that key."""
        return self._domain(key)[1]

    def _domain(self, key: str) -> tuple[Ints, list[str]]:
        if key not in self._domains:
            if key == HOST:
                self._domains[key] = (np.arange(len(self.hosts)), self.host_names)
            else:
                found = [host.domain(key) for host in self.hosts]
                names = sorted({name for name in found if name is not None})
                number = {name: row for row, name in enumerate(names)}
                numbers = []
                for row, name in enumerate(found):
                    numbers.append(len(names) + row if name is None else number[name])
                self._domains[key] = (np.array(numbers, dtype=np.int64), names)
        return self._domains[key]

    def spread_over(self, key: str, open: Bools | None = None) -> Ints:
        """Domains that count for an even spread: those with a host that takes guests."""
        numbers = self.domain(key)[self.open if open is None else open]
        return np.unique(numbers[numbers < len(self.domain_names(key))])

    # -- where a guest may be

    def mask(self, kind: int) -> Bools:
        """Hosts that are open and have what needs of that number ask for. Not to be written to."""
        if kind not in self._masks:
            self._masks[kind] = self.open & np.array(
                [unmet(host, self.needs[kind]) is None for host in self.hosts], dtype=np.bool_
            )
        return self._masks[kind]

    def barred(self, guest: int, at: Ints | None = None, open: Bools | None = None) -> Bools | None:
        """Hosts that a hard rule keeps the guest off, as its group stands. None: there is none.

        Together: off all domains but those where others of the group are. Apart: off their domains.
        Spread: off domains that would hold too many. `at` and `open`: as if guests were there, and
        those hosts took guests.
        """
        off: Bools | None = None
        for number in self.groups_of[guest]:
            group = self.groups[number]
            if not group.hard:
                continue
            found = self.barred_by(group, guest, at, open)
            if found is not None:
                off = found if off is None else off | found
        return off

    def barred_as_one(
        self, guests: Sequence[int], at: Ints | None = None, open: Bools | None = None
    ) -> Bools | None:
        """Hosts that hard rules keep guests off that go to one host together; None: there is none.

        Beyond what bars each for itself: two of them in one rule count as two.
        """
        off: Bools | None = None
        where = self.at if at is None else at
        for number in sorted({number for row in guests for number in self.groups_of[row]}):
            group = self.groups[number]
            count = len(set(guests) & set(group.members))
            if not group.hard or count < 2 or group.kind == "together":
                continue
            found: Bools = np.ones(len(self.hosts), dtype=np.bool_)
            if group.kind == "spread":
                counts, domain = self.counts(group, at=where), self.domain(group.over)
                relevant = self.spread_over(group.over, self.open if open is None else open)
                for number_there in range(len(counts)):
                    others = counts[relevant[relevant != number_there]]
                    here = int(counts[number_there]) + count
                    lowest = min(here, int(others.min())) if len(others) else here
                    found[domain == number_there] = here - lowest > group.max_skew
            off = found if off is None else off | found
        return off

    def barred_by(
        self, group: Group, guest: int, at: Ints | None = None, open: Bools | None = None
    ) -> Bools | None:
        where = self.at if at is None else at
        if group.kind == "spread":
            return self._beyond_skew(group, guest, where, self.open if open is None else open)
        others = where[group.rows[group.rows != guest]]
        others = others[others >= 0]
        if not len(others):
            return None
        if group.over == HOST:
            off: Bools = np.full(len(self.hosts), group.kind == "together")
            off[others] = group.kind == "apart"
            return off
        domain = self.domain(group.over)
        there: Bools = np.isin(domain, domain[others])
        return there if group.kind == "apart" else ~there

    def _beyond_skew(self, group: Group, guest: int, at: Ints, open: Bools) -> Bools:
        counts = self.counts(group, guest, at)
        domain = self.domain(group.over)
        inside = domain < len(counts)
        off = ~inside
        relevant = self.spread_over(group.over, open)
        # With no domain that takes guests there is nothing to be even with but an empty one.
        ordered = np.sort(counts[relevant]) if len(relevant) else np.zeros(1, dtype=np.int64)
        lowest = int(ordered[0])
        too_many = counts + 1 - lowest > group.max_skew
        if len(relevant) == 1 or (len(relevant) and ordered[1] > lowest):
            # A domain that alone holds the fewest rises with what lands in it.
            too_many[relevant[counts[relevant].argmin()]] = False
        off[inside] = too_many[domain[inside]]
        return off

    def counts(self, group: Group, without: int = NOWHERE, at: Ints | None = None) -> Ints:
        """How many of a group each domain holds, one guest left out."""
        where = self.at if at is None else at
        domain = self.domain(group.over)
        named = len(self.domain_names(group.over))
        hosts = where[group.rows[group.rows != without]]
        numbers = domain[hosts[hosts >= 0]]
        counts: Ints = np.bincount(numbers[numbers < named], minlength=named)
        return counts

    def fitting(self, guest: int) -> Bools:
        """Hosts that could take the guest now: needs, hard rules, memory and vCPUs.

        Its own host is judged as if it were not there yet. Cells are looked at apart.
        """
        fit: Bools = self.mask(int(self.kind[guest])) & (self.free_mib >= self.memory[guest])
        fit &= self.free_vcpus >= self.vcpus[guest]
        here = int(self.at[guest])
        if here >= 0:
            fit[here] = bool(
                self.mask(int(self.kind[guest]))[here]
                and self.free_mib[here] >= 0
                and self.free_vcpus[here] >= 0
            )
        off = self.barred(guest)
        if off is not None:
            fit &= ~off
        return fit

    # -- changes

    def move(self, guest: int, host: int) -> None:
        """Put a guest onto a host; NOWHERE takes it away."""
        memory, vcpus = self.memory[guest], self.vcpus[guest]
        load, net = self.load[guest], self.net[guest]
        source = self.at[guest]
        if source >= 0:
            self.used_mib[source] -= memory
            self.free_mib[source] += memory
            self.used_vcpus[source] -= vcpus
            self.free_vcpus[source] += vcpus
            self.used_load[source] -= load
            self.used_net[source] -= net
        if host >= 0:
            self.used_mib[host] += memory
            self.free_mib[host] -= memory
            self.used_vcpus[host] += vcpus
            self.free_vcpus[host] -= vcpus
            self.used_load[host] += load
            self.used_net[host] += net
        self.at[guest] = host


def _group(rule: Rule, rows: dict[str, int]) -> Group:
    kind: Literal["together", "apart", "spread"] = "spread"
    if not isinstance(rule, Spread):
        kind = "together" if isinstance(rule, Together) else "apart"
    members = sorted(rows[name] for name in rule.guests)
    return Group(
        name=rule.name,
        kind=kind,
        members=tuple(members),
        rows=np.array(members, dtype=np.int64),
        over=rule.over,
        hard=rule.hard,
        weight=rule.weight,
        max_skew=rule.max_skew if isinstance(rule, Spread) else 0,
    )


def _sums(at: Ints, amounts: Ints | Floats, count: int) -> Floats:
    return np.bincount(at, amounts, count).astype(np.float64)


def unmet(host: Host, needs: Needs) -> str | None:
    """What a guest asks for and this host has not got, whatever runs there; None: nothing."""
    for asked, there, what in (
        (needs.hypervisor, host.hypervisor, "hypervisor"),
        (needs.architecture, host.architecture, "architecture"),
        (needs.accelerator, host.accelerator, "accelerator"),
    ):
        if asked and there and asked != there:
            return f"its {what} is {there!r}, and {asked!r} is asked for"
    if needs.hosts is not None and host.name not in needs.hosts:
        return "its rules do not permit it"
    for name, why in needs.barred:
        if name == host.name:
            return why
    missing = sorted(set(needs.tags) - host.tags)
    if missing:
        return f"it has no tag {missing[0]!r}"
    if host.pools is not None:
        far = sorted(set(needs.pools) - host.pools)
        if far:
            return f"it does not reach pool {far[0]!r}"
    for network in needs.networks:
        if network in host.lacks:
            return f"it cannot have network {network!r}: {host.lacks[network]}"
    return lacking(host, needs)


def lacking(host: Host, needs: Needs) -> str | None:
    """What of a machine's own the host cannot give."""
    if host.hypervisor == "xen":
        if needs.not_on_xen:
            return needs.not_on_xen
        if needs.xen_kind and host.xen_kinds and needs.xen_kind not in host.xen_kinds:
            return no_such_kind(needs.xen_kind)
        if needs.xen_loader in host.no_loaders:
            return host.no_loaders[needs.xen_loader]
    if needs.uefi and not host.uefi:
        return "it has no UEFI firmware; install the package ovmf there"
    if needs.secure_boot and not host.secure_boot:
        return "it has no UEFI firmware for secure boot; install the package ovmf there"
    if needs.tpm and not host.tpm:
        return "it has no TPM emulator; install the package swtpm there"
    if host.hypervisor != "xen":
        if needs.machine and host.machines and needs.machine not in host.machines:
            return f"its hypervisor knows no machine type {needs.machine!r}"
        if needs.cpu_model and host.cpu_models and needs.cpu_model not in host.cpu_models:
            return f"its hypervisor knows no CPU model {needs.cpu_model!r}"
    sizes = {pages.size_kib for cell in host.cells for pages in cell.pages}
    if needs.pages_kib and needs.pages_kib not in sizes:
        return f"it has no huge pages of {needs.pages_kib} KiB"
    if needs.one_cell and not host.cells:
        return "its NUMA cells are not known"
    return None
