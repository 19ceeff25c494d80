"""A real cluster on one Linux machine: hosts in namespaces, a small Ceph, faults, their cure.

    from vorch import lab

    made = lab.up(hosts=3)
    made.power_off("h2")
    made.heal()
    lab.down()

docs/lab.md tells what is real in it and what is not.
"""

from vorch.lab.ceph import CephStatus
from vorch.lab.joining import LabCluster, cluster
from vorch.lab.lab import HostRow, Lab, LabStatus, down, names, up
from vorch.lab.spec import CEPH_USER, DEFAULT_NAME, DEFAULT_RANGE, LabSpec
from vorch.lab.verify import Ack, Epoch, Finding, Verdict, acks_in, verify_disk

__all__ = [
    "CEPH_USER",
    "DEFAULT_NAME",
    "DEFAULT_RANGE",
    "Ack",
    "CephStatus",
    "Epoch",
    "Finding",
    "HostRow",
    "Lab",
    "LabCluster",
    "LabSpec",
    "LabStatus",
    "Verdict",
    "acks_in",
    "cluster",
    "down",
    "names",
    "up",
    "verify_disk",
]
