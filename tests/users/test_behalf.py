"""The verbs as somebody has them: what is let through, what is hidden, what is too much."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable

import pytest

from vorch import NEEDS, OnBehalf, Orchestrator, Quota
from vorch.decide.rights import BESIDE, may
from vorch.drivers.memory import world_named
from vorch.errors import Conflict, Denied, Invalid, NotFound, VorchError
from vorch.model import Cluster
from vorch.rights import Principal, Role

As = Callable[[str], OnBehalf]
# Methods that nobody has by this way.
NO_VERBS = {"close", "cluster_of", "lean_on", "look", "now", "picture"}


def test_every_verb_is_in_the_table_and_nothing_else() -> None:
    verbs = {
        name
        for name, _ in inspect.getmembers(Orchestrator, inspect.isfunction)
        if not name.startswith("_")
    }
    assert set(NEEDS) - BESIDE == verbs - NO_VERBS
    assert not BESIDE & verbs


@pytest.mark.parametrize("verb", sorted(set(NEEDS) - BESIDE))
def test_what_the_table_speaks_of_is_there(verb: str) -> None:
    need = NEEDS[verb]
    parameters = inspect.signature(getattr(Orchestrator, verb)).parameters
    assert set(need.above) <= set(parameters)
    if need.about in ("vm", "trashed", "new-vm"):
        assert "name" in parameters
    if need.about == "task":
        assert {"task_id", "job_id"} & set(parameters)
    if "dry_run" in parameters:
        assert need.changes


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("verb", [*sorted(NEEDS), *sorted(NO_VERBS), "nosuch", "__init__"])
def test_each_role_may_what_its_rank_says_and_no_more(verb: str, role: Role) -> None:
    principal = Principal(name="zoe", role=role, scopes=("*",))
    whose = {"user" if verb.startswith("token") else "name": "zoe"}
    refusal = may(principal, verb, whose, Cluster())
    need = NEEDS.get(verb)
    if need is None or (verb == "image_import" and role is not Role.ADMIN):
        assert isinstance(refusal, Denied)
    else:
        assert (refusal is None) == role.covers(need.role)


def test_what_is_no_verb_is_denied(people: Orchestrator, as_user: As) -> None:
    acting = as_user("root-ann")
    for name in NO_VERBS:
        with pytest.raises(Denied, match="nobody may by this way"):
            getattr(acting, name)()
    for name in ("world", "executor", "_do", "noter", "hosts", "nosuch"):
        with pytest.raises(AttributeError):
            getattr(acting, name)


def test_users_have_their_own_vms_and_see_no_others(people: Orchestrator, as_user: As) -> None:
    alice, bob, vic, olga = map(as_user, ("alice", "bob", "vic", "olga"))
    alice.create("web", disk_gib=1, networks=(), tags=("shop",))
    bob.create("db", disk_gib=1, networks=())
    assert people.show("web").vm.tags == ("shop", "owner:alice")
    assert [one.name for one in alice.list()] == ["web"]
    assert [one.name for one in bob.list()] == ["db"]
    assert [one.name for one in vic.list()] == ["db", "web"]
    assert {one.subject for one in bob.task_list()} == {"db"}
    alice.start("web")
    bob_sees = None
    acts: list[Callable[[], object]] = [
        lambda: bob.show("web"),
        lambda: bob.start("web"),
        lambda: bob.delete("web", force=True),
        lambda: bob.console("web"),
        lambda: bob.clone("web", "mine"),
        lambda: bob.change("web", tags=("owner:bob",)),
    ]
    for act in acts:
        with pytest.raises(NotFound) as caught:
            act()
        # Word for word as of one that is not there.
        with pytest.raises(NotFound) as absent:
            people.show("web2")
        assert caught.value.message == absent.value.message.replace("web2", "web")
        bob_sees = caught.value.fields
    assert bob_sees == {"vm": "web"}
    with pytest.raises(Denied, match="takes the role user"):
        vic.stop("web")
    olga.stop("web", force=True)
    alice.delete("web")
    assert [one.name for one in bob.trash_list()] == []
    with pytest.raises(NotFound, match="in the trash"):
        bob.undelete("web")
    alice.undelete("web", new_name="web-again")
    assert [one.name for one in alice.list()] == ["web-again"]
    alice.rename("web-again", "web")
    assert people.show("web").vm.tags == ("shop", "owner:alice")


def test_tasks_of_others(people: Orchestrator, as_user: As) -> None:
    alice, bob = as_user("alice"), as_user("bob")
    task = alice.create("web", disk_gib=1, networks=()).task
    assert task.who == "alice from 10.0.0.9"
    assert alice.task_show(task.id) == task
    acts: list[Callable[[], object]] = [
        lambda: bob.task_show(task.id),
        lambda: bob.task_cancel(task.id),
    ]
    for act in acts:
        with pytest.raises(NotFound, match="none of that id"):
            act()
    with pytest.raises(NotFound):
        bob.task_show("../etc")
    by_local = people.start("web").task
    assert by_local is not None
    assert by_local in alice.task_list()
    with pytest.raises(Denied, match="somebody else began it"):
        alice.task_cancel(by_local.id)
    # An image, a host or another user of that name is no VM of hers.
    people.user_add("web")
    assert "user add" not in {one.verb for one in alice.task_list()}


def test_a_user_neither_leaves_its_scope_nor_enters_that_of_others(
    people: Orchestrator, as_user: As
) -> None:
    alice = as_user("alice")
    alice.create("web", disk_gib=1, networks=())
    with pytest.raises(Denied, match="none of yours any more"):
        alice.change("web", tags=())
    with pytest.raises(Denied, match="scope of somebody else"):
        alice.change("web", tags=("owner:alice", "owner:bob"))
    with pytest.raises(Denied, match="scope of somebody else"):
        alice.create("gift", disk_gib=1, networks=(), tags=("owner:bob",))
    alice.change("web", tags=("owner:alice", "shop"))
    assert [one.name for one in people.list()] == ["web"]


def test_what_takes_more_than_the_verb(people: Orchestrator, as_user: As) -> None:
    alice, olga = as_user("alice"), as_user("olga")
    with pytest.raises(Denied, match="'node' takes the role operator"):
        alice.create("web", disk_gib=1, networks=(), node="h1")
    with pytest.raises(Denied, match="'force' takes the role operator"):
        alice.create("web", disk_gib=1, networks=(), force=True)
    alice.create("web", disk_gib=1, networks=())
    with pytest.raises(Denied, match="'volume' takes the role operator"):
        alice.disk_attach("web", disk="stolen", volume="local/other.root.00000000")
    for location in ("/etc/shadow", "file:///etc/shadow", "shadow", "rbd://x/y"):
        with pytest.raises(Denied, match="file of the serving machine"):
            olga.image_import("mine", location)
    for verb in ("node_list", "dump", "pool_list", "capacity"):
        with pytest.raises(Denied, match="takes the scope"):
            getattr(alice, verb)()
    with pytest.raises(Denied, match="takes the role operator"):
        as_user("vic").doctor(fencing=True)


def test_of_oneself(people: Orchestrator, as_user: As) -> None:
    alice, ann = as_user("alice"), as_user("root-ann")
    assert alice.user_show("alice").user.name == "alice"
    made = alice.token_create("alice", role="viewer")
    alice.user_change("alice", password="correct horse battery")
    acts: list[Callable[[], object]] = [
        lambda: alice.user_show("bob"),
        lambda: alice.user_list(),
        lambda: alice.user_change("alice", role="admin"),
        lambda: alice.user_change("alice", quota=Quota()),
        lambda: alice.user_change("bob", password="correct horse battery"),
        lambda: alice.token_create("bob"),
        lambda: alice.token_list("bob"),
        lambda: alice.audit_list(),
    ]
    for act in acts:
        with pytest.raises(Denied):
            act()
    others = ann.token_create("bob").token
    assert [one.id for one in alice.token_list()] == [made.token.id]
    for token in (others.id, "0" * 12, "../x"):
        with pytest.raises(Denied, match="of other users only an admin may"):
            alice.token_revoke(token)
    alice.token_revoke(made.token.id)
    assert [one.id for one in ann.token_list()] == [others.id]


def test_a_token_makes_no_other_way_in(people: Orchestrator, as_user: As) -> None:
    for verb in ("token_create", "user_change"):
        by_token = Principal(name="alice", role=Role.USER, via="token")
        assert isinstance(
            may(by_token, verb, {"name": "alice", "user": "alice"}, Cluster()), Denied
        )


# ---------------------------------------------------------------------------------------------
# Quotas


def test_quotas_hold_on_every_path(people: Orchestrator, as_user: As) -> None:
    alice = as_user("alice")
    alice.create("a", disk_gib=8, vcpus=2, memory_mib=1024, networks=())
    with pytest.raises(Denied) as caught:
        alice.create("b", disk_gib=13, networks=())
    assert caught.value.fields == {"quota": "disk_gib", "limit": 20, "used": 8, "asked": 13}
    alice.clone("a", "b")
    with pytest.raises(Denied, match="GiB of disks"):
        alice.clone("a", "c")
    with pytest.raises(Denied, match="5 GiB of disks more, and 16 of the 20"):
        alice.disk_attach("a", disk="data", size_gib=5)
    with pytest.raises(Denied, match="GiB of disks"):
        alice.disk_grow("a", "root", 13)
    with pytest.raises(Denied, match="vCPUs"):
        alice.change("a", vcpus=7)
    with pytest.raises(Denied, match="MiB of memory"):
        alice.change("a", memory_mib=3200)
    alice.change("a", vcpus=5, memory_mib=3072)
    with pytest.raises(Denied, match="MiB of memory"):
        alice.create("c", disk_gib=1, memory_mib=128, networks=())
    alice.delete("b")
    alice.create("c", disk_gib=1, memory_mib=128, networks=())
    with pytest.raises(Denied, match="of the"):
        alice.undelete("b")
    # What is more than was given later may stay, and may become less.
    people.user_change("alice", quota=Quota(vms=1))
    alice = as_user("alice")
    alice.change("a", description="much")
    alice.rename("a", "d")
    alice.change("d", vcpus=1)
    with pytest.raises(Denied, match="1 VMs more, and 2 of the 1"):
        alice.clone("c", "e")
    assert people.user_show("alice").used.vms == 2


def test_a_dry_run_says_so_as_well(people: Orchestrator, as_user: As) -> None:
    with pytest.raises(Denied, match="GiB of disks"):
        as_user("alice").create("b", disk_gib=21, networks=(), dry_run=True)
    assert people.audit_list(result="refused") == ()


def test_what_is_under_way_counts(people: Orchestrator, as_user: As) -> None:
    """Of many at once as many come to pass as the quota has room for, and not one more."""
    world = world_named(people.settings.uri.partition(":")[2])
    done, refused = [], []
    gate = threading.Barrier(8)

    def create(number: int) -> None:
        acting = as_user("alice")
        gate.wait(10)
        try:
            acting.create(f"vm{number}", disk_gib=1, networks=(), memory_mib=64)
            done.append(number)
        except (Denied, Conflict) as exc:
            refused.append(exc)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert len(people.list()) == len(done) == 3
    assert {type(one) for one in refused} <= {Denied, Conflict}
    assert any(isinstance(one, Denied) for one in refused)
    assert world is not None


def test_a_plan_that_somebody_left_counts(people: Orchestrator, as_user: As) -> None:
    class Died(BaseException):
        pass

    def die(point: str, journal: object) -> None:
        if point == "opened":
            raise Died

    alice = as_user("alice")
    alice._cluster.executor.hook = die
    with pytest.raises(Died):
        alice.create("half", disk_gib=19, networks=())
    with pytest.raises(Denied, match="2 GiB of disks more, and 19 of the 20"):
        as_user("alice").create("b", disk_gib=2, networks=())


def test_a_quota_on_all_vms(people: Orchestrator, as_user: As) -> None:
    people.user_add("carl", scopes=("*",), quota=Quota(vms=2))
    people.create("web", disk_gib=1, networks=())
    carl = as_user("carl")
    carl.create("db", disk_gib=1, networks=())
    assert people.show("db").vm.tags == ()
    with pytest.raises(Denied, match="2 of the 2"):
        carl.create("more", disk_gib=1, networks=())
    carl.delete("web")
    carl.create("more", disk_gib=1, networks=())


def test_a_user_without_scopes_has_nothing(people: Orchestrator, as_user: As) -> None:
    people.user_add("dora", scopes=())
    people.create("web", disk_gib=1, networks=())
    dora = as_user("dora")
    assert dora.list() == ()
    with pytest.raises(Denied, match="no scope is set"):
        dora.create("mine", disk_gib=1, networks=())


# ---------------------------------------------------------------------------------------------
# The log


def test_the_log_says_who_from_where_and_what_was_refused(
    people: Orchestrator, as_user: As
) -> None:
    alice, vic = as_user("alice"), as_user("vic")
    alice.create("web", disk_gib=1, networks=())
    with pytest.raises(Denied):
        vic.delete("web")
    with pytest.raises(NotFound):
        as_user("bob").stop("web")
    with pytest.raises(Conflict):
        alice.create("web", disk_gib=1, networks=())
    with pytest.raises(Invalid):
        alice.change("web", vcpus=0)
    with pytest.raises(Denied):
        vic.user_list()
    with pytest.raises(NotFound):
        vic.show("nosuch")
    told = [
        (one.who, one.source, one.verb, one.subject, one.result, one.code)
        for one in people.audit_list(limit=6)
    ]
    assert told == [
        ("vic", "10.0.0.9", "user list", "", "refused", "denied"),
        ("alice", "10.0.0.9", "change", "web", "refused", "invalid"),
        ("alice", "10.0.0.9", "create", "web", "refused", "conflict"),
        ("bob", "10.0.0.9", "stop", "web", "refused", "not-found"),
        ("vic", "10.0.0.9", "delete", "web", "refused", "denied"),
        ("alice", "10.0.0.9", "create", "web", "done", ""),
    ]


def test_nothing_is_written_of_looking_and_of_trying_dry(people: Orchestrator, as_user: As) -> None:
    before = people.audit_list(limit=1000)
    alice = as_user("alice")
    alice.list()
    alice.create("web", disk_gib=1, networks=(), dry_run=True)
    with pytest.raises(VorchError):
        alice.create("w" * 99, disk_gib=1, networks=(), dry_run=True)
    assert people.audit_list(limit=1000) == before
