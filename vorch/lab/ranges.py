"""Chooses networks for a lab that clash with nothing this machine already reaches."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import Any

from vorch.errors import Invalid, NoRoom

# What the standards set aside for private use; a lab must not shadow anybody's real address.
PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


def choose(wanted: str, taken: Iterable[IPv4Network]) -> tuple[str, str]:
    """The first two free /24 of a range: management and storage."""
    try:
        whole = IPv4Network(wanted)
    except ValueError as exc:
        raise Invalid(
            f"cannot use address range {wanted!r}: {exc}; write it as 10.77.0.0/16"
        ) from exc
    if not any(whole.subnet_of(private) for private in PRIVATE):
        raise Invalid(
            f"cannot use address range {wanted}: it is not private; take one out of"
            f" {', '.join(map(str, PRIVATE))}"
        )
    if whole.prefixlen > 23:
        raise Invalid(f"cannot use address range {wanted}: a lab takes two /24; use a /23 or wider")
    busy = list(taken)
    free = (
        str(subnet)
        for subnet in whole.subnets(new_prefix=24)
        if not any(subnet.overlaps(other) for other in busy)
    )
    found = [subnet for subnet, _ in zip(free, range(2), strict=False)]
    if len(found) < 2:
        raise NoRoom(
            f"cannot find two free /24 networks in {wanted}: this machine has addresses or routes"
            " there; choose another range with --range"
        )
    return found[0], found[1]


def taken_here() -> list[IPv4Network]:
    """What this machine has an address in, or a route to that is not its default one."""
    found = []
    for link in _ip("address"):
        for address in link.get("addr_info", []):
            found.append(IPv4Network(f"{address['local']}/{address['prefixlen']}", strict=False))
    for route in _ip("route"):
        if route.get("dst") not in (None, "default"):
            # A single address is written without its length.
            found.append(ipaddress.IPv4Network(route["dst"], strict=False))
    return found


def _ip(what: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["ip", "-json", "-4", what, "show"], check=True, capture_output=True, text=True
    )
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return found
