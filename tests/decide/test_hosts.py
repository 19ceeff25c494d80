"""Hosts and pools that come and go, as decisions: what is refused, and what the plan says."""

from __future__ import annotations

import dataclasses

import pytest

from tests.decide.worlds import GIB, OVERHEAD, node, vm
from vorch.decide import cordons, hosts
from vorch.decide.place import home, place
from vorch.errors import Conflict, Invalid, NoRoom, NotFound, Unsupported
from vorch.model import (
    Check,
    Cluster,
    Disk,
    FileSource,
    Node,
    Pool,
    RbdSource,
    Silence,
    Trashed,
    Vm,
    Volume,
)
from vorch.plan import Save

LOCAL = Pool(name="local", url="dir:///srv/disks", node="h1")
SHARED = Pool(name="fast", url="rbd://vms")
H1, H2 = node("h1"), dataclasses.replace(node("h2"), uri="qemu+tls://h2/system")
SECRET = "0b0b0b0b-0000-4000-8000-000000000009"


def cluster(*nodes: Node, **other: object) -> Cluster:
    fields: dict[str, object] = {
        "nodes": {one.name: one for one in nodes or (H1, H2)},
        "pools": {"local": LOCAL, "fast": SHARED},
        **other,
    }
    return Cluster(**fields)  # type: ignore[arg-type]


def on_shared(name: str = "web") -> Vm:
    disk = Disk(
        name="root",
        target="vda",
        volume=Volume(pool="fast", name=f"{name}.root.1"),
        size_bytes=4 * GIB,
    )
    return vm(name, disks=(disk,), nics=())


def saved(plan: object) -> dict[str, dict[str, object] | None]:
    steps = plan.steps  # type: ignore[attr-defined]
    return {step.key: step.after for step in steps if isinstance(step, Save)}


# --- hosts ------------------------------------------------------------------------------------


def test_a_host_that_does_what_it_must_joins() -> None:
    new = Node(name="h3", uri="qemu+tls://h3/system")
    plan = hosts.add(cluster(), new, (Check(name="libvirt", level="ok", detail="9.0"),))
    assert list(saved(plan)) == ["node/h3"]
    assert plan.reads == {"node/h3": 0}


def test_warnings_do_not_keep_a_host_out_and_errors_do() -> None:
    new = Node(name="h3", uri="qemu+tls://h3/system")
    slow = Check(name="accelerator", level="warning", detail="tcg")
    hosts.add(cluster(), new, (slow,))
    bad = Check(name="pool fast", level="error", detail="no rbd in its QEMU", remedy="install it")
    with pytest.raises(Unsupported, match=r"cannot add host 'h3': pool fast: no rbd.*; install it"):
        hosts.add(cluster(), new, (slow, bad))


def test_the_same_host_does_not_join_twice() -> None:
    with pytest.raises(Conflict, match="there is one of that name"):
        hosts.add(cluster(), Node(name="h2", uri="qemu+tls://other/system"), ())
    # What this machine's client is told about keys makes it no other host.
    with pytest.raises(Conflict, match="is host 'h2' already"):
        hosts.add(cluster(), Node(name="h9", uri="qemu+tls://h2/system?pkipath=/etc/x"), ())


def test_with_the_second_host_a_folder_belongs_to_the_first() -> None:
    old = dataclasses.replace(LOCAL, node="")
    alone = cluster(H1, pools={"local": old, "fast": SHARED})
    plan = hosts.add(alone, H2, ())
    after = saved(plan)
    assert set(after) == {"node/h2", "pool/local"}
    assert after["pool/local"] is not None
    assert after["pool/local"]["node"] == "h1"
    assert "pool/local" in plan.claims


def test_a_host_is_kept_while_something_belongs_to_it() -> None:
    with pytest.raises(Conflict, match="VM 'web' belong"):
        hosts.remove(cluster(vms={"web": vm()}), "h1")
    with pytest.raises(Conflict, match="pool 'local'"):
        hosts.remove(cluster(), "h1")
    assert saved(hosts.remove(cluster(), "h2")) == {"node/h2": None}
    noted = cluster(silences={"h2": Silence(since=1.0, waited_at=1.0)})
    assert saved(hosts.remove(noted, "h2")) == {"node/h2": None, "silence/h2": None}
    with pytest.raises(NotFound):
        hosts.remove(cluster(), "h9")


def test_a_cordoned_host_gets_nothing_new() -> None:
    closed = dataclasses.replace(H1, cordoned=True)
    looked = cluster(closed, H2)
    wanted = on_shared()
    assert place(looked, wanted, overhead_mib=OVERHEAD).node == "h2"
    assert home(looked, wanted, None).node == "h2"
    with pytest.raises(Unsupported, match="it is cordoned"):
        place(looked, wanted, overhead_mib=OVERHEAD, only="h1")


def test_of_several_the_one_with_room_for_it_wins() -> None:
    """What is off counts as if it were on, and tags and cordons come first."""
    one, two, three = node("h1"), node("h2"), node("h3")
    there = {
        name: dataclasses.replace(
            on_shared(name),
            id=f"aaaaaaaa-0000-4000-8000-{mib:012}",
            node=host,
            memory_mib=mib,
            memory_max_mib=mib,
        )
        for name, host, mib in (("a", "h1", 6000), ("b", "h2", 2000))
    }
    new = dataclasses.replace(on_shared("new"), node="unplaced")
    assert home(cluster(one, two, three, vms=there), new, None, overhead_mib=64).node == "h3"
    closed = dataclasses.replace(three, cordoned=True)
    assert home(cluster(one, two, closed, vms=there), new, None).node == "h2"
    fussy = dataclasses.replace(new, require_tags=("gpu",))
    tagged = dataclasses.replace(one, tags=("gpu",))
    assert home(cluster(tagged, two, three, vms=there), fussy, None).node == "h1"


def test_cordoning_twice_is_no_work() -> None:
    plan = cordons.cordon(cluster(), "h1", True)
    assert saved(plan)["node/h1"]["cordoned"] is True  # type: ignore[index]
    closed = cluster(dataclasses.replace(H1, cordoned=True), H2)
    assert cordons.cordon(closed, "h1", True).empty
    assert not cordons.cordon(closed, "h1", False).empty


def test_a_vm_goes_only_where_its_disks_can_be_opened() -> None:
    looked = cluster()
    # h2 has as much room, and cannot reach the folder.
    assert place(looked, vm(nics=()), overhead_mib=OVERHEAD).node == "h1"
    with pytest.raises(Unsupported, match="pool 'local', which only 'h1' reaches"):
        place(looked, vm(nics=()), overhead_mib=OVERHEAD, only="h2")
    with pytest.raises(Unsupported, match="which only 'h1' reaches"):
        home(looked, vm(nics=()), "h2")
    assert home(looked, on_shared(), "h2").node == "h2"


def test_a_silent_host_is_no_place() -> None:
    looked = cluster(H1, silent={"h1": "no answer"})
    with pytest.raises(NoRoom, match="does not answer"):
        place(looked, on_shared(), overhead_mib=OVERHEAD)


# --- pools ------------------------------------------------------------------------------------


def test_a_pool_joins_when_every_host_opens_it() -> None:
    new = Pool(name="bulk", url="rbd://bulk")
    good = (Check(name="pool bulk", level="ok", detail="opened"),)
    bad = (Check(name="pool bulk", level="error", detail="no route to 10.0.0.1"),)
    assert list(saved(hosts.add_pool(cluster(), new, {"h1": good, "h2": good}))) == ["pool/bulk"]
    with pytest.raises(Unsupported, match="h2: pool bulk: no route"):
        hosts.add_pool(cluster(), new, {"h1": good, "h2": bad})


def test_two_pools_never_have_the_same_volumes() -> None:
    with pytest.raises(Conflict, match="is pool 'fast' already"):
        hosts.add_pool(cluster(), Pool(name="other", url="rbd://vms"), {})
    with pytest.raises(Conflict, match="there is one of that name"):
        hosts.add_pool(cluster(), Pool(name="fast", url="rbd://else"), {})


def test_a_folder_needs_its_host() -> None:
    with pytest.raises(Invalid, match="which one is not said"):
        hosts.add_pool(cluster(), Pool(name="more", url="dir:///more"), {})
    with pytest.raises(NotFound):
        hosts.add_pool(cluster(), Pool(name="more", url="dir:///more", node="h9"), {})
    # The same path on two hosts is two folders.
    hosts.add_pool(cluster(), Pool(name="more", url="dir:///srv/disks", node="h2"), {})


def test_a_pool_is_kept_while_it_is_used() -> None:
    gone = Trashed(
        key="web.1",
        name="web",
        volumes=(Volume(pool="fast", name="web.root.1"),),
        vm=None,
        deleted_at=1.0,
        purge_at=2.0,
    )
    for used in (cluster(vms={"web": on_shared()}), cluster(trash={"web.1": gone})):
        with pytest.raises(Conflict, match=r"it is used by .*'web'"):
            hosts.remove_pool(used, "fast")
    assert saved(hosts.remove_pool(cluster(), "fast")) == {"pool/fast": None}


def test_each_monitor_is_tried_alone() -> None:
    source = RbdSource(
        pool="vms", image="x", monitors=("10.0.0.1:3300", "10.0.0.2:3300"), user="u", secret=SECRET
    )
    tried = list(hosts.ways("fast", source))
    assert [label for label, _ in tried] == [
        "pool fast by monitor 10.0.0.1:3300",
        "pool fast by monitor 10.0.0.2:3300",
    ]
    assert all(isinstance(one, RbdSource) and len(one.monitors) == 1 for _, one in tried)
    file = FileSource(path="/x", format="raw")
    assert list(hosts.ways("local", file)) == [("pool local", file)]


def test_a_peer_is_not_told_what_is_this_machines_own() -> None:
    one = Node(name="h1", uri="qemu+tls://10.0.0.1/system?pkipath=/etc/pki/x")
    assert one.peer_uri == "qemu+tls://10.0.0.1/system"
