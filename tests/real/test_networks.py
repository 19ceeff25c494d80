"""Networks on a real host: what they let through and what not, and that they go without a trace."""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.guests import (
    PREFIX,
    GuestConsole,
    boot,
    embedded_cluster,
    eventually,
    guest_image,
    virsh,
)
from vorch import Conflict, Invalid, Orchestrator, Unsupported

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]

VM = PREFIX + "net"
NAT, INNER, WIRE = PREFIX + "nat", PREFIX + "inner", PREFIX + "wire"
BRIDGE = "e2ebr0"
# For documentation: nobody routes it, so it is surely nobody's but this test's.
OUTSIDE = "198.51.100.1"
BRIDGE_ADDRESS, GUEST_ADDRESS = "203.0.113.1", "203.0.113.2"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def outside(libvirt_system: str) -> Iterator[str]:
    """A machine that can only be reached through this host: a network namespace behind a wire."""
    name, near, far = "e2e-outside", "e2e-near", "e2e-far"
    try:
        ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network namespaces can be made here")
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        ip("addr", "add", "198.51.100.2/24", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", name, "addr", "add", f"{OUTSIDE}/24", "dev", far)
        ip("-n", name, "link", "set", far, "up")
        yield OUTSIDE
    finally:
        # The wire goes with the namespace that its far end is in.
        ip("netns", "delete", name)


@pytest.fixture(scope="module")
def bridge(libvirt_system: str) -> Iterator[str]:
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no bridge can be made here")
    try:
        ip("addr", "add", f"{BRIDGE_ADDRESS}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        yield BRIDGE
    finally:
        ip("link", "delete", BRIDGE)


@pytest.fixture(scope="module")
def cluster(libvirt_system: str) -> Iterator[Orchestrator]:
    image = guest_image("tiny")
    with embedded_cluster() as cluster:
        cluster.network_create(NAT)
        cluster.network_create(INNER, kind="isolated")
        cluster.image_import("tiny", str(image.path), memory_mib=image.memory_mib)
        yield cluster


@pytest.fixture(scope="module")
def console(cluster: Orchestrator) -> Iterator[GuestConsole]:
    cluster.create(VM, image="tiny", networks=(NAT, INNER), cloud_init=None)
    with boot(cluster, VM) as console:
        console.log_in()
        yield console


def host_of(cluster: Orchestrator, network: str) -> str:
    """The host's own address on a network of vorch's."""
    return str(ipaddress.IPv4Network(str(cluster.network_show(network).subnet))[1])


def test_nat_gives_an_address_and_a_way_out(
    cluster: Orchestrator, console: GuestConsole, outside: str
) -> None:
    for number, network in enumerate((NAT, INNER)):
        subnet = ipaddress.IPv4Network(str(cluster.network_show(network).subnet))
        command = f"ip -4 -o addr show dev eth{number} | grep -o 'inet [0-9.]*'"
        seen = eventually(lambda c=command: console.run(f"{c}; true"), bool)  # type: ignore[misc]
        assert ipaddress.IPv4Address(seen.removeprefix("inet ")) in subnet
    console.until(f"ip route | grep -c 'default via {host_of(cluster, NAT)} '", "1")
    console.run(f"ping -c 1 -w 20 {host_of(cluster, NAT)}")
    console.run(f"ping -c 1 -w 20 {outside}")


def test_an_isolated_network_leads_nowhere(
    cluster: Orchestrator, console: GuestConsole, outside: str
) -> None:
    inner = host_of(cluster, INNER)
    console.run(f"ping -c 1 -w 20 {inner}")
    console.run(f"ip route add {outside} via {inner}")
    assert console.run(f"ping -c 3 -w 5 {outside} > /dev/null; echo $?") == "1"
    console.run(f"ip route del {outside} via {inner}")


def test_a_bridge_of_the_hosts_is_used_as_it_is(
    cluster: Orchestrator, console: GuestConsole, bridge: str
) -> None:
    cluster.network_create(WIRE, kind="bridge", bridge=bridge)
    cluster.nic_attach(VM, network=WIRE)
    nic = cluster.look().vm(VM).nics[-1]
    try:
        # By its address: which name the kernel gave it depends on those that were there before, and
        # the host answers for the bridge's address on any other network, too.
        found = f"grep -l {nic.mac} /sys/class/net/*/address"
        console.until(f"{found} | wc -l", "1")
        device = console.run(found).strip().split("/")[4]
        # The guest asks for an address there by itself, and begins with taking all others away.
        own = f"ip link set {device} up; ip addr replace {GUEST_ADDRESS}/24 dev {device}"
        console.until(f"{own} && ping -c 1 -w 5 {BRIDGE_ADDRESS} >/dev/null && echo there", "there")
        # The host's kernel knows it from the answer to the ping, a moment later.
        eventually(
            lambda: [one.ip for one in cluster.show(VM).addresses if one.mac == nic.mac],
            lambda told: GUEST_ADDRESS in told,
        )
        with pytest.raises(Conflict, match=VM):
            cluster.network_delete(WIRE)
    finally:
        cluster.nic_detach(VM, nic.name)
        cluster.network_delete(WIRE)
    # It was there before, and is not vorch's to take away.
    assert Path("/sys/class/net", bridge).exists()


def test_what_this_host_cannot_have_is_refused_at_once(cluster: Orchestrator, bridge: str) -> None:
    facts = cluster.node_show(cluster.node_list()[0].name).facts
    assert facts is not None
    if not facts.bridge_vlans:
        with pytest.raises(Unsupported, match="VLAN"):
            cluster.network_create(PREFIX + "v7", kind="bridge", bridge=bridge, vlan=7)
    with pytest.raises(Invalid, match="e2enone"):
        cluster.network_create(PREFIX + "none", kind="bridge", bridge="e2enone")
    names = [network.name for network in cluster.network_list()]
    assert names == ["default", INNER, NAT]


def test_subnets_in_use_are_avoided(cluster: Orchestrator, outside: str) -> None:
    used = [ipaddress.IPv4Network(str(one.subnet)) for one in cluster.network_list()]
    assert not any(a.overlaps(b) for a in used for b in used if a is not b)
    with pytest.raises(Conflict, match="in use"):
        cluster.network_create(PREFIX + "twice", subnet=str(used[0]))
    # Those that the host knows a way to are no less in use.
    ip("route", "add", "10.83.7.0/24", "via", outside)
    try:
        with pytest.raises(Conflict, match=r"10\.83\.7\.0/24"):
            cluster.network_create(PREFIX + "clash", subnet="10.83.0.0/16")
    finally:
        ip("route", "delete", "10.83.7.0/24")


def test_a_deleted_network_leaves_nothing(cluster: Orchestrator) -> None:
    cluster.network_create(PREFIX + "gone", kind="isolated", dhcp=False)
    bridge = cluster.network_show(PREFIX + "gone").bridge
    assert Path("/sys/class/net", bridge).exists()
    assert bridge in virsh("net-list", "--name")
    cluster.network_delete(PREFIX + "gone")
    assert not Path("/sys/class/net", bridge).exists()
    assert bridge not in virsh("net-list", "--all", "--name")
    with pytest.raises(Conflict, match=VM):
        cluster.network_delete(NAT)


def test_the_kernels_table_of_neighbours_is_read() -> None:
    from vorch.drivers.libvirt_figures import neighbours

    table = (
        "IP address       HW type     Flags       HW address            Mask     Device\n"
        "203.0.113.2      0x1         0x2         52:54:00:00:00:01     *        br0\n"
        "203.0.113.3      0x1         0x0         00:00:00:00:00:00     *        br0\n"
    )
    seen = {"hwaddr": "52:54:00:00:00:01", "addrs": [{"addr": "203.0.113.2"}]}
    assert neighbours(table) == {"203.0.113.2": seen}


def test_a_network_that_vanished_is_made_again_by_a_start(
    cluster: Orchestrator, console: GuestConsole
) -> None:
    cluster.stop(VM, timeout_s=120)
    bridge = cluster.network_show(NAT).bridge
    name = next(one for one in virsh("net-list", "--name").split() if bridge in one)
    # As after the host's restart: the host itself remembers nothing.
    virsh("net-destroy", name)
    cluster.start(VM)
    assert Path("/sys/class/net", bridge).exists()
    cluster.stop(VM, force=True)
