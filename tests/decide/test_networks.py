"""Networks across hosts and forwarded ports: values in, plan or refusal out."""

from __future__ import annotations

import dataclasses

import pytest

from tests.decide.worlds import FRESH, OVERHEAD, cluster, kinds, node, vm
from vorch import errors
from vorch.decide import catalog, devices, forwards, hosts, lifecycle, move
from vorch.model import (
    Address,
    Cluster,
    Forward,
    Network,
    Nic,
    Node,
    Pool,
    Power,
    Vm,
)
from vorch.plan import MigrateDomain, Plan, UpdateNetwork

DEFAULT = Network(name="default", kind="nat", bridge="vo-defaul-1", subnet="10.80.0.0/24")
LAN = Network(name="lan", kind="bridge", bridge="br0", bridges={"h2": "br7"})
INNER = Network(name="inner", kind="overlay", bridge="vo-inner-1", dhcp=False, vni=7, mtu=1450)
MAC = "52:54:00:00:01:01"
WEB = Forward(mac=MAC, address="10.80.0.63", host_port=8080, guest_port=80)


def known(name: str) -> Node:
    return dataclasses.replace(node(name), uri=f"qemu+tls://{name}.example.org/system?pkipath=/p")


def world(*vms: Vm, power: Power | None = Power.RUNNING, **other: object) -> Cluster:
    networks = {one.name: one for one in (DEFAULT, LAN, INNER)}
    pools = {"local": Pool(name="local", url="rbd://vms")}
    fields: dict[str, object] = {"networks": networks, "pools": pools, **other}
    return cluster(*vms, power=power, nodes=tuple(map(known, ("h1", "h2", "h3"))), **fields)


def on(*networks: str, name: str = "web", number: int = 1) -> Vm:
    nics = tuple(
        Nic(name=f"nic{i}", mac=f"52:54:00:00:{i + 1:02x}:{number:02x}", network=one)
        for i, one in enumerate(networks)
    )
    return vm(name, number, nics=nics)


def forwarded(*more: Forward, of: Network = DEFAULT) -> dict[str, Network]:
    kept = dataclasses.replace(of, forwards=(WEB, *more))
    return {one.name: one for one in (kept, LAN, INNER)}


def saved(plan: Plan, key: str) -> dict[str, object] | None:
    found = [step for step in plan.steps if step.kind == "save" and step.key == key]
    assert len(found) == 1
    return found[0].after


def migrate(look: Cluster, target: str | None) -> Plan:
    return move.migrate(
        look, "web", target, overhead_mib=OVERHEAD, pause_limit_ms=300, bandwidth_mib_s=0
    )


# --- hosts that cannot have a network


def test_hosts_without_a_network_of_the_vm_are_left_out() -> None:
    lacks = {"h2": {"lan": "there is no bridge 'br7'"}, "h1": {}}
    look = world(on("lan"), lacks=lacks)
    assert migrate(look, None).subject == "web"
    assert "to h3" in migrate(look, None).why
    with pytest.raises(errors.Unsupported, match="h2: it cannot have network 'lan' of NIC 'nic0'"):
        migrate(look, "h2")
    # Another network of that host is no matter.
    assert "to h2" in migrate(world(on("inner"), lacks=lacks), "h2").why


def test_a_start_is_refused_where_its_network_cannot_be() -> None:
    look = world(on("inner"), power=None, lacks={"h1": {"inner": "the hook is not there"}})
    with pytest.raises(errors.Unsupported, match="the hook is not there") as caught:
        lifecycle.start(look, "web", overhead_mib=OVERHEAD)
    assert "smaller" not in caught.value.message
    with pytest.raises(errors.Unsupported, match="the hook is not there"):
        devices.nic_attach(look, "web", FRESH, network="inner")
    with pytest.raises(errors.Unsupported, match="the hook is not there"):
        move.relocate(
            dataclasses.replace(look, lacks={"h2": {"inner": "the hook is not there"}}), "web", "h2"
        )


# --- bridges by host


def test_a_vm_moves_to_the_bridge_that_its_target_has() -> None:
    for target, bridge in (("h2", "br7"), ("h3", "br0")):
        plan = migrate(world(on("lan", "inner")), target)
        (step,) = (one for one in plan.steps if isinstance(one, MigrateDomain))
        assert step.bridges == {"nic0": bridge}
        # An overlay is the same network there; NAT is not.
        assert "of its own" not in plan.why
    assert "'default' of its own" in migrate(world(on("default")), "h2").why


def test_bridges_are_changed_by_host() -> None:
    look = world()
    plan = catalog.network_change(look, "lan", bridge=None, bridges={"h2": "", "h3": "br9"})
    after = saved(plan, "network/lan")
    assert after is not None
    assert (after["bridge"], after["bridges"]) == ("br0", {"h3": "br9"})
    assert kinds(plan) == ["ensure-network", "ensure-network", "save"]
    assert catalog.network_change(look, "lan", bridge="br0", bridges={}).empty
    with pytest.raises(errors.NotFound, match="h9"):
        catalog.network_change(look, "lan", bridge=None, bridges={"h9": "br0"})
    with pytest.raises(errors.Invalid, match="bridge of its own"):
        catalog.network_change(look, "inner", bridge="br0", bridges={})


# --- overlays


def test_an_overlay_knows_where_the_hosts_are() -> None:
    plan = catalog.network_create(
        world(),
        "deep",
        "overlay",
        FRESH,
        bridge=None,
        subnet=None,
        dhcp=True,
        vlan=None,
        used_subnets=(),
    )
    after = saved(plan, "network/deep")
    assert after is not None
    assert after["mtu"] == 1450
    assert after["dhcp"] is False
    first = plan.steps[0]
    assert first.kind == "ensure-network"
    assert first.hosts == {name: f"{name}.example.org" for name in ("h1", "h2", "h3")}
    with pytest.raises(errors.Conflict, match="'inner' has it"):
        catalog.network_create(
            world(),
            "deep",
            "overlay",
            FRESH,
            bridge=None,
            subnet=None,
            dhcp=False,
            vlan=None,
            used_subnets=(),
            vni=7,
        )


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "overlay", "dhcp": False},
        {"kind": "overlay", "dhcp": False, "vni": 2**24},
        {"kind": "overlay", "dhcp": False, "vni": 7, "mtu": 100},
        {"kind": "overlay", "dhcp": True, "vni": 7},
        {"kind": "overlay", "dhcp": False, "vni": 7, "subnet": "10.80.0.0/24"},
        {"kind": "isolated", "dhcp": False, "vni": 7},
        {"kind": "isolated", "dhcp": False, "mtu": 1450},
        {"kind": "isolated", "dhcp": False, "bridges": {"h1": "br0"}},
        {"kind": "bridge", "bridges": {"h1": "no spaces"}},
        {"kind": "bridge", "forwards": (WEB,)},
        {"kind": "nat", "subnet": "10.80.0.0/24", "forwards": (WEB, WEB)},
        {
            "kind": "nat",
            "subnet": "10.80.0.0/24",
            "forwards": (WEB, dataclasses.replace(WEB, host_port=1, address="10.80.0.62")),
        },
        {
            "kind": "nat",
            "subnet": "10.80.0.0/24",
            "forwards": (WEB, dataclasses.replace(WEB, host_port=1, mac="52:54:00:00:01:02")),
        },
    ],
)
def test_networks_that_make_no_sense(fields: dict[str, object]) -> None:
    with pytest.raises(errors.Invalid):
        Network(name="n", bridge="vo-n", **fields)  # type: ignore[arg-type]


def test_all_that_answer_hear_of_a_host_that_comes_or_goes() -> None:
    look = dataclasses.replace(world(), silent={"h3": "no answer"})
    plan = hosts.add(look, known("h4"), ())
    told = [step for step in plan.steps if isinstance(step, UpdateNetwork)]
    assert [step.node for step in told] == ["h1", "h2"]
    assert "h4" in told[0].hosts
    assert "h4" not in told[0].hosts_before
    plan = hosts.remove(look, "h2")
    told = [step for step in plan.steps if isinstance(step, UpdateNetwork)]
    assert [(step.node, sorted(step.hosts)) for step in told] == [("h1", ["h1", "h3"])]
    assert kinds(plan) == ["update-network", "remove-network", "save"]
    # Without an overlay nobody needs to know.
    assert kinds(hosts.add(world(networks={"lan": LAN}), known("h4"), ())) == ["save"]


# --- forwarded ports


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("8080:80", (8080, 80, "tcp")),
        ("80", (80, 80, "tcp")),
        ("5353:53/udp", (5353, 53, "udp")),
        ("53/udp", (53, 53, "udp")),
    ],
)
def test_ports_are_read(text: str, meant: tuple[int, int, str]) -> None:
    assert forwards.parse(text) == meant


@pytest.mark.parametrize(
    "text",
    ["", ":80", "80:", "a:b", "1:2:3", "80/icmp", "0:80", "80:65536", "-1:2", "8 0:1", "٣:1"],
)
def test_ports_that_are_none(text: str) -> None:
    with pytest.raises(errors.Invalid):
        forwards.parse(text)


def test_a_vm_keeps_the_address_that_it_has() -> None:
    seen = (
        Address(mac=MAC, ip="fe80::1", source="agent"),
        Address(mac=MAC, ip="10.80.0.99", source="lease"),
    )
    plan = forwards.forward_add(world(on("default")), "web", "8080:80", seen=seen)
    assert kinds(plan) == ["update-network", "save"]
    assert "10.80.0.99:80" in plan.why
    assert "DHCP" not in plan.why
    plan = forwards.forward_add(world(on("default")), "web", "8080:80")
    assert "10.80.0.63:80" in plan.why
    assert "when it next asks DHCP" in plan.why
    # One that is off is found by it at its start, wherever that is.
    assert kinds(forwards.forward_add(world(on("default"), power=None), "web", "8080:80")) == [
        "save"
    ]
    more = forwards.forward_add(
        world(on("default"), networks=forwarded()), "web", "8443:443", seen=seen
    )
    assert "10.80.0.63:443" in more.why


def test_addresses_that_cannot_be_kept() -> None:
    other = on("default", name="other", number=2)
    look = world(on("default"), other, networks=forwarded())

    def add(address: str) -> Plan:
        return forwards.forward_add(look, "other", "81:81", address=address)

    assert "10.80.0.7:81" in add("10.80.0.7").why
    with pytest.raises(errors.Conflict, match="another NIC keeps it"):
        add("10.80.0.63")
    for wrong in ("10.81.0.7", "10.80.0.0", "10.80.0.1", "10.80.0.255", "fe80::1", "x"):
        with pytest.raises(errors.Invalid):
            add(wrong)
    # A second VM gets another one by itself.
    assert "10.80.0.62:81" in forwards.forward_add(look, "other", "81:81").why


def test_a_port_leads_to_one_vm() -> None:
    other = on("default", name="other", number=2)
    look = world(on("default"), other, networks=forwarded())
    with pytest.raises(errors.Conflict, match="leads to VM 'web' already"):
        forwards.forward_add(look, "other", "8080:80")
    assert "8080/udp" in forwards.forward_add(look, "other", "8080:80/udp").why
    for mine in ("22", "16514:1", "49152", "4789/udp", "6789", "7000"):
        with pytest.raises(errors.Conflict, match="kept for"):
            forwards.forward_add(look, "other", mine)


def test_only_guests_behind_nat_need_it() -> None:
    with pytest.raises(errors.Unsupported, match="none of its NICs"):
        forwards.forward_add(world(on("lan")), "web", "8080:80")
    with pytest.raises(errors.Invalid, match="--nic"):
        forwards.forward_add(world(on("default", "default")), "web", "8080:80")
    plan = forwards.forward_add(world(on("default", "default")), "web", "8080:80", nic="nic1")
    assert saved(plan, "network/default") is not None
    lacks = {"h1": {"default": "the hook is not there"}}
    with pytest.raises(errors.Unsupported, match="the hook is not there"):
        forwards.forward_add(world(on("default"), lacks=lacks), "web", "8080:80")


def test_what_is_forwarded_goes_with_its_vm() -> None:
    look = world(on("default"), networks=forwarded())
    (one,) = forwards.forward_list(look)
    assert (one.vm, one.node, one.network, str(one.forward)) == (
        "web",
        "h1",
        "default",
        "8080:80/tcp",
    )
    with pytest.raises(errors.Conflict, match="vorch forward remove web 8080/tcp"):
        devices.nic_detach(look, "web", "nic0", timeout_s=1)
    plan = lifecycle.delete(look, "web", FRESH, force=True, purge=True, keep_s=1)
    assert kinds(plan)[:3] == ["cut-domain", "update-network", "save"]
    assert "network/default" in plan.claims
    after = saved(plan, "network/default")
    assert after is not None
    assert after["forwards"] == []
    plan = forwards.forward_remove(look, "web", "8080")
    assert kinds(plan) == ["update-network", "save"]
    with pytest.raises(errors.NotFound, match="8080/udp"):
        forwards.forward_remove(look, "web", "8080/udp")
