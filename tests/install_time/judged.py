"""Results as a benchmark would have found them, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from vorch_install_time import Case, Results, Run
from vorch_install_time.marks import PHASES, Phase

KVM, XEN = "h1", "x1"
HOSTS = {
    KVM: {"hypervisor": "kvm", "hypervisor version": "QEMU 7.2", "libvirt": "9.0.0", "cpu": "E"},
    XEN: {"hypervisor": "xen", "hypervisor version": "Xen 4.17", "libvirt": "9.0.0", "cpu": "E"},
}
POOLS = {
    "l1": {"kind": "local", "format": "qcow2 file", "networks": "none"},
    "fast": {"kind": "rbd", "format": "RBD image", "networks": "two", "copies": "3"},
}


def run(host: str, pool: str, number: int, seconds: float, **changes: Any) -> Run:
    """One whose phases took so long each."""
    method = changes.pop("method", "debootstrap")
    facts = POOLS[pool]
    case = Case(
        method=method,
        hypervisor=HOSTS[host]["hypervisor"],
        storage=facts["kind"],
        networks=facts["networks"],
    )
    values: dict[str, Any] = {
        "case": case,
        "host": changes.pop("called", host),
        "pool": pool,
        "number": number,
        "began_at": 1_700_000_000.0 + number,
        "phases": tuple(Phase(name=name, seconds=seconds) for name, _ in PHASES[method]),
        "amounts": {"guest_cpu_s": 2 * seconds, "disk_written_bytes": 1024.0**2},
    }
    return Run(**(values | changes))


def results(*runs: Run, **changes: Any) -> Results:
    values: dict[str, Any] = {
        "began_at": 1_700_000_000.0,
        "setup": {"memory MiB": "1024", "mirror": "http://a/debian"},
        "hosts": HOSTS,
        "pools": POOLS,
        "runs": runs,
    }
    return Results(**(values | changes))


def both(count: int = 3) -> Results:
    """Alike, and Xen takes twice as long."""
    every = [
        run(host, "fast", number, seconds + number / 10)
        for number in range(1, count + 1)
        for host, seconds in ((KVM, 1.0), (XEN, 2.0))
    ]
    return results(*every)
