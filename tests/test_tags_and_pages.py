"""What hosts have and VMs ask for, from the verbs to the document: tags, huge pages, NUMA cells."""

from __future__ import annotations

from typing import Any

import pytest

import vorch
from vorch import Orchestrator
from vorch.codec import decode, encode
from vorch.drivers import libvirt_xml
from vorch.drivers.memory import MemoryWorld
from vorch.errors import Invalid, NoRoom, Unsupported
from vorch.model import HugePages, Node, NumaCell, Vm


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld()


@pytest.fixture
def cluster(world: MemoryWorld) -> Orchestrator:
    ports, prepare = world.connection()
    found = Orchestrator(ports, vorch.Settings(uri="memory:"))
    prepare(found)
    return found


def test_a_host_gets_tags_and_a_ratio_and_loses_them(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.add_host("h2")
    cluster.node_add("h2", "memory:h2", tags=("rack:r1", "gpu"), cpu_ratio=2.0)
    node = cluster.node_show("h2").node
    assert (node.tags, node.cpu_ratio) == (("rack:r1", "gpu"), 2.0)
    cluster.node_change("h2", tags=("rack:r2",))
    assert cluster.node_show("h2").node.tags == ("rack:r2",)
    assert cluster.node_show("h2").node.cpu_ratio == 2.0
    cluster.node_change("h2", tags=(), cpu_ratio=0)
    node = cluster.node_show("h2").node
    assert (node.tags, node.cpu_ratio) == ((), None)


def test_what_is_no_tag(cluster: Orchestrator) -> None:
    for wrong in ("", "a b", "rack:", ":r1", "-x", "a:b:c"):
        with pytest.raises(Invalid, match="as a tag of host 'h1'"):
            cluster.node_change("h1", tags=(wrong,))
    with pytest.raises(Invalid, match="twice"):
        cluster.node_change("h1", tags=("gpu", "gpu"))
    with pytest.raises(Invalid, match="vCPUs per processor"):
        cluster.node_change("h1", cpu_ratio=-1)


def test_documents_from_before_are_read() -> None:
    node = encode(Node(name="h1", uri="memory:h1"))
    for field in ("tags", "cpu_ratio"):
        del node[field]
    assert decode(Node, node).tags == ()
    vm = encode(Vm(name="web", id="0b0b0b0b-0000-4000-8000-000000000001", node="h1"))
    for field in ("require_tags", "huge_pages", "one_numa_cell"):
        del vm[field]
    assert decode(Vm, vm).huge_pages == ""


def test_a_vm_asks_and_asks_no_more(cluster: Orchestrator) -> None:
    cluster.node_change("h1", tags=("gpu",))
    cluster.create("web", disk_gib=1, networks=(), require_tags=("gpu",))
    assert cluster.show("web").vm.require_tags == ("gpu",)
    cluster.change("web", require_tags=(), one_numa_cell=True)
    vm = cluster.show("web").vm
    assert (vm.require_tags, vm.one_numa_cell) == ((), True)


def test_memory_in_huge_pages_is_a_whole_number_of_them(cluster: Orchestrator) -> None:
    cluster.create("web", disk_gib=1, networks=(), memory_mib=513)
    with pytest.raises(Invalid, match="multiples of 2 MiB"):
        cluster.change("web", huge_pages="2M")
    with pytest.raises(Invalid, match="none, 2M, 1G"):
        cluster.change("web", huge_pages="4M")


def test_cells_are_read_from_what_libvirt_says() -> None:
    host = """<capabilities><host><cpu><arch>x86_64</arch></cpu><topology><cells num='2'>
      <cell id='0'><memory unit='KiB'>4194304</memory><pages unit='KiB' size='4'>524288</pages>
        <pages unit='KiB' size='2048'>1024</pages><pages unit='KiB' size='1048576'>0</pages>
        <cpus num='8'/></cell>
      <cell id='1'><memory unit='KiB'>2097152</memory><cpus num='4'><cpu id='9'/><cpu id='0'/>
        <cpu id='1'/><cpu id='2'/></cpus></cell>
      </cells></topology></host></capabilities>"""
    assert libvirt_xml.read_capabilities(host, "<domainCapabilities/>").cells == (
        NumaCell(
            number=0,
            cpus=8,
            memory_mib=4096,
            pages=(HugePages(size_kib=2048, memory_mib=2048),),
        ),
        NumaCell(number=1, cpus=4, memory_mib=2048, cpu_set="0-2,9"),
    )


def made(cluster: Orchestrator, name: str, *, start: bool = True, **other: Any) -> None:
    cluster.create(name, disk_gib=1, networks=(), start=start, **other)


def test_it_goes_where_what_it_asks_for_is(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.add_host("h2", memory_mib=8192).lay_out(2, pages_mib=1024)
    cluster.node_add("h2", "memory:h2", tags=("gpu",))
    made(cluster, "tagged", require_tags=("gpu",))
    assert cluster.show("tagged").vm.node == "h2"
    made(cluster, "paged", huge_pages="2M", memory_mib=1536)
    assert cluster.show("paged").vm.node == "h2"
    with pytest.raises(NoRoom) as caught:
        made(cluster, "more", huge_pages="2M", memory_mib=1024)
    refused = caught.value.fields["refused"]
    assert isinstance(refused, dict)
    assert "it has no huge pages of 2M" in refused["h1"]
    assert "512 MiB of huge pages of 2048 KiB are short" in refused["h2"]
    # One cell of h2 has 512 MiB of them left, both together as well.
    made(cluster, "cell", huge_pages="2M", memory_mib=512, one_numa_cell=True)
    with pytest.raises(Unsupported, match="no tag 'fast'"):
        made(cluster, "none", require_tags=("fast",))
    # Ordinary memory is what is not set aside.
    status = cluster.node_show("h2")
    used = 2048 + 1024 + 3 * 64
    assert status.memory_used_mib == used
    assert status.memory_free_mib == 8192 - 512 - used


def cells_in(world: MemoryWorld, cluster: Orchestrator) -> dict[str, tuple[str, int | None]]:
    """Where each VM is recorded, after a look at what its host made of it."""
    found = {}
    for vm in cluster.look().vms.values():
        guest = world.host(vm.node).guests.get(vm.id)
        if guest is not None:
            assert guest.vm.numa_cell == vm.numa_cell
            found[vm.name] = (vm.node, vm.numa_cell)
    return found


def test_who_asks_for_a_cell_is_kept_in_one(world: MemoryWorld, cluster: Orchestrator) -> None:
    world.host("h1").lay_out(2)
    for name in ("h2", "h3"):
        world.add_host(name, memory_mib=16384).lay_out(2 if name == "h2" else 4)
        cluster.node_add(name, f"memory:{name}")
    for name in ("a", "b", "c"):
        made(cluster, name, memory_mib=4096, one_numa_cell=True, node="h2")
    made(cluster, "free", memory_mib=1024, node="h2")
    # The fullest cell that holds it: two in the first, and the next one beside.
    assert cells_in(world, cluster) == {
        "a": ("h2", 0),
        "b": ("h2", 0),
        "c": ("h2", 1),
        "free": ("h2", None),
    }
    # One that stops leaves its place to others, and comes back to its own cell while that has room.
    cluster.stop("a", force=True)
    cluster.start("a")
    assert cells_in(world, cluster)["a"] == ("h2", 0)
    cluster.stop("a", force=True)
    made(cluster, "d", memory_mib=2048, one_numa_cell=True, node="h2")
    assert cells_in(world, cluster)["d"] == ("h2", 0)
    cluster.start("a")
    assert cells_in(world, cluster)["a"] == ("h2", 1)
    # On another host it is chosen anew, by what is free there.
    cluster.migrate("c", "h3")
    cluster.migrate("b", "h3")
    assert {one: cells_in(world, cluster)[one] for one in "bc"} == {"b": ("h3", 1), "c": ("h3", 0)}
    # Whoever asks no more is let go by the next move.
    cluster.change("c", one_numa_cell=False)
    cluster.migrate("c", "h2")
    assert cells_in(world, cluster)["c"] == ("h2", None)
    cluster.clone("b", "copy")
    assert cluster.look().vm("copy").numa_cell is None


def test_the_last_room_is_kept_for_those_that_are_looked_after(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    # As large as the third that is there.
    for name in ("h2", "h3"):
        world.add_host(name)
        cluster.node_add(name, f"memory:{name}")
    for name in "abcd":
        made(cluster, name, memory_mib=30000)
        cluster.ha_set(name)
    with pytest.raises(NoRoom, match="could not be lost any more") as caught:
        made(cluster, "e", memory_mib=30000)
    assert "--force" in str(caught.value)
    with pytest.raises(NoRoom, match="could not be lost any more"):
        cluster.clone("a", "e", start=True)
    made(cluster, "e", node="h3", memory_mib=30000, start=False)
    with pytest.raises(NoRoom, match=r"cannot start VM .e. on .h3.: .*could not be lost"):
        cluster.start("e")
    assert "gone by that" in cluster.start("e", force=True, dry_run=True).plan.why
    cluster.ha_policy(spare="warn")
    assert "gone by that" in cluster.start("e").plan.why
    cluster.ha_policy(spare="keep")
    # It is gone, so nothing is refused for it any more.
    made(cluster, "f", memory_mib=30000)


def test_vms_are_sorted_by_their_tags(cluster: Orchestrator) -> None:
    cluster.create("web", disk_gib=1, networks=(), tags=("shop", "team:web"))
    cluster.create("db", disk_gib=1, networks=(), tags=("shop",))
    cluster.create("other", disk_gib=1, networks=())
    assert [one.name for one in cluster.list(tags=("shop",))] == ["db", "web"]
    assert [one.name for one in cluster.list(tags=("shop", "team:web"))] == ["web"]
    assert [one.name for one in cluster.list()] == ["db", "other", "web"]
    before = cluster.show("db").vm.generation
    cluster.start("db")
    # No guest sees them, so they change at once.
    cluster.change("db", tags=("archive",))
    assert cluster.show("db").vm.tags == ("archive",)
    assert cluster.show("db").vm.generation == before
    cluster.change("db", tags=())
    assert cluster.show("db").vm.tags == ()
    with pytest.raises(Invalid, match="as a tag of VM 'db'"):
        cluster.change("db", tags=("a b",))


def test_vms_from_before_tags_are_read() -> None:
    body = encode(Vm(name="web", id="0b0b0b0b-0000-4000-8000-000000000001", node="h1"))
    del body["tags"]
    assert decode(Vm, body).tags == ()
