"""Decide by OR-Tools' CP-SAT whether guests have room, where packing left it open. Optional.

The answer rests on no clock: the search is bounded by work, in one thread and with one seed, so the
same question has the same answer. Without OR-Tools, or beyond the bound, the answer is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from vorch.decide.room.packing import Packed, Task, verify
from vorch.decide.room.table import Group, Ints

# Work in CP-SAT's own deterministic unit, of about a second.
WORK_LIMIT = 20.0
# Beyond that many pairs of a guest and a host a question is not small any more.
PAIRS_LIMIT = 400_000


@cache
def available() -> bool:
    try:
        return find_spec("ortools.sat.python.cp_model") is not None
    except ModuleNotFoundError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A packing of all guests, or the proof that there is none: then one that leaves the fewest."""

    complete: bool
    packed: Packed


def solve(work: Task, work_limit: float = WORK_LIMIT, *, near: Ints | None = None) -> Proof | None:
    """The truth about these guests. None: it could not be found out.

    `near`: of packings of all the one that has most guests on these hosts, as far as it is found.
    """
    table = work.table
    # Cells are not in the model, so nothing would follow from its answer.
    if not available() or table.celled[list(work.guests)].any():
        return None
    model = _Model(work)
    if model.pairs > PAIRS_LIMIT:
        return None
    return model.answer(work_limit, near)


class _Model:
    def __init__(self, work: Task) -> None:
        from ortools.sat.python import cp_model

        self.work = work
        self.table = work.table
        self.cp = cp_model
        self.model: Any = cp_model.CpModel()
        # guest → host → whether it goes there.
        self.goes: dict[int, dict[int, Any]] = {}
        self.placed: dict[int, Any] = {}
        self.pairs = 0
        for guest in work.guests:
            hosts = self._hosts(guest)
            self.pairs += len(hosts)
            self.goes[guest] = {host: self.model.new_bool_var("") for host in hosts}
            self.placed[guest] = self.model.new_bool_var("")
            self.model.add(sum(self.goes[guest].values()) == self.placed[guest])
        if self.pairs <= PAIRS_LIMIT:
            self._sizes()
            numbers = sorted({n for guest in work.guests for n in self.table.groups_of[guest]})
            for number in numbers:
                if self.table.groups[number].hard:
                    self._group(self.table.groups[number])

    def _hosts(self, guest: int) -> list[int]:
        table, work = self.table, self.work
        fit = work.open & table.mask(int(table.kind[guest]))
        fit &= (work.free_mib >= table.memory[guest]) & (work.free_vcpus >= table.vcpus[guest])
        return [int(host) for host in np.flatnonzero(fit)]

    def _sizes(self) -> None:
        on: dict[int, list[int]] = {}
        for guest, hosts in self.goes.items():
            for host in hosts:
                on.setdefault(host, []).append(guest)
        table = self.table
        for host, guests in on.items():
            memory = sum(int(table.memory[one]) * self.goes[one][host] for one in guests)
            self.model.add(memory <= int(self.work.free_mib[host]))
            vcpus = sum(int(table.vcpus[one]) * self.goes[one][host] for one in guests)
            # vCPUs are whole, so what is beyond the last whole one is no room.
            self.model.add(vcpus <= int(np.floor(self.work.free_vcpus[host] + 1e-9)))

    def _group(self, group: Group) -> None:
        domain = self.table.domain(group.over)
        at = self.work.at
        moved = [row for row in group.members if row in self.goes]
        stay: dict[int, int] = {}
        for row in group.members:
            if row not in self.goes and at[row] >= 0:
                stay[int(domain[at[row]])] = stay.get(int(domain[at[row]]), 0) + 1
        into: dict[int, list[Any]] = {}
        for row in moved:
            for host, goes in self.goes[row].items():
                into.setdefault(int(domain[host]), []).append(goes)
        if group.kind == "apart":
            for number, ones in into.items():
                self.model.add(sum(ones) <= (0 if stay.get(number) else 1))
        elif group.kind == "together":
            self._together(into, stay)
        else:
            self._spread(group, into, stay)

    def _together(self, into: dict[int, list[Any]], stay: dict[int, int]) -> None:
        if stay:
            for number, ones in into.items():
                if number not in stay:
                    self.model.add(sum(ones) == 0)
            return
        chosen = {number: self.model.new_bool_var("") for number in into}
        self.model.add(sum(chosen.values()) <= 1)
        for number, ones in into.items():
            for goes in ones:
                self.model.add_implication(goes, chosen[number])

    def _spread(self, group: Group, into: dict[int, list[Any]], stay: dict[int, int]) -> None:
        table = self.table
        named = len(table.domain_names(group.over))
        relevant = [int(one) for one in table.spread_over(group.over, self.work.open)]
        counts = {
            number: sum(into.get(number, ())) + stay.get(number, 0)
            for number in {*relevant, *into}
            if number < named
        }
        for number, ones in into.items():
            if number >= named:
                self.model.add(sum(ones) == 0)
                continue
            taken = self.model.new_bool_var("")
            for goes in ones:
                self.model.add_implication(goes, taken)
            for other in relevant:
                if other != number:
                    self.model.add(
                        counts[number] - counts[other] <= group.max_skew
                    ).only_enforce_if(taken)

    def answer(self, work_limit: float, near: Ints | None) -> Proof | None:
        everybody = list(self.placed.values())
        asked = self.model.clone()
        for one in everybody:
            asked.add(asked.get_bool_var_from_proto_index(one.index) == 1)
        status, solver = self._solved(asked, work_limit)
        if status in (self.cp.OPTIMAL, self.cp.FEASIBLE):
            packed = self._packed(solver)
            if near is not None:
                packed = self._nearer(asked, packed, near, work_limit)
            wrong = verify(self.work, packed.hosts)
            assert wrong is None, wrong
            return Proof(complete=True, packed=packed)
        if status != self.cp.INFEASIBLE:
            return None
        # Higher priority counts more than all below it together could.
        self.model.maximize(sum(w * one for w, one in zip(self._worth(), everybody, strict=True)))
        _, solver = self._solved(self.model, work_limit)
        return Proof(complete=False, packed=self._packed(solver))

    def _nearer(self, asked: Any, packed: Packed, near: Ints, work_limit: float) -> Packed:
        """With fewer guests elsewhere than on these hosts, starting from a packing of all."""
        stay = []
        for guest, hosts in self.goes.items():
            for host, goes in hosts.items():
                same = asked.get_bool_var_from_proto_index(goes.index)
                asked.add_hint(same, int(packed.hosts[guest] == host))
                if near[guest] == host:
                    stay.append(same)
        asked.maximize(sum(stay))
        status, solver = self._solved(asked, work_limit)
        return self._packed(solver) if status in (self.cp.OPTIMAL, self.cp.FEASIBLE) else packed

    def _worth(self) -> Sequence[int]:
        guests = [self.table.guests[guest] for guest in self.work.guests]
        ranks = sorted({guest.priority for guest in guests})
        steps = {priority: min(step, 4) for step, priority in enumerate(ranks)}
        return [(len(guests) + 1) ** steps[guest.priority] for guest in guests]

    def _solved(self, model: Any, work_limit: float) -> tuple[Any, Any]:
        solver = self.cp.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = 1
        # It would take Ctrl-C from the whole process, and not give it back.
        solver.parameters.catch_sigint_signal = False
        solver.parameters.max_deterministic_time = work_limit
        return solver.solve(model), solver

    def _packed(self, solver: Any) -> Packed:
        packed = Packed()
        try:
            for guest, hosts in self.goes.items():
                found = [host for host, goes in hosts.items() if solver.boolean_value(goes)]
                if found:
                    packed.hosts[guest] = found[0]
                else:
                    packed.left.append(guest)
        except RuntimeError:
            # Nothing was found before the bound.
            return Packed(left=list(self.work.guests))
        return packed
