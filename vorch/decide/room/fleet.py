"""What every decision about room starts from: hosts, guests, rules and a policy, as plain values.

A fleet is made of a look at a cluster or of a file; decisions know nothing else. Names are the only
identity, and the order in which things are given has no influence. The failure domains of a host
are its tags: `rack:r1` says that it stands in domain "r1" of the key "rack".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vorch.errors import Invalid
from vorch.frozen import quick

# A host as its own failure domain, where a key is asked for.
HOST = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """Memory of one NUMA cell that is set aside as huge pages of one size."""

    size_kib: int
    memory_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A NUMA cell: processors and the memory next to them."""

    number: int
    cpus: int
    # Huge pages included.
    memory_mib: int
    pages: tuple[Pages, ...] = ()


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    name: str
    cpus: int
    memory_mib: int
    # Memory that is never given to guests.
    reserve_mib: int = 0
    # vCPUs per processor at most. None: as the policy says.
    cpu_ratio: float | None = None
    # Words, and domains as KEY:VALUE.
    tags: frozenset[str] = frozenset()
    # "" where nobody knows: such a host is not refused for it.
    hypervisor: str = ""
    architecture: str = ""
    accelerator: str = ""
    cpu_models: frozenset[str] = frozenset()
    machines: frozenset[str] = frozenset()
    xen_kinds: frozenset[str] = frozenset()
    # What guests of Xen need to start there and is absent, and why.
    no_loaders: Mapping[str, str] = field(default_factory=dict)
    uefi: bool = True
    secure_boot: bool = True
    tpm: bool = True
    # Pools that it reaches. None: all.
    pools: frozenset[str] | None = None
    # Networks that it cannot have, each with the reason.
    lacks: Mapping[str, str] = field(default_factory=dict)
    cells: tuple[Cell, ...] = ()
    # What runs there and is no guest of the fleet.
    other_memory_mib: int = 0
    other_vcpus: int = 0
    other_load: float = 0.0
    # Why nothing may go there now (silent, cordoned, in maintenance); "" when it may. What is there
    # already stays.
    closed: str = ""
    # What its link carries, for the time that moves take. 0: as the policy says.
    link_mib_s: float = 0.0

    def __post_init__(self) -> None:
        if self.cpus < 1 or self.memory_mib < 1 or self.reserve_mib < 0:
            raise Invalid(
                f"cannot use host {self.name!r}: it has {self.cpus} CPUs, {self.memory_mib} MiB of"
                f" memory and {self.reserve_mib} MiB kept back; give sizes above zero"
            )

    @property
    def pages_mib(self) -> int:
        """Memory that only guests on huge pages can use."""
        return sum(pages.memory_mib for cell in self.cells for pages in cell.pages)

    def domain(self, key: str) -> str | None:
        """The failure domain that it stands in. Of several tags of one key the first by name."""
        if key == HOST:
            return self.name
        found = sorted(tag for tag in self.tags if tag.startswith(f"{key}:"))
        return found[0].partition(":")[2] if found else None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a guest asks of a host beside memory and vCPUs. Guests with equal needs share a mask."""

    hypervisor: str = ""
    architecture: str = ""
    accelerator: str = ""
    cpu_model: str = ""
    # Of hosts with Xen no CPU model and machine type is asked, but a kind of guest; `not_on_xen` is
    # why none of them can run it.
    machine: str = ""
    xen_kind: str = ""
    xen_loader: str = ""
    not_on_xen: str = ""
    uefi: bool = False
    secure_boot: bool = False
    tpm: bool = False
    pools: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    # The only hosts that it may be on. None: all.
    hosts: tuple[str, ...] | None = None
    # Hosts that it must not be on, each with the reason.
    barred: tuple[tuple[str, str], ...] = ()
    # Hosts that it would rather be on, each with a priority; all others come after the lowest.
    preferred: tuple[tuple[str, int], ...] = ()
    # Its vCPUs and memory have to come from one NUMA cell.
    one_cell: bool = False
    # Its memory has to be huge pages of this size. 0: ordinary memory.
    pages_kib: int = 0


# Shared by all that ask for nothing.
NO_NEEDS = Needs()


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    name: str
    memory_mib: int
    vcpus: int
    # What QEMU itself takes beside the guest's memory.
    overhead_mib: int = 0
    # Cores in use. None: nobody has measured it.
    cpu_load: float | None = None
    # Gbit/s.
    net_load: float = 0.0
    # How fast it writes to its memory. None: nobody has measured it.
    dirty_mib_s: float | None = None
    # Where it is; "" when it is nowhere yet.
    host: str = ""
    # The NUMA cell of that host that it was put into. None: into none, or nobody knows.
    cell: int | None = None
    # It is started elsewhere when its host dies.
    ha: bool = True
    # Higher ones are placed first.
    priority: int = 0
    # How long ago it was moved last. None: never, or nobody knows.
    moved_s_ago: float | None = None
    # How it can change hosts: while it runs, by a stop and a start, or not at all.
    moves: Literal["live", "cold", "pinned"] = "live"
    needs: Needs = NO_NEEDS

    def __post_init__(self) -> None:
        if self.memory_mib < 0 or self.vcpus < 0 or self.overhead_mib < 0:
            raise Invalid(
                f"cannot use guest {self.name!r}: it has {self.vcpus} vCPUs and {self.memory_mib}"
                f" MiB of memory, {self.overhead_mib} MiB beside; give sizes of zero or more"
            )

    @property
    def takes_mib(self) -> int:
        """What it takes of its host's ordinary memory."""
        return self.overhead_mib + (0 if self.needs.pages_kib else self.memory_mib)


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """Guests that belong in one domain: one host, or one rack."""

    name: str
    guests: tuple[str, ...]
    over: str = HOST
    # Rather not at all than otherwise; else a wish, with that weight.
    hard: bool = True
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """Guests of which no domain may hold two."""

    name: str
    guests: tuple[str, ...]
    over: str = HOST
    hard: bool = True
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Guests that are spread evenly: no domain holds over `max_skew` more than any other one.

    What counts are the domains that have a host which takes guests. A host in no domain of that key
    takes none of them.
    """

    name: str
    guests: tuple[str, ...]
    over: str
    max_skew: int = 1
    hard: bool = True
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.max_skew < 1:
            raise Invalid(
                f"cannot use rule {self.name!r}: a skew of {self.max_skew} cannot be kept by an odd"
                " guest; allow 1 or more"
            )


Rule = Together | Apart | Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What the parts of a score count for."""

    memory: float = 1.0
    vcpus: float = 1.0
    load: float = 1.0
    # Load beyond what a host should carry, in shares of the host.
    crowd: float = 4.0
    # One rank below the best of the preferred hosts: more than evenness can ever be worth.
    preferred: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    # vCPUs per processor at most, where a host says nothing else.
    cpu_ratio: float = 4.0
    # Whether any one host may die: kept by refusing what would break it, only said, or not looked
    # at.
    spare: Literal["keep", "warn", "ignore"] = "keep"
    # How many hosts may die at once. And a key of failure domains, of which any one may; "": none.
    spare_hosts: int = 1
    spare_over: str = ""
    # Cores that a vCPU is taken to use while nobody has measured it.
    load_per_vcpu: float = 0.25
    # A host with more of its processors in use than this share is crowded.
    load_share: float = 0.8
    # What a host's link carries for migrations, where a host says nothing else.
    link_mib_s: float = 1000.0
    weights: Weights = Weights()


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All that a decision about room knows."""

    hosts: tuple[Host, ...]
    guests: tuple[Guest, ...] = ()
    rules: tuple[Rule, ...] = ()
    policy: Policy = Policy()

    def __post_init__(self) -> None:
        hosts = _unique("host", [host.name for host in self.hosts])
        guests = _unique("guest", [guest.name for guest in self.guests])
        _unique("rule", [rule.name for rule in self.rules])
        for guest in self.guests:
            if guest.host and guest.host not in hosts:
                raise Invalid(
                    f"cannot use guest {guest.name!r}: its host {guest.host!r} is not there; name a"
                    " host of the same fleet, or none"
                )
        for rule in self.rules:
            _unique(f"guest of rule {rule.name!r}", list(rule.guests))
            for name in rule.guests:
                if name not in guests:
                    raise Invalid(
                        f"cannot use rule {rule.name!r}: its guest {name!r} is not there; leave it"
                        " out of the rule"
                    )

    def host(self, name: str) -> Host:
        for host in self.hosts:
            if host.name == name:
                return host
        raise Invalid(f"cannot find host {name!r}: the fleet has none of that name; check it")

    def guest(self, name: str) -> Guest:
        for guest in self.guests:
            if guest.name == name:
                return guest
        raise Invalid(f"cannot find guest {name!r}: the fleet has none of that name; check it")


def _unique(what: str, names: list[str]) -> set[str]:
    found = set(names)
    if len(found) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise Invalid(f"cannot use {what} {twice[0]!r} twice; name each once")
    return found
