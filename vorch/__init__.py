"""vorch runs virtual machines on a handful of libvirt hosts. These are its public names."""

from vorch.codec import shown
from vorch.config import Settings
from vorch.config import load as load_settings
from vorch.drivers.network_hook import install_network_hook, network_hook
from vorch.drivers.state_copy import StateCopy
from vorch.errors import (
    BadConfig,
    Cancelled,
    Conflict,
    Denied,
    FenceFailed,
    Invalid,
    NoRoom,
    NotFound,
    StepFailed,
    TimedOut,
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
from vorch.orchestrator import Done, Orchestrator, Picture, Rebuilt
from vorch.plan import Plan
from vorch.ports import Console, Display, VolumeInfo
from vorch.wiring import connect, copy_state, reopen_state, state_path

__version__ = "0.1.0"

__all__ = [
    "BadConfig",
    "Cancelled",
    "Check",
    "CloudInit",
    "Conflict",
    "Console",
    "Denied",
    "DiskUse",
    "Display",
    "Done",
    "FenceFailed",
    "Figures",
    "Forward",
    "ForwardStatus",
    "HostFacts",
    "Image",
    "Invalid",
    "IoLimits",
    "Network",
    "NoRoom",
    "Node",
    "NodeStatus",
    "NotFound",
    "Orchestrator",
    "Picture",
    "Plan",
    "Pool",
    "PoolUsage",
    "Rebuilt",
    "Settings",
    "Snapshot",
    "StateCopy",
    "StaticAddress",
    "StepFailed",
    "StorageClass",
    "Task",
    "TaskState",
    "TimedOut",
    "Trashed",
    "Unreachable",
    "Unsupported",
    "Vm",
    "VmStatus",
    "VolumeInfo",
    "VorchError",
    "WatchLoop",
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
