"""vorch runs virtual machines on a handful of libvirt hosts. These are its public names."""

from vorch.config import Settings
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
from vorch.model import (
    CloudInit,
    Image,
    Network,
    Node,
    Snapshot,
    StaticAddress,
    Task,
    Vm,
    VmStatus,
)
from vorch.orchestrator import Done, Orchestrator
from vorch.plan import Plan
from vorch.wiring import connect

__version__ = "0.1.0"

__all__ = [
    "BadConfig",
    "Cancelled",
    "CloudInit",
    "Conflict",
    "Denied",
    "Done",
    "FenceFailed",
    "Image",
    "Invalid",
    "Network",
    "NoRoom",
    "Node",
    "NotFound",
    "Orchestrator",
    "Plan",
    "Settings",
    "Snapshot",
    "StaticAddress",
    "StepFailed",
    "Task",
    "TimedOut",
    "Unreachable",
    "Unsupported",
    "VmStatus",
    "Vm",
    "VorchError",
    "__version__",
    "connect",
]
