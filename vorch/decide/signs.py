"""What a look at a host comes to (a sign), and what that makes of the host (a state). Pure.

Two tables. The first reads the evidence of one look; the second says, for each state and sign, how
long the sign may last before the host is fenced, and which state it is in until then.
"""

from __future__ import annotations

from vorch.availability import (
    Evidence,
    HostOrder,
    Knock,
    Limits,
    NodeRecord,
    NodeState,
    Sign,
)
from vorch.frozen import replace

# ---------------------------------------------------------------------------------------------
# Evidence → sign. Read by what answers: libvirt, the management and the storage address.

_ANSWERS = {
    # libvirt, management, storage
    (True, True, True): Sign.WELL,
    (True, False, True): Sign.WELL,
    (True, True, False): Sign.STORAGE_CUT,
    (True, False, False): Sign.STORAGE_CUT,
    (False, True, True): Sign.DAEMON_SILENT,
    # The management network is cut: its VMs do not mind.
    (False, False, True): Sign.DAEMON_SILENT,
    (False, True, False): Sign.STORAGE_CUT,
    (False, False, False): Sign.GONE,
}


def sign_of(seen: Evidence) -> Sign:
    """One look, in a word."""
    management = _answers(seen.management)
    storage = _answers(seen.storage)
    if storage is None:
        # Nobody knows its storage address, so there is one network to judge by.
        storage = seen.libvirt or bool(management)
    if seen.power == "off" and not seen.libvirt:
        return Sign.GONE
    sign = _ANSWERS[seen.libvirt, bool(management), storage]
    # First: whoever is cut off does not know that the host was only started anew.
    if sign is Sign.DAEMON_SILENT and not management and seen.managed_by:
        return Sign.PARTED
    if sign is Sign.DAEMON_SILENT and seen.disks and seen.disks_open == 0:
        return Sign.HOLLOW
    if sign is Sign.GONE and seen.answers_to and seen.power != "off":
        return Sign.PARTED
    return sign


def _answers(knock: Knock | None) -> bool | None:
    return None if knock is None else knock is not Knock.SILENCE


def spoken(seen: Evidence, sign: Sign) -> str:
    """The evidence behind a sign, in words."""
    if sign is Sign.WELL:
        return "it answers"
    parts = []
    if sign is not Sign.STORAGE_CUT or not seen.libvirt:
        parts.append("libvirt is silent")
    for network, knock in (("management", seen.management), ("storage", seen.storage)):
        if knock is not None:
            silent = knock is Knock.SILENCE
            parts.append(f"{network} address {'is silent' if silent else 'answers'}")
    if seen.disks and seen.disks_open is not None:
        parts.append(f"{seen.disks_open} of {seen.disks} disks of its VMs are open")
    if seen.osds_up is not None:
        parts.append(f"{seen.osds_up} of its OSDs are up")
    if seen.power is not None:
        parts.append(f"its power is {seen.power}")
    if seen.answers_to:
        # After who it is come words that tell its process from others.
        names = dict.fromkeys(one.partition(" ")[0] for one in seen.answers_to)
        parts.append(f"it answers to {', '.join(names)}")
    return ", ".join(parts)


# ---------------------------------------------------------------------------------------------
# State and sign → state


def patience_s(sign: Sign, limits: Limits, isolation_s: float | None) -> float | None:
    """How long a sign may last before the host is fenced; None: for ever.

    `isolation_s`: after what time a VM on it wants its host fenced though it still runs.
    """
    return {
        Sign.WELL: None,
        Sign.DAEMON_SILENT: isolation_s,
        Sign.PARTED: None,
        Sign.HOLLOW: limits.hollow_after_s,
        Sign.STORAGE_CUT: limits.storage_cut_after_s,
        Sign.GONE: limits.gone_after_s,
    }[sign]


# States of a host that is well and was not touched; which one is a person's choice.
_WELL_BY_ORDER = {
    "maintenance": NodeState.MAINTENANCE,
    "leaving": NodeState.LEAVING,
    "": NodeState.ONLINE,
}


def seen(record: NodeRecord, sign: Sign, now: float) -> NodeRecord:
    """The record with this look's sign, which may be as old as the look before."""
    # One of the future is by another clock than this one.
    if sign is record.sign and record.sign_since <= now:
        return record
    return replace(record, sign=sign, sign_since=now)


def when_well(record: NodeRecord, order: HostOrder | None, now: float) -> NodeRecord:
    """What a host that answers is."""
    state = NodeState.RETURNING if record.begun else _WELL_BY_ORDER[_word(order)]
    if state is record.state:
        return record
    changed = replace(record, state=state, since=now, retry_at=0.0)
    if state is NodeState.RETURNING:
        return changed
    return replace(changed, why="", left_as="", ready=False)


def _word(order: HostOrder | None) -> str:
    if order is None:
        return ""
    return "maintenance" if order.maintenance else "leaving" if order.leaving else ""


def when_not_well(record: NodeRecord, now: float) -> NodeRecord:
    """What a host is that is silent, before it is decided whether that has lasted too long."""
    if record.ready and record.state in _ON_ITS_WAY_OUT and record.sign is Sign.GONE:
        why = "it went down in good order, and nothing of vorch was left on it"
        return replace(record, state=NodeState.DOWN, since=now, why=why)
    if record.state in _KEPT_IN_SILENCE:
        return record
    return replace(record, state=NodeState.SUSPECT, since=now, why="")


_ON_ITS_WAY_OUT = (NodeState.LEAVING, NodeState.MAINTENANCE)
_KEPT_IN_SILENCE = (NodeState.FENCING, NodeState.FENCED, NodeState.DOWN, NodeState.SUSPECT)
