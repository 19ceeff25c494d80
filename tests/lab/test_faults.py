"""Every fault does what it says, seen past the lab's own words; and `heal` undoes it."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from tests.lab import bare
from vorch import lab as labs
from vorch.errors import Conflict, Invalid, NotFound, Unreachable, Unsupported
from vorch.lab import Lab
from vorch.lab.host import TLS_PORT
from vorch.lab.spec import BMC_PASSWORD, BMC_USER

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]
# A port that nobody listens on: a host that is there refuses it, which is an answer.
CLOSED_PORT = 9
KNOCK_TIMEOUT_S = 1.5


def knock(address: str, port: int = CLOSED_PORT) -> str:
    """ "open", "refused", or "silent" where nobody is there."""
    try:
        socket.create_connection((address, port), timeout=KNOCK_TIMEOUT_S).close()
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "silent"
    return "open"


def knocks(lab: Lab, host: str) -> tuple[str, str, str]:
    """libvirt's port, then a closed one on the management and on the storage network."""
    management, storage = lab.spec.management_address(host), lab.spec.storage_address(host)
    return knock(management, TLS_PORT), knock(management), knock(storage)


WELL = ("open", "refused", "refused")


def names_on(lab: Lab, host: str) -> list[str]:
    with bare.connected(lab, host) as connection:
        return sorted(domain.name() for domain in connection.listAllDomains())


@pytest.fixture
def lab(fresh_lab: Lab) -> Iterator[Lab]:
    yield fresh_lab
    fresh_lab.heal()
    status = fresh_lab.status()
    assert status.ceph is not None
    assert status.ceph.health == "HEALTH_OK"
    assert [knocks(fresh_lab, host) for host in fresh_lab.spec.host_names] == [WELL] * 3
    assert {host.bmc for host in status.hosts} == {"ok"}
    assert all(runs for _, runs in status.daemons)


def empty_vm(lab: Lab, host: str, name: str) -> None:
    """A VM with no disk: its BIOS looks for one for ever."""
    with bare.connected(lab, host) as connection:
        connection.createXML(
            f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>"
            "<os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"
        )


def test_power_off_ends_everything_at_once(lab: Lab) -> None:
    empty_vm(lab, "h2", "doomed")
    inside = int(
        subprocess.run(
            lab.command("h2", ["sh", "-c", "pgrep -c . || true"]),
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )
    assert inside >= 3
    lab.power_off("h2")
    assert knocks(lab, "h2") == ("silent",) * 3
    assert knocks(lab, "h1") == WELL
    row = lab.status().hosts[1]
    assert (row.power, row.libvirt, row.vms) == (False, "off", ())
    with pytest.raises(Conflict, match="power is off"):
        lab.command("h2", ["true"])
    lab.power_on("h2")
    # On a busy machine its networks take a moment longer than its libvirt.
    bare.eventually(lambda: knocks(lab, "h2") == WELL, "it answers everywhere", 30)
    assert names_on(lab, "h2") == []


def test_a_host_keeps_its_files_over_a_power_cut_and_forgets_its_runtime(lab: Lab) -> None:
    script = (
        "echo kept > /var/lib/libvirt/images/kept; echo gone > /run/gone; echo gone > /tmp/gone"
    )
    subprocess.run(lab.command("h1", ["sh", "-c", script]), check=True)
    # What is in a host's own /tmp and /run is not in this machine's.
    assert not Path("/tmp/gone").exists()
    assert not Path("/run/gone").exists()
    with bare.connected(lab, "h1") as connection:
        before = connection.getCapabilities()
    lab.reboot("h1")
    listing = "cat /var/lib/libvirt/images/kept; ls /run/gone /tmp/gone 2>&1 | grep -c 'No such'"
    seen = subprocess.run(
        lab.command("h1", ["sh", "-c", listing]), capture_output=True, text=True, check=True
    ).stdout.split()
    assert seen == ["kept", "2"]
    with bare.connected(lab, "h1") as connection:
        assert connection.getCapabilities() == before


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("management", ("silent", "silent", "refused")),
        ("storage", ("open", "refused", "silent")),
        ("both", ("silent", "silent", "silent")),
    ],
)
def test_cut_silences_that_network_and_no_other(
    lab: Lab, network: str, expected: tuple[str, str, str]
) -> None:
    empty_vm(lab, "h3", "alive")
    lab.cut("h3", network)
    assert knocks(lab, "h3") == expected
    # Its VMs know nothing of it.
    assert lab.status().hosts[2].vms == ("alive",)
    # A cut cable stays cut when the power comes back.
    lab.reboot("h3")
    assert knocks(lab, "h3") == expected
    lab.heal()
    assert knocks(lab, "h3") == WELL


def test_hang_stops_libvirt_and_leaves_the_vms(lab: Lab) -> None:
    empty_vm(lab, "h1", "alive")
    lab.hang("h1")
    # The kernel still takes connections; nobody answers in them.
    assert knocks(lab, "h1") == WELL
    asked = subprocess.run(
        ["timeout", "3", "virsh", "-q", "-c", lab.spec.uri("h1"), "list"], capture_output=True
    )
    assert asked.returncode == 124
    row = lab.status().hosts[0]
    assert (row.libvirt, row.vms) == ("hung", ("alive",))
    lab.heal()
    assert names_on(lab, "h1") == ["alive"]


def test_kill_qemu_kills_that_one(lab: Lab) -> None:
    empty_vm(lab, "h1", "one")
    empty_vm(lab, "h1", "two")
    assert lab.kill_qemu("h1", "one") == ("one",)
    bare.eventually(lambda: names_on(lab, "h1") == ["two"], "libvirt notices")
    with pytest.raises(NotFound, match="h1 runs two"):
        lab.kill_qemu("h1", "one")
    assert lab.kill_qemu("h1") == ("two",)
    assert lab.kill_qemu("h1") == ()


def test_osd_kill_is_seen_by_the_monitors(lab: Lab) -> None:
    lab.osd_kill(1)

    def seen() -> bool:
        ceph = lab.status().ceph
        return ceph is not None and (ceph.health, ceph.osds_up) == ("HEALTH_WARN", 2)

    bare.eventually(seen, "the monitors notice")
    assert dict(lab.status().daemons)["osd.1"] is False
    with pytest.raises(NotFound, match="does not run"):
        lab.osd_kill(1)


def test_an_osd_is_replaced_and_the_data_comes_back(lab: Lab) -> None:
    with bare.pool_of(lab) as pool:
        for number in range(50):
            pool.write_full(f"object-{number}", b"content" * 1000)
    identity = (lab.spec.ceph_folder / "osd.0/fsid").read_text()
    lab.osd_replace(0)
    assert (lab.spec.ceph_folder / "osd.0/fsid").read_text() != identity
    lab.heal()
    # What only the replaced one's peers had until now.
    lab.osd_kill(1)
    with bare.pool_of(lab) as pool:
        for number in range(50):
            assert pool.read(f"object-{number}", 7000) == b"content" * 1000


def test_without_its_monitor_ceph_lets_nobody_in(lab: Lab) -> None:
    lab.mon_kill("a")
    status = lab.status()
    assert status.ceph is not None
    assert status.ceph.health == "silent"
    with pytest.raises(NotFound, match=r"this lab has mon\.a, mgr\.x, osd\.0"):
        lab.mon_kill("b")


def test_slow_is_slow_or_says_why_not(lab: Lab) -> None:
    trial = ["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    if subprocess.run(lab.command("h2", trial), capture_output=True).returncode:
        with pytest.raises(Unsupported, match="sch_netem"):
            lab.slow("h1", "management", delay_ms=150)
        # Nothing of it stays behind.
        assert lab.status().hosts[0].management == "up"
        return
    lab.slow("h1", "management", delay_ms=150)
    began = time.monotonic()
    assert knock(lab.spec.management_address("h1")) == "refused"
    assert time.monotonic() - began > 0.25
    assert lab.status().hosts[0].management == "slow"
    lab.heal()
    began = time.monotonic()
    assert knock(lab.spec.management_address("h1")) == "refused"
    assert time.monotonic() - began < 0.25


# --- BMCs -------------------------------------------------------------------------------------


def redfish(lab: Lab, host: str, order: str | None = None) -> str:
    """The power state after the order, over the real protocol, with the lab's CA."""
    url = lab.spec.bmc_url(host)
    word = base64.b64encode(f"{BMC_USER}:{BMC_PASSWORD}".encode()).decode()
    headers = {"Authorization": f"Basic {word}", "Content-Type": "application/json"}
    context = ssl.create_default_context(cafile=str(lab.spec.ca_file))
    if order is not None:
        body = json.dumps({"ResetType": order}).encode()
        target = f"{url}/Actions/ComputerSystem.Reset"
        request = urllib.request.Request(target, data=body, headers=headers)
        urllib.request.urlopen(request, timeout=20, context=context).close()
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=3, context=context) as answer:
        return str(json.load(answer)["PowerState"])


def ipmi(lab: Lab, host: str, *order: str) -> str:
    """What the real ipmitool hears."""
    command = ["ipmitool", "-I", "lanplus", "-H", lab.spec.bmc_address(host), "-U", BMC_USER]
    done = subprocess.run(
        [*command, "-P", BMC_PASSWORD, "chassis", "power", *order],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_a_bmc_cuts_the_power_over_redfish(lab: Lab) -> None:
    assert redfish(lab, "h2") == "On"
    assert redfish(lab, "h2", "ForceOff") == "Off"
    assert knocks(lab, "h2") == ("silent",) * 3
    # It answers while its host is off, and it is its host's alone.
    assert redfish(lab, "h1") == "On"
    assert redfish(lab, "h2", "On") == "On"
    assert knocks(lab, "h2") == WELL


def test_a_bmc_cuts_the_power_over_ipmi(lab: Lab) -> None:
    assert ipmi(lab, "h3", "status") == "Chassis Power is on"
    ipmi(lab, "h3", "off")
    assert ipmi(lab, "h3", "status") == "Chassis Power is off"
    assert knocks(lab, "h3") == ("silent",) * 3


def test_a_host_that_lost_its_power_is_off_for_its_bmc(lab: Lab) -> None:
    lab.power_off("h1")
    assert redfish(lab, "h1") == "Off"


def test_a_silent_bmc_says_nothing(lab: Lab) -> None:
    lab.bmc_break("h1", "silent")
    assert lab.status().hosts[0].bmc == "silent"
    with pytest.raises(OSError, match="timed out"):
        redfish(lab, "h1")
    assert redfish(lab, "h2") == "On"
    lab.heal()
    assert redfish(lab, "h1") == "On"


def test_a_refusing_bmc_fails_every_order(lab: Lab) -> None:
    lab.bmc_break("h1", "refuse")
    with pytest.raises(urllib.error.HTTPError, match="503"):
        redfish(lab, "h1", "ForceOff")
    assert knocks(lab, "h1") == WELL


def test_a_stuck_bmc_obeys_and_does_nothing(lab: Lab) -> None:
    """Why a fence has to read the power state back."""
    lab.bmc_break("h1", "stuck")
    assert redfish(lab, "h1", "ForceOff") == "On"
    assert knocks(lab, "h1") == WELL


def test_orders_that_make_no_sense(lab: Lab) -> None:
    for wrong in (
        lambda: lab.power_off("h9"),
        lambda: lab.log_files("osd.77"),
        lambda: lab.osd_kill(77),
    ):
        with pytest.raises(NotFound):
            wrong()
    with pytest.raises(Invalid, match="use management, storage or both"):
        lab.cut("h1", "none")
    with pytest.raises(Invalid, match="use one of silent"):
        lab.bmc_break("h1", "loud")


# --- the wire -----------------------------------------------------------------------------------


def test_nobody_gets_in_without_a_certificate_of_the_lab(lab: Lab, tmp_path: Path) -> None:
    import trustme

    stranger = trustme.CA()
    leaf = stranger.issue_cert("vorch-client")
    (tmp_path / "cacert.pem").write_bytes(lab.spec.ca_file.read_bytes())
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "clientcert.pem"))
    leaf.private_key_pem.write_to_path(str(tmp_path / "clientkey.pem"))
    address = lab.spec.management_address("h1")
    with pytest.raises(libvirt.libvirtError):
        libvirt.open(f"qemu+tls://{address}/system?pkipath={tmp_path}")
    # And no other door is open.
    assert knock(address, 16509) == "refused"
    libvirt.open(lab.spec.uri("h1")).close()


def test_hosts_reach_each_other_by_name_and_nothing_else(lab: Lab) -> None:
    peer = lab.spec.peer_uri("h2")
    seen = subprocess.run(
        lab.command("h1", ["virsh", "-q", "-c", peer, "hostname"]),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert seen == "h2"
    routes = subprocess.run(
        lab.command("h1", ["ip", "route"]), check=True, capture_output=True, text=True
    ).stdout
    assert "default" not in routes


# --- OSDs on the hosts ----------------------------------------------------------------------------


def test_a_hyperconverged_host_takes_its_osds_along() -> None:
    made = labs.up("hyper", hosts=3, osds=4, mons=3, hyperconverged=True)
    try:
        assert [host.osds for host in made.status().hosts] == [(0, 3), (1,), (2,)]
        made.power_off("h1")

        def seen() -> bool:
            ceph = made.status().ceph
            return ceph is not None and ceph.osds_up == 2

        bare.eventually(seen, "two OSDs are down")
        made.mon_kill("b")
        # Two of three monitors go on.
        with bare.pool_of(made) as pool:
            pool.write_full("still", b"works")
        made.heal()
        assert [host.osds for host in made.status().hosts] == [(0, 3), (1,), (2,)]
    finally:
        labs.down("hyper")
    with pytest.raises(NotFound):
        Lab.find("hyper")


def test_a_lab_whose_daemon_is_gone_says_so() -> None:
    made = labs.up("short", hosts=1, osds=0)
    try:
        with pytest.raises(Unsupported, match="without --no-ceph"):
            made.osd_kill(0)
        labs.down("short")
        with pytest.raises(Unreachable, match="vorch lab down"):
            made.status()
    finally:
        if "short" in labs.names():
            labs.down("short")
