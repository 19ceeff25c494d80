"""Which guests should be elsewhere: few moves, the most worthwhile first, and none for nothing.

Broken rules and overfull hosts count for more than any unevenness, so they are put right first. A
plan for evenness alone is made only when it gains more than chance could: loads that are measured
again differ, and what was moved for that would be moved back for it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vorch.decide.room.evenness import Metric, Term, noise, terms
from vorch.decide.room.fleet import Fleet
from vorch.decide.room.improve import Improving
from vorch.decide.room.order import Schedule, Step, close_up, is_short, is_too_long, schedule
from vorch.decide.room.price import Bound, Pricing, copied_mib, link_mib_s, prices, seconds
from vorch.decide.room.search import Search
from vorch.decide.room.short import BUSY, short_schedule
from vorch.decide.room.standing import is_broken_at
from vorch.decide.room.table import Floats, Ints, Table
from vorch.errors import Invalid

# A move has to gain so much, divided by the number of hosts: it changes two of them.
WORTH = 0.05
# Where a limit says how far to go, smaller gains are taken, too.
WORTH_WITHIN = 0.02
# So often what is left is looked for.
MOST_RUNS = 4
# With fewer hosts a plan may have more rounds than its busiest host needs: they are few anyway.
FEW_HOSTS = 8
# With so many pairs of guest and host a short plan is found in some hundredths of a second.
_QUICK = 12_000
# An order of moves that leads so near to what was meant is good enough.
_ABOUT = 1.05
# Another plan is made where the order reaches less than this part of what was meant.
_MOSTLY = 0.8
# What a plan for evenness has to gain at least, where no load is known: two points of a share.
LEAST_GAIN = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a plan may come to. None: as much as it is worth."""

    moves: int | None = None
    memory_mib: int | None = None
    seconds: float | None = None
    # Migrations that a host takes part in at the same time.
    per_host: int = 1

    def __post_init__(self) -> None:
        for what, value, least in (
            ("moves", self.moves, 0),
            ("memory_mib", self.memory_mib, 0),
            ("seconds", self.seconds, 0),
            ("per_host", self.per_host, 1),
        ):
            if value is not None and value < least:
                raise Invalid(
                    f"cannot use limit {what}: it is {value}; give {least} or more, or none"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    guest: str
    source: str
    target: str
    # By how much the figure falls when it is made in its turn.
    gain: float
    memory_mib: int
    seconds: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """How the fleet stands. Spreads are standard deviations of shares, by what is shared."""

    figure: float
    # Guests that break a hard rule or are where they may not be, and hosts without room.
    broken: int
    overfull: int
    spreads: tuple[tuple[str, float], ...]
    highest: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancePlan:
    """Moves in an order in which each fits; rounds of them can run at the same time."""

    moves: tuple[Move, ...]
    rounds: tuple[tuple[Move, ...], ...]
    before: Picture
    after: Picture
    notes: tuple[str, ...] = ()

    @property
    def memory_mib(self) -> int:
        return sum(move.memory_mib for move in self.moves)

    @property
    def seconds(self) -> float:
        return sum(max(move.seconds for move in moves) for moves in self.rounds)

    @property
    def busiest(self) -> int:
        """How many moves the host takes part in that has most to do."""
        ends = Counter(host for move in self.moves for host in (move.source, move.target))
        return max(ends.values(), default=0)

    @property
    def gain(self) -> float:
        return self.before.figure - self.after.figure

    @property
    def why(self) -> str:
        """The plan in one sentence."""
        if not self.moves:
            return "; ".join(("nothing is to be moved", *self.notes))
        parts = []
        if self.before.broken != self.after.broken:
            parts.append(f"broken rules from {self.before.broken} to {self.after.broken}")
        if self.before.overfull != self.after.overfull:
            parts.append(f"overfull hosts from {self.before.overfull} to {self.after.overfull}")
        parts += [
            f"spread of {what} from {100 * was:.1f} to {100 * now:.1f} %"
            for (what, was), (_, now) in zip(self.before.spreads, self.after.spreads, strict=True)
            if round(1000 * was) != round(1000 * now)
        ]
        return (
            f"{len(self.moves)} moves in {len(self.rounds)} rounds, about {self.seconds:.0f} s and"
            f" {self.memory_mib} MiB of memory: {', '.join(parts) or 'no share changes'}"
            + "".join(f"; {note}" for note in self.notes)
        )


def balance(
    fleet: Fleet,
    limits: Limits | None = None,
    *,
    metric: Metric = "vorch",
    pricing: Pricing | None = None,
    thorough: int = 1,
) -> BalancePlan:
    """The plan. `thorough` multiplies the work that goes into finding less to move."""
    asked = limits or Limits()

    def once(fleet: Fleet) -> BalancePlan:
        return _planned(fleet, asked, metric, pricing, thorough)

    plan = once(fleet)
    if (asked.moves, asked.memory_mib, asked.seconds) != (None, None, None):
        return plan
    # What another run would still find belongs to this one, so that another run finds nothing.
    for _ in range(MOST_RUNS):
        if not plan.moves:
            break
        more = once(moved(fleet, plan))
        if not more.moves:
            break
        plan = joined(
            fleet, plan, more, asked, metric, lambda one: not once(moved(fleet, one)).moves
        )
    return plan


def _planned(
    fleet: Fleet, limits: Limits, metric: Metric, pricing: Pricing | None, thorough: int
) -> BalancePlan:
    """The best plan, or where moves wait for each other in a long chain, a short one."""
    first = _Balancing(Table(fleet), limits, metric, pricing, thorough)
    plan = first.plan()
    long = _is_long(plan, limits.per_host)
    if not (long or first.fell_short) or limits.per_host > 1 or limits.seconds is not None:
        return plan
    second = _Balancing(Table(fleet), limits, metric, pricing, thorough)
    if not second.search.small:
        return plan
    # Where the plan at hand is short as well and a try takes long, it does if it comes near enough.
    many = len(fleet.guests) * len(fleet.hosts) > _QUICK
    if many and not (long or first.fell_far_short):
        return plan
    short = second.short_plan(BUSY)
    if _is_long(short, limits.per_host):
        return plan
    mended, left = ((one.after.broken, one.after.overfull) for one in (short, plan))
    if mended != left:
        return short if mended < left else plan
    if long:
        return short
    cost, other = (
        one.after.figure + second.worth * _price(fleet, one, second.prices) for one in (short, plan)
    )
    return short if cost < other else plan


def _price(fleet: Fleet, plan: BalancePlan, prices: Floats) -> float:
    moves = Counter(move.guest for move in plan.moves)
    return sum(
        float(price) * moves[guest.name] for guest, price in zip(fleet.guests, prices, strict=True)
    )


def moved(fleet: Fleet, plan: BalancePlan) -> Fleet:
    """The fleet when the plan is done."""
    where = {move.guest: move.target for move in plan.moves}
    guests = (
        dataclasses.replace(one, host=where[one.name]) if one.name in where else one
        for one in fleet.guests
    )
    return dataclasses.replace(fleet, guests=tuple(guests))


def towards(
    fleet: Fleet, hosts: Mapping[str, str], limits: Limits, *, metric: Metric = "vorch"
) -> BalancePlan:
    """The plan that takes these guests to these hosts, as far as it is worth it."""
    table = Table(fleet)
    targets = {table.guest(guest): table.host(host) for guest, host in hosts.items()}
    return _Balancing(table, limits, metric, None, 1).plan(targets)


def joined(
    fleet: Fleet,
    plan: BalancePlan,
    more: BalancePlan,
    limits: Limits,
    metric: Metric,
    settled: Callable[[BalancePlan], bool],
) -> BalancePlan:
    """One plan after the other as one, put in order anew where that is shorter.

    `settled`: a plan after which nothing is left to do may end elsewhere, if the two are too long.
    """
    both = dataclasses.replace(
        plan,
        moves=plan.moves + more.moves,
        rounds=plan.rounds + more.rounds,
        after=more.after,
        notes=more.notes,
    )
    home = {one.name: one.host for one in fleet.guests}

    def end(one: BalancePlan) -> dict[str, str]:
        last = {move.guest: move.target for move in one.moves}
        return {name: host for name, host in last.items() if host != home[name]}

    anew = towards(fleet, end(both), limits, metric=metric)
    if (len(anew.rounds), len(anew.moves)) >= (len(both.rounds), len(both.moves)):
        return both
    if end(anew) != end(both):
        worse = (anew.after.broken, anew.after.overfull) > (both.after.broken, both.after.overfull)
        if worse or not _is_long(both, limits.per_host) or not settled(anew):
            return both
    return dataclasses.replace(anew, notes=more.notes)


def _is_long(plan: BalancePlan, per_host: int) -> bool:
    """Longer than what its busiest host has to do explains."""
    return is_too_long(len(plan.rounds), plan.busiest, per_host)


class _Balancing:
    def __init__(
        self,
        table: Table,
        limits: Limits,
        metric: Metric,
        pricing: Pricing | None,
        thorough: int,
    ) -> None:
        self.table = table
        self.limits = limits
        self.thorough = thorough
        self.terms = terms(table, metric)
        self.prices = prices(table, pricing or _pricing(limits))
        self.chance = max(LEAST_GAIN, noise(table, self.terms))
        self.search = Search(table, self.terms, self.prices)
        self.home: Ints = table.at.copy()
        hosts = self.search.count
        limited = limits.moves is not None or limits.memory_mib is not None
        self.worth = (WORTH_WITHIN if limited else WORTH) / hosts
        self.notes: list[str] = []
        # What was to be reached could not be, for want of an order.
        self.fell_short = self.fell_far_short = False

    def plan(self, given: Mapping[int, int] | None = None) -> BalancePlan:
        search = self.search
        before = self._picture()
        wrong = search.wrong()
        earlier = None
        if given is None:
            earlier = self._improve(self._bounds())
        else:
            for row, host in given.items():
                search.move(row, host)
        if search.wrong() < wrong - 1e-9 and not self._worthwhile(before):
            self._repair_only()
        elif search.wrong() >= wrong - 1e-9 and len(search.away()) and not self._worthwhile(before):
            search.put(self.home)
        targets = {int(row): int(self.table.at[row]) for row in search.away()}
        meant, amiss = self._value(), search.wrong()
        hoped = before.figure - search.figure()
        found = self._order(targets, fixed=given is not None)
        self.fell_short = self._value() > _ABOUT * meant
        if self.fell_short and earlier is not None and self.limits.seconds is None:
            found = self._or_rather(found, earlier)
            self.fell_short = self._value() > _ABOUT * meant
        gained = before.figure - search.figure()
        self.fell_far_short = search.wrong() > amiss + 1e-9 or gained < _MOSTLY * hoped
        # What could not be ordered may have been the reason for all the rest.
        mended = search.wrong() < wrong - 1e-9
        if found.rounds and not mended and not self._worthwhile(before):
            search.put(self.home)
            found = Schedule(given_up=found.given_up)
        for row in found.given_up:
            name = self.table.guest_names[row]
            self.notes.append(f"{name!r} would be better elsewhere, but nothing makes way for it")
        return self._told(before, found)

    def short_plan(self, counting_on: Sequence[int]) -> BalancePlan:
        """What can be done without moves that wait for each other in a long chain."""
        search = self.search
        before, wrong = self._picture(), search.wrong()
        found = short_schedule(search, self.worth, self._bounds(), counting_on)
        if search.wrong() >= wrong - 1e-9 and found.rounds and not self._worthwhile(before):
            search.put(self.home)
            found = Schedule()
        if not found.rounds:
            self.notes = [
                "what evenness could gain takes one move after the other, each through the room"
                " that the last one leaves: that is not worth the wait"
            ]
        return self._told(before, found)

    def _told(self, before: Picture, found: Schedule) -> BalancePlan:
        """The plan of these steps, unless more would be wrong after it than before."""
        after = self._picture()
        if after.broken > before.broken or after.overfull > before.overfull:
            # Rules that contradict each other: whoever keeps one leaves more guests with another.
            self.search.put(self.home)
            found, after = Schedule(), before
        rounds = self._in_words(found)
        self._say_what_is_left()
        return BalancePlan(
            moves=tuple(move for moves in rounds for move in moves),
            rounds=tuple(tuple(moves) for moves in rounds),
            before=before,
            after=after,
            notes=tuple(self.notes),
        )

    # -- what to move

    def _bounds(self) -> list[Bound]:
        bounds = []
        table = self.table
        if self.limits.moves is not None:
            bounds.append(Bound(np.ones(len(table.guests)), self.limits.moves))
        if self.limits.memory_mib is not None:
            copied: Floats = np.array([copied_mib(g) for g in table.guests], dtype=np.float64)
            bounds.append(Bound(copied, self.limits.memory_mib))
        return bounds

    def _improve(self, bounds: list[Bound]) -> Ints | None:
        """Ends on the best that is found; where it stood before the last of it, under a limit."""
        improving = Improving(self.search, bounds, self.thorough)
        improving.run(self.worth)
        return improving.earlier

    def _worthwhile(self, before: Picture) -> bool:
        """It gains more than its price, and more than chance. A limit may stop it on the way."""
        if self._net(before) >= self.chance:
            return True
        if not self._bounds():
            self.notes.append(
                f"what evenness could gain, {max(0.0, self._net(before)):.3f}, is less than what"
                f" measuring again may change, {self.chance:.3f}"
            )
            return False
        at = self.table.at.copy()
        self.search.put(self.home)
        self._improve([])
        enough = self._net(before) >= self.chance
        self.search.put(at)
        return enough

    def _net(self, before: Picture) -> float:
        search = self.search
        return before.figure - search.figure() - self.worth * search.spent(self.prices)

    def _repair_only(self) -> None:
        """What breaks a rule or stands on an overfull host, and nobody else."""
        search, table = self.search, self.table
        search.put(self.home)
        bounds = self._bounds()
        while True:
            over = np.flatnonzero((table.free_mib < 0) | (table.free_vcpus < 0))
            rows = np.flatnonzero((search.relief > 0) | np.isin(table.at, over))
            at = table.at.copy()
            if not len(rows) or not search.relocate(self.worth, rows, most=1):
                return
            if not all(search.spent(one.price) <= one.most for one in bounds):
                search.put(at)
                return

    # -- in which order

    def _value(self) -> float:
        return self.search.figure() + self.search.wrong()

    def _or_rather(self, found: Schedule, at: Ints) -> Schedule:
        """That order, or the one that leads towards another end, if it comes to more."""
        search = self.search
        end, value = self.table.at.copy(), self._value()
        targets = {int(row): int(at[row]) for row in np.flatnonzero(at != self.home)}
        other = self._order(targets, fixed=False)
        if self._value() < value:
            return other
        search.put(end)
        return found

    def _order(self, targets: dict[int, int], *, fixed: bool) -> Schedule:
        found = schedule(self.search, targets, per_host=self.limits.per_host, bounds=self._bounds())
        if not fixed:
            self._make_up(found)
            if self.limits.per_host == 1:
                close_up(self.search, found)
        if self.limits.seconds is None:
            return found
        kept = Schedule(given_up=found.given_up)
        spent = 0.0
        for steps in found.rounds:
            took = [self._shown_s(step) for step in steps]
            if spent + min(took) > self.limits.seconds:
                break
            quick = [
                step
                for step, s in zip(steps, took, strict=True)
                if spent + s <= self.limits.seconds
            ]
            kept.rounds.append(quick)
            spent += max(self._shown_s(step) for step in quick)
            if len(quick) < len(steps):
                break
        left = sum(map(len, found.rounds)) - sum(map(len, kept.rounds))
        if left:
            self.notes.append(f"{left} more moves would take longer than is allowed")
        self.search.put(self.home)
        for step in kept.steps():
            self.search.move(step.row, step.target)
        return kept

    def _make_up(self, found: Schedule) -> None:
        """For moves that had to be given up: others, that fit from where the rest has led."""
        search, bounds = self.search, self._bounds()
        if not found.given_up and bounds:
            return
        found.given_up = [row for row in found.given_up if search.relief[row] > 0]
        for _ in range(200):
            at = self.table.at.copy()
            if not search.relocate(self.worth, search.staying() if bounds else search.rows):
                return
            moved = np.flatnonzero(self.table.at != at)
            if not found.within(bounds, moved.tolist()):
                search.put(at)
                if not search.relocate(self.worth, search.staying(), most=1):
                    return
                moved = np.flatnonzero(self.table.at != at)
                if not found.within(bounds, moved.tolist()):
                    search.put(at)
                    return
            steps = [Step(int(row), int(at[row]), int(self.table.at[row]), 0.0) for row in moved]
            found.rounds.append(steps)
            if (bounds or search.count >= FEW_HOSTS) and not is_short(found, self.limits.per_host):
                found.rounds.pop()
                search.put(at)
                return

    def _shown_s(self, step: Step) -> float:
        """As it is said of the move, so that what is said adds up to no more than a limit."""
        speed = link_mib_s(self.table, step.source, step.target)
        return round(seconds(self.table.guests[step.row], speed / self.limits.per_host), 1)

    # -- words

    def _in_words(self, found: Schedule) -> list[list[Move]]:
        """The steps once more from the start, each with its reason."""
        search, table = self.search, self.table
        end = table.at.copy()
        search.put(self.home)
        rounds = []
        for steps in found.rounds:
            moves = []
            for step in steps:
                why = self._reason(step)
                search.move(step.row, step.target)
                moves.append(
                    Move(
                        guest=table.guest_names[step.row],
                        source=table.host_names[step.source],
                        target=table.host_names[step.target],
                        gain=round(step.gain, 9),
                        memory_mib=copied_mib(table.guests[step.row]),
                        seconds=self._shown_s(step),
                        why=why,
                    )
                )
            rounds.append(moves)
        search.put(end)
        return rounds

    def _reason(self, step: Step) -> str:
        search, table = self.search, self.table
        if step.detour:
            return "it makes way for others, and goes on from there"
        source = table.host_names[step.source]
        if search.outside[step.row]:
            return f"{source!r} has not what it needs, or may not have it"
        for number in table.groups_of[step.row]:
            group = table.groups[number]
            if group.hard and is_broken_at(table, group, step.row):
                return f"rule {group.name!r} is broken while it is on {source!r}"
        if table.free_mib[step.source] < 0:
            return f"{source!r} is short of {-int(table.free_mib[step.source])} MiB of memory"
        if table.free_vcpus[step.source] < 0:
            return f"{source!r} is short of {-float(table.free_vcpus[step.source]):g} vCPUs"
        return self._evens_out(step)

    def _evens_out(self, step: Step) -> str:
        """The quantity that profits most, and what both hosts have of it before and after."""
        search = self.search
        target = search.table.host_names[step.target]
        source = search.table.host_names[step.source]
        best: tuple[float, str] | None = None
        for quantity, share in zip(search.quantities, search.share, strict=True):
            size = quantity.size[step.row]
            after = share.copy()
            after[step.source] -= size * quantity.unit[step.source]
            after[step.target] += size * quantity.unit[step.target]
            gain = sum(
                term.of(share, search.count) - term.of(after, search.count)
                for term in quantity.terms
            )
            words = (
                f"it evens out {quantity.terms[0].what}: {source!r} from"
                f" {100 * share[step.source]:.0f} to {100 * after[step.source]:.0f} %, {target!r}"
                f" from {100 * share[step.target]:.0f} to {100 * after[step.target]:.0f} %"
            )
            if best is None or gain > best[0]:
                best = gain, words
        assert best is not None
        return best[1]

    def _picture(self) -> Picture:
        search, table = self.search, self.table
        spreads, highest = [], []
        for quantity, share in zip(search.quantities, search.share, strict=True):
            counted = share[table.open] if table.open.any() else share
            what = quantity.terms[0].what
            spreads.append((what, float(counted.std()) if len(counted) else 0.0))
            highest.append((what, float(counted.max()) if len(counted) else 0.0))
        return Picture(
            figure=search.figure(),
            broken=int((search.relief > 0).sum()),
            overfull=int(((table.free_mib < 0) | (table.free_vcpus < 0)).sum()),
            spreads=tuple(spreads),
            highest=tuple(highest),
        )

    def _say_what_is_left(self) -> None:
        broken = np.flatnonzero(self.search.relief > 0)
        if len(broken):
            names = ", ".join(repr(self.table.guest_names[row]) for row in broken[:5])
            more = "" if len(broken) <= 5 else f" and {len(broken) - 5} more"
            self.notes.append(f"rules stay broken for {names}{more}")


def _pricing(limits: Limits) -> Pricing:
    """What is limited is what is dear."""
    if limits.moves is not None and limits.memory_mib is None:
        return Pricing(each=1.0, memory=0.0)
    if limits.memory_mib is not None and limits.moves is None:
        return Pricing(each=0.1, memory=0.9)
    return Pricing()


__all__ = ["BalancePlan", "Limits", "Metric", "Move", "Picture", "Pricing", "Term", "balance"]
