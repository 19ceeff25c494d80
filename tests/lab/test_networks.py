"""Networks across real hosts: overlays between them, ports that lead to guests, other bridges."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator

import pytest

import vorch
from tests.lab import bare
from tests.lab.clusters import cluster_on
from tests.real.guests import READY, GuestConsole
from vorch import CloudInit, Orchestrator, StaticAddress
from vorch.lab import Lab, guest

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1800)]

HOOK = "/etc/libvirt/hooks/network.d/vorch"
# A guest with all its neighbours busy; it is never the time that fails a test.
BOOT_TIMEOUT_S = 600.0
NOT_READY = (ConnectionRefusedError, TimeoutError, OSError)


def on(lab: Lab, host: str, *command: str) -> str:
    """What a program prints on a host."""
    whole = lab.command(host, command)
    return subprocess.run(whole, check=True, capture_output=True, text=True).stdout


def restart_libvirt(lab: Lab, host: str) -> None:
    """As an administrator does it: its VMs and networks go on."""
    on(lab, host, "sh", "-c", "kill $(cat /run/libvirtd.pid)")
    bare.eventually(
        lambda: on(lab, host, "sh", "-c", "kill -0 $(cat /run/libvirtd.pid) 2>&1; echo") != "\n",
        "libvirtd has ended",
    )
    lab.heal()


@contextlib.contextmanager
def plugged_in(lab: Lab, hosts: tuple[str, ...]) -> Iterator[Orchestrator]:
    """A cluster of these hosts, with the tiny guest as an image."""
    with cluster_on(lab, hosts) as cluster:
        image = guest.build("tiny")
        cluster.image_import("tiny", str(image.path), pool="fast")
        try:
            yield cluster
        finally:
            for one in cluster.list():
                with contextlib.suppress(vorch.VorchError):
                    cluster.delete(one.name, force=True, purge=True)


def start(
    cluster: Orchestrator, name: str, node: str, *networks: str, address: str | None = None
) -> GuestConsole:
    seed = None
    if address is not None:
        seed = CloudInit(addresses=(StaticAddress(address=address),))
    cluster.create(
        name,
        image="tiny",
        memory_mib=128,
        networks=networks,
        node=node,
        graphics=False,
        cloud_init=seed,
    )
    cluster.start(name)
    console = GuestConsole(cluster, name)
    console.expect(READY, BOOT_TIMEOUT_S)
    console.log_in()
    return console


def again(cluster: Orchestrator, name: str) -> GuestConsole:
    """Its console on the host where it is now, with somebody logged in already."""
    console = GuestConsole(cluster, name)
    console.send("")
    console.expect(r"[#$] $")
    return console


def peers(lab: Lab, host: str) -> set[str]:
    """Where a host sends what is for everybody on the overlay."""
    table = on(lab, host, "bridge", "fdb", "show")
    return set(re.findall(r"^00:00:00:00:00:00 dev vx-\S+ dst (\S+)", table, re.MULTILINE))


def left_by_hook(lab: Lab, host: str) -> str:
    return on(
        lab,
        host,
        "sh",
        "-c",
        "ip -o link | grep -o 'vx-[^:]*'; ls /run/vorch/network 2>/dev/null;"
        " nft list tables | grep vorch; iptables -S | grep vorch; true",
    )


def test_an_overlay_spans_the_hosts(fresh_lab: Lab) -> None:
    lab = fresh_lab
    address = lab.spec.management_address
    with plugged_in(lab, ("h1", "h2")) as cluster:
        cluster.network_create("inner", kind="overlay")
        assert [check.level for check in cluster.network_check("inner")] == ["ok", "ok"]
        assert (peers(lab, "h1"), peers(lab, "h2")) == ({address("h2")}, {address("h1")})
        with (
            start(cluster, "one", "h1", "inner", address="10.99.0.1/24") as one,
            start(cluster, "two", "h2", "inner", address="10.99.0.2/24") as two,
        ):
            # It was told how long packets may be, and the longest ones arrive whole.
            assert one.run("cat /sys/class/net/eth0/mtu") == "1450"
            one.run("ping -c 2 -w 30 -s 1422 10.99.0.2")
            # One connection, and an echo for each second of it.
            two.run("(nc -l -p 7 -e cat &) ; true")
            one.run("(while :; do echo beat; sleep 1; done | nc 10.99.0.2 7 >/tmp/beats &) ; true")
            one.until("[ $(wc -l < /tmp/beats) -gt 2 ] && echo yes", "yes")

            # The third host is made known to the others, and the guest goes there as it talks.
            cluster.node_add("h3", lab.spec.uri("h3"))
            assert peers(lab, "h1") == {address("h2"), address("h3")}
            assert peers(lab, "h2") == {address("h1"), address("h3")}
            cluster.migrate("two", "h3")
            before = int(one.run("wc -l < /tmp/beats"))
            one.until(f"[ $(wc -l < /tmp/beats) -gt {before + 3} ] && echo yes", "yes")

        # Its host dies, comes back knowing nothing, and is on the overlay again.
        lab.power_off("h3")
        lab.power_on("h3")
        assert peers(lab, "h3") == set()
        cluster.start("two")
        assert peers(lab, "h3") == {address("h1"), address("h2")}
        with again(cluster, "one") as one:
            one.until("ping -c 1 -w 3 10.99.0.2 >/dev/null && echo yes", "yes", timeout_s=180)

        # A host that leaves is forgotten by the others.
        cluster.delete("two", force=True, purge=True)
        cluster.node_remove("h3")
        assert (peers(lab, "h1"), peers(lab, "h3")) == ({address("h2")}, set())
        cluster.delete("one", force=True, purge=True)
        cluster.network_delete("inner")
        for host in lab.spec.host_names:
            assert left_by_hook(lab, host) == ""


@contextlib.contextmanager
def listening(lab: Lab, host: str, port: int) -> Iterator[None]:
    """A program of the host's own that has this port."""
    program = (
        f"import socket; s = socket.create_server(('', {port})); print(1, flush=True); input()"
    )
    command = lab.command(host, ("python3", "-c", program))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        yield
        process.communicate(b"\n")


def banner(address: str, port: int) -> bytes:
    """What the guest's SSH server says first, or nothing where no port leads to it."""
    try:
        with socket.create_connection((address, port), timeout=5) as link:
            link.settimeout(5)
            return link.recv(64)
    except NOT_READY:
        return b""


def test_ports_lead_to_a_guest_wherever_it_is(fresh_lab: Lab) -> None:
    lab = fresh_lab
    address = lab.spec.management_address

    def answers(host: str, port: int = 2222) -> bool:
        return banner(address(host), port).startswith(b"SSH-2.0")

    with plugged_in(lab, ("h1", "h2")) as cluster:
        cluster.network_create("out", kind="nat", subnet="10.80.9.0/24")
        with start(cluster, "web", "h1", "out"):
            has = bare.eventually(
                lambda: [one.ip for one in cluster.show("web").addresses], "an address"
            )
            done = cluster.forward_add("web", "2222:22")
            # It keeps the address that it has, so that works at once.
            assert has[0] in done.plan.why
            assert "when it next asks" not in done.plan.why
            bare.eventually(lambda: answers("h1"), "the port leads to the guest")
            assert not answers("h2")
            # For other guests there, too.
            with start(cluster, "other", "h1", "out") as other:
                asked = f"sleep 5 | nc {address('h1')} 2222 | head -c 7; true"
                other.until(asked, "SSH-2.0")
            cluster.delete("other", force=True, purge=True)
            # What a program of the host's own listens on is refused, and so is what it needs.
            with pytest.raises(vorch.Conflict, match="SSH"):
                cluster.forward_add("web", "22:22")
            in_use = pytest.raises(vorch.Unsupported, match="4000/tcp is in use")
            with listening(lab, "h1", 4000), in_use:
                cluster.forward_add("web", "4000:22")
            # libvirtd reads its firewall anew at each start; the port stays.
            restart_libvirt(lab, "h1")
            assert answers("h1")
            cluster.forward_add("web", "2223:22")
            assert answers("h1", 2223)
            cluster.forward_remove("web", "2223")
            assert not answers("h1", 2223)
            assert answers("h1")

        cluster.migrate("web", "h2")
        bare.eventually(lambda: answers("h2"), "the port has come along")
        assert not answers("h1")
        cluster.stop("web", force=True)
        assert not answers("h2")
        lab.power_off("h2")
        lab.power_on("h2")
        cluster.start("web")
        bare.eventually(lambda: answers("h2"), "the guest is back, and so is its port")
        assert has[0] in [one.ip for one in cluster.show("web").addresses]
        cluster.delete("web", force=True, purge=True)
        assert not answers("h2")
        assert cluster.forward_list() == ()
        cluster.network_delete("out")
        for host in ("h1", "h2"):
            assert left_by_hook(lab, host) == ""


def test_hosts_are_asked_before_a_vm_is_placed(fresh_lab: Lab) -> None:
    lab = fresh_lab
    with plugged_in(lab, ("h1", "h2")) as cluster:
        # The bridge has another name on each host.
        on(lab, "h2", "ip", "link", "add", "br7", "type", "bridge")
        with pytest.raises(vorch.Invalid, match="br7"):
            cluster.network_create("wire", kind="bridge", bridge="br7")
        cluster.network_create("wire", kind="bridge", bridge="br0", bridges={"h2": "br7"})
        with start(cluster, "web", "h1", "wire"):
            pass
        cluster.migrate("web", "h2")
        with bare.connected(lab, "h2") as connection:
            assert "bridge='br7'" in connection.lookupByName("web").XMLDesc(0)
        cluster.migrate("web", "h1")
        with bare.connected(lab, "h1") as connection:
            assert "bridge='br0'" in connection.lookupByName("web").XMLDesc(0)
        # Gone behind vorch's back: said before anything is touched.
        on(lab, "h2", "ip", "link", "del", "br7")
        with pytest.raises(vorch.Unsupported, match=r"'wire' of NIC 'nic0'.*no bridge 'br7'"):
            cluster.migrate("web", "h2")
        assert [one.level for one in cluster.network_check("wire")] == ["ok", "warning"]
        assert "br7" in " ".join(one.detail for one in cluster.doctor())
        cluster.network_change("wire", bridges={"h2": ""})
        assert [one.level for one in cluster.network_check("wire")] == ["ok", "ok"]

        # Without the hook a host can have neither overlays nor forwarded ports, and says so.
        on(lab, "h2", "rm", HOOK)
        restart_libvirt(lab, "h2")
        with pytest.raises(vorch.Unsupported, match="vorch node hook"):
            cluster.network_create("inner", kind="overlay")
        assert left_by_hook(lab, "h1") == ""
        lab.power_off("h2")
        lab.power_on("h2")
        cluster.network_create("inner", kind="overlay")
        # More than the wire between the hosts carries.
        with pytest.raises(vorch.Unsupported, match="carries 1500 bytes, and 9050 are needed"):
            cluster.network_create("large", kind="overlay", mtu=9000)
        cluster.network_delete("inner")


# Words that would do harm where they were run, taken for options, or for paths.
HOSTILE = """<hookData><network>
  <name>vorch-x</name>
  <metadata>
    <vorch:network xmlns:vorch="urn:vorch:network:1" vni="7;touch /run/harm"
        port="$(touch /run/harm)"/>
  </metadata>
  <bridge name='{bridge}' stp='off' delay='0'/>
  <portgroup name='vorch/local/-x'>
  <portgroup name='vorch/peer/`touch /run/harm`'>
  <portgroup name='vorch/forward/tcp/80/52:54:00:00:00:01/1.2.3.4; touch /run/harm/80'>
  <portgroup name='vorch/forward/tcp/999999/52:54:00:00:00:01/1.2.3.4/80'>
  <portgroup name='vorch/forward/icmp/80/52:54:00:00:00:01/1.2.3.4/80'>
</network></hookData>
"""


def test_the_hook_runs_no_word_that_it_is_told(fresh_lab: Lab) -> None:
    lab = fresh_lab
    for bridge in ("../../../run/harm", "-x", "a;touch /run/harm", "waytoolongforalink"):
        for operation in ("start", "started", "updated", "port-created", "stopped"):
            command = lab.command("h1", ("sh", HOOK, "vorch-x@$(touch /run/harm)", operation))
            text = HOSTILE.format(bridge=bridge)
            done = subprocess.run(command, input=text, capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, "")
    assert on(lab, "h1", "sh", "-c", "ls /run/harm /run/vorch 2>/dev/null; true") == ""
    assert left_by_hook(lab, "h1") == ""
    # Networks that are not vorch's are none of its business, whatever is in them.
    command = lab.command("h1", ("sh", HOOK, "default", "started"))
    assert subprocess.run(command, input="<", capture_output=True, text=True).stderr == ""
