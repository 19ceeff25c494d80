"""`inventory`: who is in it, at what address, in which groups; and Ansible's form of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vorch import Orchestrator, Settings, ansible_inventory
from vorch.decide.inventory import Inventory, InventoryHost, inventory
from vorch.drivers.memory import MemoryWorld
from vorch.model import Address, Cluster, Nic, Vm


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld(hosts=2)


@pytest.fixture
def cluster(world: MemoryWorld) -> Orchestrator:
    made = Orchestrator(world.connect(), Settings(uri="memory:"))
    made.node_add("h1", "memory:h1")
    made.node_add("h2", "memory:h2")
    made.pool_add("fast", "memory:fast")
    made.network_create("lan", kind="nat")
    for name, node, start in (("db", "h1", True), ("web", "h2", True), ("old", "h1", False)):
        made.create(name, disk_gib=1, networks=("lan",), node=node, start=start)
    world.clock.sleep(60)
    return made


def test_who_is_in_it(cluster: Orchestrator) -> None:
    found = cluster.inventory()
    assert [one.name for one in found.hosts] == ["db", "old", "web"]
    by_name = {one.name: one for one in found.hosts}
    assert by_name["web"].address == cluster.show("web").addresses[0].ip
    assert by_name["old"].address == ""
    assert found.groups == {
        "network": {"lan": ("db", "old", "web")},
        "node": {"h1": ("db", "old"), "h2": ("web",)},
        "state": {"running": ("db", "web"), "stopped": ("old",)},
    }


def test_a_host_that_is_silent_costs_its_addresses_only(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    world.faults.fail("host:h2", "addresses")
    by_name = {one.name: one for one in cluster.inventory().hosts}
    assert by_name["db"].address
    assert by_name["web"].address == ""
    assert by_name["web"].state == "running"


@pytest.mark.parametrize(
    ("told", "first"),
    [
        ((("10.0.0.9", "arp"), ("10.0.0.5", "lease")), "10.0.0.5"),
        ((("fd00::1", "lease"), ("10.0.0.9", "arp")), "10.0.0.9"),
        ((("fd00::1", "agent"),), "fd00::1"),
        ((), ""),
    ],
)
def test_which_address_is_believed(told: tuple[tuple[str, str], ...], first: str) -> None:
    vm = Vm(
        name="web",
        id="6c1fd62e-58a1-4a5d-ae3e-6d2a4f6f6c4e",
        node="h1",
        nics=(Nic(name="nic0", mac="52:54:00:00:00:01", network="lan"),),
    )
    addresses = [
        Address(mac=vm.nics[0].mac, ip=ip, source=source)  # type: ignore[arg-type]
        for ip, source in told
    ]
    (host,) = inventory(Cluster(vms={"web": vm}), {vm.id: addresses}).hosts
    assert host.address == first
    assert set(host.addresses) == {ip for ip, _ in told}


def test_names_of_groups_are_ansibles_and_stay_apart() -> None:
    hosts = tuple(
        InventoryHost(name=name, id=name, node=node, state="running", vcpus=1, memory_mib=1)
        for name, node in (("a", "h-1"), ("b", "h_1"), ("c", "h.1"))
    )
    found = Inventory(hosts=hosts, groups={"node": {one.node: (one.name,) for one in hosts}})
    told = ansible_inventory(found)
    groups = {name: one["hosts"] for name, one in told.items() if name.startswith("node")}
    assert groups["node_h_1"] == ["b"]
    assert sorted(map(tuple, groups.values())) == [("a",), ("b",), ("c",)]
    assert all(name.isidentifier() for name in groups)
    assert set(told["all"]["children"]) == {"ungrouped", *groups}


@pytest.mark.slow
def test_ansible_itself_reads_it(tmp_path: Path) -> None:
    program = os.environ.get("ANSIBLE_INVENTORY_PROGRAM") or shutil.which("ansible-inventory")
    if program is None:
        pytest.skip("there is no ansible-inventory here (pip install ansible-core)")
    script = tmp_path / "vorch.sh"
    script.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c '{MADE_UP}' \"$@\"\n",
        encoding="utf-8",
    )
    script.chmod(0o755)
    ended = subprocess.run(
        [program, "-i", str(script), "--list"], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["state_stopped"]["hosts"] == ["web"]
    assert told["_meta"]["hostvars"]["web"]["vorch_vcpus"] == 1
    assert "WARNING" not in ended.stderr, ended.stderr


# A cluster in memory with one VM, and then the command as it is.
MADE_UP = (
    "import sys; from vorch import connect; from vorch_cli.main import main;"
    ' connect("memory:ansible").create("web", disk_gib=1);'
    ' sys.exit(main(["--uri", "memory:ansible", "inventory", "--ansible", *sys.argv[1:]]))'
)
