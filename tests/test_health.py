"""Whether all is well, in one line: of a world in memory. And how Ceph's tree is read."""

from __future__ import annotations

import pytest

from vorch.config import Settings
from vorch.decide.health import NAMED
from vorch.drivers import ceph_map
from vorch.drivers.memory import MemoryWorld
from vorch.errors import Denied, Unreachable
from vorch.model import CrushBucket, CrushTree, Room
from vorch.orchestrator import Orchestrator

SETTINGS = Settings(uri="memory:")


@pytest.fixture
def world() -> MemoryWorld:
    found = MemoryWorld(hosts=3)
    addresses = [found.machines[f"h{n}"].storage_address for n in (1, 2, 3)]
    found.ceph.crush = CrushTree(
        buckets=(
            CrushBucket(-1, "default", "root", (-4, -5, -6)),
            *(CrushBucket(-3 - n, f"h{n}", "host", (n - 1,)) for n in (1, 2, 3)),
        ),
        addresses={number: (address,) for number, address in enumerate(addresses)},
    )
    return found


@pytest.fixture
def cluster(world: MemoryWorld) -> Orchestrator:
    made = Orchestrator(world.connect(), SETTINGS)
    for name in ("h1", "h2", "h3"):
        made.node_add(name, f"memory:{name}")
    made.pool_add("fast", "memory:fast")
    return made


def codes(cluster: Orchestrator) -> dict[str, str]:
    return {one.code: one.level for one in cluster.health().concerns}


def test_all_is_well(cluster: Orchestrator) -> None:
    cluster.create("web", disk_gib=1, networks=(), start=True)
    found = cluster.health()
    assert (found.status, found.line, found.concerns) == ("ok", "all is well", ())
    assert (found.hosts, found.hosts_online, found.vms, found.vms_running) == (3, 3, 1, 1)


def test_without_hosts_it_says_what_to_do() -> None:
    found = Orchestrator(MemoryWorld(hosts=1).connect(), SETTINGS).health()
    assert found.status == "error"
    assert found.line == "there is no host: take one in (vorch node add)"


def test_a_host_without_power_is_told_with_all_that_comes_of_it(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    cluster.create("web", disk_gib=1, networks=(), node="h1", start=True)
    world.host("h1").power_off()
    found = cluster.health()
    assert found.status == "error"
    assert found.line.startswith("host h1 does not answer: see whether")
    assert found.line.endswith("(and 2 more things)")
    assert [(one.code, one.names) for one in found.concerns] == [
        ("hosts-silent", ("h1",)),
        ("vms-unknown", ("web",)),
        ("storage-warning", ("memory",)),
    ]
    assert found.concerns[0].details["h1"]
    (storage,) = cluster.storage_status()
    assert [(one.name, one.depth, one.up) for one in storage.places] == [
        ("default", 0, None),
        ("h1", 1, None),
        ("osd.0", 2, False),
        ("h2", 1, None),
        ("osd.1", 2, True),
        ("h3", 1, None),
        ("osd.2", 2, True),
    ]


def test_many_of_a_kind_are_one_concern(world: MemoryWorld, cluster: Orchestrator) -> None:
    count = NAMED + 5
    for number in range(count):
        cluster.create(
            f"w{number:02}", disk_gib=1, memory_mib=64, networks=(), node="h1", start=True
        )
    # A host that starts anew starts nothing by itself.
    world.host("h1").power_off()
    world.host("h1").power_on()
    found = cluster.health()
    (off,) = [one for one in found.concerns if one.code == "vms-off"]
    assert (off.count, len(off.names)) == (count, NAMED)
    assert off.text == f"VMs w00, w01, w02 and {count - 3} more should run and are off"


def test_what_is_on_purpose_is_a_note(cluster: Orchestrator) -> None:
    cluster.node_cordon("h2")
    found = cluster.health()
    assert (found.status, found.line) == ("ok", "all is well")
    assert codes(cluster) == {"hosts-cordoned": "note"}


def test_high_availability_that_nobody_looks_after(cluster: Orchestrator) -> None:
    cluster.create("web", disk_gib=1, networks=(), start=True)
    cluster.ha_set("web")
    assert codes(cluster) == {"ha-unwatched": "error", "drill-never": "warning"}
    cluster.ha_disarm(3600)
    assert codes(cluster)["ha-disarmed"] == "warning"


def test_silent_storage_is_said_once(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.faults.fail("ceph", "storage", error=Unreachable("cannot ask Ceph: silent; wait"))
    found = cluster.health()
    assert [one.code for one in found.concerns] == ["storage-silent"]
    assert found.concerns[0].details == {"storage": "cannot ask Ceph: silent; wait"}


def test_whoever_may_not_ask_ceph_says_nothing_of_it(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.faults.fail("ceph", "storage", error=Denied("cannot ask Ceph: this user may not"))
    assert cluster.health().line == "all is well"
    world.faults.fail("ceph", "storage", error=Denied("cannot ask Ceph: this user may not"))
    with pytest.raises(Denied):
        cluster.storage_status()


def test_a_pool_without_room(cluster: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    images = type(cluster.world.images("fast"))
    for free, expected in ((50, "pools-low"), (10, "pools-full")):
        monkeypatch.setattr(
            images, "room", lambda _, free=free: Room(capacity_bytes=1000, free_bytes=free)
        )
        assert [one.code for one in cluster.health().concerns] == [expected]
    # What is not in Ceph is asked though Ceph is silent, and says for itself that it is.
    monkeypatch.setattr(images, "room", _silent)
    (said,) = cluster.health().concerns
    assert (said.code, said.details) == ("pools-silent", {"fast": "cannot ask it: silent; wait"})


def _silent(images: object) -> Room:
    raise Unreachable("cannot ask it: silent; wait")


def test_the_tree_of_a_real_ceph_is_read() -> None:
    nodes = [
        {"id": -1, "name": "default", "type": "root", "children": [-3, -2]},
        {"id": -2, "name": "h1", "type": "host", "children": [10, 2]},
        {
            "id": 2,
            "name": "osd.2",
            "type": "osd",
            "device_class": "ssd",
            "crush_weight": 0.5,
            "status": "up",
            "reweight": 1,
        },
        {"id": 10, "name": "osd.10", "type": "osd", "status": "down", "reweight": 0},
        {"id": -3, "name": "h2", "type": "host", "children": []},
    ]
    use = ceph_map.osd_use({"nodes": [{"id": 2, "kb": 1024, "kb_used": 256}]})
    found = ceph_map.places(nodes, use)
    assert [(one.name, one.depth) for one in found] == [
        ("default", 0),
        ("h1", 1),
        ("osd.2", 2),
        ("osd.10", 2),
        ("h2", 1),
    ]
    well, down = found[2:4]
    assert (well.up, well.inside, well.device_class, well.weight) == (True, True, "ssd", 0.5)
    assert (well.size_bytes, well.used_bytes) == (1024**2, 1024**2 // 4)
    assert (down.up, down.inside, down.size_bytes) == (False, False, None)
