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
    from vorch.codec import shown
    from vorch.config import Settings
    from vorch.config import load as load_settings
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
    from vorch.loop import WatchLoop, why_no_watch
    from vorch.model import (
        Check,
        CloudInit,
        DiskUse,
        Figures,
        Forward,
        ForwardStatus,
        HostFacts,
        Image,
        IoLimits,
        Job,
        JobState,
        Network,
        Node,
        NodeStatus,
        Pool,
        PoolUsage,
        Snapshot,
        StaticAddress,
        StorageClass,
        Task,
        TaskState,
        Trashed,
        Vm,
        VmStatus,
    )
    from vorch.orchestrator import Balanced, Done, Orchestrator, Picture, Rebuilt
    from vorch.plan import Plan
    from vorch.ports import Console, Display, VolumeInfo
    from vorch.verbs import ENTRIES as VERBS
    from vorch.verbs import Entry as Verb
    from vorch.wiring import connect, copy_state, reopen_state, state_path

__version__ = "0.1.0"

__all__ = [
    "VERBS",
    "BadConfig",
    "Balanced",
    "Cancelled",
    "Capacity",
    "Change",
    "Check",
    "CloudInit",
    "Conflict",
    "Console",
    "Denied",
    "Desk",
    "DiskUse",
    "Display",
    "Done",
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
    "HostFacts",
    "Image",
    "Invalid",
    "IoLimits",
    "Job",
    "JobState",
    "Network",
    "NoRoom",
    "Node",
    "NodeChoice",
    "NodeStatus",
    "NotFound",
    "Orchestrator",
    "Picture",
    "Plan",
    "Pool",
    "PoolUsage",
    "Rebuilt",
    "Rule",
    "RuleStatus",
    "Settings",
    "Snapshot",
    "Stale",
    "StateCopy",
    "StaticAddress",
    "StepFailed",
    "StorageClass",
    "Task",
    "TaskState",
    "TimedOut",
    "TooMany",
    "Trashed",
    "Unreachable",
    "Unsupported",
    "Verb",
    "Vm",
    "VmStatus",
    "VolumeInfo",
    "VorchError",
    "WatchLoop",
    "WhatIf",
    "__version__",
    "connect",
    "copy_state",
    "error_from_dict",
    "install_network_hook",
    "load_settings",
    "network_hook",
    "reopen_state",
    "shown",
    "state_path",
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
    "vorch.codec": ("shown",),
    "vorch.config": (
        "Settings",
        "load as load_settings",
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
    ),
    "vorch.loop": (
        "WatchLoop",
        "why_no_watch",
    ),
    "vorch.model": (
        "Check",
        "CloudInit",
        "DiskUse",
        "Figures",
        "Forward",
        "ForwardStatus",
        "HostFacts",
        "Image",
        "IoLimits",
        "Job",
        "JobState",
        "Network",
        "Node",
        "NodeStatus",
        "Pool",
        "PoolUsage",
        "Snapshot",
        "StaticAddress",
        "StorageClass",
        "Task",
        "TaskState",
        "Trashed",
        "Vm",
        "VmStatus",
    ),
    "vorch.orchestrator": (
        "Balanced",
        "Done",
        "Orchestrator",
        "Picture",
        "Rebuilt",
    ),
    "vorch.plan": ("Plan",),
    "vorch.ports": (
        "Console",
        "Display",
        "VolumeInfo",
    ),
    "vorch.verbs": (
        "ENTRIES as VERBS",
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
