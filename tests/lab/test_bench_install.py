"""The benchmark of installs measures itself: a KVM host and a Xen host of a lab, the short set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import vorch
from tests.lab.xen_labs import ready, xen_lab_up
from tests.thorough import much
from vorch import Invalid, Orchestrator
from vorch.lab import Lab, guest
from vorch.lab.joining import ceph_uri
from vorch_install_time import Benchmark, Request, Results, differences, read, write_report
from vorch_install_time.marks import PHASES

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1500)]

KVM, XEN = "h1", "x1"
IMAGES = Path("var/lib/libvirt/images")
# The machine may have other things to do.
RUN_TIMEOUT_S = 600.0


@pytest.fixture(scope="module")
def xen_lab() -> Iterator[Lab]:
    with xen_lab_up(ready(), osds=1) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(xen_lab: Lab) -> Iterator[Orchestrator]:
    spec = xen_lab.spec
    uri = ceph_uri(spec, "rados")
    with vorch.connect(settings=vorch.Settings(uri=uri)) as found:
        for host in (KVM, XEN):
            found.node_add(host, spec.uri(host), ssh=spec.ssh(host), install_hook=True)
            # A path that means the same on this machine and on the host.
            folder = spec.host_folder(host) / "disk" / IMAGES / "vms"
            folder.mkdir(parents=True)
            found.pool_add(f"disks-{host}", f"dir://{folder}", node=host)
        found.network_create("lan", kind="bridge", bridge="br0")
        yield found


def request(lab: Lab, **changes: object) -> Request:
    values: dict[str, object] = {
        "hosts": (KVM, XEN),
        "pools": {f"disks-{KVM}": "", f"disks-{XEN}": ""},
        "methods": ("debootstrap",),
        "runs": 1,
        "packages": "short",
        "network": "lan",
        "memory_mib": 384,
        "disk_gib": 1,
        "serve": lab.spec.own_management,
        "timeout_s": RUN_TIMEOUT_S,
        "unlike": True,
    }
    return Request(**(values | changes))  # type: ignore[arg-type]


def test_what_is_not_alike_is_refused_before_anything_is_installed(
    xen_lab: Lab, cluster: Orchestrator
) -> None:
    """Guests of the lab's KVM hosts are emulated, those of its Xen hosts are not by Xen."""
    with pytest.raises(Invalid, match=r"(?s)not alike.*guests run: .*\(h1\).*\(x1\)"):
        Benchmark(cluster, request(xen_lab, unlike=False), lambda _: None).run()
    assert cluster.list() == ()


@pytest.mark.thorough
def test_both_start_what_was_cloned_and_the_report_says_that_they_are_not_alike(
    xen_lab: Lab, cluster: Orchestrator, tmp_path: Path
) -> None:
    asked = request(xen_lab, methods=("clone",), image=guest.build("tiny").raw_path)
    results = Benchmark(cluster, asked, lambda _: None).run()
    check(results, "clone")
    assert [run.case.hypervisor for run in results.runs] == ["kvm", "xen"]
    assert nothing_is_left(cluster)

    files = {file.name: file for file in write_report([results], tmp_path)}
    assert differences(read(files["report.json"])) != ()
    assert "This is no fair comparison" in files["report.html"].read_text()


def test_a_system_is_installed_and_starts(
    xen_lab: Lab, cluster: Orchestrator, tmp_path: Path
) -> None:
    """On Xen as well with VORCH_THOROUGH=1: that takes minutes."""
    began = time.monotonic()
    hosts = much((KVM, XEN), (KVM,))
    pools = {f"disks-{host}": "" for host in hosts}
    asked = request(xen_lab, hosts=hosts, pools=pools, consoles=tmp_path / "consoles")
    results = Benchmark(cluster, asked, lambda _: None).run()
    took = time.monotonic() - began
    check(results, "debootstrap")
    for run in results.runs:
        # Every phase does something.
        assert all(one.seconds > 0.01 for one in run.phases)
        # The packages came over the network, and the guest's processor worked.
        assert run.amounts["net_received_bytes"] > 20 * 1024**2
        assert 1 < run.amounts["guest_cpu_s"] < took
    assert results.runs[0].amounts["disk_written_bytes"] > 50 * 1024**2
    assert sum(run.seconds for run in results.runs) < took
    # Whoever wants to know more has all that the guest said, from its first to its last mark.
    consoles = [file.read_bytes() for file in (tmp_path / "consoles").iterdir()]
    assert len(consoles) == len(results.runs)
    for said in consoles:
        assert said.index(b"mark kernel") < said.index(b"mark packages") < said.index(b"mark up")
    assert nothing_is_left(cluster)


def check(results: Results, method: str) -> None:
    assert [run.spoilt for run in results.runs] == ["" for _ in results.runs]
    for run in results.runs:
        assert [one.name for one in run.phases] == [name for name, _ in PHASES[method]]


def nothing_is_left(cluster: Orchestrator) -> bool:
    left = [one for host in (KVM, XEN) for one in cluster.volume_list(f"disks-{host}")]
    return cluster.list() == () and left == []
