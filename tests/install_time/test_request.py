"""What is asked for is judged before anything is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vorch import Invalid, Pool
from vorch.model import HostFacts, Node
from vorch_install_time import Request, media, surroundings
from vorch_install_time.engine import _check, _label
from vorch_install_time.mirror import PLAIN_PATH

IMAGE = Path(__file__)


def request(**changes: Any) -> Request:
    values: dict[str, Any] = {
        "hosts": ("h1",),
        "pools": {"fast": "two"},
        "methods": ("debootstrap",),
        "serve": "10.0.0.1",
    }
    return Request(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"methods": ()}, "cannot measure nothing"),
        ({"methods": ("kickstart",)}, "cannot measure kickstart"),
        ({"packages": "huge"}, "no such set"),
        ({"runs": 0}, "1 to 1000"),
        ({"serve": ""}, "without packages"),
        ({"mirror": "http://m/debian"}, "not both"),
        ({"serve": "", "mirror": "http://m/debian", "packages": "short"}, "--serve ADDRESS"),
        ({"installer": IMAGE.parent}, "without --method installer"),
        ({"methods": ("installer",), "suite": "trixie"}, "no parts of its own"),
        ({"methods": ("clone",)}, "without an image"),
        ({"methods": ("import",), "image": Path("/none")}, "no such file"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        _check(request(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        *({}, {"packages": "short"}, {"serve": "", "mirror": "http://m/debian"}),
        {"methods": ("import", "clone"), "serve": "", "image": IMAGE},
        {"methods": ("installer",), "suite": "trixie", "installer": IMAGE.parent},
        {"methods": ("debootstrap",), "suite": "trixie"},
    ],
)
def test_what_can_be_is_not(changes: dict[str, Any]) -> None:
    _check(request(**changes))


@pytest.mark.parametrize(
    ("uri", "storage", "label", "found"),
    [
        ("qemu+tls://10.0.0.1/system", "10.1.0.1", "", "two"),
        ("xen+tls://10.0.0.1/system", "10.0.0.1", "", "one"),
        ("qemu+tls://10.0.0.1/system", "10.1.0.1", "one", "one"),
    ],
)
def test_networks_are_told_by_addresses_unless_someone_says(
    uri: str, storage: str, label: str, found: str
) -> None:
    node = Node(name="h1", uri=uri, storage_address=storage)
    assert _label("h1", node, Pool(name="fast", url="rbd://x"), label) == found


@pytest.mark.parametrize(
    ("label", "why"), [("", "storage address is not"), ("three", "one or two")]
)
def test_networks_that_nobody_knows_are_asked_for(label: str, why: str) -> None:
    node = Node(name="h1", uri="qemu:///system")
    with pytest.raises(Invalid, match=why):
        _label("h1", node, Pool(name="fast", url="rbd://x"), label)


def test_a_preseed_has_no_blanks_left() -> None:
    text = media.preseed("http://10.0.0.1:81/debian", "bookworm", "/dev/xvda")
    assert not [line for line in text.splitlines() if "@" in line and not line.startswith("#")]
    assert "d-i mirror/http/hostname string 10.0.0.1:81\n" in text
    assert "d-i mirror/http/directory string /debian\n" in text
    with pytest.raises(Invalid, match="http:"):
        media.preseed("ftp://10.0.0.1/debian", "bookworm", "/dev/vda")


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("debian/dists/bookworm/InRelease", True),
        ("debian/pool/main/g/gcc-12/gcc-12-base_12.2.0-14+deb12u1_amd64.deb", True),
        ("debian/../etc/passwd", False),
        ("debian/.hidden", False),
        ("debian//x", False),
        ("", False),
        ("debian/a b", False),
    ],
)
def test_a_mirror_never_leaves_its_folder(path: str, plain: bool) -> None:
    assert bool(PLAIN_PATH.fullmatch(path)) is plain


LOOKED = """== /proc/version
Linux version 6.1.0-50-amd64 (debian@x) #1 SMP
== /sys/class/dmi/id/sys_vendor
QEMU
== /sys/class/dmi/id/product_name
Standard PC (Q35 + ICH9, 2009)
== /proc/cpuinfo
processor\t: 0
model name\t: AMD  EPYC Processor
== nproc
2
"""


def test_a_look_into_a_host_is_read() -> None:
    assert surroundings.read_look(LOOKED) == {
        "host kernel": "6.1.0-50-amd64",
        "machine": "QEMU Standard PC (Q35 + ICH9, 2009)",
        "processor": "AMD EPYC Processor",
    }
    assert surroundings.read_look("") == {}


def test_a_hypervisor_in_a_machine_is_not_one_on_metal() -> None:
    facts = HostFacts(hypervisor="xen", cpus=2, memory_mib=1024, accelerator="xen")
    node = Node(name="x1", uri="xen:///system", facts=facts)
    assert surroundings.host_facts(node, None)["guests run"] == "on the processor"
    inside = surroundings.host_facts(node, lambda host, line: LOOKED)
    assert inside["guests run"] == "on the processor of a virtual machine"


def test_counters_of_cards_are_read_and_subtracted() -> None:
    text = "Inter-|\n face |bytes\n  lo: 9 0 0 0 0 0 0 0 9 0\neth0: {} 1 0 0 0 0 0 0 {} 1 0 0\n"
    sights = [
        surroundings.Sight(
            at=0.0, host_busy_ns=busy, cards=surroundings.read_cards(text.format(*both)), ceph=ceph
        )
        for busy, both, ceph in ((1, (10, 20), (5, 5)), (2_000_000_001, (110, 25), (6, 9)))
    ]
    assert surroundings.between(*sights) == {
        "host_cpu_s": 2.0,
        "host_eth0_received_bytes": 100,
        "host_eth0_sent_bytes": 5,
        "ceph_read_bytes": 1,
        "ceph_written_bytes": 4,
    }


def test_a_way_in_needs_a_place_for_the_name() -> None:
    with pytest.raises(Invalid, match=r"\{host\} is missing"):
        surroundings.way_in("ssh root@h1")
    assert surroundings.way_in("env host={host}")("h1", "echo $host") == "h1\n"
    with pytest.raises(Invalid, match="status 3"):
        surroundings.way_in("env host={host}")("h1", "exit 3")
