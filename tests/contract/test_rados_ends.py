"""A connection to Ceph is closed while other threads are still in calls on it.

In processes of their own: librados would end the whole process, and the test with it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.ceph import ceph_of, the_lab

pytestmark = [pytest.mark.lab, pytest.mark.slow]

ROOT = Path(__file__).parents[2]

# Each round closes a connection in the middle of four threads' calls. They end soon after it.
_IN_A_CALL = """
import random, sys, threading, time
from vorch.drivers.rados_connection import kept_cluster
import rados, rbd

conf, user, pool = sys.argv[1:]
for _ in range(25):
    cluster = kept_cluster(conf, user, 5.0)
    cluster.ioctx(pool).write_full("ends", b"x")
    over = threading.Event()

    def read():
        while not over.is_set():
            cluster.ioctx(pool).read("ends")

    def look():
        while not over.is_set():
            rbd.RBD().list2(cluster.ioctx(pool))

    threads = [threading.Thread(target=one) for one in (read, look, read, look)]
    for one in threads:
        one.start()
    time.sleep(random.random() * 0.05)
    threading.Timer(random.random() * 0.2, over.set).start()
    cluster.release()
    for one in threads:
        one.join()
    # What they opened anew after it was closed.
    cluster.close()
print("closed")
"""

# Somebody keeps what he has open for longer than the one who closes waits.
_KEPT_OPEN = """
import sys, time
import vorch.drivers.rados_connection as connection
import rbd

connection.LAST_CALLS_S = 0.5
conf, user, pool = sys.argv[1:]
cluster = connection.kept_cluster(conf, user, 5.0)
ioctx = cluster.ioctx(pool)
rbd.RBD().create(ioctx, "kept", 4 << 20)
with rbd.Image(ioctx, "kept") as image:
    del ioctx
    began = time.monotonic()
    cluster.release()
    assert 0.5 <= time.monotonic() - began < 4
    image.write(b"still", 0)
    assert image.read(0, 5) == b"still"
cluster = connection.kept_cluster(conf, user, 5.0)
rbd.RBD().remove(cluster.ioctx(pool), "kept")
cluster.release()
print("closed")
"""

# Nobody is in a call any more: nothing is waited for, and no thread stays.
_DONE = """
import os, secrets, sys, time
from vorch.drivers.rbd_images import RbdImages

conf, user, pool = sys.argv[1:]
threads = len(os.listdir("/proc/self/task"))
for _ in range(3):
    images = RbdImages("ends", f"rbd://{pool}?conf={conf}&id={user}")
    name = "ends-" + secrets.token_hex(4)
    images.create(name, 4 << 20)
    images.snapshot([name], "s")
    images.clone(name, name + "-copy", 4 << 20)
    assert {name, name + "-copy"} <= {one.name for one in images.list()}
    images.purge(name + "-copy")
    images.drop_snapshot([name], "s")
    images.purge(name)
    began = time.monotonic()
    images.close()
    assert time.monotonic() - began < 2.5, time.monotonic() - began
    assert len(os.listdir("/proc/self/task")) == threads
print("closed")
"""


@pytest.mark.parametrize(
    "story", [_IN_A_CALL, _KEPT_OPEN, _DONE], ids=["in a call", "kept open", "done"]
)
def test_closed_while_it_is_used(request: pytest.FixtureRequest, story: str) -> None:
    conf, user, pool = ceph_of(the_lab(request))
    done = subprocess.run(
        [sys.executable, "-c", story, conf, user, pool],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr[-3000:]
