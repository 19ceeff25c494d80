"""Which addresses are this machine itself or its closest surroundings, for whoever fetches files.

What listens there takes everybody who comes for somebody of this machine: services for its own
programs, and in clouds the one that hands out the machine's keys.
"""

from __future__ import annotations

import ipaddress


def is_near(address: str) -> bool:
    """Of an address, as a name server tells it."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast
