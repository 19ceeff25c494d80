"""Where systems come from: imported disk images, CDs, templates."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

from vorch.decide import catalog, disks
from vorch.errors import Invalid, NotFound, Unsupported
from vorch.model import (
    Firmware,
    Image,
)
from vorch.orchestrator.core import Core, Done
from vorch.orchestrator.words import absolute, one_of, word_of
from vorch.ports import Content, Uploads, no_progress


class ImageStore(Core):
    def image_import(
        self,
        name: str,
        location: str,
        *,
        kind: Literal["disk", "iso"] = "disk",
        sha256: str = "",
        firmware: Firmware | str = Firmware.BIOS,
        hypervisor: str | None = None,
        xen_kind: str | None = None,
        xen_loader: str | None = None,
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

        `hypervisor`, `xen_kind`, `xen_loader`: what VMs made of it are when nobody says.
        `at_once`: VMs can be made of it while its data still come in, which this call waits for.
        "upload:ID" is what was sent to the service on this machine; it is gone when it is an image.
        """
        if kind not in ("disk", "iso"):
            raise Invalid(f"cannot import an image of kind {kind!r}: it is 'disk' or 'iso'")
        fresh, location = self._fresh(), absolute(location)
        upload = location.removeprefix("upload:") if location.startswith("upload:") else ""
        if upload:
            found = self._uploads.find(upload)
            sha256 = sha256 or found.sha256
            location = self._uploads.path(upload)
        done = self._do(
            lambda cluster: catalog.image_import(
                cluster,
                name,
                location,
                fresh,
                kind=kind,
                sha256=sha256,
                firmware=one_of(Firmware, firmware, "firmware"),
                hypervisor=word_of(Image, "hypervisor", hypervisor) or "",
                xen_kind=word_of(Image, "xen_kind", xen_kind) or "pv",
                xen_loader=word_of(Image, "xen_loader", xen_loader) or "pygrub",
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
        if upload and done.task is not None:
            # Another one may have thrown it away.
            with contextlib.suppress(NotFound):
                self._uploads.remove(upload)
        return done

    @property
    def _uploads(self) -> Uploads:
        if self.world.uploads is None:
            raise Unsupported("cannot use uploads: this connection takes none; name a file")
        return self.world.uploads

    @contextlib.contextmanager
    def image_content(self, name: str, disk: str | None = None) -> Iterator[Content]:
        """What an image holds, as raw, for whoever wants to read it: no task, and nothing changes.

        One that is qcow2 in a folder is unpacked beside it first, for as long as this is open.
        """
        part = disks.exported_part(self.look(), name, disk, "raw")
        images = self.world.images(part.volume.pool)
        with images.content(part.volume.name, None, no_progress) as content:
            yield content

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
