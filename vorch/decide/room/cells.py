"""NUMA cells and huge pages: what is free in the cells of a host, and whether a guest fits there.

Only guests that ask for one cell or for huge pages are counted here. All others float over the
cells, and the host's sum is what bounds them. Where each guest's pages really are is not known, so
those that are on a host are dealt out to its cells in one fixed order, largest first: whoever was
put into a cell first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vorch.decide.room.fleet import Guest, Host


@dataclass
class _Free:
    number: int
    vcpus: float
    # Ordinary memory under 0, huge pages under their size in KiB.
    memory: dict[int, int]


def refusal(host: Host, cpu_ratio: float, there: Iterable[Guest], guest: Guest) -> str | None:
    """Why the cells of the host cannot take the guest beside those that are there; None: they can.

    Guests that ask nothing of cells may be among them; they are passed over.
    """
    if not (guest.needs.one_cell or guest.needs.pages_kib):
        return None
    cells = _dealt(host, cpu_ratio, there)
    size = guest.needs.pages_kib
    what = f"huge pages of {size} KiB" if size else "memory"
    if guest.needs.one_cell:
        if any(_holds(cell, guest) for cell in cells):
            return None
        most = max((cell.memory.get(size, 0) for cell in cells), default=0)
        if most < guest.memory_mib:
            return (
                f"{guest.memory_mib - max(most, 0)} MiB of {what} are short in its best NUMA cell"
                f" ({guest.memory_mib} wanted, {max(most, 0)} free)"
            )
        return f"no NUMA cell of it has {guest.memory_mib} MiB of {what} and {guest.vcpus} vCPUs"
    free = sum(max(cell.memory.get(size, 0), 0) for cell in cells)
    if free >= guest.memory_mib:
        return None
    return (
        f"{guest.memory_mib - free} MiB of {what} are short ({guest.memory_mib} wanted, {free}"
        " free)"
    )


def choose(host: Host, cpu_ratio: float, there: Iterable[Guest], guest: Guest) -> int | None:
    """The number of the cell for a guest that asks for one; None: no cell holds it.

    The one that it was in on this host before, as long as that holds it, else the fullest that
    does.
    """
    free = _dealt(host, cpu_ratio, there)
    fits = [cell for cell in free if _holds(cell, guest)]
    if not fits:
        return None
    own = guest.cell if guest.host == host.name else None
    size = guest.needs.pages_kib
    return min(fits, key=lambda one: (one.number != own, one.memory[size], one.number)).number


def _dealt(host: Host, cpu_ratio: float, there: Iterable[Guest]) -> list[_Free]:
    cells = []
    for cell in sorted(host.cells, key=lambda cell: cell.number):
        memory = {0: cell.memory_mib}
        for pages in cell.pages:
            memory[0] -= pages.memory_mib
            memory[pages.size_kib] = memory.get(pages.size_kib, 0) + pages.memory_mib
        cells.append(_Free(number=cell.number, vcpus=cell.cpus * cpu_ratio, memory=memory))
    asking = [one for one in there if one.needs.one_cell or one.needs.pages_kib]
    # Those that need one cell come first: the others take what is left, wherever it is.
    known = {cell.number for cell in cells}
    put = {one.name for one in asking if one.host == host.name and one.cell in known}
    asking.sort(
        key=lambda one: (not one.needs.one_cell, one.name not in put, -one.memory_mib, one.name)
    )
    for one in asking if cells else ():
        if one.needs.one_cell and one.name in put:
            _take([cell for cell in cells if cell.number == one.cell], one)
        else:
            _take(cells, one)
    return cells


def _holds(cell: _Free, guest: Guest) -> bool:
    free = cell.memory.get(guest.needs.pages_kib, 0)
    return free >= guest.memory_mib and cell.vcpus >= guest.vcpus


def _take(cells: list[_Free], guest: Guest) -> None:
    size = guest.needs.pages_kib
    if guest.needs.one_cell:
        # The fullest that holds it; where none does, it is there all the same.
        fits = [cell for cell in cells if _holds(cell, guest)]
        cell = (
            min(fits, key=lambda one: one.memory[size])
            if fits
            else max(cells, key=lambda one: one.memory.get(size, 0))
        )
        cell.memory[size] = cell.memory.get(size, 0) - guest.memory_mib
        cell.vcpus -= guest.vcpus
        return
    left = guest.memory_mib
    for cell in sorted(cells, key=lambda one: one.memory.get(size, 0)):
        part = min(left, max(cell.memory.get(size, 0), 0))
        cell.memory[size] = cell.memory.get(size, 0) - part
        left -= part
