"""/v1/vms: the virtual machines."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from vorch import Picture, VmStatus

from ..connection import pictured

router = APIRouter(prefix="/v1/vms", tags=["vms"])


@router.get("", operation_id="list", summary="All VMs, with what they do now")
def list_vms(picture: Annotated[Picture, Depends(pictured)]) -> list[VmStatus]:
    return list(picture.list())
