"""The pools that the Images contract is checked on, each behind one small face."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.contract import ceph_images
from vorch.drivers.local import LocalImages
from vorch.drivers.memory import MemoryWorld
from vorch.lab.lab import Lab
from vorch.model import FileSource
from vorch.ports import Images


@dataclass
class ImageStore:
    """One pool, and what a guest would do with its volumes."""

    name: str
    images: Images
    write: Callable[[str, int, bytes], None]
    read: Callable[[str, int, int], bytes]
    # The same pool as it looks when it has no room left.
    full: Callable[[], Images]
    # What is used is counted in parts of this size.
    grain_bytes: int = 65536


def memory_store(folder: Path) -> Iterator[ImageStore]:
    world = MemoryWorld(keeps_notes=True)
    pool = world.pool("local")
    images = world.connect().images("local")

    def full() -> Images:
        pool.full = True
        return images

    yield ImageStore(
        "memory",
        images,
        lambda volume, offset, data: pool[volume].write(offset, data),
        lambda volume, offset, count: pool[volume].read(offset, count),
        full,
    )


def qemu_io(path: str, format_: str, *commands: str) -> str:
    arguments = [part for command in commands for part in ("-c", command)]
    done = subprocess.run(
        ["qemu-io", "-f", format_, *arguments, path], capture_output=True, text=True, check=True
    )
    # It ends with 0 even when a pattern did not match.
    assert "failed" not in done.stdout, done.stdout
    return done.stdout


def local_store(folder: Path) -> Iterator[ImageStore]:
    pool = folder / "pool"
    images = LocalImages("local", pool)

    def write(volume: str, offset: int, data: bytes) -> None:
        place = images.locate(volume)
        assert isinstance(place, FileSource)
        source = folder / "to-write"
        source.write_bytes(data)
        qemu_io(place.path, place.format, f"write -s {source} {offset} {len(data)}")

    def read(volume: str, offset: int, count: int) -> bytes:
        place = images.locate(volume)
        assert isinstance(place, FileSource)
        flat = folder / "flat"
        subprocess.run(
            ["qemu-img", "convert", "-U", "-f", place.format, "-O", "raw", place.path, str(flat)],
            check=True,
        )
        with flat.open("rb") as file:
            file.seek(offset)
            return file.read(count)

    def full() -> Images:
        return LocalImages("local", pool, reserve_bytes=2**60)

    yield ImageStore("local", images, write, read, full)
    # Whatever a test did, nothing half made is left, and nobody's work.
    left = [path.name for path in (pool / ".work").iterdir() if path.suffix != ".lock"]
    assert left == []


def rbd_store(lab: Lab) -> Iterator[ImageStore]:
    import rbd

    with ceph_images.connected(lab) as cluster, ceph_images.namespace(cluster) as name:
        images = ceph_images.images(lab, name)
        with cluster.open_ioctx(ceph_images.POOL) as ioctx:
            ioctx.set_namespace(name)

            def write(volume: str, offset: int, data: bytes) -> None:
                with rbd.Image(ioctx, volume) as image:
                    image.write(data, offset)

            def read(volume: str, offset: int, count: int) -> bytes:
                with rbd.Image(ioctx, volume, read_only=True) as image:
                    return bytes(image.read(offset, count))

            def full() -> Images:
                return ceph_images.images(lab, name, reserve_bytes=2**60)

            yield ImageStore("rbd", images, write, read, full, 4 * 1024**2)
            # Whatever a test did, nothing half made is left.
            left = [image for image in rbd.RBD().list(ioctx) if image.startswith(".")]
            assert left == []
        images.close()


FOLDER_STORES: dict[str, Callable[[Path], Iterator[ImageStore]]] = {
    "memory": memory_store,
    "local": local_store,
}
LAB_STORES: dict[str, Callable[[Lab], Iterator[ImageStore]]] = {"rbd": rbd_store}
