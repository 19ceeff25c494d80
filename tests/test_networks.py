"""Networks across the hosts of the memory world: asked for first, kept up to date, moved along."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import vorch
from vorch import Conflict, Orchestrator, Unsupported
from vorch.drivers.memory import MemoryWorld


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld("networks", hosts=2)


@pytest.fixture
def cluster(world: MemoryWorld) -> Iterator[Orchestrator]:
    ports, prepare = world.connection()
    with Orchestrator(ports, vorch.Settings(uri="memory:")) as found:
        prepare(found)
        yield found


def make(cluster: Orchestrator, name: str, network: str, node: str | None = None) -> None:
    cluster.create(name, disk_gib=1, memory_mib=64, networks=(network,), node=node, start=True)


def test_a_vm_is_placed_where_its_network_can_be(world: MemoryWorld, cluster: Orchestrator) -> None:
    cluster.network_create("lan", kind="bridge", bridge="br0")
    world.machines["h1"].bridges.clear()
    make(cluster, "web", "lan")
    assert cluster.show("web").vm.node == "h2"
    with pytest.raises(Unsupported, match=r"h1: it cannot have network 'lan' of NIC 'nic0'"):
        cluster.migrate("web")
    assert [one.level for one in cluster.network_check("lan")] == ["warning", "ok"]
    assert [one.name for one in cluster.doctor() if one.name.startswith("network ")] == [
        "network lan on h1"
    ]
    assert "network lan" in [one.name for one in cluster.node_check("h1") if one.level != "ok"]
    world.machines["h1"].bridges.add("br5")
    cluster.network_change("lan", bridges={"h1": "br5"})
    cluster.migrate("web", "h1")
    assert cluster.show("web").vm.node == "h1"


def test_an_overlay_needs_the_hook_and_knows_all_hosts(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.machines["h2"].hook = False
    with pytest.raises(Unsupported, match="vorch node hook"):
        cluster.network_create("inner", kind="overlay")
    assert world.machines["h1"].overlays == {}
    world.machines["h2"].hook = True
    cluster.network_create("inner", kind="overlay")
    world.add_host("h3")
    cluster.node_add("h3", "memory:h3")
    for name in ("h1", "h2"):
        assert set(world.machines[name].overlays["inner"]) == {"h1", "h2", "h3"}
    # One that was silent hears of it when it is told anew.
    world.machines["h2"].power_off()
    cluster.node_remove("h3")
    world.machines["h2"].power_on()
    assert set(world.machines["h2"].overlays["inner"]) == {"h1", "h2", "h3"}
    cluster.network_change("inner")
    assert set(world.machines["h2"].overlays["inner"]) == {"h1", "h2"}


def test_a_port_is_where_its_vm_is(world: MemoryWorld, cluster: Orchestrator) -> None:
    make(cluster, "web", "default", "h1")
    world.machines["h1"].busy_ports.add(("tcp", 4000))
    with pytest.raises(Unsupported, match="4000/tcp is in use"):
        cluster.forward_add("web", "4000:80")
    cluster.forward_add("web", "8080:80")
    port = {("tcp", 8080)}
    assert (world.machines["h1"].forwarded(), world.machines["h2"].forwarded()) == (port, set())
    make(cluster, "other", "default", "h2")
    with pytest.raises(Conflict, match="VM 'web' already"):
        cluster.forward_add("other", "8080:80")
    cluster.migrate("web", "h2")
    assert (world.machines["h1"].forwarded(), world.machines["h2"].forwarded()) == (set(), port)
    cluster.stop("web", force=True)
    assert world.machines["h2"].forwarded() == set()
    cluster.rename("web", "www")
    assert [one.vm for one in cluster.forward_list()] == ["www"]
    cluster.start("www")
    assert world.machines["h2"].forwarded() == port
    world.machines["h2"].restart()
    cluster.start("www")
    assert world.machines["h2"].forwarded() == port
    # A host without the hook is no place for it, and one for the others.
    world.machines["h1"].hook = False
    with pytest.raises(Unsupported, match="vorch node hook"):
        cluster.migrate("www", "h1")
    cluster.start("other")
    cluster.migrate("other", "h1")
    cluster.delete("www", force=True)
    assert world.machines["h2"].forwarded() == set()
    assert cluster.forward_list() == ()
