"""Which clients write a VM's disks: what is certain, what is recorded, what is lacking."""

from __future__ import annotations

import dataclasses

from tests.decide.worlds import OVERHEAD, cluster, kinds, vm
from vorch.decide import clients, lifecycle
from vorch.model import Clients, Cluster, Disk, Holder, Pool, Power, Volume
from vorch.plan import Save

A = Holder("10.0.0.1:0/1", 1, owns_lock=True)
B = Holder("10.0.0.2:0/2", 2)
CEPH = {"local": Pool(name="local", url="rbd://vms?conf=/etc/ceph/ceph.conf&id=vorch")}


def running(*recorded: Clients, **other: object) -> Cluster:
    fields = {"pools": CEPH, "clients": {one.vm: one for one in recorded}, **other}
    return cluster(vm(wanted="running"), power=Power.RUNNING, **fields)  # type: ignore[arg-type]


def known(node: str = "h1", **disks: str) -> Clients:
    return Clients(vm=vm().id, node=node, disks=disks)


def test_only_what_is_certain_counts() -> None:
    assert clients.only_client([A]) == A.address
    assert clients.only_client([B]) == B.address
    assert clients.only_client([]) is None
    assert clients.only_client([A, B]) is None
    # A lock whose client is gone says nothing of who has it open now.
    assert clients.only_client([Holder(A.address, None, owns_lock=True), B]) == B.address
    assert clients.only_client([Holder(A.address, None, owns_lock=True)]) is None
    # The host that it has left may linger, and holds the lock until the new one writes.
    assert clients.only_client([A, B], [A.address]) == B.address
    assert clients.only_client([A], [A.address]) is None
    assert clients.only_client(None) == ""


def test_what_is_lacking_is_told() -> None:
    def lack(*recorded: Clients, **other: object) -> str:
        look = running(*recorded, **other)
        return clients.lacking(look, look.vm("web"))

    assert lack(known(root=A.address)) == ""
    assert "not recorded" in lack()
    assert "disk 'root'" in lack(known())
    assert "of 'h2'" in lack(known("h2", root=A.address))
    # Xen starts a guest anew that reboots, with other clients.
    look = running(known(root=A.address))
    (domain,) = look.domains.values()
    look = dataclasses.replace(look, domains={domain.id: dataclasses.replace(domain, run=7)})
    assert "rebooted" in clients.lacking(look, look.vm("web"))
    same = dataclasses.replace(known(root=A.address), run=7)
    look = dataclasses.replace(look, clients={same.vm: same})
    assert clients.lacking(look, look.vm("web")) == ""
    # Folders show no clients, and what is off has none.
    assert lack(pools={"local": Pool(name="local", url="dir:///pool")}) == ""
    assert lack(domains={}) == ""
    assert clients.record(running(known(root=A.address)), vm()).empty
    assert kinds(clients.record(running(), vm())) == ["see-clients", "save"]


def test_one_that_was_not_seen_where_it_is_recorded_is_recorded_where_it_runs() -> None:
    look = running()
    (domain,) = look.domains.values()
    look = dataclasses.replace(look, domains={domain.id: dataclasses.replace(domain, node="h2")})
    saved = clients.record(look, vm()).steps[-1]
    assert isinstance(saved, Save)
    assert saved.after is not None
    assert saved.after["node"] == "h2"


def test_the_record_goes_when_the_vm_stops() -> None:
    look = running(known(root=A.address))
    for force in (True, False):
        plan = lifecycle.stop(look, "web", timeout_s=5, force=force)
        last = plan.steps[-1]
        assert isinstance(last, Save)
        assert (last.key, last.after) == (f"clients/{vm().id}", None)
    # It went off by itself; whoever stops it then clears the record away.
    off = dataclasses.replace(look, domains={})
    assert kinds(lifecycle.stop(off, "web", timeout_s=5, force=False)) == ["save", "save"]
    started = lifecycle.start(off, "web", overhead_mib=OVERHEAD).steps[-1]
    assert isinstance(started, Save)
    assert started.fill == {"disks": "clients", "run": "run"}


def test_what_is_only_read_has_no_writer() -> None:
    seed = Disk(
        name="seed",
        target="sda",
        volume=Volume(pool="local", name="web.seed.1"),
        device="cdrom",
        read_only=True,
    )
    one = vm(disks=(*vm().disks, seed))
    assert [disk.name for disk in one.written_disks] == ["root"]
