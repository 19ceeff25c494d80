"""What a host cannot do is said in words, and refused before anything is begun."""

from __future__ import annotations

from typing import get_args

import pytest

from tests.decide.worlds import node, vm
from vorch.decide import abilities
from vorch.drivers.xen import LACKS, WITHOUT
from vorch.errors import Unsupported
from vorch.model import Cluster, HostFacts, Node
from vorch.plan import Plan, ResetDomain, SetMemory, Step
from vorch.ports import Hypervisor
from vorch.xen_guests import LOADERS

WHY = "it has no such call"
WEB = vm()


def cluster(*nodes: Node) -> Cluster:
    return Cluster(vms={WEB.name: WEB}, nodes={one.name: one for one in nodes})


def plan(*steps: Step) -> Plan:
    return Plan(verb="reset", subject=WEB.name, why="", steps=steps, claims=(), reads={})


def test_every_verb_that_is_spoken_of_is_one_of_the_port() -> None:
    verbs = {verb for some in abilities.WORDS.values() for verb in some}
    of_the_host = {abilities.LIVE_PV, *LOADERS.values()}
    for verb in {*verbs, *abilities.ASKS.values(), *LACKS, *WITHOUT} - of_the_host:
        assert callable(getattr(Hypervisor, verb)), verb


def test_a_host_is_described_by_what_it_can_and_why_it_cannot_the_rest() -> None:
    facts = HostFacts(hypervisor="kvm", cpus=2, memory_mib=2048, uefi=True, lacks={"reset": WHY})
    told = {one.name: one.why_not for one in abilities.abilities(facts)}
    assert told["reset"] == WHY
    assert told["UEFI"] == ""
    assert "install" in told["TPM"]
    assert told["memory of a running VM"] == ""
    assert abilities.abilities(None) == ()


def test_one_of_two_verbs_that_is_lacking_is_enough() -> None:
    facts = HostFacts(hypervisor="xen", cpus=2, memory_mib=2048, lacks={"detach_nic": WHY})
    told = {one.name: one.why_not for one in abilities.abilities(facts)}
    assert told["network cards in and out of a running VM"] == WHY
    assert "guests of Xen" in told["UEFI"]


@pytest.mark.parametrize(
    ("verb", "step"),
    [
        ("reset", ResetDomain(vm=WEB)),
        ("set_memory", SetMemory(vm=WEB, memory_mib=512, before_mib=1024)),
    ],
)
def test_a_plan_for_a_host_that_cannot_is_refused(verb: str, step: Step) -> None:
    with pytest.raises(Unsupported, match=WHY) as caught:
        abilities.check(plan(step), cluster(node(lacks={verb: WHY})))
    assert "'h1'" in caught.value.message
    abilities.check(plan(step), cluster(node(lacks={"screen": WHY})))
    abilities.check(plan(step), cluster())


def test_each_live_step_asks_something() -> None:
    assert set(get_args(abilities.Live)) == abilities.ASKS.keys()
