"""The power fence on the lab's BMCs, by Redfish and IPMI, and with each of their faults."""

from __future__ import annotations

import pytest

from tests.lab.test_fencing import guarded, nodes_of
from tests.lab.test_nodes import ipmi, redfish
from vorch.drivers.bmc_ipmi import IpmiSwitch
from vorch.drivers.bmc_redfish import RedfishSwitch
from vorch.drivers.fence_power import PowerFencer
from vorch.drivers.witness import HostWitness
from vorch.errors import FenceFailed
from vorch.lab import Lab
from vorch.lab.spec import BMC_PASSWORD
from vorch.model import Node
from vorch.ports import PowerSwitch, no_progress

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]


def switch(node: Node) -> PowerSwitch:
    kind = RedfishSwitch if node.bmc.startswith("redfish") else IpmiSwitch
    return kind(node.name, node.bmc, BMC_PASSWORD)


def fencer(timeout_s: float = 60.0) -> PowerFencer:
    witness = HostWitness(dict, lambda node, patience_s: None, answer_s=5)
    return PowerFencer(switch, witness.knock, timeout_s=timeout_s)


def with_bmc(lab: Lab, host: str, kind: str = "redfish", *, of: str = "") -> Node:
    node = nodes_of(lab)[host]
    url = (redfish if kind == "redfish" else ipmi)(lab, of or host)
    return Node(name=host, uri=node.uri, storage_address=node.storage_address, bmc=url)


def has_power(lab: Lab, host: str) -> bool:
    return next(row.power for row in lab.status().hosts if row.name == host)


@pytest.mark.parametrize("kind", ["redfish", "ipmi"])
def test_off_is_read_back_and_nobody_answers(fresh_lab: Lab, kind: str) -> None:
    lab, node = fresh_lab, with_bmc(fresh_lab, "h2", kind)
    power = fencer()
    assert power.covers(node)
    assert not power.covers(nodes_of(lab)["h2"])
    assert power.read(node, 10.0) == "on"
    assert "off" in power.fence(node, (), no_progress)
    assert not has_power(lab, "h2")
    assert "off already" in power.fence(node, (), no_progress)
    assert power.read(node, 10.0) == "off"
    assert has_power(lab, "h1")
    lab.heal()


@pytest.mark.parametrize("how", ["silent", "refuse", "stuck"])
def test_a_broken_bmc_proves_nothing(fresh_lab: Lab, how: str) -> None:
    lab, node = fresh_lab, with_bmc(fresh_lab, "h2")
    lab.bmc_break("h2", how)
    with pytest.raises(FenceFailed, match="within 3 s"):
        fencer(3.0).fence(node, (), no_progress)
    assert has_power(lab, "h2")
    lab.heal()
    # Nor does a BMC that was silent carry out later what nobody wants any more.
    assert switch(node).is_on()
    assert has_power(lab, "h2")


def test_the_bmc_of_another_host_proves_nothing(fresh_lab: Lab) -> None:
    lab = fresh_lab
    lab.power_off("h3")
    node = with_bmc(lab, "h2", of="h3")
    with pytest.raises(FenceFailed, match="it still answers at management and storage"):
        fencer(3.0).fence(node, (), no_progress)
    (check,) = fencer().drill([node], no_progress)
    assert check.level == "error"
    assert "which answers" in check.detail
    lab.heal()


@pytest.mark.thorough
def test_both_ways_at_once_and_a_bmc_that_hangs_keeps_nobody(fresh_lab: Lab) -> None:
    lab = fresh_lab
    with guarded(lab) as cluster:
        for host in ("h1", "h2"):
            cluster.node_change(host, bmc=redfish(lab, host), bmc_password=BMC_PASSWORD)
        checks = {one.name: one for one in cluster.doctor(fencing=True)}
        assert checks["BMC of h1"].level == "ok"
        lab.bmc_break("h2", "silent")
        done = cluster.node_fence("h2", force=True)
        assert done.task is not None
        proof = str(done.task.result["proof"])
        assert proof.startswith("storage: ")
        assert "power" not in proof
        cluster.node_unfence("h2")
        done = cluster.node_fence("h1", force=True)
        assert done.task is not None
        proof = str(done.task.result["proof"])
        assert "storage: Ceph refuses" in proof
        assert "power: its BMC says that it is off" in proof
        assert not has_power(lab, "h1")
        lab.heal()
        cluster.node_unfence("h1")
