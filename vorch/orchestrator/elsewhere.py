"""What somebody who is no admin has this machine fetch is not to be of this machine."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from vorch.decide.elsewhere import is_near
from vorch.errors import Denied


def check_elsewhere(location: str) -> None:
    """Refused when the name of its server leads to this machine or its closest surroundings."""
    if not location.lower().startswith(("http:", "https:")):
        return
    try:
        host = urlsplit(location).hostname or ""
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError, UnicodeError):
        # Whoever fetches it says what is wrong with it.
        return
    if any(is_near(str(one[4][0])) for one in found):
        raise Denied(
            f"cannot fetch {location!r}: {host!r} is the serving machine itself or its closest"
            " surroundings, which takes the role admin; upload the file, or have an admin import"
            " it",
            location=location,
        )
