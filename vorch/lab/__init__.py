"""A real cluster on one Linux machine: hosts in namespaces, a small Ceph, faults, their cure.

    from vorch import lab

    cluster = lab.up(hosts=3)
    cluster.power_off("h2")
    cluster.heal()
    lab.down()

docs/lab.md tells what is real in it and what is not.
"""

from vorch.lab.ceph import CephStatus
from vorch.lab.cluster import LabCluster, make_cluster
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
    "down",
    "make_cluster",
    "names",
    "up",
    "verify_disk",
]
