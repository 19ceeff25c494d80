"""Whatever a person types: a clear refusal before anything is touched, or something sound."""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vorch
from vorch import Orchestrator

_numbers = itertools.count()

NASTY = (
    "",
    " ",
    ".",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "-rf",
    "--force",
    "web ",
    " web",
    "web\n",
    "web\x00",
    "wëb",
    "<web>",
    "web&amp;",
    "'; drop table documents; --",
    '"',
    "$(reboot)",
    "`reboot`",
    "%s%s%n",
    "{0}",
    "a" * 64,
    "a" * 100_000,
    "\ud800",
    "\ufeffweb",
    "web\u202e",
    "COM1:",
    "web~2",
    "web.qcow2/..",
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Orchestrator:
    disk = tmp_path_factory.mktemp("bad") / "disk.raw"
    disk.write_bytes(bytes(510) + b"\x55\xaa" + bytes(2**20 - 512))
    made = vorch.connect(f"memory:bad-{next(_numbers)}")
    made.image_import("debian", str(disk))
    made.create("web", image="debian")
    return made


def _untouched(cluster: Orchestrator, act: Callable[[], object]) -> vorch.VorchError:
    before = cluster.world.state.read(["vm", "image", "network", "trash", "claim", "plan"])
    volumes = cluster.volume_list("local")
    with pytest.raises((vorch.Invalid, vorch.NotFound, vorch.Conflict)) as caught:
        act()
    assert cluster.world.state.read(["vm", "image", "network", "trash", "claim", "plan"]) == before
    assert cluster.volume_list("local") == volumes
    assert caught.value.message.startswith("cannot "), caught.value.message
    return caught.value


VERBS: dict[str, Callable[[Orchestrator, str], object]] = {
    "create": lambda c, x: c.create(x),
    "create --image": lambda c, x: c.create("new", image=x),
    "create --iso": lambda c, x: c.create("new", iso=x),
    "create --network": lambda c, x: c.create("new", networks=(x,)),
    "create --pool": lambda c, x: c.create("new", pool=x or "?"),
    "create --node": lambda c, x: c.create("new", node=x or "?"),
    "create --mac": lambda c, x: c.create("new", macs=(x,)),
    "create --machine": lambda c, x: c.create("new", machine=x + "?"),
    "create --cpu": lambda c, x: c.create("new", cpu=x + "?"),
    "create --firmware": lambda c, x: c.create("new", firmware=x),
    "start": lambda c, x: c.start(x),
    "stop": lambda c, x: c.stop(x),
    "delete": lambda c, x: c.delete(x),
    "undelete": lambda c, x: c.undelete(x),
    "rename to": lambda c, x: c.rename("web", x),
    "clone to": lambda c, x: c.clone("web", x),
    "clone of": lambda c, x: c.clone(x, "new"),
    "template": lambda c, x: c.template("web", x),
    "snapshot": lambda c, x: c.snapshot_create("web", x),
    "rollback": lambda c, x: c.snapshot_rollback("web", x),
    "disk attach": lambda c, x: c.disk_attach("web", disk=x or "/", size_gib=1),
    "disk attach --volume": lambda c, x: c.disk_attach("web", volume="local/" + x),
    "disk attach --bus": lambda c, x: c.disk_attach("web", size_gib=1, bus=x),
    "disk detach": lambda c, x: c.disk_detach("web", x),
    "nic attach": lambda c, x: c.nic_attach("web", network=x),
    "nic attach --mac": lambda c, x: c.nic_attach("web", mac=x),
    "cd insert": lambda c, x: c.cd_insert("web", x),
    "image import": lambda c, x: c.image_import(x, c.image_show("debian").source),
    "image delete": lambda c, x: c.image_delete(x),
    "network create": lambda c, x: c.network_create(x, subnet="10.81.9.0/24"),
    "network create --subnet": lambda c, x: c.network_create("lan", subnet=x),
    "network create --bridge": lambda c, x: c.network_create("lan", kind="bridge", bridge=x),
    "task": lambda c, x: c.task_show(x),
    "user": lambda c, x: c.create("new", cloud_init=vorch.CloudInit(user=x or "/")),
    "ssh key": lambda c, x: c.create("new", cloud_init=vorch.CloudInit(user="a", ssh_keys=(x,))),
    "password": lambda c, x: c.create(
        "new", cloud_init=vorch.CloudInit(user="a", password_hash=x or "?")
    ),
    "address": lambda c, x: c.create(
        "new", cloud_init=vorch.CloudInit(addresses=(vorch.StaticAddress(address=x),))
    ),
    "package": lambda c, x: c.create("new", cloud_init=vorch.CloudInit(packages=("-" + x,))),
}


@pytest.mark.parametrize("verb", sorted(VERBS))
@pytest.mark.parametrize("word", NASTY, ids=lambda word: repr(word[:12]))
def test_nasty_words_are_refused(cluster: Orchestrator, verb: str, word: str) -> None:
    _untouched(cluster, lambda: VERBS[verb](cluster, word))


@pytest.mark.parametrize(
    "options",
    [
        {"vcpus": 0},
        {"vcpus": -1},
        {"vcpus": 10**9},
        {"vcpus": True},
        {"vcpus": 4, "vcpus_max": 2},
        {"memory_mib": 0},
        {"memory_mib": 2**60},
        {"memory_mib": 512, "memory_max_mib": 256},
        {"disk_gib": 0},
        {"disk_gib": -5},
        {"disk_gib": 10**12},
        {"macs": ("01:00:5e:00:00:01",)},
        {"macs": ("52:54:00:00:00:01", "52:54:00:00:00:01"), "networks": ("default", "default")},
        {"description": "a\x07b"},
        {"description": "x" * 10_000},
        {"secure_boot": True},
    ],
    ids=str,
)
def test_senseless_sizes_are_refused(cluster: Orchestrator, options: dict[str, object]) -> None:
    _untouched(cluster, lambda: cluster.create("new", **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "subnet",
    ["10.0.0.0", "10.0.0.1/24", "8.8.8.0/24", "10.0.0.0/31", "10.0.0.0/33", "::/64", "0/0"],
)
def test_senseless_subnets_are_refused(cluster: Orchestrator, subnet: str) -> None:
    _untouched(cluster, lambda: cluster.network_create("lan", subnet=subnet))


@pytest.mark.parametrize(
    "location",
    ["/dev/zero", "/etc", "/nonexistent", "ftp://example.org/x", "http://", "file:", "gopher://x"],
)
def test_senseless_places_are_refused(cluster: Orchestrator, location: str, tmp_path: Path) -> None:
    before = cluster.volume_list("local")
    with pytest.raises(vorch.VorchError) as caught:
        cluster.image_import("other", location)
    assert caught.value.message.startswith("cannot ")
    assert cluster.volume_list("local") == before
    assert [image.name for image in cluster.image_list()] == ["debian"]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_text_as_name(word: str) -> None:
    """Either the VM is there under exactly that name, or nothing is."""
    cluster = vorch.connect("memory:")
    try:
        cluster.create(word, networks=())
    except vorch.Invalid:
        assert cluster.list() == ()
        assert cluster.volume_list("local") == ()
    else:
        assert [status.name for status in cluster.list()] == [word]
        assert set(word) <= set(string.ascii_lowercase + string.digits + "-")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text_as_description(text: str) -> None:
    cluster = vorch.connect("memory:")
    try:
        cluster.create("web", networks=(), description=text)
    except vorch.Invalid:
        assert cluster.list() == ()
    else:
        assert cluster.show("web").vm.description == text
