"""/v1/balance: VMs that move from hosts with much to do to hosts with little."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends

from vorch import Orchestrator, shown

from ..connection import connected

router = APIRouter(prefix="/v1", tags=["room"])


@router.post(
    "/balance",
    operation_id="balance",
    summary="Even out what hosts have to do; the answer comes when all moves are over",
)
def balance(
    cluster: Annotated[Orchestrator, Depends(connected)],
    moves_max: Annotated[int | None, Body(ge=0)] = None,
    memory_max_mib: Annotated[int | None, Body(ge=0)] = None,
    time_max_s: Annotated[float | None, Body(ge=0)] = None,
    metric: Annotated[str, Body()] = "vorch",
    measure_s: Annotated[float, Body(ge=0)] = 5.0,
    dry_run: Annotated[bool, Body()] = False,
    wait_s: Annotated[float | None, Body(ge=0)] = None,
) -> dict[str, Any]:
    came = cluster.balance(
        moves_max=moves_max,
        memory_max_mib=memory_max_mib,
        time_max_s=time_max_s,
        metric=metric,
        measure_s=measure_s,
        dry_run=dry_run,
        wait_s=wait_s,
    )
    told: dict[str, Any] = shown(came)
    return told
