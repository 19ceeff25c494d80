"""Xen hosts that are reached by ssh alone: no certificates, and no port of libvirt's.

Each call by ssh takes an emulated host seconds, and the whole ten minutes: with VORCH_THOROUGH=1.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import vorch
from tests.lab import bare
from tests.lab.acks import Acks
from tests.lab.clusters import ceph_url, import_writer, slow_down, start_writer, verdict
from tests.lab.xen_labs import ready, xen_lab_up
from vorch.lab import Lab
from vorch.model import Power

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

X1, X2 = "x1", "x2"
# An emulated guest on an emulated hypervisor, on a machine that may have other things to do.
GUEST_TIMEOUT_S = 300.0


@pytest.fixture(scope="module")
def xen_lab() -> Iterator[Lab]:
    with xen_lab_up(ready(), xen=2, osds=3) as made:
        yield made


def program_for(lab: Lab, host: str, folder: Path) -> Path:
    """ssh with the lab's own files: nothing is left with whoever runs this."""
    program = folder / f"ssh-{host}"
    known, key = lab.spec.known_hosts(host), lab.spec.ssh_key(host)
    program.write_text(f'#!/bin/sh\nexec ssh -o UserKnownHostsFile={known} -i {key} "$@"\n')
    program.chmod(0o755)
    return program


def put(lab: Lab, host: str, file: Path, target: str, mode: str) -> None:
    line = f"mkdir -p -m 700 /root/.ssh && cat >{target} && chmod {mode} {target}"
    subprocess.run(lab.command(host, ["sh", "-c", line]), input=file.read_bytes(), check=True)


def introduce(lab: Lab, host: str, other: str) -> None:
    """Root of one host gets to the other without a question, as `ssh-copy-id` would have it."""
    put(lab, host, lab.spec.ssh_key(other), f"/root/.ssh/{other}", "600")
    put(lab, host, lab.spec.known_hosts(other), "/root/.ssh/known_hosts", "644")
    address = lab.spec.management_address(other)
    line = f"printf 'Host {address}\\n IdentityFile /root/.ssh/{other}\\n' >/root/.ssh/config"
    subprocess.run(lab.command(host, ["sh", "-c", line]), check=True)


@pytest.mark.thorough
def test_a_guest_moves_between_hosts_that_know_each_other_by_ssh(
    xen_lab: Lab, tmp_path: Path
) -> None:
    lab, acks = xen_lab, Acks(xen_lab.spec.own_management)
    settings = vorch.Settings(
        uri=ceph_url(lab, "rados", "ssh"), ceph_timeout_s=20, host_timeout_s=30
    )
    try:
        with vorch.connect(settings=settings) as cluster:
            for host in (X1, X2):
                way = lab.spec.ssh(host)
                address = lab.spec.management_address(host)
                program = program_for(lab, host, tmp_path)
                uri = f"xen+ssh://root@{address}/system?command={program}"
                cluster.node_add(host, uri, ssh=way, install_hook=True)
            cluster.pool_add("fast", ceph_url(lab, "rbd"))
            cluster.network_create("lan", kind="bridge", bridge="br0")
            memory_mib = import_writer(cluster)
            slow_down(lab, cluster, 1)
            start_writer(
                cluster, "w1", memory_mib, X1, hypervisor="xen", xen_kind="pv", vcpus_max=1
            )
            bare.eventually(lambda: acks.all()[3:], "it writes", GUEST_TIMEOUT_S)
            (boot,) = {ack.boot for ack in acks.all()}
            with pytest.raises(vorch.VorchError) as caught:
                cluster.migrate("w1", X2, still=True)
            assert "goes on on 'x1'" in caught.value.message
            assert (cluster.show("w1").vm.node, cluster.show("w1").power) == (X1, Power.RUNNING)
            acks.await_more(3)
            introduce(lab, X1, X2)
            cluster.migrate("w1", X2, still=True)
            assert (cluster.show("w1").vm.node, cluster.show("w1").power) == (X2, Power.RUNNING)
            acks.await_more(3)
            assert {ack.boot for ack in acks.all()} == {boot}
            cluster.stop("w1", force=True)
            seen = verdict(lab, cluster, "w1", acks.all())
            assert seen.ok, seen.findings
            cluster.delete("w1", purge=True)
    finally:
        acks.close()
