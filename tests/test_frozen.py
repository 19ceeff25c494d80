"""Values that are made quickly are the values that dataclasses would have made, and as frozen."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import dataclass, field
from typing import Any

import pytest

from vorch.frozen import quick, replace


@dataclass(frozen=True, slots=True)
class Slow:
    place: int
    # Words that its making has for itself.
    kind: str = "k"
    self_: int = field(default=3, kw_only=True)
    changes: dict[str, int] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        if self.place < 0:
            raise ValueError("below zero")


@quick
@dataclass(frozen=True, slots=True)
class Quick:
    place: int
    kind: str = "k"
    self_: int = field(default=3, kw_only=True)
    changes: dict[str, int] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        if self.place < 0:
            raise ValueError("below zero")


@pytest.mark.parametrize(
    ("args", "named"),
    [((1,), {}), ((1, "x"), {}), ((1,), {"kind": "y", "self_": 5, "changes": {"a": 1}})],
)
def test_it_is_made_of_the_same_and_is_the_same(args: tuple[Any, ...], named: Any) -> None:
    slow, fast = Slow(*args, **named), Quick(*args, **named)
    assert type(fast) is Quick
    assert dataclasses.asdict(fast) == dataclasses.asdict(slow)
    assert repr(fast) == repr(slow).replace("Slow", "Quick")
    assert fast == Quick(*args, **named)
    assert pickle.loads(pickle.dumps(fast)) == copy.deepcopy(fast) == copy.copy(fast) == fast


@pytest.mark.parametrize(
    ("args", "named"), [((), {}), ((1, "x", 2), {}), ((1,), {"more": 2}), ((1,), {"place": 2})]
)
def test_what_does_not_fit_is_refused(args: tuple[Any, ...], named: Any) -> None:
    for kind in (Slow, Quick):
        with pytest.raises(TypeError):
            kind(*args, **named)


def test_it_stays_frozen() -> None:
    one = Quick(1)
    for name in ("place", "changes", "new"):
        with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
            setattr(one, name, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.place


def test_each_has_a_default_of_its_own() -> None:
    assert Quick(1).changes is not Quick(1).changes


def test_it_looks_at_itself_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="below zero"):
        Quick(-1)
    with pytest.raises(ValueError, match="below zero"):
        replace(Quick(1), place=-1)


def test_one_like_it_with_changes() -> None:
    for one in (Slow(1, "x"), Quick(1, "x")):
        other = replace(one, place=2, self_=0)
        assert type(other) is type(one)
        assert other == dataclasses.replace(one, place=2, self_=0)
        assert (one.place, other.kind, other.changes is one.changes) == (1, "x", True)
        with pytest.raises(TypeError):
            replace(one, more=1)


def test_what_it_would_not_make_right_it_refuses() -> None:
    with pytest.raises(TypeError, match="not its own"):

        @quick
        @dataclass(frozen=True, slots=True)
        class Heir(Slow):
            more: int = 0

    with pytest.raises(TypeError, match="not given"):

        @quick
        @dataclass(frozen=True, slots=True)
        class Reckoned:
            one: int = field(init=False)


def test_an_heir_with_more_is_not_made_a_lesser_one() -> None:
    class Heir(Quick):
        more = 0

    with pytest.raises(TypeError):
        Heir(1)
