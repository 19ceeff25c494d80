"""Place guests: filter, score, pick; one at a time or many as one decision, explained on demand.

A batch goes by priority and then the largest first, since a small one finds room where a large one
does not; those that must be on one host go as one. By default what breaks the spare room for the
loss of a host is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from vorch.decide.room.fleet import HOST, Fleet
from vorch.decide.room.score import DIGITS, Score
from vorch.decide.room.spare import Change, Spare
from vorch.decide.room.table import NOWHERE, Bools, Floats, Table
from vorch.decide.room.verdicts import Verdict, cell_refusal, verdicts
from vorch.decide.room.wide import spare_of

# How many times those that found no room are put to the front.
_ROUNDS = 3
# How often one of a batch is taken once more, and what it has to gain by that.
_TRIES = 256
_GAIN = 1e-7
# Up to so many a batch is tried in two orders.
_TWICE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where a guest goes. No host: the words say what is in the way."""

    guest: str
    host: str
    score: float
    why: str
    # What a person should know although it was placed.
    warning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """All placements of one decision, in the order in which they were taken."""

    fleet: Fleet
    placed: tuple[Placed, ...]
    notes: tuple[str, ...] = ()
    # Which went as one, for the explanations.
    _turns: tuple[tuple[str, ...], ...] = field(default=(), repr=False)

    @property
    def hosts(self) -> dict[str, str]:
        """Host by guest, of those that found one."""
        return {one.guest: one.host for one in self.placed if one.host}

    @property
    def left(self) -> tuple[str, ...]:
        return tuple(one.guest for one in self.placed if not one.host)

    def explain(self, guest: str) -> tuple[Verdict, ...]:
        """What is to be said of each host for this guest, as all others are placed; best first."""
        table = Table(self.fleet)
        for name, host in self.hosts.items():
            table.move(table.guest(name), table.host(host))
        turn = next((turn for turn in self._turns if guest in turn), (guest,))
        rows = [table.guest(name) for name in turn]
        for row in rows:
            table.move(row, NOWHERE)
        return Picker(table).explain(rows)


def place(fleet: Fleet, guests: Iterable[str] | None = None) -> Answer:
    """Hosts for these guests, or for all that are nowhere. Pure; the same whatever the order."""
    table = Table(fleet)
    return Picker(table).batch(
        [row for row in range(len(table.guests)) if table.at[row] < 0]
        if guests is None
        else [table.guest(name) for name in guests]
    )


# Those that went as one, and what came of it.
_Played = list[tuple[list[int], Placed]]


class Picker:
    """Picks hosts on a table that is kept warm."""

    def __init__(self, table: Table, spare: Spare | None = None) -> None:
        self.table = table
        self.score = Score(table)
        looked_at = table.policy.spare != "ignore" and len(table.hosts) > 1
        self.spare = (spare or spare_of(table)) if looked_at else None

    # -- one

    def pick(self, guests: Sequence[int]) -> Placed:
        """The host for a guest that is nowhere, or for several that go as one. Changes nothing."""
        return self._pick(guests)[0]

    def take(self, guests: Sequence[int], never: Bools | None = None) -> Placed:
        """Pick, and put it there. Hosts that are refused on the way are added to `never`.

        That is for many guests that are alike: what refuses one refuses all that come after it.
        """
        placed, host, changes = self._pick(guests, never)
        if host >= 0:
            self._put(guests, host, changes)
        return placed

    def put(self, guest: int, host: int) -> None:
        """A guest goes there, by whose choice ever."""
        self.table.move(guest, host)
        self.score.refresh(host)
        if self.spare is not None:
            self.spare.moved(guest, NOWHERE, host)

    def remove(self, guest: int) -> None:
        """A guest is not on its host any more."""
        host = int(self.table.at[guest])
        if host < 0:
            return
        self.table.move(guest, NOWHERE)
        self.score.refresh(host)
        if self.spare is not None:
            self.spare.moved(guest, host, NOWHERE)

    def _pick(
        self, guests: Sequence[int], never: Bools | None = None
    ) -> tuple[Placed, int, Change | None]:
        fit = self.fitting(guests)
        if never is not None:
            fit &= ~never
        total = self.total(guests)
        total[~fit] = np.inf
        keep = self.table.policy.spare == "keep"
        first, warning = -1, ""
        count = int(fit.sum())
        for _ in range(count):
            # The first of the lowest: rows are in order of names.
            host = int(total.argmin())
            if not self._cells_hold(guests, host):
                total[host] = np.inf
                continue
            if self.spare is None:
                return self._placed(guests, host, total, count), host, None
            change, why = self._admitted(guests, host)
            if change is not None:
                return self._placed(guests, host, total, count), host, change
            if not keep:
                return self._placed(guests, host, total, count, warning=why), host, None
            first, warning = (host, why) if first < 0 else (first, warning)
            total[host] = np.inf
            if never is not None:
                never[host] = True
        name = self._names(guests)
        why = self._nowhere(guests, first, warning)
        return Placed(guest=name, host="", score=0.0, why=why), NOWHERE, None

    def fitting(self, guests: Sequence[int]) -> Bools:
        """Hosts that could take them all: needs, hard rules, memory and vCPUs."""
        if len(guests) == 1:
            return self.table.fitting(guests[0])
        table, rows = self.table, list(guests)
        fit: Bools = table.free_mib >= int(table.memory[rows].sum())
        fit &= table.free_vcpus >= float(table.vcpus[rows].sum())
        for row in rows:
            fit &= table.mask(int(table.kind[row]))
            off = table.barred(row)
            if off is not None:
                fit &= ~off
        off = table.barred_as_one(rows)
        if off is not None:
            fit &= ~off
        return fit

    def total(self, guests: Sequence[int]) -> Floats:
        parts, crowd = self.score.even(guests)
        total: Floats = parts[0] + parts[1]
        total += parts[2]
        total += crowd
        for row in guests:
            wishes = self.score.wishes(row)
            if wishes is not None:
                total += wishes
        return np.round(total, DIGITS)

    def _cells_hold(self, guests: Sequence[int], host: int) -> bool:
        return not self.table.celled[list(guests)].any() or (
            cell_refusal(self.table, guests, host) is None
        )

    def _admitted(self, guests: Sequence[int], host: int) -> tuple[Change | None, str]:
        assert self.spare is not None
        return self.spare.admits(guests, host)

    def _put(self, guests: Sequence[int], host: int, change: Change | None) -> None:
        for row in guests:
            self.table.move(row, host)
            if self.spare is not None and change is None:
                self.spare.moved(row, NOWHERE, host)
        self.score.refresh(host)
        if self.spare is not None and change is not None:
            self.spare.admit(guests, host, change)

    def _placed(
        self, guests: Sequence[int], host: int, total: Floats, count: int, warning: str = ""
    ) -> Placed:
        name = self.table.host_names[host]
        why = (
            "it is the only host that can take it now"
            if count == 1
            else f"it has the best score of {count} hosts that can take it"
        )
        return Placed(
            guest=self._names(guests),
            host=name,
            score=float(total[host]),
            why=why,
            warning=f"the spare room for the loss of a host is gone: {warning}" if warning else "",
        )

    def _names(self, guests: Sequence[int]) -> str:
        return ", ".join(self.table.guest_names[row] for row in guests)

    def _nowhere(self, guests: Sequence[int], first: int, why: str) -> str:
        if first >= 0:
            return f"{self.table.host_names[first]}: {why}"
        reasons: dict[str, int] = {}
        for one in verdicts(self, guests):
            reasons[one.refused] = reasons.get(one.refused, 0) + 1
        if not reasons:
            return "there is no host"
        most = sorted(reasons, key=lambda reason: (-reasons[reason], reason))[:3]
        return "; ".join(
            f"{reasons[reason]} {'host' if reasons[reason] == 1 else 'hosts'}: {reason}"
            for reason in most
        )

    def explain(self, guests: Sequence[int]) -> tuple[Verdict, ...]:
        """What is to be said of each host now: why not, or the parts of its score. Best first."""
        return verdicts(self, guests)

    # -- many

    def batch(self, guests: Sequence[int]) -> Answer:
        """Hosts for all of them, as one decision: the table has them all in the end."""
        turns = self._turns(guests)
        best = self._improved(self._played(turns))
        for _ in range(_ROUNDS):
            left = [turn for turn, placed in best if not placed.host]
            if not left:
                break
            again = self._ahead(left, [turn for turn, _ in best])
            best, better = self._better(best, again)
            if not better:
                break
        if len(turns) <= _TWICE:
            # Small batches can afford another order: what would come of one by one, by name.
            best, _ = self._better(best, sorted(turns, key=lambda one: (-self._priority(one), one)))
        return self._answer(best)

    def _better(self, best: _Played, turns: Sequence[list[int]]) -> tuple[_Played, bool]:
        """What comes of another order, if that leaves fewer out or is more even."""
        before = (self._missed(best), self.score.whole())
        self._cleared(best)
        found = self._improved(self._played(turns))
        missed, whole = self._missed(found), self.score.whole()
        if (missed, whole + _GAIN) < before:
            return found, True
        self._cleared(found)
        for turn, placed in best:
            for row in turn if placed.host else ():
                self.put(row, self.table.host_row[placed.host])
        return best, False

    def _cleared(self, played: _Played) -> None:
        for turn, placed in played:
            for row in turn if placed.host else ():
                self.remove(row)

    def _improved(self, played: _Played) -> _Played:
        """Each is taken once more, now that all others are placed, until none does better."""
        if len(played) > _TRIES:
            # Among so many the order from large to small leaves little to gain.
            return played
        found = dict(enumerate(played))
        tries, quiet = 0, 0
        while found and tries < _TRIES and quiet < len(found):
            number = tries % len(found)
            tries += 1
            quiet += 1
            turn, placed = found[number]
            if not placed.host:
                continue
            host = self.table.host_row[placed.host]
            for row in turn:
                self.remove(row)
            before = float(self.total(turn)[host])
            again, other, change = self._pick(turn)
            if other >= 0 and not again.warning and again.score < before - _GAIN:
                self._put(turn, other, change)
                found[number], quiet = (turn, again), 0
            else:
                for row in turn:
                    self.put(row, host)
        return list(found.values())

    def _played(self, turns: Sequence[list[int]]) -> _Played:
        return [(turn, self.take(turn)) for turn in turns]

    def _missed(self, played: _Played) -> list[tuple[int, int]]:
        """How many were left, the highest priority first."""
        missed: dict[int, int] = {}
        for turn, placed in played:
            if not placed.host:
                priority = self._priority(turn)
                missed[priority] = missed.get(priority, 0) + len(turn)
        return sorted(missed.items(), reverse=True)

    def _priority(self, turn: Sequence[int]) -> int:
        return max(self.table.guests[row].priority for row in turn)

    def _ahead(self, left: list[list[int]], turns: list[list[int]]) -> list[list[int]]:
        """Those first, within their priority."""
        ahead = [turn in left for turn in turns]
        order = sorted(range(len(turns)), key=lambda n: (-self._priority(turns[n]), not ahead[n]))
        return [turns[number] for number in order]

    def _turns(self, guests: Sequence[int]) -> list[list[int]]:
        """Who goes as one, in the order of the decision."""
        table = self.table
        asked = {row for row in guests if table.at[row] < 0}
        turns: list[list[int]] = []
        seen: set[int] = set()
        for guest in sorted(asked):
            if guest in seen:
                continue
            turn = [guest]
            for row in turn:
                for number in table.groups_of[row]:
                    group = table.groups[number]
                    if group.kind == "together" and group.hard and group.over == HOST:
                        turn += [one for one in group.members if one in asked - set(turn)]
            seen.update(turn)
            turns.append(sorted(turn))
        memory = max(1.0, float(table.size_mib.mean())) if len(table.hosts) else 1.0
        vcpus = max(1.0, float(table.room_vcpus.mean())) if len(table.hosts) else 1.0

        def size(turn: list[int]) -> float:
            return max(
                float(table.memory[turn].sum()) / memory, float(table.vcpus[turn].sum()) / vcpus
            )

        return sorted(turns, key=lambda turn: (-self._priority(turn), -size(turn), turn))

    def _answer(self, played: _Played) -> Answer:
        names = self.table.guest_names
        return Answer(
            fleet=self.table.fleet,
            placed=tuple(
                Placed(
                    guest=names[row],
                    host=placed.host,
                    score=placed.score if row == turn[0] else 0.0,
                    why=placed.why,
                    warning=placed.warning,
                )
                for turn, placed in played
                for row in turn
            ),
            _turns=tuple(tuple(names[row] for row in turn) for turn, _ in played),
        )
