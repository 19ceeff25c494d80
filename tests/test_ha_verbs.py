"""What a person sets of high availability and does beside it, and what whoever watches makes of it.

On the world in memory, with the very loop that `vorch serve` runs.
"""

from __future__ import annotations

import pytest

from vorch.availability import NodeChoice, NodeState, Requested, VmState
from vorch.config import Settings
from vorch.drivers.memory import MemoryWorld
from vorch.errors import Conflict, Invalid, NotFound
from vorch.model import Power
from vorch.orchestrator import Orchestrator, kept
from vorch.watch import Watch

SETTINGS = Settings(uri="memory:")


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld(hosts=3)


@pytest.fixture
def cluster(world: MemoryWorld) -> Orchestrator:
    made = Orchestrator(world.connect(), SETTINGS)
    for name in ("h1", "h2", "h3"):
        made.node_add(name, f"memory:{name}")
    made.pool_add("fast", "memory:fast")
    for name, node in (("web", "h1"), ("db", "h2")):
        made.create(name, disk_gib=1, networks=(), node=node, start=True)
    return made


class Leader:
    """A process that watches, and is moved on by hand."""

    def __init__(self, world: MemoryWorld) -> None:
        self.world = world
        self.said: set[str] = set()
        self.watch = Watch(
            world.connect(), SETTINGS, say=lambda sentences: self.said.update(sentences.values())
        )

    def on(self, seconds: float = 3.0) -> None:
        until = self.world.clock.now() + seconds
        while self.world.clock.now() < until:
            pace = self.watch.step()
            assert not pace.trouble, pace.trouble
            self.world.clock.sleep(SETTINGS.ha_every_s)


@pytest.fixture
def leader(world: MemoryWorld, cluster: Orchestrator) -> Leader:
    made = Leader(world)
    # So that the hosts' storage addresses are known to answer.
    made.on()
    return made


def power(cluster: Orchestrator, name: str) -> Power:
    return cluster.show(name).power


def requested(cluster: Orchestrator, name: str) -> Requested:
    return cluster.ha_show(name).settings.requested


# ---------------------------------------------------------------------------------------------
# Settings


def test_a_vm_is_looked_after_as_it_was_set(cluster: Orchestrator) -> None:
    assert cluster.ha_list() == ()
    with pytest.raises(NotFound, match="vorch ha set web"):
        cluster.ha_show("web")
    cluster.ha_set("web", nodes=[NodeChoice(node="h1", priority=2)], max_restart=3)
    cluster.ha_set("web", restricted=True)
    settings = cluster.ha_show("web").settings
    assert (settings.requested, settings.max_restart) == (Requested.STARTED, 3)
    assert (settings.restricted, [one.node for one in settings.nodes]) == (True, ["h1"])
    # To take the hosts away is to lift the restriction to them.
    cluster.ha_set("web", nodes=[])
    assert not cluster.ha_show("web").settings.restricted
    assert cluster.ha_set("web", max_restart=3).plan.empty
    cluster.ha_remove("web")
    assert cluster.ha_list() == ()
    with pytest.raises(NotFound, match="not looked after"):
        cluster.ha_remove("web")


@pytest.mark.parametrize(
    "wrong",
    [
        {"requested": "dead"},
        {"nodes": [NodeChoice(node="h9")]},
        {"restricted": True},
        {"moves": "warm"},
        {"max_restart": -1},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_makes_no_sense_is_refused(cluster: Orchestrator, wrong: dict[str, object]) -> None:
    with pytest.raises((Invalid, NotFound)):
        cluster.ha_set("web", **wrong)  # type: ignore[arg-type]
    assert cluster.ha_list() == ()


def test_status_says_who_watches_and_what_was_seen(
    world: MemoryWorld, cluster: Orchestrator
) -> None:
    cluster.ha_set("web")
    alone = cluster.ha_status()
    assert (alone.watched, alone.leader, alone.nodes[0].state) == (False, "", None)
    assert any("nobody watches" in note for note in alone.notes)
    assert any("never tried" in note for note in alone.notes)
    leader = Leader(world)
    leader.on()
    cluster.doctor(fencing=True)
    seen = cluster.ha_status()
    assert seen.watched
    assert (seen.epoch, seen.leader) == (1, leader.watch.holder)
    assert seen.leading_since is not None
    assert {one.state for one in seen.nodes} == {NodeState.ONLINE}
    assert [one.sentence for one in seen.vms] == ["running: on h1"]
    assert seen.drill is not None
    assert seen.notes == ()
    # A process that has gone says nothing any more, and that shows.
    leader.watch.close()
    assert not cluster.ha_status().watched


def test_a_quiet_cluster_is_not_written_to(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    cluster.ha_set("web")
    leader.on()
    before = world.connect().state.get("report/ha")
    leader.on(30.0)
    assert world.connect().state.get("report/ha") == before
    assert cluster.ha_status().nodes[0].sentence == "online: it answers"


def test_what_is_said_of_a_lost_host_can_be_read_by_others(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    cluster.ha_set("web")
    leader.on()
    world.host("h1").power_off()
    leader.on(20.0)
    h1 = cluster.ha_status().nodes[0]
    assert h1.state is NodeState.FENCED
    assert "cut off for certain" in h1.sentence
    assert cluster.ha_show("web").node != "h1"
    assert power(cluster, "web") is Power.RUNNING


def test_hands_off_and_on_again(world: MemoryWorld, cluster: Orchestrator, leader: Leader) -> None:
    cluster.ha_set("web")
    cluster.ha_disarm(7200)
    world.host("h1").power_off()
    leader.on(60.0)
    status = cluster.ha_status()
    assert (status.disarmed, status.vms[0].state) == (True, VmState.FROZEN)
    assert any("disarmed (freeze) for another 2.0 h" in note for note in status.notes)
    assert not world.ceph.blocklist
    cluster.ha_arm()
    leader.on(20.0)
    assert power(cluster, "web") is Power.RUNNING
    assert cluster.ha_arm().plan.empty


def test_the_policy_is_changed_and_said(cluster: Orchestrator) -> None:
    assert "shutdown of hosts: conditional" in cluster.ha_policy().plan.why
    cluster.ha_policy(shutdown="migrate", silent_share=0.4, balance_on_start=True)
    policy = cluster.ha_status().policy
    assert (policy.shutdown, policy.silent_share, policy.balance_on_start) == ("migrate", 0.4, True)
    with pytest.raises(Invalid, match="conditional, freeze, failover, migrate"):
        cluster.ha_policy(shutdown="panic")
    with pytest.raises(Invalid):
        cluster.ha_policy(silent_share=0.0)
    with pytest.raises(Invalid, match="no host has a tag 'rack:"):
        cluster.ha_policy(spare_over="rack")
    with pytest.raises(Invalid, match="hosts that may be lost"):
        cluster.ha_policy(spare_hosts=0)
    cluster.node_change("h1", tags=["rack:r1"])
    plan = cluster.ha_policy(spare_hosts=2, spare_over="rack").plan
    assert "when any 2 hosts or any one rack is lost, is refused" in plan.why
    assert cluster.ha_status().policy.spare_hosts == 2
    assert cluster.capacity().hosts_lost == 2
    assert list(cluster.capacity().domains) == ["r1"]
    cluster.ha_policy(spare_hosts=1, spare_over="")
    assert cluster.capacity().domains == {}
    with pytest.raises(Invalid, match="for how long"):
        cluster.ha_disarm(0)


# ---------------------------------------------------------------------------------------------
# What is done by hand


def test_what_a_person_stops_stays_off(cluster: Orchestrator, leader: Leader) -> None:
    cluster.ha_set("web")
    leader.on()
    cluster.stop("web", force=True)
    leader.on(10.0)
    assert (power(cluster, "web"), requested(cluster, "web")) == (Power.STOPPED, Requested.STOPPED)
    assert cluster.start("web").plan.why.endswith("it is looked after again")
    leader.on()
    assert (power(cluster, "web"), requested(cluster, "web")) == (Power.RUNNING, Requested.STARTED)


def test_to_start_a_vm_by_hand_clears_its_error(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    cluster.ha_set("web", max_restart=0, max_relocate=0)
    leader.on()
    world.faults.fail("host:h1", "start", times=1)
    world.guest("web").crash()
    leader.on(10.0)
    assert cluster.ha_show("web").state is VmState.ERROR
    cluster.start("web")
    leader.on()
    assert cluster.ha_show("web").sentence == "running: on h1"


def test_nothing_is_left_of_a_vm_that_is_deleted(cluster: Orchestrator, leader: Leader) -> None:
    cluster.create("third", disk_gib=1, networks=())
    for name in ("web", "third"):
        cluster.ha_set(name, requested="ignored")
    cluster.rule_add("pair", "apart", ["web", "db"])
    cluster.rule_add("all", "apart", ["web", "db", "third"], strict=False)
    leader.on()
    done = cluster.delete("web", force=True)
    assert "rule 'pair' is gone with it" in done.plan.why
    ha = kept.availability(cluster.world.state)
    assert set(ha.vms) == {"third"}
    assert "web" not in ha.vm_records
    assert {name: rule.vms for name, rule in ha.rules.items()} == {"all": ("db", "third")}


def test_a_new_name_takes_everything_along(cluster: Orchestrator, leader: Leader) -> None:
    cluster.ha_set("web", max_restart=7)
    cluster.rule_add("pair", "apart", ["web", "db"])
    leader.on()
    cluster.rename("web", "www")
    leader.on()
    ha = kept.availability(cluster.world.state)
    assert (set(ha.vms), set(ha.vm_records)) == ({"www"}, {"www"})
    assert (ha.vms["www"].max_restart, ha.rules["pair"].vms) == (7, ("www", "db"))
    assert cluster.ha_show("www").sentence == "running: on h1"


def test_a_maintenance_by_hand_is_one_for_who_watches(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    cluster.ha_set("web")
    leader.on()
    cluster.node_maintenance("h1", True)
    leader.on(10.0)
    assert {one.node: one.state for one in cluster.ha_status().nodes}["h1"] is NodeState.MAINTENANCE
    assert cluster.show("web").vm.node != "h1"
    with pytest.raises(Conflict, match="node maintenance h1 off"):
        cluster.node_uncordon("h1")
    # It is kept empty: whoever watches does not bring back what left it.
    world.host(cluster.show("web").vm.node).power_off()
    leader.on(20.0)
    assert cluster.show("web").vm.node != "h1"
    cluster.node_maintenance("h1", False)
    leader.on(10.0)
    assert cluster.show("web").vm.node == "h1"
    assert power(cluster, "web") is Power.RUNNING
    assert not kept.availability(cluster.world.state).orders


def test_who_watches_brings_home_what_a_person_moved_away(
    cluster: Orchestrator, leader: Leader
) -> None:
    cluster.ha_set("web")
    cluster.node_maintenance("h1", True)
    leader.on(10.0)
    # As `node maintenance off` does it, that ends after its first commit.
    cluster._begin_maintenance("h1", False)
    leader.on(10.0)
    assert cluster.show("web").vm.node == "h1"


def test_a_host_that_goes_is_in_no_list_any_more(cluster: Orchestrator, leader: Leader) -> None:
    cluster.ha_set("web", nodes=[NodeChoice(node="h1"), NodeChoice(node="h3")], restricted=True)
    cluster.rule_add("here", "nodes", ["db"], nodes=[NodeChoice(node="h3"), NodeChoice(node="h2")])
    cluster.node_maintenance("h3", True)
    leader.on()
    cluster.node_remove("h3")
    leader.on()
    ha = kept.availability(cluster.world.state)
    assert [one.node for one in ha.vms["web"].nodes] == ["h1"]
    assert [one.node for one in ha.rules["here"].nodes] == ["h2"]
    assert "h3" not in ha.node_records
    assert not ha.orders


def test_a_host_is_not_let_go_while_something_rests_on_it(cluster: Orchestrator) -> None:
    cluster.rule_add("here", "nodes", ["db"], nodes=[NodeChoice(node="h3")], strict=False)
    with pytest.raises(Conflict, match="rule 'here' names no other"):
        cluster.node_remove("h3")
    cluster.rule_remove("here")
    cluster.node_fence("h3", force=True)
    with pytest.raises(Conflict, match="node unfence h3"):
        cluster.node_remove("h3")
    cluster.node_remove("h3", force=True)


# ---------------------------------------------------------------------------------------------
# What a guest does itself


def test_a_guest_that_powers_itself_off_stays_off(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    cluster.ha_set("web")
    leader.on()
    world.guest("web").shut_down_by_itself()
    leader.on(20.0)
    assert (power(cluster, "web"), requested(cluster, "web")) == (Power.STOPPED, Requested.STOPPED)
    # Nothing speaks of it as of one that should run.
    assert (cluster.show("web").vm.wanted, cluster.show("web").notes) == ("stopped", ())
    assert "counts as asked for" in str(leader.said)
    cluster.start("web")
    leader.on()
    assert cluster.ha_show("web").sentence == "running: on h1"
    # What it did in an earlier run says nothing about this one.
    world.guest("web").crash()
    leader.on(10.0)
    assert (power(cluster, "web"), requested(cluster, "web")) == (Power.RUNNING, Requested.STARTED)


def test_a_guest_may_be_made_to_run_whatever_it_does(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    cluster.ha_set("web", guest_shutdown="restart")
    leader.on()
    world.guest("web").shut_down_by_itself()
    leader.on(10.0)
    assert (power(cluster, "web"), requested(cluster, "web")) == (Power.RUNNING, Requested.STARTED)


def test_what_nobody_heard_counts_as_a_crash(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    cluster.ha_set("web")
    leader.on()
    leader.watch.close()
    world.guest("web").shut_down_by_itself()
    # It is gone before anybody watches again.
    assert power(cluster, "web") is Power.STOPPED
    world.clock.sleep(1.0)
    Leader(world).on(20.0)
    assert (power(cluster, "web"), requested(cluster, "web")) == (Power.RUNNING, Requested.STARTED)


def test_what_a_person_asks_a_guest_for_is_no_wish_of_the_guest(
    world: MemoryWorld, cluster: Orchestrator, leader: Leader
) -> None:
    """To move cold, and to restart, guests are shut down as well."""
    cluster.ha_set("web", moves="cold", nodes=[NodeChoice(node="h2", priority=1)])
    leader.on(30.0)
    assert cluster.show("web").vm.node == "h2"
    assert (power(cluster, "web"), requested(cluster, "web")) == (Power.RUNNING, Requested.STARTED)
    cluster.restart("web")
    leader.on(10.0)
    assert (power(cluster, "web"), requested(cluster, "web")) == (Power.RUNNING, Requested.STARTED)


# ---------------------------------------------------------------------------------------------
# Rules


def test_a_rule_is_kept_by_what_a_person_does(cluster: Orchestrator) -> None:
    cluster.rule_add("pair", "apart", ["web", "db"])
    with pytest.raises(Conflict, match=r"rule 'pair' keeps it apart from 'db'.*--force"):
        cluster.migrate("web", "h2")
    assert cluster.migrate("web").plan.why.startswith("to h3")
    cluster.stop("web", force=True)
    with pytest.raises(Conflict, match="rule 'pair'"):
        cluster.relocate("web", "h2")
    cluster.relocate("web", "h2", force=True)
    with pytest.raises(Conflict, match="rule 'pair'"):
        cluster.start("web")
    cluster.start("web", force=True)
    assert cluster.rule_show("pair").broken == "db, web on h2"
    cluster.rule_remove("pair")
    cluster.migrate("db", "h3")


def test_a_wish_prefers_and_does_not_refuse(cluster: Orchestrator) -> None:
    cluster.rule_add("near", "together", ["web", "db"], strict=False)
    assert cluster.migrate("web", dry_run=True).plan.why.startswith("to h2")
    cluster.migrate("web", "h3")


def test_a_host_is_emptied_by_its_rules(cluster: Orchestrator) -> None:
    """Two that must be together leave together, and stay away from the third."""
    cluster.create("app", disk_gib=1, networks=(), node="h1", start=True)
    cluster.rule_add("set", "together", ["web", "app"])
    cluster.rule_add("pair", "apart", ["web", "db"])
    cluster.node_maintenance("h1", True)
    assert {name: cluster.show(name).vm.node for name in ("web", "app", "db")} == {
        "web": "h3",
        "app": "h3",
        "db": "h2",
    }


def test_what_would_be_taken_back_at_once_is_refused(cluster: Orchestrator, leader: Leader) -> None:
    cluster.ha_set("web", nodes=[NodeChoice(node="h1", priority=2), NodeChoice(node="h2")])
    with pytest.raises(Conflict, match="go back to h1 at once"):
        cluster.migrate("web", "h2")
    cluster.ha_set("web", failback=False)
    cluster.migrate("web", "h2")
    leader.on(10.0)
    assert cluster.show("web").vm.node == "h2"


def test_rules_that_contradict_each_other_are_not_made(cluster: Orchestrator) -> None:
    cluster.rule_add("pair", "apart", ["web", "db"])
    with pytest.raises(Invalid, match="together by set and apart by pair"):
        cluster.rule_add("set", "together", ["web", "db"])
    with pytest.raises(Invalid, match="it needs VMs and hosts"):
        cluster.rule_add("here", "nodes", ["web"])
    with pytest.raises(NotFound):
        cluster.rule_add("more", "apart", ["web", "nobody"])
    with pytest.raises(Conflict, match="there is one of that name"):
        cluster.rule_add("pair", "apart", ["web", "db"])
    with pytest.raises(NotFound, match="vorch rule list"):
        cluster.rule_remove("set")
    assert [one.name for one in cluster.rule_list()] == ["pair"]


def test_the_list_says_which_rules_are_broken(cluster: Orchestrator) -> None:
    done = cluster.rule_add("set", "together", ["web", "db"])
    assert "now web on h1; db on h2" in done.plan.why
    cluster.rule_add("here", "nodes", ["db"], nodes=[NodeChoice(node="h2")])
    assert {one.name: one.broken for one in cluster.rule_list()} == {
        "set": "web on h1; db on h2",
        "here": "",
    }
