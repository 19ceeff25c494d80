"""/v1/capacity and /v1/dump: what the cluster could lose and take, and what that rests on."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from vorch import Capacity, Orchestrator

from ..connection import connected

router = APIRouter(prefix="/v1", tags=["room"])

Cluster = Annotated[Orchestrator, Depends(connected)]


@router.get(
    "/capacity",
    operation_id="capacity",
    summary="Whether any host may die, the worst to lose, and how many more VMs fit",
)
def capacity(
    cluster: Cluster,
    vcpus: Annotated[int | None, Query(ge=1)] = None,
    memory_mib: Annotated[int | None, Query(ge=1)] = None,
    require_tags: Annotated[list[str] | None, Query()] = None,
    over: str | None = None,
    hosts_lost: Annotated[int | None, Query(ge=1)] = None,
) -> Capacity:
    return cluster.capacity(
        vcpus=vcpus,
        memory_mib=memory_mib,
        require_tags=require_tags or (),
        over=over,
        hosts_lost=hosts_lost,
    )


@router.get(
    "/dump",
    operation_id="dump",
    summary="All that a decision is made from, without secrets",
)
def dump(cluster: Cluster) -> dict[str, Any]:
    return cluster.dump().document()
