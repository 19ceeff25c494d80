"""Whether any one host of a small fleet may die, seen at a glance: a yes is proven, a no is not.

`spare` knows rules, cells and sets of hosts and is made for hundreds of hosts; to make its table
costs more than to answer where there are a handful. So those who ask often ask here first. Pure.
"""

from __future__ import annotations

from vorch.decide.room.fleet import Fleet, Guest, Host
from vorch.decide.room.table import unmet

# With more guests times hosts than this the arrays of `spare` are quicker.
SMALL = 2000


def survives(fleet: Fleet) -> bool:
    """Every guest that is looked after has been found room for the loss of its host, at once with
    all others of that host. False: it takes a closer look.
    """
    policy = fleet.policy
    if (
        policy.spare_hosts > 1
        or policy.spare_over
        or fleet.rules
        or len(fleet.hosts) * len(fleet.guests) > SMALL
    ):
        return False
    # Of each host the memory and the vCPUs that are free.
    rooms: dict[str, list[float]] = {
        host.name: [
            host.memory_mib - host.reserve_mib - host.pages_mib - host.other_memory_mib,
            host.cpus * (policy.cpu_ratio if host.cpu_ratio is None else host.cpu_ratio)
            - host.other_vcpus,
        ]
        for host in fleet.hosts
    }
    lost: dict[str, list[Guest]] = {}
    for guest in fleet.guests:
        needs = guest.needs
        if needs.one_cell or needs.pages_kib:
            return False
        if guest.host:
            room = rooms[guest.host]
            room[0] -= guest.takes_mib
            room[1] -= guest.vcpus
            if guest.ha:
                lost.setdefault(guest.host, []).append(guest)
    open_hosts = [host for host in fleet.hosts if not host.closed]
    # By the number of a guest's needs, which many share: where they are met.
    fitting: dict[int, list[Host]] = {}
    for name, guests in lost.items():
        free = {host.name: list(rooms[host.name]) for host in open_hosts if host.name != name}
        guests.sort(key=_largest_first)
        for guest in guests:
            hosts = fitting.get(id(guest.needs))
            if hosts is None:
                hosts = [host for host in open_hosts if unmet(host, guest.needs) is None]
                fitting[id(guest.needs)] = hosts
            rooms_there = [free[host.name] for host in hosts if host.name != name]
            # The freest alone is tried.
            best = max(rooms_there, key=_memory, default=None)
            if best is None or best[0] < guest.takes_mib or best[1] < guest.vcpus:
                return False
            best[0] -= guest.takes_mib
            best[1] -= guest.vcpus
    return True


def _memory(room: list[float]) -> float:
    return room[0]


def _largest_first(guest: Guest) -> tuple[float, float, str]:
    return -guest.takes_mib, -guest.vcpus, guest.name
