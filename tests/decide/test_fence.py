"""Fencing by hand: when it is refused, and what is recorded of it."""

from __future__ import annotations

import pytest

from vorch.availability import Evidence, Knock, NodeRecord, NodeState
from vorch.decide import fence
from vorch.errors import Conflict, NotFound, Unreachable
from vorch.model import Cluster, Node
from vorch.plan import FenceNode, Save, UnfenceNode

CLUSTER = Cluster(nodes={"h1": Node(name="h1", uri="qemu:///system")})
SILENT = Evidence(node="h1", libvirt=False, management=Knock.SILENCE, storage=Knock.SILENCE)
CLIENTS = ("198.18.0.1:0/17",)


def begun(evidence: Evidence = SILENT, *, force: bool = False) -> NodeRecord:
    return fence.begun(CLUSTER, "h1", None, evidence, CLIENTS, now=5.0, force=force)


def test_a_silent_host_is_fenced_and_its_record_says_so() -> None:
    record = begun()
    assert (record.state, record.begun, record.proven) == (NodeState.FENCING, True, False)
    plan = fence.fence(CLUSTER, record, now=5.0, version=3)
    cut, save = plan.steps
    assert isinstance(cut, FenceNode)
    assert isinstance(save, Save)
    assert cut.clients == CLIENTS
    assert plan.reads == {"hanode/h1": 3}
    assert save.after is not None
    assert (save.after["state"], save.after["proven"]) == ("fenced", True)
    assert save.fill == {"why": "proof"}


@pytest.mark.parametrize(
    ("evidence", "why"),
    [
        (Evidence(node="h1", libvirt=True), "its libvirt answers"),
        (Evidence(node="h1", libvirt=False, storage=Knock.RESET), "on the storage network"),
        (Evidence(node="h1", libvirt=False, management=Knock.ANSWER), "on the management network"),
        (Evidence(node="h1", libvirt=False), "no address of it is known"),
    ],
)
def test_one_that_is_heard_of_is_fenced_by_force_only(evidence: Evidence, why: str) -> None:
    with pytest.raises(Conflict, match=why):
        begun(evidence)
    assert why in begun(evidence, force=True).why


def test_what_an_earlier_fence_has_cut_off_is_not_forgotten() -> None:
    old = NodeRecord(node="h1", state=NodeState.FENCING, begun=True, clients=("198.18.0.1:0/9",))
    record = fence.begun(CLUSTER, "h1", old, SILENT, CLIENTS, now=5.0, force=False)
    assert record.clients == ("198.18.0.1:0/9", *CLIENTS)


def unfenced(record: NodeRecord | None, *, force: bool = False, silent: bool = False) -> object:
    cluster = Cluster(nodes=CLUSTER.nodes, silent={"h1": "it does not answer"} if silent else {})
    plan = fence.unfence(
        cluster, "h1", record, ("198.18.0.1:0/3",), now=9.0, version=1, force=force
    )
    return plan.steps[0] if plan.steps else None


def test_a_fenced_host_is_cleaned_and_let_in() -> None:
    record = NodeRecord(node="h1", state=NodeState.FENCED, begun=True, proven=True, clients=CLIENTS)
    step = unfenced(record)
    assert isinstance(step, UnfenceNode)
    assert (step.keep, step.clients) == (False, CLIENTS)
    with pytest.raises(Unreachable, match="restart the host"):
        unfenced(record, silent=True)


def test_one_that_was_never_proven_cut_off_keeps_what_runs() -> None:
    step = unfenced(NodeRecord(node="h1", state=NodeState.FENCING, begun=True, clients=CLIENTS))
    assert isinstance(step, UnfenceNode)
    assert step.keep


def test_one_that_is_not_cut_off_is_left_alone_unless_forced() -> None:
    assert unfenced(None) is None
    step = unfenced(None, force=True)
    assert isinstance(step, UnfenceNode)
    assert not step.keep


def test_hosts_that_nobody_knows() -> None:
    with pytest.raises(NotFound):
        fence.begun(CLUSTER, "h9", None, SILENT, (), now=1.0, force=True)
