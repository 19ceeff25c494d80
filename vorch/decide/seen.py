"""What all hosts show, put together with what the store says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from vorch.model import Cluster, Domain, Vm


def seen(cluster: Cluster, answers: Mapping[str, tuple[Domain, ...] | str]) -> Cluster:
    """The same with what these hosts answered; a text says why one did not."""
    domains, silent = shown_by(cluster.vms, answers)
    return dataclasses.replace(cluster, domains=domains, silent=silent)


def shown_by(
    vms: Mapping[str, Vm], answers: Mapping[str, tuple[Domain, ...] | str]
) -> tuple[dict[str, Domain], dict[str, str]]:
    """The domains on those that answered, by their ids, and why the others did not."""
    domains: dict[str, Domain] = {}
    silent: dict[str, str] = {}
    homes = {vm.id: vm.node for vm in vms.values()}
    for name, answer in answers.items():
        if isinstance(answer, str):
            silent[name] = answer
            continue
        for domain in answer:
            # One that is on its way to another host is seen on both.
            if domain.id not in domains or homes.get(domain.id) == name:
                here = domain.node == name
                domains[domain.id] = domain if here else dataclasses.replace(domain, node=name)
    return domains, silent
