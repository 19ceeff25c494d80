"""All that a decision is made from, as one document: to be kept, mailed, and decided from again.

Nothing secret is in it: free text, kernel command lines and passwords in addresses are left out,
and passwords of BMCs, keys and certificates are no part of it in the first place.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vorch.availability import Availability
from vorch.codec import decode, encode
from vorch.config import Settings
from vorch.decide.room.fleet import Fleet
from vorch.decide.room.live import POLICY, fleet_of, judged
from vorch.decide.whatif import Timing
from vorch.errors import Invalid
from vorch.model import Cluster

FORMAT = "vorch-dump/1"
# Written by people for people, or for a guest: no decision looks at it.
_FREE_TEXT = frozenset({"description", "command_line", "user_data", "password_hash"})
# Of addresses: who one is to be there, and what follows the path, as signed URLs have it.
_PASSWORD = re.compile(r"(?<=://)([^/?#@\s:]*):[^/?#@\s]*@")
_QUERY = re.compile(r"(https?://[^\s?#]*)[?#]\S*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """One look at everything at one moment, and the settings under which it is judged."""

    at: float
    # The version of vorch that looked.
    vorch: str
    cluster: Cluster
    availability: Availability
    settings: Settings
    # How long the parts of a failover take here.
    timing: Timing
    # Hosts that can be fenced.
    fenceable: tuple[str, ...] = ()
    # Somebody watches over it.
    watched: bool = False
    # Cores in use, by the name of the VM, where that was measured.
    loads: dict[str, float] = field(default_factory=dict)
    # How fast VMs write to their memory, in MiB/s, where that was measured.
    writes: dict[str, float] = field(default_factory=dict)
    # When each VM changed its host last, as far as that is known.
    moved_at: dict[str, float] = field(default_factory=dict)
    # VMs that a plan is at.
    busy: tuple[str, ...] = ()
    # What goes over a link; 0: nobody knows.
    link_mib_s: float = 0.0

    @property
    def fleet(self) -> Fleet:
        """As decisions about room have it."""
        policy = dataclasses.replace(
            judged(self.availability.policy), link_mib_s=self.link_mib_s or POLICY.link_mib_s
        )
        return fleet_of(
            self.cluster,
            self.availability,
            overhead_mib=self.settings.vm_overhead_mib,
            loads=self.loads,
            writes=self.writes,
            policy=policy,
        )

    @property
    def balanced_fleet(self) -> Fleet:
        """As somebody has it who moves VMs for evenness, and stops none for it."""
        # With NumPy, which a connection does without.
        from vorch.decide.balance import Known, balanced_fleet

        known = Known(
            now=self.at,
            overhead_mib=self.settings.vm_overhead_mib,
            loads=self.loads,
            writes=self.writes,
            moved_at=self.moved_at,
            busy=frozenset(self.busy),
            link_mib_s=self.link_mib_s,
        )
        return balanced_fleet(self.cluster, self.availability, known)

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"format": FORMAT, **encode(self)}


def without_secrets(dump: Dump) -> Dump:
    """What may be shown to anybody who may know the names of hosts and VMs."""
    settings = dataclasses.replace(dump.settings, fence_command="")
    body = _cleaned(encode(dataclasses.replace(dump, settings=settings)))
    return decode(Dump, body)


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "" if key in _FREE_TEXT and isinstance(one, str) else _cleaned(one)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_cleaned(one) for one in value]
    if isinstance(value, str) and "://" in value:
        return _QUERY.sub(r"\1", _PASSWORD.sub(r"\1@", value))
    return value


def dump_of(document: Mapping[str, Any]) -> Dump:
    """What `Dump.document` wrote down. Unsound documents raise `Invalid`."""
    if document.get("format") != FORMAT:
        raise Invalid(
            f"cannot use that dump: its format is {document.get('format')!r}, and {FORMAT!r} is"
            " known; write it anew with `vorch dump`"
        )
    return decode(Dump, {key: value for key, value in document.items() if key != "format"})
