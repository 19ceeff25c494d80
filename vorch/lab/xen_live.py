"""The image of Xen hosts again, with a hypervisor that moves PV guests while they run.

    image = build(report=print)

Debian builds its Xen without shadow paging, and by that alone Xen can follow what a PV guest
writes. Here its own source is built with it, and nothing else: the dom0 with its tools stays
the distribution's, which is why both have to be of one series. It lies beside the plain image, as
one of its own: a saved state belongs to one hypervisor.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import os
import shutil
import sys
from pathlib import Path

from vorch.lab import guest, xen_image
from vorch.lab.guest import GuestBuildError, Report
from vorch.lab.xen_image import XenImage

# What the dom0's tools are of (xen_files/install): they speak to a hypervisor of their own series.
SERIES = "4.17"
# What makes one image differ from the other; the rest is linked, not copied.
OF_THE_HYPERVISOR = ("xen", "state", "saved.qcow2")


def build(*, cache: Path | None = None, report: Report | None = None) -> XenImage:
    """The image out of the cache, or built now and put there, after the plain one it stands on."""
    say = report or (lambda _: None)
    plain = xen_image.build(cache=cache, report=say)

    def make(scratch: Path) -> Path:
        shelf = scratch / "shelf"
        take_over(plain.folder, shelf)
        _rebuild(scratch, shelf, say)
        xen_image.save_state(shelf, scratch, say)
        return shelf

    return xen_image.kept(plain.folder.parent / _name(plain), "live-*", make, say)


def take_over(plain: Path, shelf: Path) -> None:
    """What both have in common. It stays when the other image is cleared away."""
    shelf.mkdir()
    for file in plain.iterdir():
        if file.name not in OF_THE_HYPERVISOR:
            os.link(file, shelf / file.name)


def _script() -> bytes:
    folder = importlib.resources.files("vorch.lab").joinpath("xen_live_files")
    return folder.joinpath("rebuild").read_bytes()


def _name(plain: XenImage) -> str:
    """By the plain image, the recipe, and the release that the source is looked for by."""
    package = f"xen-hypervisor-{SERIES}-amd64"
    version = guest.versions_of((package,)).get(package)
    if version is None:
        raise GuestBuildError(
            f"cannot build a Xen host: apt knows no version of {package}; the recipe needs Debian's"
            " archive of the release that has it (apt-get update)"
        )
    digest = hashlib.sha256(f"{plain.folder.name} {version}\n".encode())
    digest.update(Path(__file__).read_bytes())
    digest.update(_script())
    return f"live-{digest.hexdigest()[:12]}"


def _rebuild(scratch: Path, shelf: Path, say: Report) -> None:
    site, codename = guest.own_archive()
    say("Xen host: building its hypervisor anew, with shadow paging (a few minutes)")
    root, sources, script = scratch / "root", scratch / "sources", scratch / "rebuild"
    kinds = (xen_image.archives(codename), xen_image.archives(codename, "deb-src"))
    sources.write_text("".join(kinds))
    script.write_bytes(_script())
    script.chmod(0o755)
    guest.run(
        [
            *("unshare", "--mount", str(script)),
            *(str(root), codename, site, str(sources), SERIES),
        ]
    )
    result = root / "result"
    (shelf / "xen").write_bytes(gzip.decompress((result / "xen.gz").read_bytes()))
    shutil.copyfile(result / "source", shelf / "source")
    say(f"Xen host: its hypervisor is built of {(result / 'source').read_text().strip()}")
    shutil.rmtree(root)


if __name__ == "__main__":
    what = "Builds the image of the lab's Xen hosts that move PV guests live."
    sys.exit(xen_image.main(build, "python -m vorch.lab.xen_live", what))
