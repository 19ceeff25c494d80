"""Time zones: by how much the clocks on a wall are ahead of UTC."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime


def offset_s(zone: str, now: float) -> float | None:
    """Then, in that zone, as in Europe/Vienna; None: this machine knows no such zone."""
    if zone == "UTC":
        return 0.0
    try:
        found = datetime.fromtimestamp(now, UTC).astimezone(zoneinfo.ZoneInfo(zone)).utcoffset()
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None
    return 0.0 if found is None else found.total_seconds()
