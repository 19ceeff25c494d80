"""Where an installer's kernel goes: into a file of the host, also when the disk is in Ceph."""

from __future__ import annotations

import dataclasses

import pytest

from tests.decide.worlds import FRESH, OVERHEAD, cluster, node
from vorch.decide.answers import AnswerKind, answers
from vorch.decide.install import Installer, install
from vorch.decide.lifecycle import NewVm
from vorch.errors import Invalid
from vorch.model import Pool
from vorch.plan import Plan, PurgeVolume, StartDomain

FOLDER_1 = Pool(name="files1", url="dir:///srv/vorch", node="h1")
FOLDER_2 = Pool(name="files2", url="dir:///srv/vorch", node="h2")
CEPH = Pool(name="fast", url="rbd://vms")


def planned(pool: str, host: str, *pools: Pool) -> Plan:
    hosts = (node("h1"), node("h2"))
    return install(
        cluster(nodes=hosts, pools={one.name: one for one in pools}),
        NewVm(name="web", pool=pool, node=host, disk_gib=1),
        Installer(kernel="/boot/linux", initrd="/boot/initrd"),
        answers("d-i x string y\n", AnswerKind.PRESEED),
        FRESH,
        timeout_s=60,
        overhead_mib=OVERHEAD,
    )


def boot_pools(plan: Plan) -> set[str]:
    (start,) = (step for step in plan.steps if isinstance(step, StartDomain))
    boot = start.vm.direct_boot
    assert boot is not None
    assert boot.initrd is not None
    purged = {step.volume for step in plan.steps if isinstance(step, PurgeVolume)}
    assert {boot.kernel, boot.initrd} <= purged
    return {boot.kernel.pool, boot.initrd.pool}


@pytest.mark.parametrize(("host", "pool"), [("h1", "files1"), ("h2", "files2")])
def test_a_kernel_goes_into_a_file_of_its_host(host: str, pool: str) -> None:
    plan = planned("fast", host, CEPH, FOLDER_1, FOLDER_2)
    assert boot_pools(plan) == {pool}
    (start,) = (step for step in plan.steps if isinstance(step, StartDomain))
    disk = start.vm.disks[0].volume
    assert disk is not None
    assert disk.pool == "fast"


def test_beside_a_disk_in_a_file_it_stays() -> None:
    other = dataclasses.replace(FOLDER_1, name="another")
    assert boot_pools(planned("files1", "h1", CEPH, FOLDER_1, other)) == {"files1"}


def test_a_host_without_files_is_refused_with_what_to_do() -> None:
    with pytest.raises(Invalid, match=r"a file of host 'h1'.*vorch pool add"):
        planned("fast", "h1", CEPH, FOLDER_2)
