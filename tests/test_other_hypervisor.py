"""High availability with two hypervisors: a VM that allows it starts on the other one.

On the world in memory, with the very loop that `vorch serve` runs.
"""

from __future__ import annotations

from tests.test_ha_verbs import SETTINGS, Leader
from vorch.drivers.memory import MemoryWorld
from vorch.model import Power
from vorch.orchestrator import Orchestrator

# Until a silent host is fenced and its VMs are started elsewhere.
LONG_ENOUGH_S = 240.0


def test_of_the_vms_of_a_dead_host_those_start_under_xen_that_may() -> None:
    world = MemoryWorld(hosts=1)
    world.add_host("x1", xen=True)
    cluster = Orchestrator(world.connect(), SETTINGS)
    for name in ("h1", "x1"):
        cluster.node_add(name, f"memory:{name}")
    cluster.pool_add("fast", "memory:fast")
    for name, hypervisor in (("both", "any"), ("one", "kvm")):
        cluster.create(name, disk_gib=1, networks=(), node="h1", hypervisor=hypervisor, start=True)
        cluster.ha_set(name)
    leader = Leader(world)
    leader.on(10.0)
    world.host("h1").power_off()
    leader.on(LONG_ENOUGH_S)
    status = cluster.show("both")
    assert (status.vm.node, status.vm.hypervisor, status.power) == ("x1", "any", Power.RUNNING)
    assert cluster.show("one").vm.node == "h1"
    assert world.double_writers() == []
    assert any("for KVM alone" in said or "hypervisor is 'xen'" in said for said in leader.said)
