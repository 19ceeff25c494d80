"""What `ceph status` says, as a value of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vorch.model import StorageHealth


def read_status(said: Mapping[str, Any]) -> StorageHealth:
    """Of any Ceph of today; what one of them does not say counts as nothing."""
    health, placement = said["health"], said.get("pgmap", {})
    osds = said.get("osdmap", {})
    # Before Ceph 15 it stood one level deeper.
    osds = osds.get("osdmap", osds)
    return StorageHealth(
        cluster=str(said["fsid"]),
        status=str(health["status"]),
        checks={
            code: str(check.get("summary", {}).get("message", ""))
            for code, check in health.get("checks", {}).items()
            # One that a person has muted is known.
            if not check.get("muted")
        },
        monitors=int(said.get("monmap", {}).get("num_mons", 0)),
        monitors_in_quorum=len(said.get("quorum", ())),
        osds=int(osds.get("num_osds", 0)),
        osds_up=int(osds.get("num_up_osds", 0)),
        osds_in=int(osds.get("num_in_osds", 0)),
        capacity_bytes=int(placement.get("bytes_total", 0)),
        free_bytes=int(placement.get("bytes_avail", 0)),
        degraded_objects=int(placement.get("degraded_objects", 0)),
    )
