"""A dump holds all that a decision is made from, and nothing that is nobody's business."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_ha_verbs import Leader
from vorch import Orchestrator, simulate
from vorch.availability import Availability
from vorch.config import Settings
from vorch.drivers.memory import MemoryWorld
from vorch.dumped import Dump, dump_of, without_secrets
from vorch.errors import Invalid

GIB = 1024


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld(hosts=4, memory_mib=8 * GIB)


@pytest.fixture
def cluster(world: MemoryWorld) -> Iterator[Orchestrator]:
    made = Orchestrator(world.connect(), Settings(uri="memory:"))
    for number in range(1, 5):
        made.node_add(f"h{number}", f"memory:h{number}")
    made.pool_add("fast", "memory:fast")
    made.network_create("default", kind="nat")
    for number, name in enumerate(("web", "db", "app", "big", "off")):
        made.create(
            name,
            disk_gib=1,
            networks=("default",),
            node=f"h{1 + number % 2}",
            memory_mib=GIB,
            start=name != "off",
        )
    for name in ("web", "db", "app"):
        made.ha_set(name)
    made.rule_add("split", "apart", ("web", "app"))
    Leader(world).on(10.0)
    yield made
    made.close()


def again(dump: Dump) -> Dump:
    return dump_of(json.loads(json.dumps(dump.document())))


def test_what_is_read_again_is_the_same(cluster: Orchestrator) -> None:
    before = cluster.dump()
    after = again(before)
    assert after == before
    assert after.cluster == before.cluster
    assert after.availability == before.availability
    assert after.fleet == before.fleet
    assert after.balanced_fleet == before.balanced_fleet
    assert after.settings == before.settings
    assert after.watched


def test_nothing_that_decides_is_lost_with_the_secrets(cluster: Orchestrator) -> None:
    whole = cluster._input()
    assert without_secrets(whole).fleet == whole.fleet
    assert without_secrets(whole).balanced_fleet == whole.balanced_fleet
    # It is the look itself, and not a part of it.
    assert whole.cluster.domains
    assert whole.cluster.versions
    assert whole.availability != Availability()


def test_the_answers_are_those_of_the_living_cluster(cluster: Orchestrator, tmp_path: Path) -> None:
    file = tmp_path / "cluster.json"
    file.write_text(json.dumps(cluster.dump().document()))
    read = simulate.read_input(file)
    assert isinstance(read, Dump)
    assert simulate.whatif_fail(read, ["h1"]) == cluster.whatif_fail(["h1"])
    fleet = simulate.read_fleet(file)
    assert simulate.capacity(fleet, vcpus=1, memory_mib=512) == cluster.capacity(
        vcpus=1, memory_mib=512
    )
    assert simulate.remove_hosts(fleet, ["h1"]) == cluster.whatif_remove_host(["h1"])
    assert simulate.add_guests(fleet, count=3, vcpus=1, memory_mib=512) == cluster.whatif_add_vms(
        count=3, vcpus=1, memory_mib=512
    )
    balanced = simulate.read_fleet(file, to_balance=True)
    assert simulate.add_host(balanced, "h5", cpus=8, memory_mib=8 * GIB) == cluster.whatif_add_host(
        "h5", cpus=8, memory_mib=8 * GIB
    )


def test_a_balance_is_foretold(cluster: Orchestrator, tmp_path: Path) -> None:
    # Two that are to be apart, on one host by force.
    cluster.migrate("app", cluster.look().vm("web").node, force=True)
    file = tmp_path / "cluster.json"
    file.write_text(json.dumps(cluster.dump().document()))
    living = cluster.balance(dry_run=True, measure_s=0).plan
    read = simulate.read_input(file)
    assert isinstance(read, Dump)
    limits = simulate.Limits(per_host=read.settings.migrations_per_host)
    filed = simulate.balance(read.balanced_fleet, limits)
    assert living.moves
    assert [(one.guest, one.source, one.target) for one in filed.moves] == [
        (one.guest, one.source, one.target) for one in living.moves
    ]


def test_nothing_is_written_by_the_questions(world: MemoryWorld, cluster: Orchestrator) -> None:
    before = world.connect().state.changes(0, 0.0)[0]
    cluster.dump()
    cluster.capacity(vcpus=1, memory_mib=512, hosts_lost=2)
    cluster.whatif_add_host("h5", cpus=8, memory_mib=8 * GIB)
    cluster.whatif_remove_host(["h1"])
    cluster.whatif_add_vms(count=2, vcpus=1, memory_mib=512)
    assert world.connect().state.changes(0, 0.0)[0] == before


def test_secrets_and_free_text_are_left_out(cluster: Orchestrator) -> None:
    whole = cluster._input()
    vm = dataclasses.replace(whole.cluster.vm("web"), description="the key is swordfish")
    node = dataclasses.replace(
        whole.cluster.node("h1"), uri="qemu+tls://root:swordfish@h1.example/system?no_tty=1"
    )
    seen = dataclasses.replace(
        whole.cluster,
        vms={**whole.cluster.vms, "web": vm},
        nodes={**whole.cluster.nodes, "h1": node},
        silent={"h4": "https://me:swordfish@bmc.example/redfish?token=swordfish does not answer"},
    )
    settings = dataclasses.replace(whole.settings, fence_command="/bin/fence --token swordfish")
    clean = without_secrets(dataclasses.replace(whole, cluster=seen, settings=settings))
    text = json.dumps(clean.document())
    assert "swordfish" not in text
    assert clean.cluster.node("h1").uri == "qemu+tls://root@h1.example/system?no_tty=1"
    assert clean.cluster.silent["h4"] == "https://me@bmc.example/redfish does not answer"
    assert not re.search(r'"(secret|password)[^"]*": "[^"]', text)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"format": "vorch-dump/2"}, "'vorch-dump/1' is known"),
        ({"cluster": {"vms": {"web": {"name": "web"}}}}, "cannot read a document as Dump"),
        ({"at": "soon"}, "cannot read a document as Dump: at"),
    ],
)
def test_an_unsound_dump_is_refused(
    cluster: Orchestrator, part: dict[str, object], says: str
) -> None:
    with pytest.raises(Invalid, match=says):
        dump_of({**cluster.dump().document(), **part})


def test_what_a_later_version_adds_is_no_harm(cluster: Orchestrator) -> None:
    before = cluster.dump()
    document = before.document()
    document["later"] = {"some": "thing"}
    document["settings"]["later_s"] = 3
    assert dump_of(document) == before


def test_how_much_may_be_lost(cluster: Orchestrator) -> None:
    found = cluster.capacity(vcpus=1, memory_mib=512)
    assert found.verdict == "yes"
    assert set(found.verdicts) == {"h1", "h2", "h3", "h4"}
    assert found.growth is not None
    assert found.growth.fit >= found.growth.with_spare > 0
    # What QEMU takes beside the memory is counted for new VMs as for those that are there.
    assert found.growth.guest.overhead_mib == cluster.settings.vm_overhead_mib
    with pytest.raises(Invalid, match="no host has a tag 'rack:…'"):
        cluster.capacity(over="rack")


def test_a_connection_does_without_numpy() -> None:
    code = (
        "import sys, vorch\n"
        "with vorch.connect('memory:') as cluster:\n"
        "    cluster.look()\n"
        "    print('numpy' in sys.modules)\n"
        "    cluster.capacity()\n"
        "    print('numpy' in sys.modules)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["False", "True"]
