"""Empty hosts, and make room for a guest: where all go, and who else has to make way for it.

Mostly every guest finds a host by itself, and that is all. Where some do not, others make way: one
moves so that a larger one fits where it was, perhaps with a third one behind it. The chains are
searched by length, so that as few guests as possible are moved beside those that have to. Where no
chain is found, a proof that there is no room is tried, and else it is said that nothing is proven.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vorch.decide.room import cells, solver
from vorch.decide.room.balance import Move
from vorch.decide.room.fleet import Fleet
from vorch.decide.room.packing import Task, bound, pack, task
from vorch.decide.room.price import copied_mib, link_mib_s, seconds
from vorch.decide.room.table import NOWHERE, Bools, Ints, Table
from vorch.errors import Conflict

# How many guests make way for one other: the fewest first.
DEPTHS = (1, 2, 3, 4, 5, 8, 12)
# Tries for one guest and for all of them; about a second of work, and two.
TRIES = 10_000
ALL_TRIES = 20_000
# The same where it is known that some will be left.
FEW_TRIES = 300
ALL_FEW_TRIES = 3_000
# Work for the proof that no way exists, in the solver's own unit of about a second.
PROOF = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Emptying:
    """The moves, in an order in which each fits, and rounds of them that can run together."""

    moves: tuple[Move, ...]
    rounds: tuple[tuple[Move, ...], ...]
    # Who is moved only to make way.
    making_way: tuple[str, ...]
    # Who stays, each with the reason.
    left: tuple[tuple[str, str], ...]
    # Whether it is certain that no more is possible; true when nobody is left.
    proven: bool
    why: str

    @property
    def complete(self) -> bool:
        return not self.left

    @property
    def memory_mib(self) -> int:
        return sum(move.memory_mib for move in self.moves)

    @property
    def seconds(self) -> float:
        return sum(max(move.seconds for move in moves) for moves in self.rounds)


def evacuate(fleet: Fleet | Table, hosts: Iterable[str], *, per_host: int = 1) -> Emptying:
    """All guests off these hosts. A table that is given is left as it was."""
    table = fleet if isinstance(fleet, Table) else Table(fleet)
    rows = sorted({table.host(name) for name in hosts})
    return _Emptying(table, rows, per_host).evacuated()


def make_room(fleet: Fleet | Table, guest: str) -> Emptying:
    """Who has to move so that this guest, which is nowhere, finds a host. Its own move comes last.

    Its move has no source, and takes no time.
    """
    table = fleet if isinstance(fleet, Table) else Table(fleet)
    row = table.guest(guest)
    if table.at[row] >= 0:
        raise Conflict(
            f"cannot make room for {guest!r}: it is on {table.host_names[table.at[row]]!r} already;"
            " move it",
            guest=guest,
        )
    return _Emptying(table, [], 1).made_room(row)


class _Emptying:
    def __init__(self, table: Table, closed: Sequence[int], per_host: int) -> None:
        self.table = table
        self.start: Ints = table.at.copy()
        self.closed = list(closed)
        self.per_host = per_host
        self.open: Bools = table.open.copy()
        self.open[self.closed] = False
        self.tries = 0
        self.movers: list[int] = []
        # What the solver has said about everybody, once it was asked.
        self.proof: solver.Proof | None = None

    # -- what is asked

    def evacuated(self) -> Emptying:
        table = self.table
        there = [int(row) for host in self.closed for row in table.on(host)]
        stuck = [row for row in there if table.guests[row].moves == "pinned"]
        self.movers = self._largest_first(row for row in there if row not in stuck)
        left = dict.fromkeys(stuck, "it cannot be moved at all")
        return self._answer(left)

    def made_room(self, row: int) -> Emptying:
        self.movers = [row]
        return self._answer({})

    def _answer(self, stuck: dict[int, str]) -> Emptying:
        """By chains; where those end before everybody has room, as the solver says, if it can."""
        try:
            left = dict(stuck)
            self._find(self.movers, left)
            found = self._told(left)
            if found.proven or self.proof is None or not self.proof.complete:
                return found
            for row, host in self.proof.packed.hosts.items():
                self.table.move(row, host)
            other = self._told(dict(stuck))
            return other if len(other.left) < len(found.left) else found
        finally:
            self._back()

    def _back(self) -> None:
        for row in np.flatnonzero(self.table.at != self.start):
            self.table.move(int(row), int(self.start[row]))

    def _largest_first(self, rows: Iterable[int]) -> list[int]:
        table = self.table
        return sorted(rows, key=lambda row: (-int(table.memory[row]), -table.vcpus[row], row))

    # -- where all go

    def _find(self, rows: list[int], left: dict[int, str]) -> None:
        """The table as it will be. Who finds no place is back where he was."""
        table = self.table
        for row in rows:
            self.table.move(row, NOWHERE)
        failed = [row for row in rows if not self._settle(row)]
        if not failed:
            return
        self._repack(rows, failed)
        failed = [row for row in rows if self.table.at[row] < 0]
        # Where not all can find room it is not worth long to look how many more may.
        hopeless = bool(failed) and bound(self._everybody()) is not None
        depths, most = (DEPTHS[:2], FEW_TRIES) if hopeless else (DEPTHS, TRIES)
        rest = ALL_FEW_TRIES if hopeless else ALL_TRIES
        # What found no room finds none until somebody else has moved, nor does its like.
        in_vain: set[tuple[int, float, int]] = set()
        for row in failed:
            like = (int(table.memory[row]), float(table.vcpus[row]), int(table.kind[row]))
            alone = not table.groups_of[row] and not table.celled[row]
            self.tries = TRIES - min(most, rest)
            began = self.tries
            if (alone and like in in_vain) or not any(
                self._chain(row, extra, set()) for extra in depths
            ):
                left[row] = "no host has room for it, and nobody can make way"
                if alone:
                    in_vain.add(like)
            else:
                in_vain.clear()
            rest = max(0, rest - (self.tries - began))
        for row in left:
            if self.table.at[row] < 0 and self.start[row] >= 0:
                self.table.move(row, int(self.start[row]))

    def _everybody(self) -> Task:
        """The question whether there is room for all when everybody who can be moved may be."""
        table = self.table
        free = [
            row
            for row, guest in enumerate(table.guests)
            if (table.at[row] >= 0 and guest.moves != "pinned") or row in self.movers
        ]
        return task(table, free, self.closed)

    def _repack(self, rows: list[int], failed: list[int]) -> None:
        """All once more, by best fit instead of by evenness; kept when it leaves fewer out."""
        table = self.table
        for row in rows:
            table.move(row, NOWHERE)
        found = pack(task(table, rows, self.closed))
        if len(found.left) >= len(failed) and found.left:
            # By evenness it was no worse, but best fit leaves larger holes to make room in.
            pass
        for row, host in found.hosts.items():
            table.move(row, host)

    def _places(self, row: int) -> Bools:
        """Hosts that may have it, room left aside."""
        table = self.table
        found: Bools = self.open & table.mask(int(table.kind[row]))
        off = table.barred(row)
        return found if off is None else found & ~off

    def _room(self, row: int, places: Bools) -> Bools:
        table = self.table
        found: Bools = places & (table.free_mib >= table.memory[row])
        found &= table.free_vcpus >= table.vcpus[row]
        if table.celled[row]:
            for host in np.flatnonzero(found).tolist():
                found[host] = self._cells_hold(row, host)
        return found

    def _cells_hold(self, row: int, host: int) -> bool:
        table = self.table
        there = [table.guests[other] for other in table.on(host)]
        ratio = table.ratio(host)
        return cells.refusal(table.hosts[host], ratio, there, table.guests[row]) is None

    def _settle(self, row: int) -> bool:
        """To the host that is least full with it, if there is one with room."""
        table = self.table
        fit = self._room(row, self._places(row))
        if not fit.any():
            return False
        full = (table.used_mib + table.kept_mib + table.memory[row]) / table.size_mib
        busy = (table.used_load + table.load[row]) / table.cpus
        given = 1 - (table.free_vcpus - table.vcpus[row]) / np.maximum(table.room_vcpus, 1e-9)
        worst = np.maximum(np.maximum(full, busy), given)
        worst[~fit] = np.inf
        table.move(row, int(worst.argmin()))
        return True

    # -- making way

    def _chain(self, row: int, extra: int, kept: set[int]) -> bool:
        """A place for it when so many others may move; the table is as before when there is none.

        `kept`: guests that have their place in this chain already.
        """
        table = self.table
        self.tries += 1
        if self.tries > TRIES:
            return False
        places = self._places(row)
        fit = self._room(row, places)
        if fit.any():
            # The tightest hole, so that larger ones stay for others.
            rest = np.where(fit, table.free_mib - table.memory[row], np.iinfo(np.int64).max)
            table.move(row, int(rest.argmin()))
            return True
        if extra == 0:
            return False
        lack_mib = np.maximum(table.memory[row] - table.free_mib, 0)
        lack_vcpus = np.maximum(table.vcpus[row] - table.free_vcpus, 0.0)
        order = np.lexsort((lack_vcpus, lack_mib))
        for host in order[places[order]].tolist():
            for out in self._outs(host, int(lack_mib[host]), float(lack_vcpus[host]), extra, kept):
                if self._instead(row, host, out, extra, kept):
                    return True
                if self.tries > TRIES:
                    return False
        return False

    def _outs(
        self, host: int, lack_mib: int, lack_vcpus: float, extra: int, kept: set[int]
    ) -> list[tuple[int, ...]]:
        """Who could leave the host so that there is room: one guest, or two. Small ones first."""
        table = self.table
        there = [
            int(row)
            for row in table.on(host)
            if row not in kept
            and table.guests[row].moves == "live"
            and not table.celled[row]
            and not self._held(int(row))
        ]
        there.sort(key=lambda row: (int(table.memory[row]), float(table.vcpus[row]), row))
        single: list[int] = []
        found: list[tuple[int, ...]] = []
        for row in there:
            if table.memory[row] >= lack_mib and table.vcpus[row] >= lack_vcpus:
                single.append(row)
        # Of equal ones one is enough to try, unless rules tell them apart.
        seen: set[tuple[int, float, int]] = set()
        for row in single:
            key = (int(table.memory[row]), float(table.vcpus[row]), int(table.kind[row]))
            if table.groups_of[row] or key not in seen:
                found.append((row,))
                seen.add(key)
        if extra >= 2:
            small = [row for row in there if row not in single]
            pairs = [
                (one, other)
                for i, one in enumerate(small)
                for other in small[i + 1 :]
                if table.memory[one] + table.memory[other] >= lack_mib
                and table.vcpus[one] + table.vcpus[other] >= lack_vcpus
            ]
            pairs.sort(key=lambda pair: (int(table.memory[list(pair)].sum()), pair))
            found += pairs[:8]
        return found + self._covers(there, lack_mib, lack_vcpus, extra)

    def _covers(
        self, there: list[int], lack_mib: int, lack_vcpus: float, extra: int
    ) -> list[tuple[int, ...]]:
        """Three or more that leave room together, the largest ones that serve: few of them."""
        table = self.table
        found = []
        for start in range(len(there) if extra >= 3 else 0):
            some: list[int] = []
            memory, vcpus = 0, 0.0
            for row in there[: len(there) - start][::-1]:
                if memory >= lack_mib and vcpus >= lack_vcpus:
                    break
                some.append(row)
                memory += int(table.memory[row])
                vcpus += float(table.vcpus[row])
            if memory < lack_mib or vcpus < lack_vcpus or len(some) > extra:
                break
            if len(some) > 2:
                found.append(tuple(some))
        return found[:6]

    def _held(self, row: int) -> bool:
        """It is with those that it must be with, and would leave them behind."""
        table = self.table
        return any(
            table.groups[number].kind == "together" and table.groups[number].hard
            for number in table.groups_of[row]
        )

    def _instead(
        self, row: int, host: int, out: tuple[int, ...], extra: int, kept: set[int]
    ) -> bool:
        """It takes the place of those, and they find others with what is left of `extra`."""
        table = self.table
        before = table.at.copy()
        for other in out:
            table.move(other, NOWHERE)
        if self._room(row, self._places(row))[host]:
            table.move(row, host)
            stay = kept | {row, *out}
            # Guests that have to move anyway cost nothing.
            cost = sum(other not in self.movers for other in out)
            budget = extra - max(cost, 1)
            if budget >= 0 and all(
                self._elsewhere(other, host, budget if other == out[-1] else 0, stay)
                for other in self._largest_first(out)
            ):
                return True
        for one in np.flatnonzero(table.at != before).tolist():
            table.move(one, int(before[one]))
        return False

    def _elsewhere(self, row: int, host: int, extra: int, kept: set[int]) -> bool:
        was = bool(self.open[host])
        self.open[host] = False
        found = self._chain(row, extra, kept)
        self.open[host] = was
        return found

    # -- what is said

    def _told(self, left: dict[int, str]) -> Emptying:
        table = self.table
        targets = {
            int(row): int(table.at[row])
            for row in np.flatnonzero(table.at != self.start)
            if table.at[row] >= 0
        }
        self._back()
        steps, stuck = self._in_order(targets)
        for row in stuck:
            left[row] = "it has a place, but no order of moves leads there"
        proven, why = self._proof(left)
        moves = [self._move(row, source, target, targets) for row, source, target in steps]
        rounds = _rounds(moves, self.per_host)
        way = sorted({move.guest for move in moves} - {table.guest_names[r] for r in self.movers})
        names = tuple((table.guest_names[row], words) for row, words in sorted(left.items()))
        if not moves and not left:
            why = "nobody is there"
        elif not left:
            extra = f", {len(way)} of them only to make way" if way else ""
            why = f"{len(moves)} moves{extra}"
        return Emptying(
            moves=tuple(moves),
            rounds=rounds,
            making_way=tuple(way),
            left=names,
            proven=proven,
            why=why,
        )

    def _move(self, row: int, source: int, target: int, targets: dict[int, int]) -> Move:
        table = self.table
        guest = table.guests[row]
        speed = link_mib_s(table, source, target)
        if row in self.movers:
            why = (
                f"it has room on {table.host_names[target]!r}"
                if source < 0
                else f"{table.host_names[self.start[row]]!r} is to be empty"
            )
        else:
            why = f"it makes way on {table.host_names[source]!r}"
        if targets[row] != target:
            why += ", and goes on from there"
        return Move(
            guest=guest.name,
            source=table.host_names[source] if source >= 0 else "",
            target=table.host_names[target],
            gain=0.0,
            memory_mib=copied_mib(guest) if source >= 0 else 0,
            seconds=round(seconds(guest, speed / self.per_host), 1) if source >= 0 else 0.0,
            why=why,
        )

    def _in_order(self, targets: dict[int, int]) -> tuple[list[tuple[int, int, int]], list[int]]:
        """Moves one after the other, each into room that is there. Those of one rule stay close."""
        table = self.table
        waiting = self._largest_first(targets)
        # Who belongs together goes one right after the other, largest group first.
        steps: list[tuple[int, int, int]] = []
        detoured: set[int] = set()
        while waiting:
            ready = [row for row in waiting if self._may_go(row, targets[row])]
            if ready:
                row, host = ready[0], targets[ready[0]]
                waiting.remove(row)
            else:
                found = self._third(waiting, targets, detoured)
                if found is None:
                    break
                row, host = found
                detoured.add(row)
            steps.append((row, int(table.at[row]), host))
            table.move(row, host)
        return steps, waiting

    def _may_go(self, row: int, host: int) -> bool:
        """Room, and nobody there whom it must be apart from. Who is together is so at the end."""
        table = self.table
        if table.free_mib[host] < table.memory[row] or table.free_vcpus[host] < table.vcpus[row]:
            return False
        for number in table.groups_of[row]:
            group = table.groups[number]
            if group.hard and group.kind == "apart":
                off = table.barred_by(group, row)
                if off is not None and off[host]:
                    return False
        return True

    def _third(
        self, waiting: list[int], targets: dict[int, int], detoured: set[int]
    ) -> tuple[int, int] | None:
        table = self.table
        wanted = {targets[row] for row in waiting}
        for row in sorted(waiting, key=lambda row: (int(table.memory[row]), row)):
            source = int(table.at[row])
            if row in detoured or source < 0 or source not in wanted:
                continue
            fit = self._room(row, self._places(row))
            fit[source] = False
            hosts = np.flatnonzero(fit).tolist()
            if hosts:
                return row, min(hosts, key=lambda host: (host in wanted, host))
        return None

    def _proof(self, left: dict[int, str]) -> tuple[bool, str]:
        """Whether nobody could do better, and what is short."""
        if not left:
            return True, ""
        table = self.table
        names = ", ".join(repr(table.guest_names[row]) for row in sorted(left)[:5])
        fixed = [row for row in left if table.guests[row].moves == "pinned"]
        if len(fixed) == len(left):
            return True, f"{names} cannot be moved"
        work = self._everybody()
        wrong = bound(work)
        if wrong is not None:
            return True, f"no room for {names}, however the others are moved: {wrong.why}"
        self.proof = self.proof or solver.solve(work, PROOF, near=self.start)
        if self.proof is not None and not self.proof.complete:
            return True, f"no room for {names}, however the others are moved: a solver has shown it"
        worst = max(
            (row for row in left if row not in fixed), key=lambda row: int(table.memory[row])
        )
        places = self._places(worst) if table.at[worst] < 0 else self.open
        short_mib = int((table.memory[worst] - table.free_mib[places]).min()) if places.any() else 0
        lacking = float((table.vcpus[worst] - table.free_vcpus[places]).min(initial=0.0))
        return False, (
            f"no room was found for {names}; it is not proven that there is none. On the emptiest"
            f" host {max(0, short_mib)} MiB and {max(0.0, lacking):g} vCPUs are short for"
            f" {table.guest_names[worst]!r}"
        )


def _rounds(moves: Sequence[Move], per_host: int) -> tuple[tuple[Move, ...], ...]:
    """Each as early as its hosts have a place for it and all before it on them are done."""
    rounds: list[list[Move]] = []
    last: dict[str, int] = {}
    busy: dict[tuple[str, int], int] = {}
    for move in moves:
        hosts = [host for host in (move.source, move.target) if host]
        number = max((last.get(host, 0) for host in hosts), default=0)
        while any(busy.get((host, number), 0) >= per_host for host in hosts):
            number += 1
        for host in hosts:
            busy[host, number] = busy.get((host, number), 0) + 1
            # With several at once, what one leaves behind is not there for another one yet.
            last[host] = number
        while len(rounds) <= number:
            rounds.append([])
        rounds[number].append(move)
    return tuple(tuple(one) for one in rounds)
