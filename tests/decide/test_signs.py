"""What a look at a host comes to, and how long that may last."""

from __future__ import annotations

import dataclasses

import pytest

from vorch.availability import (
    Evidence,
    HostOrder,
    Knock,
    Limits,
    NodeRecord,
    NodeState,
    Sign,
)
from vorch.config import Settings
from vorch.decide.ha_hosts import believed
from vorch.decide.signs import patience_s, seen, sign_of, spoken, when_not_well, when_well
from vorch.orchestrator.limits import limits_of

LIMITS: Limits = limits_of(Settings())
ANSWER, RESET, SILENCE = Knock.ANSWER, Knock.RESET, Knock.SILENCE


def evidence(libvirt: bool, **other: object) -> Evidence:
    return Evidence(node="h1", libvirt=libvirt, **other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("looked", "sign"),
    [
        (evidence(True), Sign.WELL),
        (evidence(True, storage=ANSWER), Sign.WELL),
        # A reset is an answer.
        (evidence(True, storage=RESET), Sign.WELL),
        (evidence(True, storage=SILENCE), Sign.STORAGE_CUT),
        (evidence(False, management=ANSWER, storage=ANSWER), Sign.DAEMON_SILENT),
        (evidence(False, management=RESET, storage=RESET), Sign.DAEMON_SILENT),
        (evidence(False, management=SILENCE, storage=ANSWER), Sign.DAEMON_SILENT),
        (evidence(False, management=ANSWER, storage=SILENCE), Sign.STORAGE_CUT),
        (evidence(False, management=SILENCE, storage=SILENCE), Sign.GONE),
        # One network is all that is known of it.
        (evidence(False, management=SILENCE), Sign.GONE),
        (evidence(False, management=ANSWER), Sign.DAEMON_SILENT),
        (
            evidence(False, management=SILENCE, storage=ANSWER, managed_by=("other",)),
            Sign.PARTED,
        ),
        # Nobody has its disks open any more, though something answers.
        (evidence(False, storage=ANSWER, disks=2, disks_open=0), Sign.HOLLOW),
        (evidence(False, storage=ANSWER, disks=2, disks_open=1), Sign.DAEMON_SILENT),
        # It was only started anew, and the leader is cut off from it.
        (
            Evidence(
                node="h1",
                libvirt=False,
                management=SILENCE,
                storage=ANSWER,
                disks=2,
                disks_open=0,
                managed_by=("other",),
            ),
            Sign.PARTED,
        ),
        # Ceph could not be asked, which is no sign of anything.
        (evidence(False, storage=ANSWER, disks=2, disks_open=None), Sign.DAEMON_SILENT),
        (evidence(False, storage=ANSWER, disks=0, disks_open=0), Sign.DAEMON_SILENT),
        # Watchers outlive their host for a while, so they prove nothing on their own.
        (evidence(False, management=SILENCE, storage=SILENCE, disks=2, disks_open=2), Sign.GONE),
        (
            evidence(False, management=SILENCE, storage=SILENCE, answers_to=("other",)),
            Sign.PARTED,
        ),
        (
            evidence(False, management=SILENCE, storage=SILENCE, answers_to=("x",), power="off"),
            Sign.GONE,
        ),
        (evidence(False, management=ANSWER, storage=ANSWER, power="off"), Sign.GONE),
        # A BMC that says so is not believed against the host itself.
        (evidence(True, power="off"), Sign.WELL),
    ],
)
def test_signs(looked: Evidence, sign: Sign) -> None:
    assert sign_of(looked) is sign
    assert spoken(looked, sign)


def test_a_power_cut_is_decided_within_ten_seconds() -> None:
    """The look that it falls behind, the one that waits in vain, and the limit."""
    settings = Settings()
    patience = patience_s(Sign.GONE, LIMITS, None)
    assert patience is not None
    assert settings.ha_every_s + settings.ha_answer_s + patience + settings.ha_every_s <= 10.0


def test_a_libvirt_that_hangs_is_left_alone_unless_somebody_says_otherwise() -> None:
    assert patience_s(Sign.DAEMON_SILENT, LIMITS, None) is None
    assert patience_s(Sign.DAEMON_SILENT, LIMITS, 90.0) == 90.0
    assert patience_s(Sign.PARTED, LIMITS, 90.0) is None
    assert patience_s(Sign.GONE, LIMITS, 90.0) == LIMITS.gone_after_s


def record(state: NodeState, **other: object) -> NodeRecord:
    return NodeRecord(node="h1", state=state, **other)  # type: ignore[arg-type]


def test_the_time_of_a_sign_is_that_of_its_first_look() -> None:
    silent = seen(record(NodeState.ONLINE), Sign.GONE, 10.0)
    assert (silent.sign, silent.sign_since) == (Sign.GONE, 10.0)
    assert seen(silent, Sign.GONE, 12.0) is silent


@pytest.mark.parametrize(
    ("before", "order", "state"),
    [
        (record(NodeState.SUSPECT), None, NodeState.ONLINE),
        (record(NodeState.DOWN, left_as="frozen"), None, NodeState.ONLINE),
        (record(NodeState.ONLINE), HostOrder(node="h1", maintenance=True), NodeState.MAINTENANCE),
        (record(NodeState.ONLINE), HostOrder(node="h1", leaving="reboot"), NodeState.LEAVING),
        # Whoever was touched by a fence is cleaned up first.
        (record(NodeState.FENCED, begun=True, proven=True), None, NodeState.RETURNING),
        (record(NodeState.SUSPECT, begun=True), None, NodeState.RETURNING),
    ],
)
def test_a_host_that_is_well_again(
    before: NodeRecord, order: HostOrder | None, state: NodeState
) -> None:
    after = when_well(before, order, 5.0)
    assert (after.state, after.since) == (state, 5.0)
    assert after.begun is before.begun
    assert when_well(after, order, 7.0) is after


@pytest.mark.parametrize(
    ("before", "state"),
    [
        (record(NodeState.ONLINE, sign=Sign.GONE), NodeState.SUSPECT),
        (record(NodeState.RETURNING, sign=Sign.GONE), NodeState.SUSPECT),
        (record(NodeState.LEAVING, sign=Sign.GONE), NodeState.SUSPECT),
        (record(NodeState.LEAVING, sign=Sign.GONE, ready=True), NodeState.DOWN),
        (record(NodeState.LEAVING, sign=Sign.STORAGE_CUT, ready=True), NodeState.SUSPECT),
        (record(NodeState.MAINTENANCE, sign=Sign.GONE, ready=True), NodeState.DOWN),
        (record(NodeState.FENCED, sign=Sign.GONE), NodeState.FENCED),
    ],
)
def test_a_host_that_is_silent(before: NodeRecord, state: NodeState) -> None:
    after = when_not_well(before, 5.0)
    assert after.state is state
    assert dataclasses.replace(after, state=before.state, since=before.since, why="") == before


def test_an_address_that_never_answered_is_no_witness() -> None:
    """A firewall that drops the knocks must not have a healthy host fenced."""
    silent = evidence(True, storage=SILENCE)
    assert sign_of(believed(silent, record(NodeState.ONLINE))) is Sign.WELL
    known = record(NodeState.ONLINE, storage_answered=True)
    assert sign_of(believed(silent, known)) is Sign.STORAGE_CUT
