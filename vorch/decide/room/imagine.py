"""What would come of more hosts, fewer hosts or more guests: the other decisions, on another fleet.

Nothing is left out of them: what they say of the fleet as it is, they say of the one that is
imagined, under the same rules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vorch.decide.room import capacity as rooms
from vorch.decide.room.balance import Limits, Move, balance
from vorch.decide.room.capacity import Capacity
from vorch.decide.room.empty import evacuate, make_room
from vorch.decide.room.fleet import Fleet, Host
from vorch.decide.room.newcomers import newcomers, sized, usual
from vorch.decide.room.pick import place
from vorch.decide.room.spare import Verdict, survives
from vorch.decide.room.table import Table
from vorch.decide.room.wide import failing, spare_of
from vorch.errors import Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a fleet stands: whether any one host may be lost, and what of it is in use."""

    verdict: Verdict
    # Hosts whose loss is not survived, or not proven to be.
    not_spare: tuple[str, ...]
    hosts: int
    guests: int
    memory_mib: int
    memory_used_mib: int
    vcpus: float
    vcpus_used: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What would come of something."""

    what: str
    before: Standing
    after: Standing
    # Where guests that are on no host then would start.
    placed: dict[str, str] = dataclasses.field(default_factory=dict)
    # Who would be on no host, each with the reason.
    left: tuple[tuple[str, str], ...] = ()
    # Who would move, in an order in which each fits; rounds can run at the same time.
    rounds: tuple[tuple[Move, ...], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def moves(self) -> tuple[Move, ...]:
        return tuple(move for moves in self.rounds for move in moves)

    @property
    def memory_mib(self) -> int:
        """What is copied for the moves."""
        return sum(move.memory_mib for move in self.moves)

    @property
    def seconds(self) -> float:
        """About how long the moves take."""
        return sum(max(move.seconds for move in moves) for moves in self.rounds)


def capacity(
    fleet: Fleet,
    *,
    vcpus: int | None = None,
    memory_mib: int | None = None,
    require_tags: Sequence[str] = (),
    over: str | None = None,
    hosts_lost: int | None = None,
    prove: bool = True,
) -> Capacity:
    """What the fleet can lose, and how many guests of a size it can take."""
    if (vcpus is None) != (memory_mib is None):
        raise Invalid("cannot count VMs of half a size; give both vCPUs and memory")
    if over is not None and all(host.domain(over) is None for host in fleet.hosts):
        keys = sorted({tag.partition(":")[0] for h in fleet.hosts for tag in h.tags if ":" in tag})
        raise Invalid(
            f"cannot look at the loss of each {over!r}: no host has a tag '{over}:…'; there are"
            f" {', '.join(keys) or 'no such tags at all'}"
        )
    kept = fleet.policy.spare_over
    if over is None and kept and any(host.domain(kept) is not None for host in fleet.hosts):
        over = kept
    size = None
    if vcpus is not None and memory_mib is not None:
        size = sized(fleet, vcpus=vcpus, memory_mib=memory_mib, tags=require_tags)
    return rooms.capacity(fleet, size=size, domain=over, hosts_lost=hosts_lost, prove=prove)


def standing(fleet: Fleet, *, prove: bool = True) -> Standing:
    table = Table(fleet)
    alone = len(table.hosts) < 2
    bad = failing(spare_of(table), prove=prove)
    sure = Verdict.NO in bad.values()
    return Standing(
        verdict=(
            Verdict.NO
            if sure or (alone and bool(table.ha.any()))
            else Verdict.UNPROVEN
            if bad
            else Verdict.YES
        ),
        not_spare=tuple(bad),
        hosts=len(table.hosts),
        guests=int((table.at >= 0).sum()),
        memory_mib=int(table.room_mib.sum()),
        memory_used_mib=int(table.used_mib.sum()),
        vcpus=float(table.room_vcpus.sum()),
        vcpus_used=float(table.used_vcpus.sum()),
    )


def placed_at(fleet: Fleet, hosts: Mapping[str, str]) -> Fleet:
    """The fleet with these guests on these hosts ("": on none)."""
    guests = (
        dataclasses.replace(guest, host=hosts[guest.name]) if guest.name in hosts else guest
        for guest in fleet.guests
    )
    return dataclasses.replace(fleet, guests=tuple(guests))


def add_host(
    fleet: Fleet,
    name: str,
    *,
    cpus: int,
    memory_mib: int,
    tags: Sequence[str] = (),
    reserve_mib: int | None = None,
    limits: Limits | None = None,
) -> Change:
    """One more host, and what a rebalance would move then. It has and reaches what others do."""
    if any(host.name == name for host in fleet.hosts):
        raise Invalid(
            f"cannot imagine another host {name!r}: there is one already; take a new name"
        )
    if reserve_mib is None:
        reserve_mib = usual([host.reserve_mib for host in fleet.hosts])
    if memory_mib <= reserve_mib:
        raise Invalid(
            f"cannot imagine host {name!r} with {memory_mib} MiB of memory: {reserve_mib} MiB are"
            " kept back for the host itself; give it more"
        )
    host = Host(
        name=name,
        cpus=cpus,
        memory_mib=memory_mib,
        reserve_mib=reserve_mib,
        tags=frozenset(tags),
    )
    larger = dataclasses.replace(fleet, hosts=(*fleet.hosts, host))
    plan = balance(larger, limits)
    return Change(
        what=f"host {name} with {cpus} CPUs and {memory_mib} MiB of memory added",
        before=standing(fleet),
        after=standing(placed_at(larger, {move.guest: move.target for move in plan.moves})),
        rounds=plan.rounds,
        notes=plan.notes,
    )


def remove_hosts(fleet: Fleet, names: Sequence[str], *, per_host: int = 1) -> Change:
    """Hosts that are emptied first, and are not there any more then."""
    gone = sorted({fleet.host(name).name for name in names})
    if not gone:
        raise Invalid("cannot imagine the removal of no host: name one or several")
    plan = evacuate(fleet, gone, per_host=per_host)
    hosts = {move.guest: move.target for move in plan.moves}
    hosts |= {name: "" for name, _ in plan.left}
    smaller = dataclasses.replace(
        fleet,
        hosts=tuple(host for host in fleet.hosts if host.name not in gone),
        guests=placed_at(fleet, hosts).guests,
    )
    return Change(
        what=f"{_listed(gone)} emptied and removed",
        before=standing(fleet),
        after=standing(smaller),
        left=plan.left,
        rounds=plan.rounds,
        notes=() if plan.complete else (plan.why,),
    )


def add_guests(
    fleet: Fleet, *, count: int, vcpus: int, memory_mib: int, tags: Sequence[str] = ()
) -> Change:
    """More guests of one size. Where one has no room, who would have to make way for it."""
    larger, names = newcomers(fleet, count=count, vcpus=vcpus, memory_mib=memory_mib, tags=tags)
    answer = place(larger, names)
    after = placed_at(larger, answer.hosts)
    why = {one.guest: one.why for one in answer.placed if not one.host}
    notes = list(answer.notes)
    notes += sorted({one.warning for one in answer.placed if one.warning})
    if why:
        notes.append(_way_for(after, next(iter(why))))
    return Change(
        what=f"{count} VMs with {vcpus} vCPUs and {memory_mib} MiB of memory each added",
        before=standing(fleet),
        after=standing(after),
        placed=answer.hosts,
        left=tuple(why.items()),
        notes=tuple(notes),
    )


def _way_for(fleet: Fleet, guest: str) -> str:
    """In words, what it would take for one more."""
    plan = make_room(fleet, guest)
    others = [move for move in plan.moves if move.guest != guest]
    if not plan.complete:
        return f"no moves of others make room for {guest}: {plan.why}"
    if not others:
        return f"{guest} would fit, but not with the spare room that is kept"
    memory = sum(move.memory_mib for move in others)
    return (
        f"{guest} would fit when {len(others)} others made way ({memory} MiB of memory), the spare"
        " room left aside"
    )


def lose_hosts(fleet: Fleet, names: Sequence[str]) -> Change:
    """Hosts that die at once: where the guests that are looked after would start."""
    table = Table(fleet)
    gone = sorted({table.host_names[table.host(name)] for name in names})
    if not gone:
        raise Invalid("cannot imagine a failure of no host: name one or several")
    found = survives(table, gone)
    reasons = dict.fromkeys(found.left_out, found.why or "no host has room for it")
    reasons |= {
        guest.name: "it is not looked after"
        for guest in fleet.guests
        if guest.host in gone and not guest.ha
    }
    hosts = found.refuges | dict.fromkeys(reasons, "")
    left = dataclasses.replace(
        fleet,
        hosts=tuple(host for host in fleet.hosts if host.name not in gone),
        guests=placed_at(fleet, hosts).guests,
    )
    return Change(
        what=f"{_listed(gone)} lost",
        before=standing(fleet),
        after=standing(left),
        placed=dict(found.refuges),
        left=tuple(sorted(reasons.items())),
        notes=("that all would find room is not proven",)
        if found.verdict is Verdict.UNPROVEN
        else (),
    )


def _listed(names: Sequence[str]) -> str:
    return f"host {names[0]}" if len(names) == 1 else f"hosts {', '.join(names)}"
