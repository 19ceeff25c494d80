"""vorch runs virtual machines on a handful of libvirt hosts. These are its public names.

Each is loaded when it is first asked for, so that a program waits for no more than it uses.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vorch.availability import (
        Drill,
        HaNodeStatus,
        HaPolicy,
        HaStatus,
        HaVm,
        HaVmStatus,
        NodeChoice,
        Rule,
        RuleStatus,
    )
    from vorch.calling import call_of
    from vorch.codec import decode as document_as
    from vorch.codec import shown
    from vorch.config import Settings
    from vorch.config import load as load_settings
    from vorch.decide.filters import check_fields as check_filters
    from vorch.decide.filters import check_vms as check_vm_filters
    from vorch.decide.filters import fits
    from vorch.decide.health import Concern, Health
    from vorch.decide.inventory import Inventory, InventoryHost, ansible_host
    from vorch.decide.inventory import ansible as ansible_inventory
    from vorch.decide.rights import NEEDS, Need, sees_event
    from vorch.decide.room.capacity import Capacity
    from vorch.decide.room.imagine import Change
    from vorch.decide.whatif import WhatIf
    from vorch.desk import Desk
    from vorch.drivers.network_hook import install_network_hook, network_hook
    from vorch.drivers.state_copy import StateCopy
    from vorch.dumped import Dump
    from vorch.errors import (
        BadConfig,
        Cancelled,
        Conflict,
        Denied,
        FenceFailed,
        Invalid,
        NoRoom,
        NotFound,
        Stale,
        StepFailed,
        TimedOut,
        TooMany,
        Unreachable,
        Unsupported,
        VorchError,
    )
    from vorch.errors import from_dict as error_from_dict
    from vorch.errors import table as errors_table
    from vorch.execute import await_tasks, current_task
    from vorch.loop import WatchLoop, why_no_watch
    from vorch.model import (
        Ability,
        Check,
        CloudInit,
        Cluster,
        DiskUse,
        Figures,
        Forward,
        ForwardStatus,
        History,
        HistoryPoint,
        HostFacts,
        HostFigures,
        Image,
        IoLimits,
        Job,
        JobState,
        Load,
        Network,
        Node,
        NodeStatus,
        Pool,
        PoolUsage,
        Rates,
        Room,
        Snapshot,
        StaticAddress,
        StorageClass,
        StorageHealth,
        StoragePlace,
        StorageStatus,
        Task,
        TaskState,
        Trashed,
        Upload,
        Vm,
        VmStatus,
    )
    from vorch.orchestrator import (
        Balanced,
        Done,
        Orchestrator,
        Picture,
        Rebuilt,
        Recorder,
        UserStatus,
    )
    from vorch.orchestrator.behalf import OnBehalf
    from vorch.orchestrator.doorkeeper import Doorkeeper
    from vorch.plan import Plan
    from vorch.ports import Console, Content, Uploads, VolumeInfo
    from vorch.rights import (
        AuditEntry,
        ConsoleTicket,
        Minted,
        Principal,
        Quota,
        Role,
        Session,
        Ticket,
        Token,
        User,
    )
    from vorch.telling import (
        Chosen,
        adapter_of,
        chosen_fields,
        filter_names,
        from_json,
        item_of,
        to_json,
    )
    from vorch.telling import text as json_text
    from vorch.verbs import ENTRIES as VERBS
    from vorch.verbs import NOT_OVER_HTTP, ROLES
    from vorch.verbs import Entry as Verb
    from vorch.wiring import connect, copy_state, reopen_state, state_path

__version__ = "0.1.0"

__all__ = [
    "NEEDS",
    "NOT_OVER_HTTP",
    "ROLES",
    "VERBS",
    "Ability",
    "AuditEntry",
    "BadConfig",
    "Balanced",
    "Cancelled",
    "Capacity",
    "Change",
    "Check",
    "Chosen",
    "CloudInit",
    "Cluster",
    "Concern",
    "Conflict",
    "Console",
    "ConsoleTicket",
    "Content",
    "Denied",
    "Desk",
    "DiskUse",
    "Done",
    "Doorkeeper",
    "Drill",
    "Dump",
    "FenceFailed",
    "Figures",
    "Forward",
    "ForwardStatus",
    "HaNodeStatus",
    "HaPolicy",
    "HaStatus",
    "HaVm",
    "HaVmStatus",
    "Health",
    "History",
    "HistoryPoint",
    "HostFacts",
    "HostFigures",
    "Image",
    "Invalid",
    "Inventory",
    "InventoryHost",
    "IoLimits",
    "Job",
    "JobState",
    "Load",
    "Minted",
    "Need",
    "Network",
    "NoRoom",
    "Node",
    "NodeChoice",
    "NodeStatus",
    "NotFound",
    "OnBehalf",
    "Orchestrator",
    "Picture",
    "Plan",
    "Pool",
    "PoolUsage",
    "Principal",
    "Quota",
    "Rates",
    "Rebuilt",
    "Recorder",
    "Role",
    "Room",
    "Rule",
    "RuleStatus",
    "Session",
    "Settings",
    "Snapshot",
    "Stale",
    "StateCopy",
    "StaticAddress",
    "StepFailed",
    "StorageClass",
    "StorageHealth",
    "StoragePlace",
    "StorageStatus",
    "Task",
    "TaskState",
    "Ticket",
    "TimedOut",
    "Token",
    "TooMany",
    "Trashed",
    "Unreachable",
    "Unsupported",
    "Upload",
    "Uploads",
    "User",
    "UserStatus",
    "Verb",
    "Vm",
    "VmStatus",
    "VolumeInfo",
    "VorchError",
    "WatchLoop",
    "WhatIf",
    "__version__",
    "adapter_of",
    "ansible_host",
    "ansible_inventory",
    "await_tasks",
    "call_of",
    "check_filters",
    "check_vm_filters",
    "chosen_fields",
    "connect",
    "copy_state",
    "current_task",
    "document_as",
    "error_from_dict",
    "errors_table",
    "filter_names",
    "fits",
    "from_json",
    "install_network_hook",
    "item_of",
    "json_text",
    "load_settings",
    "network_hook",
    "reopen_state",
    "sees_event",
    "shown",
    "state_path",
    "to_json",
    "why_no_watch",
]

# Where each stands. tests/house sees that it is the same as above.
_HOMES = {
    "vorch.availability": (
        "Drill",
        "HaNodeStatus",
        "HaPolicy",
        "HaStatus",
        "HaVm",
        "HaVmStatus",
        "NodeChoice",
        "Rule",
        "RuleStatus",
    ),
    "vorch.calling": ("call_of",),
    "vorch.codec": (
        "decode as document_as",
        "shown",
    ),
    "vorch.config": (
        "Settings",
        "load as load_settings",
    ),
    "vorch.decide.rights": ("NEEDS", "Need", "sees_event"),
    "vorch.decide.health": ("Concern", "Health"),
    "vorch.decide.inventory": (
        "Inventory",
        "InventoryHost",
        "ansible as ansible_inventory",
        "ansible_host",
    ),
    "vorch.decide.filters": (
        "check_fields as check_filters",
        "check_vms as check_vm_filters",
        "fits",
    ),
    "vorch.decide.room.capacity": ("Capacity",),
    "vorch.decide.room.imagine": ("Change",),
    "vorch.decide.whatif": ("WhatIf",),
    "vorch.desk": ("Desk",),
    "vorch.dumped": ("Dump",),
    "vorch.drivers.network_hook": (
        "install_network_hook",
        "network_hook",
    ),
    "vorch.drivers.state_copy": ("StateCopy",),
    "vorch.errors": (
        "BadConfig",
        "Cancelled",
        "Conflict",
        "Denied",
        "FenceFailed",
        "Invalid",
        "NoRoom",
        "NotFound",
        "Stale",
        "StepFailed",
        "TimedOut",
        "TooMany",
        "Unreachable",
        "Unsupported",
        "VorchError",
        "from_dict as error_from_dict",
        "table as errors_table",
    ),
    "vorch.execute": (
        "await_tasks",
        "current_task",
    ),
    "vorch.loop": (
        "WatchLoop",
        "why_no_watch",
    ),
    "vorch.model": (
        "Ability",
        "Check",
        "CloudInit",
        "Cluster",
        "DiskUse",
        "Figures",
        "Forward",
        "ForwardStatus",
        "History",
        "HistoryPoint",
        "HostFacts",
        "HostFigures",
        "Image",
        "IoLimits",
        "Job",
        "JobState",
        "Load",
        "Network",
        "Node",
        "NodeStatus",
        "Pool",
        "PoolUsage",
        "Rates",
        "Room",
        "Snapshot",
        "StaticAddress",
        "StorageClass",
        "StorageHealth",
        "StoragePlace",
        "StorageStatus",
        "Task",
        "TaskState",
        "Trashed",
        "Upload",
        "Vm",
        "VmStatus",
    ),
    "vorch.orchestrator": (
        "Balanced",
        "Done",
        "Orchestrator",
        "Picture",
        "Rebuilt",
        "Recorder",
        "UserStatus",
    ),
    "vorch.orchestrator.behalf": ("OnBehalf",),
    "vorch.orchestrator.doorkeeper": ("Doorkeeper",),
    "vorch.plan": ("Plan",),
    "vorch.ports": (
        "Console",
        "Content",
        "Uploads",
        "VolumeInfo",
    ),
    "vorch.rights": (
        "AuditEntry",
        "ConsoleTicket",
        "Minted",
        "Principal",
        "Quota",
        "Role",
        "Session",
        "Ticket",
        "Token",
        "User",
    ),
    "vorch.telling": (
        "Chosen",
        "adapter_of",
        "chosen_fields",
        "filter_names",
        "from_json",
        "item_of",
        "text as json_text",
        "to_json",
    ),
    "vorch.verbs": (
        "ENTRIES as VERBS",
        "NOT_OVER_HTTP",
        "ROLES",
        "Entry as Verb",
    ),
    "vorch.wiring": (
        "connect",
        "copy_state",
        "reopen_state",
        "state_path",
    ),
}
_HOME = {
    word.rpartition(" as ")[2]: (module, word.partition(" as ")[0])
    for module, words in _HOMES.items()
    for word in words
}

# To type checkers a name that is not above is none at all.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 'vorch' has no name {name!r}")
        module, inside = _HOME[name]
        value = globals()[name] = getattr(import_module(module), inside)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
