"""What a Xen host cannot: one table, said before anything is asked of the host."""

from __future__ import annotations

from collections.abc import Callable

import libvirt
import pytest

from tests.test_domain_xml import disk, nic, vm
from vorch.drivers.xen import LACKS, SCRIPT_TIMEOUT_S, XenHost
from vorch.errors import Unsupported
from vorch.model import FileSource, Node
from vorch.ports import no_progress

VM = vm(disks=(disk(),), nics=(nic(),))
DISK = VM.disks[0]
PLACE = FileSource(path="/pool/one.raw", format="raw")
ACTS: dict[str, Callable[[XenHost], object]] = {
    "reset": lambda host: host.reset(VM.id),
    "snapshot": lambda host: host.snapshot(VM, VM.disks, "s"),
    "drop_snapshot": lambda host: host.drop_snapshot(VM, VM.disks, "s"),
    "change_media": lambda host: host.change_media(VM, DISK, None),
    "grow_disk": lambda host: host.grow_disk(VM, DISK, 2**31),
    "copy_disk": lambda host: host.copy_disk(VM, DISK, PLACE, no_progress),
    "switch_disk": lambda host: host.switch_disk(VM, DISK, PLACE),
    "has_disk_at": lambda host: host.has_disk_at(VM, DISK, PLACE),
    "flatten_disk": lambda host: host.flatten_disk(VM, DISK, no_progress),
    "limit_disk": lambda host: host.limit_disk(VM, DISK),
    "write_rate_mib_s": lambda host: host.write_rate_mib_s(VM.id, 1),
    "common_cpu": lambda host: host.common_cpu([]),
    "try_move": lambda host: host.try_move(VM.id, "xen+tls://x2/system"),
}


@pytest.fixture
def host() -> XenHost:
    """Nobody is there: whatever asked the host would be told that it cannot be reached."""
    return XenHost(Node(name="x1", uri="xen+tcp://127.0.0.1:1/system"))


def test_each_line_of_the_table_is_tried_here() -> None:
    assert ACTS.keys() == LACKS.keys()


@pytest.mark.parametrize("verb", ACTS)
def test_what_it_lacks_is_refused_in_words_and_without_asking(host: XenHost, verb: str) -> None:
    with pytest.raises(Unsupported) as caught:
        ACTS[verb](host)
    assert caught.value.message.startswith("cannot ")
    assert LACKS[verb] in caught.value.message
    assert "'x1'" in caught.value.message


class Slow:
    """A libvirt whose calls fail so many times, each after so long."""

    def __init__(
        self, takes_s: float, fails: int, code: int = libvirt.VIR_ERR_INTERNAL_ERROR
    ) -> None:
        self.now, self.takes_s, self.fails, self.code, self.asked = 0.0, takes_s, fails, code, 0

    def make(self) -> str:
        self.asked += 1
        self.now += self.takes_s
        if self.asked > self.fails:
            return "made"
        error = libvirt.libvirtError("libxenlight failed to create new domain")
        error.err = (self.code, 0, "", 0, None, None, None, 0, 0)
        raise error


@pytest.mark.parametrize(
    ("slow", "asked", "made"),
    [
        (Slow(1, fails=0), 1, True),
        # Its scripts had no time, as on a host where many start at once.
        (Slow(SCRIPT_TIMEOUT_S + 5, fails=1), 2, True),
        (Slow(SCRIPT_TIMEOUT_S + 5, fails=2), 2, False),
        # What fails at once would fail again.
        (Slow(1, fails=1), 1, False),
        (Slow(SCRIPT_TIMEOUT_S + 5, fails=1, code=libvirt.VIR_ERR_NO_DOMAIN), 1, False),
    ],
)
def test_what_ran_out_of_xen_s_time_is_tried_once_more(slow: Slow, asked: int, made: bool) -> None:
    host = XenHost(Node(name="x1", uri="xen:///system"), clock=lambda: slow.now)
    if made:
        assert host._patiently(slow.make) == "made"
    else:
        with pytest.raises(libvirt.libvirtError):
            host._patiently(slow.make)
    assert slow.asked == asked
