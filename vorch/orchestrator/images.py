"""Where systems come from: imported disk images, CDs, templates."""

from __future__ import annotations

from typing import Literal

from vorch.decide import catalog
from vorch.errors import Invalid
from vorch.model import (
    Firmware,
    Image,
)
from vorch.orchestrator.core import Core, Done
from vorch.orchestrator.words import absolute, one_of


class ImageStore(Core):
    def image_import(
        self,
        name: str,
        location: str,
        *,
        kind: Literal["disk", "iso"] = "disk",
        sha256: str = "",
        firmware: Firmware | str = Firmware.BIOS,
        vcpus: int = 1,
        memory_mib: int = 1024,
        pool: str | None = None,
        storage_class: str | None = None,
        description: str = "",
        at_once: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
    ) -> Done:
        """A disk image (raw, qcow2, vmdk, vdi) or a CD, from a file or URL.

        `at_once`: VMs can be made of it while its data still come in, which this call waits for.
        """
        if kind not in ("disk", "iso"):
            raise Invalid(f"cannot import an image of kind {kind!r}: it is 'disk' or 'iso'")
        fresh, location = self._fresh(), absolute(location)
        return self._do(
            lambda cluster: catalog.image_import(
                cluster,
                name,
                location,
                fresh,
                kind=kind,
                sha256=sha256,
                firmware=one_of(Firmware, firmware, "firmware"),
                vcpus=vcpus,
                memory_mib=memory_mib,
                pool=self._pool_for(cluster, pool, storage_class),
                description=description,
                at_once=at_once,
            ),
            dry_run=dry_run,
            wait_s=wait_s,
            # Each host has to be able to read it.
            hosts=(lambda cluster: cluster.nodes) if at_once else None,
        )

    def image_list(self) -> tuple[Image, ...]:
        images = self.look().images
        return tuple(images[name] for name in sorted(images))

    def image_show(self, name: str) -> Image:
        return self.look().image(name)

    def image_delete(
        self, name: str, *, dry_run: bool = False, wait_s: float | None = None
    ) -> Done:
        return self._do(
            lambda cluster: catalog.image_delete(cluster, name), dry_run=dry_run, wait_s=wait_s
        )
