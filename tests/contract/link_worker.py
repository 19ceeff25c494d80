"""A process that is killed in the middle of librbd's calls: `-m tests.contract.link_worker …`.

Words: the pool's URL, what it is to do ("link" or "fill"), the volume, the URL of its data. It says
when it begins.
"""

from __future__ import annotations

import sys

from vorch.drivers.rbd_images import RbdImages
from vorch.ports import no_progress


def main(pool: str, verb: str, volume: str, url: str) -> None:
    images = RbdImages("ceph", pool)
    # The connection is there already.
    images.room()
    print("begun", flush=True)
    if verb == "link":
        images.link(url, volume, no_progress)
    else:
        images.fill(volume, "", no_progress)


if __name__ == "__main__":
    main(*sys.argv[1:])
