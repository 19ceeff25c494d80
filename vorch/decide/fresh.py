"""Identifiers for new things, handed to decisions as a value: decisions make nothing up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vorch.model import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """One operation's worth of chance and the time at which it was decided."""

    uuid: str
    # 16 hexadecimal digits.
    token: str
    now: float

    def volume(self, owner: str, part: str) -> str:
        """A volume name that says whose it is and is never used twice."""
        return f"{owner}.{part}.{self.token[:8]}"

    def macs(self, count: int, cluster: Cluster, taken: Iterable[str] = ()) -> tuple[str, ...]:
        """Locally made MAC addresses under QEMU's prefix that no VM of the cluster has."""
        used = {nic.mac for vm in cluster.vms.values() for nic in vm.nics} | set(taken)
        number = int(self.token[:6], 16)
        found: list[str] = []
        while len(found) < count:
            tail = f"{number % 2**24:06x}"
            mac = f"52:54:00:{tail[:2]}:{tail[2:4]}:{tail[4:]}"
            if mac not in used:
                found.append(mac)
                used.add(mac)
            number += 1
        return tuple(found)
