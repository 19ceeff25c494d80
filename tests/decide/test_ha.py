"""One round of high availability: what is seen in, records, plans and sentences out."""

from __future__ import annotations

import dataclasses

import pytest

from tests.decide.worlds import cluster, kinds, node, vm
from vorch.availability import (
    Availability,
    Ending,
    Evidence,
    HaPolicy,
    HaVm,
    HostOrder,
    Knock,
    MoveOrder,
    NodeRecord,
    NodeState,
    Requested,
    Rule,
    Sign,
    VmRecord,
    VmState,
)
from vorch.config import Settings
from vorch.decide import ha
from vorch.decide.errands import Errand, Round
from vorch.decide.ha_vms import HEARD_WITHIN_S
from vorch.errors import Conflict
from vorch.model import Cluster, Domain, Power, Vm
from vorch.orchestrator.limits import limits_of
from vorch.plan import Plan

LIMITS = limits_of(Settings())
NOW = 1000.0
NAMES = ("h1", "h2", "h3")
WELL = {name: Evidence(node=name, libvirt=True, storage=Knock.ANSWER) for name in NAMES}


def gone(name: str) -> Evidence:
    return Evidence(node=name, libvirt=False, management=Knock.SILENCE, storage=Knock.SILENCE)


def running(one: Vm, on: str) -> Domain:
    return Domain(id=one.id, name=one.name, node=on, power=Power.RUNNING, memory_mib=1024)


def three(*vms: Vm, on: dict[str, str] | None = None) -> Cluster:
    """Three hosts, and where VMs run."""
    where = on or {}
    made = cluster(*vms, nodes=tuple(node(name, 65536) for name in NAMES))
    domains = {one.id: running(one, where[one.name]) for one in vms if one.name in where}
    return dataclasses.replace(made, domains=domains)


def silent_since(name: str, seconds: float, state: NodeState = NodeState.SUSPECT) -> NodeRecord:
    return NodeRecord(
        node=name, state=state, sign=Sign.GONE, sign_since=NOW - seconds, storage_answered=True
    )


def decide(seen: Cluster, availability: Availability) -> Round:
    return ha.decide(seen, availability, LIMITS, NOW)


def lost(seconds: float, **other: object) -> tuple[Cluster, Availability]:
    """VM web on h1, which is silent for so long."""
    web = vm("web", node="h1")
    fields: dict[str, object] = {
        "vms": {"web": HaVm(vm="web")},
        "evidence": {**WELL, "h1": gone("h1")},
        "node_records": {"h1": silent_since("h1", seconds)},
        "vm_records": {"web": VmRecord(vm="web", state=VmState.RUNNING)},
        **other,
    }
    return three(web), Availability(**fields)  # type: ignore[arg-type]


def test_no_proof_no_recovery() -> None:
    """However long it lasts, as long as the fence is not proven there is one plan: the fence."""
    for seconds in (10.0, 1e6):
        came = decide(*lost(seconds))
        assert [errand.purpose for errand in came.errands] == ["fence"]
        assert came.node_records["h1"].state is NodeState.FENCING
        record = came.vm_records["web"]
        assert record is not None
        assert record.state is VmState.AWAITING_FENCE


def test_proof_then_recovery() -> None:
    fenced = silent_since("h1", 10.0, NodeState.FENCED)
    came = decide(*lost(10.0, node_records={"h1": fenced}))
    assert [(one.purpose, one.node) for one in came.errands] == [("register", "h2")]
    assert kinds(came.errands[0].plan) == ["save"]


def test_short_silence_is_waited_for() -> None:
    came = decide(*lost(1.0))
    assert came.errands == ()
    assert came.due_at == NOW - 1.0 + LIMITS.gone_after_s
    assert "suspect" in came.sentences["node/h1"]


def test_many_at_once_are_rather_vorchs_own_trouble() -> None:
    seen, availability = lost(
        100.0,
        evidence={**WELL, "h1": gone("h1"), "h2": gone("h2")},
        node_records={name: silent_since(name, 100.0) for name in ("h1", "h2")},
    )
    # What is on h2 counts as well, or its silence would be too old to matter.
    other = vm("db", 2, node="h2")
    seen = dataclasses.replace(seen, vms={**seen.vms, "db": other})
    both = {**availability.vms, "db": HaVm(vm="db")}
    availability = dataclasses.replace(availability, vms=both)
    came = decide(seen, availability)
    assert came.errands == ()
    assert "nobody is fenced" in came.sentences["node/h1"]
    bold = dataclasses.replace(availability, policy=HaPolicy(silent_share=1.0))
    assert {one.node for one in decide(seen, bold).errands} == {"h1", "h2"}


@pytest.mark.parametrize(
    ("hosts", "management", "fenced"),
    [
        (("h1", "h2"), Knock.SILENCE, False),
        # Somebody is to be talked to there.
        (("h1", "h2"), Knock.ANSWER, True),
        # Two others are heard.
        (("h1", "h2", "h3"), Knock.SILENCE, True),
    ],
)
def test_of_two_hosts_nobody_can_say_whose_cable_it_is(
    hosts: tuple[str, ...], management: Knock, fenced: bool
) -> None:
    """The disks of its VMs are closed, so it may be one that was only started anew."""
    hollow = Evidence(
        node="h1",
        libvirt=False,
        management=management,
        storage=Knock.ANSWER,
        disks=1,
        disks_open=0,
    )
    record = dataclasses.replace(silent_since("h1", 100.0), sign=Sign.HOLLOW)
    seen, availability = lost(100.0, evidence={**WELL, "h1": hollow}, node_records={"h1": record})
    nodes = {name: node for name, node in seen.nodes.items() if name in hosts}
    came = decide(dataclasses.replace(seen, nodes=nodes), availability)
    assert [one.purpose for one in came.errands] == (["fence"] if fenced else [])
    assert ("vorch's own cable" in came.sentences["node/h1"]) is not fenced


def test_a_host_that_nobody_misses_is_left_alone() -> None:
    for settings in (
        HaVm(vm="web", requested=Requested.DISABLED),
        HaVm(vm="web", requested=Requested.IGNORED),
    ):
        assert decide(*lost(1e6, vms={"web": settings})).errands == ()


@pytest.mark.parametrize(("isolation", "fenced"), [("leave", False), ("fence", True)])
def test_a_libvirt_that_hangs(isolation: str, fenced: bool) -> None:
    hung = Evidence(
        node="h1",
        libvirt=False,
        management=Knock.ANSWER,
        storage=Knock.ANSWER,
        disks_open=1,
        disks=1,
    )
    record = NodeRecord(
        node="h1", state=NodeState.SUSPECT, sign=Sign.DAEMON_SILENT, sign_since=NOW - 61.0
    )
    settings = HaVm(vm="web", isolation=isolation)  # type: ignore[arg-type]
    came = decide(
        *lost(
            61.0,
            vms={"web": settings},
            evidence={**WELL, "h1": hung},
            node_records={"h1": record},
        )
    )
    assert bool(came.errands) is fenced


def test_disarmed_nothing_is_done() -> None:
    policy = HaPolicy(disarmed_until=NOW + 7200.0)
    came = decide(*lost(1e6, policy=policy))
    assert came.errands == ()
    assert came.due_at == NOW + 7200.0
    assert came.sentences["vm/web"] == "frozen: high availability is disarmed"


def test_the_start_order_is_kept() -> None:
    first, second = vm("db", 1, node="h1"), vm("app", 2, node="h1")
    settings = {
        "db": HaVm(vm="db", start_order=1, start_delay_s=30.0),
        "app": HaVm(vm="app", start_order=2),
    }
    availability = Availability(vms=settings, evidence=WELL)
    came = decide(three(first, second), availability)
    assert [one.vm for one in came.errands] == ["db"]
    began = VmRecord(vm="db", state=VmState.RUNNING, since=NOW - 10.0)
    up = dataclasses.replace(availability, vm_records={"db": began})
    came = decide(three(first, second, on={"db": "h1"}), up)
    assert came.errands == ()
    assert came.due_at == NOW + 20.0
    long_ago = dataclasses.replace(began, since=NOW - 31.0)
    up = dataclasses.replace(availability, vm_records={"db": long_ago})
    came = decide(three(first, second, on={"db": "h1"}), up)
    assert [one.vm for one in came.errands] == ["app"]


def test_a_move_to_a_rival_is_refused() -> None:
    one, other = vm("one", 1, node="h1"), vm("other", 2, node="h2")
    rule = Rule(name="r", kind="apart", vms=("one", "other"))
    availability = Availability(
        vms={"one": HaVm(vm="one"), "other": HaVm(vm="other")},
        rules={"r": rule},
        moves={"one": MoveOrder(vm="one", target="h2")},
        evidence=WELL,
    )
    came = decide(three(one, other, on={"one": "h1", "other": "h2"}), availability)
    assert came.errands == ()
    assert came.dropped_moves == ("one",)


def test_a_host_may_go_down_when_nothing_keeps_it() -> None:
    web = vm("web", node="h1")
    availability = Availability(
        vms={"web": HaVm(vm="web")},
        orders={"h1": HostOrder(node="h1", leaving="shutdown")},
        evidence=WELL,
    )
    came = decide(three(web, on={"web": "h1"}), availability)
    assert [one.purpose for one in came.errands] == ["stop"]
    assert not came.node_records["h1"].ready
    came = decide(three(web), availability)
    assert came.node_records["h1"].ready
    assert came.node_records["h1"].left_as == "released"


# ---------------------------------------------------------------------------------------------
# What a failure means


def failed_start(record: VmRecord, host: str, **settings: int) -> VmRecord:
    errand = Errand(
        purpose="start", plan=Plan(verb="start", subject="web", why=""), vm="web", node=host
    )
    error = Conflict("cannot start VM 'web': it will not")
    return ha.after(errand, error, record, HaVm(vm="web", **settings), LIMITS, NOW)  # type: ignore[arg-type]


def test_tries_here_then_elsewhere_then_an_error() -> None:
    record = VmRecord(vm="web", state=VmState.STARTING)
    record = failed_start(record, "h1", max_restart=1, max_relocate=1)
    assert (record.tries, record.failed, record.retry_at) == (1, (), NOW + LIMITS.retry_after_s)
    record = failed_start(record, "h1", max_restart=1, max_relocate=1)
    assert (record.tries, record.failed) == (0, ("h1",))
    record = failed_start(record, "h2", max_restart=0, max_relocate=1)
    assert record.state is VmState.ERROR
    assert record.failed == ("h1", "h2")


def test_an_error_ends_only_by_disabling() -> None:
    broken = {"web": VmRecord(vm="web", state=VmState.ERROR, why="it will not")}
    for requested, state in (
        (Requested.STARTED, VmState.ERROR),
        (Requested.STOPPED, VmState.ERROR),
        (Requested.DISABLED, VmState.STOPPED),
    ):
        availability = Availability(
            vms={"web": HaVm(vm="web", requested=requested)}, vm_records=broken, evidence=WELL
        )
        came = decide(three(vm("web", node="h1")), availability)
        record = came.vm_records.get("web", broken["web"])
        assert record is not None
        assert record.state is state
        assert came.errands == ()


# ---------------------------------------------------------------------------------------------
# A guest that powers itself off


def gone_web(endings: dict[str, Ending] | None, **record: object) -> tuple[Cluster, Availability]:
    """VM web ran on h1 since a while, and is not to be seen any more."""
    web = vm("web", node="h1", wanted="running")
    fields: dict[str, object] = {
        "state": VmState.RUNNING,
        "since": NOW - 50.0,
        "ran_on": "h1",
        **record,
    }
    here = dataclasses.replace(WELL["h1"], endings=endings)
    return three(web), Availability(
        vms={"web": HaVm(vm="web")},
        evidence={**WELL, "h1": here},
        vm_records={"web": VmRecord(vm="web", **fields)},  # type: ignore[arg-type]
    )


WEB = vm("web").id


def test_a_guest_that_powered_itself_off_asked_for_it() -> None:
    came = decide(*gone_web({WEB: Ending(NOW - 1.0, by_guest=True)}))
    assert came.settings["web"].requested is Requested.STOPPED
    assert [one.purpose for one in came.errands] == ["stop"]
    # It only records what is so.
    assert set(kinds(came.errands[0].plan)) == {"save"}


@pytest.mark.parametrize(
    "endings",
    [
        pytest.param({WEB: Ending(NOW - 1.0, by_guest=False)}, id="it-crashed"),
        pytest.param(None, id="nobody-listens"),
    ],
)
def test_else_it_starts_again_at_once(endings: dict[str, Ending] | None) -> None:
    came = decide(*gone_web(endings))
    assert came.settings == {}
    assert [one.purpose for one in came.errands] == ["start"]


@pytest.mark.parametrize(
    "endings", [{}, {WEB: Ending(NOW - 60.0, by_guest=True)}], ids=["nothing", "of-an-earlier-run"]
)
def test_how_it_ended_is_waited_for_a_moment(endings: dict[str, Ending]) -> None:
    came = decide(*gone_web(endings))
    assert came.errands == ()
    assert came.due_at == NOW + HEARD_WITHIN_S
    record = came.vm_records["web"]
    assert record is not None
    assert (record.state, record.gone_at) == (VmState.RUNNING, NOW)
    came = decide(*gone_web(endings, gone_at=NOW - HEARD_WITHIN_S))
    assert [one.purpose for one in came.errands] == ["start"]


@pytest.mark.parametrize(
    "record",
    [{"state": VmState.STOPPING}, {"ran_on": "h2"}],
    ids=["its-host-goes-down", "it-moved-cold"],
)
def test_one_that_vorch_has_asked_to_end_starts_again(record: dict[str, object]) -> None:
    endings = {WEB: Ending(NOW - 1.0, by_guest=True)}
    came = decide(*gone_web(endings, **record))
    assert came.settings == {}
    assert [one.purpose for one in came.errands] == ["start"]


def test_a_host_whose_vms_have_lost_their_disks_is_let_at_them_again() -> None:
    """A fence may have come late. That is tried once, and not again at once."""
    web = vm("web", node="h1")
    stuck = dataclasses.replace(
        running(web, "h1"), power=Power.PAUSED, reason="I/O error: its client is blocklisted"
    )
    seen = dataclasses.replace(three(web), domains={web.id: stuck})
    availability = Availability(
        vms={"web": HaVm(vm="web")},
        evidence=WELL,
        node_records={name: NodeRecord(node=name, storage_answered=True) for name in NAMES},
        vm_records={"web": VmRecord(vm="web", state=VmState.RUNNING, why="on h1")},
    )
    came = decide(seen, availability)
    assert [one.purpose for one in came.errands] == ["unfence", "cut"]
    assert kinds(came.errands[0].plan) == ["unfence-node"]
    assert came.node_records["h1"].lifted_at == NOW
    assert came.node_records["h1"].state is NodeState.ONLINE
    again = dataclasses.replace(
        availability, node_records={**availability.node_records, **came.node_records}
    )
    later = decide(seen, again)
    assert [one.purpose for one in later.errands] == ["cut"]
    assert later.due_at is not None


def test_what_is_at_rest_stays_as_it_is() -> None:
    """A VM that runs where it belongs comes to the same by the short way and by the long one."""
    web, db = vm("web", node="h1"), vm("db", 2, node="h2")
    seen = three(web, db, on={"web": "h1", "db": "h2"})
    availability = Availability(vms={"web": HaVm(vm="web"), "db": HaVm(vm="db")}, evidence=WELL)
    # At first there are no records, so it takes the long way.
    first = decide(seen, availability)
    records = {name: record for name, record in first.vm_records.items() if record is not None}
    known = dataclasses.replace(
        availability, vm_records=records, node_records=dict(first.node_records)
    )
    second = decide(seen, known)
    assert second.quiet
    assert second.sentences == first.sentences
    # A rule that is about it makes it take the long way again, which comes to the same.
    rule = Rule(name="apart", kind="apart", vms=("web", "db"))
    assert decide(seen, dataclasses.replace(known, rules={"apart": rule})).quiet
