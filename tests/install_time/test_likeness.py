"""What is compared may differ; nothing else may, and what does is named with who has it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.install_time.judged import HOSTS, KVM, POOLS, XEN, both, results, run
from vorch import Invalid
from vorch_install_time import differences
from vorch_install_time.engine import refuse_unlike


def with_host(host: str, **facts: str) -> dict[str, dict[str, str]]:
    return {**HOSTS, host: {**HOSTS[host], **facts}}


def test_hypervisors_may_differ() -> None:
    assert differences([both()]) == ()


@pytest.mark.parametrize(
    "fact",
    ["guests run", "libvirt", "processor", "processors", "memory MiB", "host kernel", "machine"],
)
def test_hosts_may_not(fact: str) -> None:
    hosts = with_host(XEN, **{fact: "other"})
    hosts[KVM] = {**hosts[KVM], fact: "one"}
    (found,) = differences([results(*both().runs, hosts=hosts)])
    assert str(found) == f"hosts: {fact}: one (h1); other (x1)"


def test_what_is_known_of_one_alone_is_a_difference() -> None:
    (found,) = differences([results(*both().runs, hosts=with_host(XEN, machine="QEMU"))])
    assert str(found) == "hosts: machine: unknown (h1); QEMU (x1)"


def test_versions_count_among_those_of_one_hypervisor() -> None:
    hosts = {**HOSTS, "h2": {**HOSTS[KVM], "hypervisor version": "QEMU 8.0"}}
    more = run(KVM, "fast", 4, 1.0, called="h2")
    (found,) = differences([results(*both().runs, more, hosts=hosts)])
    assert str(found) == "kvm hosts: hypervisor version: QEMU 7.2 (h1); QEMU 8.0 (h2)"


def test_a_host_that_nothing_ran_on_does_not_count() -> None:
    hosts = {**HOSTS, "h2": {"hypervisor": "kvm", "libvirt": "1.0"}}
    assert differences([results(*both().runs, hosts=hosts)]) == ()


@pytest.mark.parametrize(
    ("setup", "named"),
    [
        ({"memory MiB": "2048"}, "memory MiB: 1024 (result 1); 2048 (result 2)"),
        ({"mirror": "http://b/debian"}, "mirror: http://a/debian (result 1); http://b/debian"),
    ],
)
def test_several_results_have_to_be_of_one_kind(setup: dict[str, Any], named: str) -> None:
    one, other = both(), both()
    (found,) = differences([one, results(*other.runs, setup={**one.setup, **setup})])
    assert str(found).startswith(named)


def test_the_number_of_networks_may_differ_and_copies_may_not() -> None:
    one = both()
    pools = {**POOLS, "fast": {**POOLS["fast"], "networks": "one"}}
    assert differences([one, results(*one.runs, pools=pools)]) == ()
    pools["fast"] = {**pools["fast"], "copies": "2"}
    (found,) = differences([one, results(*one.runs, pools=pools)])
    assert str(found) == "rbd pools: copies: 2 (fast of result 2); 3 (fast of result 1)"


def test_the_unlike_is_refused_unless_that_is_wanted() -> None:
    found = differences([results(*both().runs, hosts=with_host(XEN, libvirt="8"))])
    with pytest.raises(Invalid, match=r"(?s)not alike.*libvirt: 8 \(x1\); 9.0.0 \(h1\).*--unlike"):
        refuse_unlike(found, allowed=False)
    refuse_unlike(found, allowed=True)
    refuse_unlike((), allowed=False)
