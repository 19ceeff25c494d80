"""`Orchestrator`: the one class that users hold. Look once, decide, act.

Each verb that changes something takes `dry_run` (the plan is made and not carried out) and `wait_s`
(how long to wait for another task on the same VM before saying `Conflict`), and returns `Done`.

The verbs stand in a file for each noun; `core` has what all of them do alike.
"""

from __future__ import annotations

from vorch.orchestrator.balancing import Balanced, Balancing
from vorch.orchestrator.changing import Changing
from vorch.orchestrator.classes import Classes
from vorch.orchestrator.consoles import Consoles
from vorch.orchestrator.copies import Copies
from vorch.orchestrator.core import Done
from vorch.orchestrator.devices import Devices
from vorch.orchestrator.disks import Disks
from vorch.orchestrator.healths import Healths
from vorch.orchestrator.histories import Histories, Recorder
from vorch.orchestrator.images import ImageStore
from vorch.orchestrator.inventory import Inventories
from vorch.orchestrator.people import Users, UserStatus
from vorch.orchestrator.picture import Picture
from vorch.orchestrator.pools import Pools, Rebuilt
from vorch.orchestrator.vms import Vms
from vorch.orchestrator.whole import Whole

__all__ = ["Balanced", "Done", "Orchestrator", "Picture", "Rebuilt", "Recorder", "UserStatus"]


class Orchestrator(
    Vms,
    Consoles,
    Changing,
    Copies,
    Devices,
    Disks,
    ImageStore,
    Whole,
    Healths,
    Pools,
    Classes,
    Balancing,
    Users,
    Inventories,
    Histories,
):
    """A cluster in one hand. Made by `vorch.connect`; safe to use from several threads."""
