"""What a benchmark has found: runs, and what has to be known to judge them; as JSON, too."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vorch import Invalid

from .marks import METHODS, Phase

FORMAT = "vorch-bench-install/1"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Case:
    """What is measured: one way to a running system, at one place."""

    method: str
    hypervisor: str
    # "local" or "rbd".
    storage: str
    # "one" or "two" networks for storage and management; "none" where storage needs none.
    networks: str

    @property
    def title(self) -> str:
        words = {"one": " one network", "two": " two networks"}.get(self.networks, "")
        return f"{self.hypervisor.upper()} {self.storage}{words}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    case: Case
    host: str
    pool: str
    # Which of the runs of its case; counted from 1.
    number: int
    # Seconds since 1970.
    began_at: float
    phases: tuple[Phase, ...] = ()
    # By name and unit, as in `guest_cpu_s`. What could not be had is not in there.
    amounts: Mapping[str, float] = field(default_factory=dict)
    # Why it does not count; "" for one that does.
    spoilt: str = ""

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)

    def phase(self, name: str) -> float | None:
        return next((one.seconds for one in self.phases if one.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Of one call of the benchmark."""

    began_at: float
    # What all of its runs have in common, by name: sizes, versions, mirror, packages.
    setup: Mapping[str, str]
    # Host → what it is, and pool → what it is, by name.
    hosts: Mapping[str, Mapping[str, str]]
    pools: Mapping[str, Mapping[str, str]]
    runs: tuple[Run, ...]
    # Whoever started it was told of differences and went on.
    unlike_allowed: bool = False
    note: str = ""


def to_json(results: Sequence[Results]) -> str:
    body = {"format": FORMAT, "results": [dataclasses.asdict(one) for one in results]}
    return json.dumps(body, indent=1, sort_keys=True) + "\n"


def read(file: Path) -> tuple[Results, ...]:
    """All that is in such a file."""
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        if body["format"] != FORMAT:
            raise ValueError(f"its format is {body['format']!r}, not {FORMAT!r}")
        return tuple(_results(one) for one in body["results"])
    except OSError as exc:
        raise Invalid(
            f"cannot read results from {str(file)!r}: {exc.strerror}; name the report.json of a"
            " benchmark"
        ) from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise Invalid(
            f"cannot read results from {str(file)!r}: {exc}; name the report.json of a benchmark"
        ) from exc


def _results(body: dict[str, Any]) -> Results:
    return Results(
        began_at=float(body["began_at"]),
        setup=_words(body["setup"]),
        hosts={str(name): _words(facts) for name, facts in body["hosts"].items()},
        pools={str(name): _words(facts) for name, facts in body["pools"].items()},
        runs=tuple(_run(one) for one in body["runs"]),
        unlike_allowed=bool(body["unlike_allowed"]),
        note=str(body["note"]),
    )


def _words(body: dict[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in body.items()}


def _run(body: dict[str, Any]) -> Run:
    case = Case(**{name: str(value) for name, value in body["case"].items()})
    if case.method not in METHODS:
        raise ValueError(f"there is no method {case.method!r}")
    return Run(
        case=case,
        host=str(body["host"]),
        pool=str(body["pool"]),
        number=int(body["number"]),
        began_at=float(body["began_at"]),
        phases=tuple(
            Phase(name=str(one["name"]), seconds=float(one["seconds"])) for one in body["phases"]
        ),
        amounts={str(name): float(value) for name, value in body["amounts"].items()},
        spoilt=str(body["spoilt"]),
    )


def cases(results: Sequence[Results]) -> dict[Case, tuple[Run, ...]]:
    """The runs that count, by what they measured, in the order of the page."""
    found: dict[Case, list[Run]] = {}
    for one in results:
        for run in one.runs:
            if not run.spoilt:
                found.setdefault(run.case, []).append(run)
    order = {method: number for number, method in enumerate(METHODS)}
    return {
        case: tuple(found[case])
        for case in sorted(
            found, key=lambda case: (order[case.method], case.storage, case.networks, case)
        )
    }
