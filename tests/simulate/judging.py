"""Judges what a simulation came to, by what its scenario expects: any acceptable host will do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Causes of a fencing that must have come to pass; the others may be somebody's own way.
MUST = ("network-loss", "power-cut")


def deviations(scenario: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """One line for each; none when all is as expected."""
    expect = scenario["expect"]
    found = []
    for sid, want in expect["services"].items():
        got = result["services"].get(sid)
        if got is None:
            found.append(f"{sid}: it is missing")
            continue
        if got["state"] != want["state"]:
            found.append(f"{sid}: {got['state']}, not {want['state']}")
        if got["node"] not in want["acceptable_nodes"]:
            found.append(f"{sid}: on {got['node']}, not on {' or '.join(want['acceptable_nodes'])}")
        if bool(got["running_on"]) != want["running"]:
            found.append(f"{sid}: running on {got['running_on']}")
        elif got["running_on"] not in (None, got["node"]):
            found.append(f"{sid}: of {got['node']}, and runs on {got['running_on']}")
    found += _rules(scenario, result)
    must = {one["node"] for one in expect["fenced"] if one["cause"] in MUST}
    may = {one["node"] for one in expect["fenced"]}
    fenced = set(result["fenced"])
    found += [f"{node}: it was not fenced" for node in sorted(must - fenced)]
    found += [f"{node}: it was fenced for nothing" for node in sorted(fenced - may)]
    return found


def _rules(scenario: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    runs = {sid: one["running_on"] for sid, one in result["services"].items() if one["running_on"]}
    found = []
    for rule in scenario["placement"]["service_rules"]:
        where = [runs[sid] for sid in rule["services"] if sid in runs]
        if rule["kind"] == "together" and len(set(where)) > 1:
            found.append(f"{rule['name']}: not together: {where}")
        if rule["kind"] == "apart" and len(set(where)) < len(where):
            found.append(f"{rule['name']}: not apart: {where}")
    return found
