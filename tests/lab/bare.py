"""Guests on a lab by bare libvirt and librbd, without vorch: what the rest is measured by."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import libvirt
import rados
import rbd

from vorch.lab import Lab, guest
from vorch.lab.ceph import MONITOR_PORT
from vorch.lab.spec import CEPH_USER, POOL
from vorch.lab.writer_log import Ack, parse_acks

T = TypeVar("T")

# Ten times what it takes on two idle cores: it is never the time that fails a test.
TIMEOUT_S = 240.0
CHUNK = 4 << 20
# What libvirt calls what a lab found out.
DOMAIN_TYPES = {"kvm": "kvm", "tcg": "qemu"}
# exclusive-lock, object-map, fast-diff and deep-flatten, as vorch makes its disks.
FEATURES = (
    rbd.RBD_FEATURE_LAYERING
    | rbd.RBD_FEATURE_EXCLUSIVE_LOCK
    | rbd.RBD_FEATURE_OBJECT_MAP
    | rbd.RBD_FEATURE_FAST_DIFF
    | rbd.RBD_FEATURE_DEEP_FLATTEN
)
MIGRATE = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_TLS
    | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
)


def eventually(
    look: Callable[[], T],
    what: str,
    timeout_s: float = TIMEOUT_S,
    told: Callable[[], str] = lambda: "",
) -> T:
    """What is seen as soon as it is true. `told`: what else is to be said when it is not."""
    deadline = time.monotonic() + timeout_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"{what}: not after {timeout_s:g} s{told()}"
        time.sleep(0.1)
    return seen


@contextmanager
def pool_of(lab: Lab) -> Iterator[Any]:
    cluster = rados.Rados(conffile=str(lab.spec.ceph_conf), name=f"client.{CEPH_USER}")
    cluster.connect(timeout=30)
    try:
        with cluster.open_ioctx(POOL) as pool:
            yield pool
    finally:
        cluster.shutdown()


def put_image(lab: Lab, name: str, kind: guest.Kind) -> guest.GuestImage:
    """A guest's disk as an RBD image. Holes stay holes."""
    image = guest.build(kind)
    with pool_of(lab) as pool, image.raw_path.open("rb") as file:
        rbd.RBD().create(pool, name, image.virtual_size_bytes, features=FEATURES, old_format=False)
        with rbd.Image(pool, name) as disk:
            for offset in range(0, image.virtual_size_bytes, CHUNK):
                data = file.read(CHUNK)
                if data.strip(b"\0"):
                    disk.write(data, offset)
    return image


@contextmanager
def connected(lab: Lab, host: str) -> Iterator[libvirt.virConnect]:
    connection = libvirt.open(lab.spec.uri(host))
    try:
        yield connection
    finally:
        connection.close()


def secret_of(lab: Lab, connection: libvirt.virConnect) -> str:
    """The UUID of the secret by which a host may open disks; defined there if it is not yet."""
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{lab.spec.name}/{CEPH_USER}"))
    secret = connection.secretDefineXML(
        f"<secret ephemeral='no' private='yes'><uuid>{identity}</uuid>"
        f"<usage type='ceph'><name>{CEPH_USER}@{lab.spec.name}</name></usage></secret>"
    )
    keyring = (lab.spec.ceph_folder / f"ceph.client.{CEPH_USER}.keyring").read_text()
    secret.setValue(base64.b64decode(keyring.rpartition("key = ")[2]), 0)
    return identity


def domain_xml(lab: Lab, name: str, image: str, memory_mib: int, secret: str) -> str:
    mons = "".join(
        f"<host name='{lab.spec.mon_address(mon)}' port='{MONITOR_PORT}'/>"
        for mon in lab.spec.mon_names
    )
    return f"""
<domain type='{DOMAIN_TYPES[lab.status().accelerator]}'>
  <name>{name}</name>
  <uuid>{uuid.uuid5(uuid.NAMESPACE_URL, name)}</uuid>
  <memory unit='MiB'>{memory_mib}</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact'><model>qemu64</model></cpu>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none' error_policy='stop'/>
      <auth username='{CEPH_USER}'><secret type='ceph' uuid='{secret}'/></auth>
      <source protocol='rbd' name='{POOL}/{image}'>{mons}</source>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>
    <serial type='file'><source path='{console_path(name)}' append='on'/></serial>
  </devices>
</domain>"""


def console_path(name: str) -> str:
    """Where a guest's console goes, as its host sees it."""
    return f"/var/log/libvirt/qemu/{name}.console"


def console_text(lab: Lab, host: str, name: str) -> str:
    """What a guest has written on its console while it was on that host."""
    path = lab.spec.host_folder(host) / "disk" / console_path(name).lstrip("/")
    return path.read_text(errors="replace") if path.exists() else ""


def acks(lab: Lab, name: str, *hosts: str) -> list[Ack]:
    """Every write that the guest's storage has confirmed to it, on any of those hosts."""
    return [ack for host in hosts for ack in parse_acks(console_text(lab, host, name))]


def start(lab: Lab, host: str, name: str, image: str, memory_mib: int) -> None:
    with connected(lab, host) as connection:
        secret = secret_of(lab, connection)
        xml = domain_xml(lab, name, image, memory_mib, secret)
        connection.createXML(xml)


def await_acks(lab: Lab, name: str, host: str, more: int, timeout_s: float = TIMEOUT_S) -> None:
    """Until that many more writes are confirmed than are now."""
    before = len(acks(lab, name, host))
    eventually(
        lambda: len(acks(lab, name, host)) >= before + more,
        f"{more} more confirmed writes of {name} on {host}",
        timeout_s,
    )
