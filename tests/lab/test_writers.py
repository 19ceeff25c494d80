"""The promise that everything else is about: what a guest was told is written, is there, once."""

from __future__ import annotations

import time

import libvirt
import pytest

from tests.lab import bare
from vorch.lab import Lab, verify_disk
from vorch.lab.spec import CEPH_USER, POOL
from vorch.lab.verify import Verdict

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]


def verdict(lab: Lab, image: str, *hosts: str) -> Verdict:
    return verify_disk(
        f"rbd:{POOL}/{image}",
        acks=bare.acks(lab, "writer", *hosts),
        conf=lab.spec.ceph_conf,
        user=CEPH_USER,
    )


@pytest.fixture
def writer(fresh_lab: Lab) -> Lab:
    """A guest on h1 that writes to RBD, its first writes confirmed."""
    image = bare.put_image(fresh_lab, "disk", "writer")
    bare.start(fresh_lab, "h1", "writer", "disk", image.memory_mib)
    bare.await_acks(fresh_lab, "writer", "h1", 5)
    return fresh_lab


def test_a_guest_that_writes_moves_while_it_runs(writer: Lab) -> None:
    """Peer to peer, all of it over TLS, round the three hosts and home."""
    for host in ("h2", "h3"):
        with bare.connected(writer, host) as connection:
            bare.secret_of(writer, connection)
    took = []
    for source, target in (("h1", "h2"), ("h2", "h3"), ("h3", "h1")):
        with bare.connected(writer, source) as connection:
            domain = connection.lookupByName("writer")
            began = time.monotonic()
            domain.migrateToURI3(writer.spec.peer_uri(target), {}, bare.MIGRATE)
            took.append(time.monotonic() - began)
        bare.await_acks(writer, "writer", target, 5)
        with bare.connected(writer, source) as connection:
            assert connection.listAllDomains() == []
    writer.kill_qemu("h1", "writer")
    seen = verdict(writer, "disk", "h1", "h2", "h3")
    assert seen.ok, seen.findings
    assert seen.acks >= 20
    assert len(seen.epochs) == 1
    # A zombie of the source would keep libvirt for forty seconds at the end of each.
    assert sorted(took)[1] < 20, took


def test_a_power_cut_loses_nothing_that_was_confirmed(writer: Lab) -> None:
    bare.await_acks(writer, "writer", "h1", 10)
    writer.power_off("h1")
    seen = verdict(writer, "disk", "h1")
    assert seen.ok, seen.findings
    assert seen.acks >= 15


def test_a_guest_outlives_an_osd(writer: Lab) -> None:
    writer.osd_kill(0)
    bare.await_acks(writer, "writer", "h1", 10)
    writer.heal()
    bare.await_acks(writer, "writer", "h1", 5)
    writer.kill_qemu("h1", "writer")
    seen = verdict(writer, "disk", "h1")
    assert seen.ok, seen.findings


def test_two_writers_without_a_fence_are_found_out(writer: Lab) -> None:
    """What vorch must never do, done on purpose: RBD's lock alone lets it happen."""
    with bare.connected(writer, "h1") as connection:
        memory = connection.lookupByName("writer").maxMemory() // 1024
    # Its host cannot be asked any more, so somebody thinks that it is dead.
    writer.cut("h1", "management")
    bare.start(writer, "h2", "writer", "disk", memory)
    bare.await_acks(writer, "writer", "h2", 10)
    bare.await_acks(writer, "writer", "h1", 5)
    writer.kill_qemu("h1", "writer")
    writer.kill_qemu("h2", "writer")
    seen = verdict(writer, "disk", "h1", "h2")
    assert not seen.ok
    assert seen.two_writers, seen.findings
    # The disk alone gives it away, too.
    alone = verify_disk(f"rbd:{POOL}/disk", conf=writer.spec.ceph_conf, user=CEPH_USER)
    assert alone.two_writers, alone.findings


def test_one_boot_after_the_other_is_well(writer: Lab) -> None:
    """The same as above with the one thing in between that makes it right."""
    with bare.connected(writer, "h1") as connection:
        memory = connection.lookupByName("writer").maxMemory() // 1024
    writer.power_off("h1")
    bare.start(writer, "h2", "writer", "disk", memory)
    bare.await_acks(writer, "writer", "h2", 10)
    writer.kill_qemu("h2", "writer")
    seen = verdict(writer, "disk", "h1", "h2")
    assert seen.ok, seen.findings
    assert [one.epoch for one in seen.epochs] == [1, 2]


def test_a_guest_gets_an_address_on_the_labs_network(writer: Lab) -> None:
    text = bare.eventually(
        lambda: bare.console_text(writer, "h1", "writer").partition("vorch-guest ready")[2],
        "the guest is ready",
    )
    first, last = writer.spec.guest_range
    address = text.partition("ip=")[2].split()[0]
    assert address.rpartition(".")[0] == first.rpartition(".")[0]
    assert int(first.rpartition(".")[2]) <= int(address.rpartition(".")[2])
    assert int(address.rpartition(".")[2]) <= int(last.rpartition(".")[2])


def test_a_disk_without_its_secret_stays_shut(fresh_lab: Lab) -> None:
    image = bare.put_image(fresh_lab, "disk", "writer")
    xml = bare.domain_xml(fresh_lab, "writer", "disk", image.memory_mib, "0" * 8 + "-0" * 4)
    with bare.connected(fresh_lab, "h1") as connection, pytest.raises(libvirt.libvirtError):
        connection.createXML(xml.replace("0" * 8 + "-0" * 4, fresh_lab.spec.host_uuid("h1")))
