"""What a plan may touch for whom, whichever verb made it."""

from __future__ import annotations

import dataclasses

import pytest

from vorch.codec import decode
from vorch.decide.records import save_vm
from vorch.decide.rights import held
from vorch.errors import Denied, NotFound
from vorch.model import Vm
from vorch.plan import PauseDomain, Plan, ResetDomain, Save, StartDomain, Step
from vorch.rights import Principal, Role

ALICE = Principal(name="alice", role=Role.USER, scopes=("owner:alice", "team:web"))
RESERVED = {"owner:alice", "team:web", "owner:bob", "*"}


def vm(name: str, *tags: str) -> Vm:
    number = sum(name.encode())
    return Vm(name=name, id=f"0b0b0b0b-0000-4000-8000-{number:012d}", node="h1", tags=tags)


def plan(*steps: Step) -> Plan:
    return Plan(verb="do", subject="it", why="because", steps=steps)


def tags_of(found: Plan) -> list[tuple[tuple[str, ...] | None, tuple[str, ...] | None]]:
    """Before and after, of each document that is written."""
    return [
        (
            None if step.before is None else decode(Vm, step.before).tags,
            None if step.after is None else decode(Vm, step.after).tags,
        )
        for step in found.steps
        if isinstance(step, Save)
    ]


def test_a_new_vm_is_its_makers_from_the_first_record_to_the_last() -> None:
    first = vm("web", "shop")
    then = dataclasses.replace(first, wanted="running")
    found = held(
        ALICE,
        plan(save_vm(None, first), StartDomain(vm=first), save_vm(first, then)),
        RESERVED,
    )
    mine = ("shop", "owner:alice")
    assert tags_of(found) == [(None, mine), (mine, mine)]


def test_one_that_has_a_scope_is_left_as_it_is() -> None:
    asked = plan(save_vm(None, vm("web", "team:web")))
    assert held(ALICE, asked, RESERVED) == asked


def test_a_rename_is_no_new_vm() -> None:
    """A tag of somebody else that it has had before goes along."""
    before = vm("web", "owner:alice", "owner:bob")
    after = dataclasses.replace(before, name="www")
    asked = plan(save_vm(before, None), save_vm(None, after))
    assert held(ALICE, asked, RESERVED) == asked


@pytest.mark.parametrize(
    "steps",
    [
        (PauseDomain(vm=vm("db", "owner:bob")),),
        (ResetDomain(vm=vm("db")),),
        (save_vm(vm("db", "owner:bob"), None),),
        (save_vm(vm("db", "owner:bob"), vm("db", "owner:alice")),),
        (save_vm(vm("db"), vm("db", "owner:alice")),),
        (save_vm(vm("web", "owner:alice"), None), ResetDomain(vm=vm("db", "owner:bob"))),
    ],
)
def test_what_belongs_to_others_is_not_there(steps: tuple[Step, ...]) -> None:
    with pytest.raises(NotFound, match="cannot find VM 'db'"):
        held(ALICE, plan(*steps), RESERVED)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (save_vm(vm("web", "owner:alice"), vm("web")), "none of yours any more"),
        (save_vm(vm("web", "owner:alice"), vm("web", "owner:bob")), "none of yours any more"),
        (
            save_vm(vm("web", "owner:alice"), vm("web", "owner:alice", "owner:bob")),
            "'owner:bob' is the scope of somebody else",
        ),
        (
            save_vm(vm("web", "owner:alice", "owner:bob"), vm("web", "owner:alice")),
            "'owner:bob' is the scope of somebody else",
        ),
        (save_vm(None, vm("web", "owner:bob")), "'owner:bob' is the scope of somebody else"),
    ],
)
def test_tags_that_nobody_may_give_or_take(step: Save, says: str) -> None:
    with pytest.raises(Denied, match=says):
        held(ALICE, plan(step), RESERVED)


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.ADMIN])
def test_whoever_has_all_is_held_by_nothing(role: Role) -> None:
    everybody = dataclasses.replace(ALICE, role=role)
    asked = plan(save_vm(vm("db", "owner:bob"), vm("db")), ResetDomain(vm=vm("db")))
    assert held(everybody, asked, RESERVED) == asked
