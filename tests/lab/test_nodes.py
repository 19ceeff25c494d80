"""Hosts that join are tried out by doing, on real ones; their BMCs tell and switch their power."""

from __future__ import annotations

import time

import pytest

from tests.lab import bare
from tests.lab.clusters import ceph_url, cluster_on
from vorch.drivers.bmc_ipmi import IpmiSwitch
from vorch.drivers.bmc_redfish import RedfishSwitch
from vorch.errors import Denied, Unreachable, Unsupported, VorchError
from vorch.lab import Lab
from vorch.lab.spec import BMC_PASSWORD, BMC_USER
from vorch.ports import PowerSwitch

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]


def redfish(lab: Lab, host: str, system: str = "") -> str:
    ca = lab.spec.client_pki / "cacert.pem"
    return f"redfish+https://{BMC_USER}@{lab.spec.bmc_address(host)}{system}?ca={ca}"


def ipmi(lab: Lab, host: str) -> str:
    return f"ipmi://{BMC_USER}@{lab.spec.bmc_address(host)}"


def leftovers(lab: Lab, host: str) -> list[str]:
    with bare.connected(lab, host) as connection:
        domains = [one.name() for one in connection.listAllDomains()]
        pools = [one.name() for one in connection.listAllStoragePools()]
        return [*domains, *pools]


def test_a_host_that_joins_is_tried_out(fresh_lab: Lab) -> None:
    lab = fresh_lab
    with cluster_on(lab, ("h1", "h3")) as cluster:
        # The pool came after the hosts, and with it the word of where they come from.
        known = {node.name: node.node.storage_address for node in cluster.node_list()}
        assert known == {name: lab.spec.storage_address(name) for name in ("h1", "h3")}
        with pytest.raises(Unsupported, match=r"and 10\.9\.9\.9 was given"):
            cluster.node_add("h2", lab.spec.uri("h2"), storage_address="10.9.9.9")
        cluster.node_add(
            "h2", lab.spec.uri("h2"), bmc=redfish(lab, "h2"), bmc_password=BMC_PASSWORD
        )
        checks = {one.name: one for one in cluster.node_check("h2")}
        (monitor,) = [name for name in checks if name.startswith("pool fast by monitor ")]
        moves = [f"move {way}" for name in ("h1", "h3") for way in ways(name)]
        expected = {"libvirt", "QEMU", "accelerator", "clock", monitor, "storage address", "BMC"}
        networks = [f"network {one.name}" for one in cluster.network_list()]
        assert set(checks) == {*expected, *moves, *networks}
        bad = {name: one for name, one in checks.items() if one.level == "error"}
        assert bad == {}
        assert lab.spec.storage_address("h2") in checks["storage address"].detail
        # A host of the same machine has its time.
        ahead_s, within_s = cluster.world.hypervisor("h2").clock()
        assert abs(ahead_s) <= within_s + 0.05
        # Nothing of all that is left anywhere.
        assert cluster.volume_list("fast") == ()
        for host in lab.spec.host_names:
            assert leftovers(lab, host) == []


def ways(name: str) -> tuple[str, str]:
    return f"from {name!r} to here", f"from here to {name!r}"


def test_a_bmc_of_another_host_is_seen(fresh_lab: Lab) -> None:
    """Its power is off and the host answers, so it cannot be that one's."""
    lab = fresh_lab
    with cluster_on(lab, ("h1",)) as cluster:
        lab.power_off("h3")
        with pytest.raises(Unsupported, match="another machine"):
            cluster.node_change("h1", bmc=ipmi(lab, "h3"), bmc_password=BMC_PASSWORD)
        with pytest.raises(Unsupported, match="does not take the password"):
            cluster.node_change("h1", bmc=redfish(lab, "h1"), bmc_password="wrong")
        assert cluster.node_show("h1").node.bmc == ""
        cluster.node_change("h1", bmc=ipmi(lab, "h1"), bmc_password=BMC_PASSWORD)
        cluster.node_change("h1", bmc=redfish(lab, "h1"))
        lab.power_off("h1")
        began = time.monotonic()
        found = {one.name: one for one in cluster.doctor()}
        assert time.monotonic() - began < 40
        assert found["libvirt"].level == "error"
        assert found["BMC"].detail.endswith("reads the power state: off")


def test_a_host_that_is_let_go_forgets_and_its_name_is_free(fresh_lab: Lab) -> None:
    lab = fresh_lab

    def keys(host: str) -> int:
        with bare.connected(lab, host) as connection:
            return len(connection.listAllSecrets())

    with cluster_on(lab, ("h1",)) as cluster:
        before = keys("h2")
        cluster.node_add("new", lab.spec.uri("h2"))
        assert keys("h2") >= max(1, before)
        assert cluster.world.hypervisor("new").facts().cpus
        cluster.node_remove("new")
        assert keys("h2") == 0
        cluster.node_add("new", lab.spec.uri("h3"))
        assert cluster.node_show("new").uri == lab.spec.uri("h3")
        # What is asked of it is asked of the host that has the name now.
        lab.power_off("h2")
        assert cluster.world.hypervisor("new").domains() == ()
        assert cluster.pool_list()[0][0].url == ceph_url(lab, "rbd")


@pytest.mark.parametrize("kind", ["redfish", "ipmi"])
def test_a_bmc_tells_and_switches_the_power(fresh_lab: Lab, kind: str) -> None:
    lab = fresh_lab

    def switch(password: str = BMC_PASSWORD, timeout_s: float = 10.0) -> PowerSwitch:
        if kind == "redfish":
            return RedfishSwitch("h2", redfish(lab, "h2"), password, timeout_s=timeout_s)
        return IpmiSwitch("h2", ipmi(lab, "h2"), password, timeout_s=timeout_s)

    bmc = switch()
    assert bmc.is_on()
    for _ in range(2):
        bmc.off()
        bare.eventually(lambda: not bmc.is_on(), "it is off", 20)
    assert not next(one for one in lab.status().hosts if one.name == "h2").power
    for _ in range(2):
        bmc.on()
        bare.eventually(bmc.is_on, "it is on", 20)
    # By IPMI, a BMC need not say that it was the password.
    with pytest.raises(Denied if kind == "redfish" else (Denied, Unreachable)):
        switch("wrong").is_on()
    lab.bmc_break("h2", "silent")
    with pytest.raises(Unreachable):
        switch(timeout_s=3.0).is_on()
    with pytest.raises(VorchError):
        switch(timeout_s=3.0).off()


def test_a_certificate_of_nobody_we_know_is_refused(fresh_lab: Lab) -> None:
    lab = fresh_lab
    url = redfish(lab, "h2").partition("?")[0]
    with pytest.raises(Unreachable, match=r"(?i)certificate"):
        RedfishSwitch("h2", url, BMC_PASSWORD).is_on()
    assert RedfishSwitch("h2", f"{url}?verify=no", BMC_PASSWORD).is_on()
