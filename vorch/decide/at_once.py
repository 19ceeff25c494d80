"""An image that VMs are made of while its data are still on their way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from vorch.decide.fresh import Fresh
from vorch.decide.records import reads, save
from vorch.errors import Conflict, Unsupported
from vorch.model import Cluster, Image, Volume
from vorch.plan import FillVolume, Journal, LinkVolume, Plan, SeeReadable, Step

WITHOUT = "import it without --at-once"


def image_import(
    cluster: Cluster,
    image: Image,
    volume: Volume,
    sha256: str,
    fill: Mapping[str, str],
    fresh: Fresh,
) -> Plan:
    """The image is recorded as soon as every host that answers was seen to read it.

    QEMU on the hosts reads the source by itself, so that has to be one which all of them reach.
    """
    what = f"import {image.source!r} at once"
    if image.kind == "iso":
        raise Unsupported(f"cannot {what}: that is for disks that VMs are made of; {WITHOUT}")
    if not image.source.lower().startswith(("http://", "https://")):
        raise Unsupported(
            f"cannot {what}: until all data are there the hosts of the VMs read them where they"
            f" are, and a file of this machine is not theirs; offer it by HTTP, or {WITHOUT}"
        )
    nodes = tuple(node for node in sorted(cluster.nodes) if node not in cluster.silent)
    if not nodes:
        raise Unsupported(f"cannot {what}: no host answers that could read it; {WITHOUT}")
    size = {key: name for key, name in fill.items() if key != "sha256"}
    arriving = dataclasses.replace(image, arriving=True)
    key = f"image/{image.name}"
    steps: tuple[Step, ...] = (
        LinkVolume(location=image.source, volume=volume),
        SeeReadable(volume=volume, nodes=nodes, trial=f"vorch-trial-{fresh.token[:12]}"),
        save("image", image.name, None, arriving, size),
        FillVolume(volume=volume, sha256=sha256),
        save("image", image.name, arriving, image, dict(fill)),
    )
    checked = "; its SHA-256 is checked when all data are there" if sha256 else ""
    silent = f"; not tried on {', '.join(sorted(cluster.silent))}" if cluster.silent else ""
    return Plan(
        verb="image import",
        subject=image.name,
        why=f"from {image.source}, and VMs are made of it meanwhile{checked}{silent}",
        steps=steps,
        claims=(key,),
        reads=reads(cluster, key),
    )


def check_arrived(image: Image, what: str) -> None:
    if image.arriving:
        raise Conflict(
            f"cannot {what}: the data of image {image.name!r} are still coming in; wait until its"
            " import has ended (`vorch task list`; one that was left is carried on by a service,"
            " or by `vorch recover`), or cancel that",
            image=image.name,
        )


def check_cancel(journal: Journal, standing_on: Callable[[Volume], tuple[str, ...]]) -> None:
    """Refused when VMs were made of the image already: the cancel would only come to nothing."""
    for step in journal.plan.steps:
        if isinstance(step, FillVolume):
            vms = standing_on(step.volume)
            if vms:
                raise Conflict(
                    f"cannot cancel task {journal.id!r}: {', '.join(map(repr, vms))} stand on the"
                    f" data of image {journal.plan.subject!r}, which still come in; let it go on,"
                    " or delete those first",
                    task=journal.id,
                    vms=list(vms),
                )
