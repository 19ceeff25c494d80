"""Make the hosts of a lab one cluster of vorch: state and disks in its Ceph, BMCs for the fence.

uri, image = make(lab, say=print)
with vorch.connect(uri) as cluster:
    cluster.create("web", image="tiny", networks=("lan",), start=True)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

import vorch
from vorch.errors import Unsupported
from vorch.lab import guest
from vorch.lab.lab import Lab
from vorch.lab.spec import BMC_PASSWORD, BMC_USER, CEPH_USER, POOL, LabSpec

# The network is the one that VMs get when nobody names one.
DISKS, NETWORK = "fast", "default"
# The bridge that every host of a lab has.
BRIDGE = "br0"


@dataclass(frozen=True, slots=True)
class LabCluster:
    uri: str
    # What VMs can be made of, under the name of its kind; None: it could not be built.
    image: guest.GuestImage | None
    pool: str = DISKS
    network: str = NETWORK


def ceph_uri(spec: LabSpec, scheme: str, namespace: str = "") -> str:
    """The lab's pool as a place for state (`rados`) or disks (`rbd`)."""
    place = f"{POOL}/{namespace}" if namespace else POOL
    return f"{scheme}://{place}?conf={quote(str(spec.ceph_conf))}&id={CEPH_USER}"


def cluster(
    lab: Lab, *, image: bool = True, say: Callable[[str], None] = lambda _: None
) -> LabCluster:
    """What is there already stays as it is."""
    spec = lab.spec
    if not spec.ceph:
        raise Unsupported(
            f"cannot make lab {spec.name!r} a cluster: it has no Ceph, in which state and disks"
            " would be; make one without --no-ceph (vorch lab down, vorch lab up)"
        )
    uri = ceph_uri(spec, "rados")
    with vorch.connect(uri) as made:
        there = made.look()
        for host in spec.host_names:
            if host not in there.nodes:
                say(f"{host} is tried out and joins")
                made.node_add(
                    host,
                    spec.uri(host),
                    storage_address=spec.ceph_address_of(host),
                    bmc=f"redfish+https://{BMC_USER}@{spec.bmc_address(host)}?ca={spec.ca_file}",
                    bmc_password=BMC_PASSWORD,
                    ssh=spec.ssh(host),
                    # The lab's hosts are nobody's but its own.
                    install_hook=True,
                )
        if DISKS not in there.pools:
            made.pool_add(DISKS, ceph_uri(spec, "rbd"))
        if NETWORK not in there.networks:
            made.network_create(NETWORK, kind="bridge", bridge=BRIDGE)
        if not image:
            return LabCluster(uri, None)
        try:
            found = guest.build("tiny", report=say)
        except guest.GuestBuildError as exc:
            # The cluster is there all the same, and takes any other image.
            say(str(exc))
            return LabCluster(uri, None)
        if found.kind not in there.images:
            say(f"image {found.kind} comes into Ceph")
            path, memory_mib = str(found.path), found.memory_mib
            made.image_import(found.kind, path, pool=DISKS, memory_mib=memory_mib)
        return LabCluster(uri, found)
