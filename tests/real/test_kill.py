"""kill -9 between any two steps of any verb, on real libvirt, QEMU and qcow2: nothing is leaked."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import vorch
from tests.boot_sector import SLEEPS
from tests.execute.scenarios import Story, leaks, stories
from tests.real.guests import guest_image
from tests.real.installers import QUICK, write_installer
from tests.thorough import much
from vorch import Orchestrator

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]

# Those whose way goes through a host or over files; the rest is shown on the memory world.
KILLED = (
    "image-import",
    "create-seed-start",
    "create-full",
    "start",
    "stop-force",
    "clone-linked",
    "clone-running",
    "template",
    "delete-running",
    "delete-purge",
    "undelete",
    "snapshot",
    "snapshot-running",
    "rollback",
    "snapshot-delete",
    "disk-attach",
    "disk-grow",
    "image-delete",
    "network",
)


class Place:
    """An embedded cluster in a folder of its own, on this machine's libvirt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = folder / "disk.raw"
        self.iso = folder / "cd.iso"
        self.disk.write_bytes(SLEEPS + bytes(2**20 - 512))
        self.iso.write_bytes(b"")
        self.images = {"disk_image": str(self.disk), "iso_image": str(self.iso)}
        self.number = 0
        self.fresh()
        with self.connect() as cluster:
            self.foreign = frozenset(cluster.look(None).domains)

    def fresh(self) -> None:
        """An empty cluster; what the one before it had running is ended."""
        self.number += 1
        here = self.folder / str(self.number)
        self.settings = {
            "uri": f"sqlite://{here}/vorch.db",
            "pool_path": str(here / "disks"),
            "hypervisor_uri": "qemu:///system",
        }

    def connect(self) -> Orchestrator:
        return vorch.connect(settings=vorch.Settings(**self.settings))  # type: ignore[arg-type]

    def clear(self) -> None:
        with self.connect() as cluster:
            for status in cluster.list():
                cluster.delete(status.name, force=True, purge=True)
            for network in cluster.network_list():
                cluster.network_delete(network.name)

    def kill(self, story: Story, number: int, delay_ms: int = 0) -> int:
        """The exit status of a process that was to end itself there."""
        given = {"settings": self.settings, "stories": self.images}
        command = [sys.executable, "-m", "tests.real.victim", json.dumps(given), story.name]
        done = subprocess.run(
            [*command, str(number), str(delay_ms)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr[-2000:]
        return done.returncode

    def stories(self) -> dict[str, Story]:
        return {story.name: story for story in stories(**self.images)}

    def temporaries(self) -> list[str]:
        """Files of the pool that are neither a volume nor known to be there."""
        with self.connect() as cluster:
            known = {info.name for info in cluster.volume_list("local")}
        found = []
        for path in Path(self.settings["pool_path"]).rglob("*"):
            volume = any(path.name.startswith(name) for name in known)
            # Locks are held by the living; an empty one that is left over says nothing.
            if path.is_file() and not volume and not path.name.endswith(".lock"):
                found.append(str(path))
        return found


@pytest.fixture
def place(libvirt_system: str) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="vorch-kill-", dir="/var/tmp"))
    folder.chmod(0o711)
    made = Place(folder)
    yield made
    made.clear()
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", much(KILLED, KILLED[::2]))
def test_killed_at_every_point(name: str, place: Place) -> None:
    """The first points, then some. In memory, where time costs nothing, it is every one."""
    story = place.stories()[name]
    ready = False
    for number in itertools.chain(range(much(4, 2)), itertools.count(6, much(3, 9))):
        if not ready:
            place.clear()
            place.fresh()
            with place.connect() as cluster:
                for act in story.before:
                    act(cluster)
            ready = True
        status = place.kill(story, number)
        with place.connect() as heir:
            names = frozenset(one.name for one in heir.list())
            assert leaks(heir, place.foreign) == [], f"after kill -9 at point {number}"
            assert names in (story.done, story.undone), f"after kill -9 at point {number}"
            finished = any(task.state.value == "done" for task in heir.task_list()[:1])
        assert place.temporaries() == [], f"after kill -9 at point {number}"
        if status == 0:
            break
        ready = not finished
    assert number > 2, "the verb was never killed on its way"


@pytest.mark.thorough
def test_an_install_is_killed_at_every_point(place: Place) -> None:
    """With an installer that really boots, writes the disk and reboots."""
    kernel, initrd = write_installer(guest_image("tiny"), QUICK, place.folder)
    place.images |= {"kernel": str(kernel), "initrd": str(initrd)}
    test_killed_at_every_point("install", place)


@pytest.mark.parametrize("delay_ms", [5, 20, 50, 100, 200])
def test_killed_in_the_middle_of_a_long_step(delay_ms: int, place: Place) -> None:
    """An import that is cut off while it copies leaves neither a volume nor half of one."""
    with place.disk.open("r+b") as file:
        file.seek(512)
        for _ in range(64):
            file.write(os.urandom(2**20))
    story = place.stories()["image-import"]
    assert place.kill(story, 1, delay_ms) in (0, -signal.SIGKILL)
    with place.connect() as heir:
        assert leaks(heir, place.foreign) == []
        heir.image_delete("debian") if heir.image_list() else None
        story.act(heir)
        assert leaks(heir, place.foreign) == []
    assert place.temporaries() == []
