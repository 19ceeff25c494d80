"""One short story for each verb that changes something: what must be there first, and the verb.

The same stories are run on the memory world (a failure and a death at every point) and on real
libvirt and qcow2 (kill -9 at every point).
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from vorch import CloudInit, Orchestrator
from vorch.decide import clients
from vorch.drivers.memory_host import MemoryHost
from vorch.model import Cluster, Power
from vorch.orchestrator import kept

PRESEED = "d-i debian-installer/locale string C\nd-i debian-installer/exit/poweroff boolean true\n"

Act = Callable[[Orchestrator], object]


@dataclass(frozen=True)
class Story:
    name: str
    before: tuple[Act, ...]
    act: Act
    # Names of VMs that are there when the verb has come to pass, and when it has been undone.
    done: frozenset[str] = frozenset()
    undone: frozenset[str] = frozenset()
    hosts: int = 1


def import_disk(location: str) -> Act:
    return lambda cluster: cluster.image_import("debian", location)


def stories(
    disk_image: str,
    iso_image: str,
    kernel: str | None = None,
    initrd: str | None = None,
    bulk: str = "memory:bulk",
) -> tuple[Story, ...]:
    """Where the images that they import are, and the installer that the install story starts.

    `bulk` is where a second pool can be made. Exports go beside the disk image.
    """
    image = import_disk(disk_image)

    def make(name: str = "web", **options: object) -> Act:
        return lambda cluster: cluster.create(
            name,
            image="debian",
            **{"memory_mib": 32, "graphics": False, "networks": (), **options},  # type: ignore[arg-type]
        )

    seed = CloudInit(user="alice", ssh_keys=("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB alice@home",))
    web = frozenset({"web"})
    both = frozenset({"web", "copy"})
    looked_after: tuple[Act, ...] = (
        lambda c: c.ha_set("web"),
        lambda c: c.rule_add("pair", "together", ["web", "copy"]),
    )
    none: frozenset[str] = frozenset()

    def snapshot(name: str) -> Act:
        return lambda cluster: cluster.snapshot_create("web", name)

    def two_disks(cluster: Orchestrator) -> object:
        return cluster.disk_attach("web", disk="data", size_gib=1)

    def start(cluster: Orchestrator) -> object:
        return cluster.start("web")

    def lan(cluster: Orchestrator) -> object:
        return cluster.network_create("lan", kind="isolated", subnet="10.81.7.0/24")

    def second_pool(cluster: Orchestrator) -> object:
        return cluster.pool_add("bulk", bulk)

    def new_file() -> str:
        return f"{disk_image}.{uuid.uuid4().hex}.out"

    def overlay(cluster: Orchestrator) -> object:
        return cluster.network_create("inner", kind="overlay")

    def forward(cluster: Orchestrator) -> object:
        return cluster.forward_add("web", "8080:80")

    on_nat = make(start=True, node="h1", networks=("default",))

    def delete(cluster: Orchestrator) -> object:
        return cluster.delete("web", force=True)

    def go_over(cluster: Orchestrator) -> object:
        cluster.settings = dataclasses.replace(cluster.settings, migration_converge_s=1.0)
        return cluster.migrate("web", "h2", postcopy=True)

    return (
        Story("image-import", (), image),
        Story("iso-import", (), lambda c: c.image_import("cd", iso_image, kind="iso")),
        Story("create", (image,), make(), done=web),
        Story("create-seed-start", (image,), make(cloud_init=seed, start=True), done=web),
        Story("create-full", (image,), make(linked=False, disk_gib=1), done=web),
        Story("start", (image, make()), start, done=web, undone=web),
        Story(
            "stop-force",
            (image, make(start=True)),
            lambda c: c.stop("web", force=True),
            done=web,
            undone=web,
        ),
        Story(
            "restart-force",
            (image, make(start=True)),
            lambda c: c.restart("web", force=True),
            done=web,
            undone=web,
        ),
        Story("pause", (image, make(start=True)), lambda c: c.pause("web"), web, web),
        Story(
            "clone-linked",
            (image, make(), two_disks),
            lambda c: c.clone("web", "copy", linked=True),
            done=both,
            undone=web,
        ),
        Story(
            "clone-full",
            (image, make(), two_disks),
            lambda c: c.clone("web", "copy"),
            done=both,
            undone=web,
        ),
        Story(
            "clone-running",
            (image, make(start=True)),
            lambda c: c.clone("web", "copy", start=True),
            done=both,
            undone=web,
        ),
        Story(
            "template",
            (image, make(), two_disks),
            lambda c: c.template("web", "golden"),
            done=web,
            undone=web,
        ),
        Story("delete", (image, make(), two_disks), delete, done=none, undone=web),
        Story("delete-running", (image, make(start=True)), delete, done=none, undone=web),
        Story(
            "delete-purge",
            (image, make()),
            lambda c: c.delete("web", purge=True),
            done=none,
            undone=web,
        ),
        Story(
            "undelete",
            (image, make(), delete),
            lambda c: c.undelete("web"),
            done=web,
            undone=none,
        ),
        Story(
            "rename", (image, make()), lambda c: c.rename("web", "copy"), frozenset({"copy"}), web
        ),
        Story(
            "delete-looked-after",
            (image, make(), make("copy"), *looked_after),
            delete,
            done=frozenset({"copy"}),
            undone=both,
        ),
        Story(
            "rename-looked-after",
            (image, make(), make("copy"), *looked_after),
            lambda c: c.rename("web", "other"),
            done=frozenset({"copy", "other"}),
            undone=both,
        ),
        Story("snapshot", (image, make(), two_disks), snapshot("one"), web, web),
        Story("snapshot-running", (image, make(start=True)), snapshot("one"), web, web),
        Story(
            "rollback",
            (image, make(), two_disks, snapshot("one")),
            lambda c: c.snapshot_rollback("web", "one"),
            done=web,
            undone=web,
        ),
        Story(
            "snapshot-delete",
            (image, make(), snapshot("one")),
            lambda c: c.snapshot_delete("web", "one"),
            done=web,
            undone=web,
        ),
        Story("disk-attach", (image, make(start=True)), two_disks, web, web),
        Story(
            "disk-detach",
            (image, make(), two_disks),
            lambda c: c.disk_detach("web", "data"),
            done=web,
            undone=web,
        ),
        Story(
            "disk-grow",
            (image, make(), two_disks),
            lambda c: c.disk_grow("web", "data", 2),
            done=web,
            undone=web,
        ),
        Story(
            "disk-attach-trashed",
            (image, make(), two_disks, lambda c: c.disk_detach("web", "data")),
            lambda c: c.disk_attach("web", volume=detached(c)),
            done=web,
            undone=web,
        ),
        Story(
            "nic-attach",
            (image, make(start=True)),
            lambda c: c.nic_attach("web"),
            done=web,
            undone=web,
        ),
        Story(
            "change-live",
            (image, make(start=True, vcpus_max=4, memory_max_mib=64)),
            lambda c: c.change("web", vcpus=2, memory_mib=64),
            done=web,
            undone=web,
        ),
        Story(
            "install",
            (),
            lambda c: c.install(
                "web",
                PRESEED,
                kernel=kernel or disk_image,
                initrd=initrd or disk_image,
                memory_mib=160,
                disk_gib=1,
                networks=(),
                start=kernel is None,
            ),
            done=web,
            undone=none,
        ),
        Story(
            "migrate",
            (lan, image, make(start=True, node="h1", networks=("lan",))),
            lambda c: c.migrate("web", "h2"),
            done=web,
            undone=web,
            hosts=2,
        ),
        Story(
            "migrate-paused",
            (image, make(start=True), lambda c: c.pause("web")),
            lambda c: c.migrate("web"),
            done=web,
            undone=web,
            hosts=2,
        ),
        Story(
            "migrate-with-disks",
            (
                image,
                lambda c: c.pool_add("here", "memory:here", node="h1"),
                lambda c: c.pool_add("there", "memory:there", node="h2"),
                lambda c: c.create(
                    "web",
                    pool="here",
                    disk_gib=1,
                    memory_mib=32,
                    networks=(),
                    node="h1",
                    cloud_init=seed,
                    firmware="uefi",
                    start=True,
                ),
            ),
            lambda c: c.migrate("web", "h2", pool="there"),
            done=web,
            undone=web,
            hosts=2,
        ),
        Story(
            "migrate-by-postcopy",
            (image, make(start=True, node="h1")),
            go_over,
            done=web,
            undone=web,
            hosts=2,
        ),
        Story(
            "relocate",
            (image, make(node="h1")),
            lambda c: c.relocate("web", "h2"),
            done=web,
            undone=web,
            hosts=2,
        ),
        Story(
            "relocate-to-xen",
            (image, make(node="h1", hypervisor="any"), two_disks, to_xen),
            lambda c: c.relocate("web", "h2", unchecked=True),
            done=web,
            undone=web,
            hosts=2,
        ),
        Story(
            "disk-move",
            (image, second_pool, make(cloud_init=seed), two_disks),
            lambda c: c.disk_move("web", pool="bulk"),
            done=web,
            undone=web,
        ),
        Story(
            "disk-move-running",
            (image, second_pool, make(start=True)),
            lambda c: c.disk_move("web", "root", pool="bulk"),
            done=web,
            undone=web,
        ),
        Story(
            "disk-move-paused",
            (image, second_pool, make(start=True, cloud_init=seed), lambda c: c.pause("web")),
            lambda c: c.disk_move("web", pool="bulk"),
            done=web,
            undone=web,
        ),
        Story("disk-flatten", (image, make()), lambda c: c.disk_flatten("web", "root"), web, web),
        Story(
            "disk-flatten-running",
            (image, make(start=True)),
            lambda c: c.disk_flatten("web", "root"),
            done=web,
            undone=web,
        ),
        Story("disk-sparsify", (image, make()), lambda c: c.disk_sparsify("web", "root"), web, web),
        Story(
            "disk-export",
            (image, make()),
            lambda c: c.disk_export("web", "root", new_file()),
            done=web,
            undone=web,
        ),
        Story(
            "disk-export-running",
            (image, make(start=True), two_disks),
            lambda c: c.disk_export("web", "root", new_file(), format="raw"),
            done=web,
            undone=web,
        ),
        Story(
            "image-export", (image,), lambda c: c.image_export("debian", new_file(), format="vmdk")
        ),
        Story(
            "disk-limit",
            (image, make(start=True)),
            lambda c: c.disk_limit("web", "root", iops=100, mib_s=10),
            done=web,
            undone=web,
        ),
        Story("create-elsewhere", (image, second_pool), make(pool="bulk", disk_gib=1), done=web),
        Story(
            "clone-elsewhere",
            (image, second_pool, make(start=True)),
            lambda c: c.clone("web", "copy", pool="bulk", start=True),
            done=both,
            undone=web,
        ),
        Story(
            "class-add",
            (second_pool, lambda c: c.class_add("slow", ["bulk"], default=True)),
            lambda c: c.class_add("fast", ["local", "bulk"], default=True),
        ),
        Story("image-delete", (image, make()), lambda c: c.image_delete("debian"), web, web),
        Story(
            "network",
            (),
            lambda c: c.network_create("lan", kind="isolated", subnet="10.81.7.0/24"),
        ),
        Story(
            "network-delete",
            (lambda c: c.network_create("lan", kind="isolated", subnet="10.81.7.0/24"),),
            lambda c: c.network_delete("lan"),
        ),
        Story("network-overlay", (), overlay, hosts=2),
        Story("network-change", (overlay,), lambda c: c.network_change("inner"), hosts=2),
        Story("node-remove", (overlay,), lambda c: c.node_remove("h2"), hosts=2),
        Story("forward-add", (image, on_nat), forward, web, web, hosts=2),
        Story(
            "forward-remove",
            (image, on_nat, forward),
            lambda c: c.forward_remove("web", "8080"),
            web,
            web,
            hosts=2,
        ),
        Story("delete-forwarded", (image, on_nat, forward), delete, undone=web, hosts=2),
    )


def to_xen(cluster: Orchestrator) -> None:
    """The second host has Xen from now on, in a world in memory."""
    host = cluster.world.hypervisor("h2")
    assert isinstance(host, MemoryHost)
    host._machine.run_xen()
    cluster.node_probe("h2")


def detached(cluster: Orchestrator) -> str:
    """The volume that was taken out of a VM: its name has the disk's in it."""
    names = [info.name for info in cluster.volume_list("local")]
    return "local/" + next(name for name in names if name.startswith("web.data."))


def leaks(cluster: Orchestrator, foreign: frozenset[str] = frozenset()) -> list[str]:
    """What is there and belongs to nothing, or belongs to something and is not there.

    `foreign`: domains of other clusters on the same host, which are none of this one's business.
    """
    found = []
    state = cluster.world.state
    for kind in ("plan", "claim", "cancel"):
        found += [f"document {key} is left" for key in state.read([kind])]
    look = cluster.look(None)
    named = {key.partition("/")[2]: key for key in state.read(["ha", "havm", "move"])}
    named |= {vm: rule.name for rule in kept.availability(state).rules.values() for vm in rule.vms}
    found += [f"{where} is about {vm}" for vm, where in named.items() if vm not in look.vms]
    wanted = set()
    for vm in look.vms.values():
        wanted |= {disk.volume for disk in vm.disks if disk.volume is not None}
    for image in look.images.values():
        wanted |= {disk.volume for disk in image.disks}
    trashed = set()
    for one in look.trash.values():
        trashed |= set(one.volumes)
    for pool in look.pools:
        volumes = {info.name: info for info in cluster.volume_list(pool)}
        bases = {info.base for info in volumes.values() if info.base}
        for name, info in volumes.items():
            ours = [v for v in wanted if (v.pool, v.name) == (pool, name)]
            gone = [v for v in trashed if (v.pool, v.name) == (pool, name)]
            if not ours and not gone and name not in bases:
                found.append(f"volume {pool}/{name} belongs to nothing")
            if not ours and not gone and name in bases and not info.trashed:
                found.append(f"base {pool}/{name} would stay when its last clone goes")
            if ours and info.trashed:
                found.append(f"volume {pool}/{name} is in the trash and in use")
            if gone and not info.trashed:
                found.append(f"volume {pool}/{name} should be in the trash")
        for volume in wanted | trashed:
            if volume.pool == pool and volume.name not in volumes:
                found.append(f"volume {volume} is missing")
        for vm in look.vms.values():
            for disk in vm.data_disks:
                assert disk.volume is not None
                if disk.volume.name not in volumes:
                    continue
                info = volumes[disk.volume.name]
                recorded = {one.name for one in vm.snapshots if disk.name in one.disks}
                if set(info.snapshots) != recorded:
                    found.append(
                        f"disk {disk.name} of {vm.name} has snapshots {info.snapshots},"
                        f" recorded {sorted(recorded)}"
                    )
                if info.size_bytes != disk.size_bytes:
                    found.append(
                        f"disk {disk.name} of {vm.name} has {info.size_bytes} bytes, recorded"
                        f" {disk.size_bytes}"
                    )
    ids = {vm.id for vm in look.vms.values()} | foreign
    found += [
        f"domain {domain.name} belongs to no VM"
        for domain in look.domains.values()
        if domain.ours and domain.id not in ids and domain.name in ("web", "copy")
    ]
    found += _out_of_place(cluster, look)
    found += _badly_recorded(cluster, look)
    found += [
        f"task {task.id} ({task.verb}) is {task.state.value}"
        for task in cluster.task_list()
        if task.state.value in ("running", "stuck")
    ]
    return found


def _badly_recorded(cluster: Orchestrator, look: Cluster) -> list[str]:
    """Where the clients that write a VM's disks are not those that are recorded for it."""
    ids = {vm.id for vm in look.vms.values()}
    found = [f"clients of {one} are recorded, which is no VM" for one in look.clients.keys() - ids]
    for vm in look.vms.values():
        why = clients.lacking(look, vm)
        if why:
            found.append(f"{vm.name}: {why}")
        recorded = look.clients.get(vm.id)
        if recorded is None or vm.id not in look.domains:
            continue
        for name, client in recorded.disks.items():
            volume = vm.disk(name).volume
            assert volume is not None
            holders = cluster.world.images(volume.pool).holders(volume.name)
            if holders is None:
                continue
            # A lock without its client is of one that died; who writes next takes it over.
            alive = [one.address for one in holders if one.client is not None]
            if alive != [client]:
                found.append(f"disk {name} of {vm.name} is held by {holders}, recorded {client}")
    return found


def _out_of_place(cluster: Orchestrator, look: Cluster) -> list[str]:
    """VMs that are on two hosts at once, or on another one than their record says."""
    seen: dict[str, list[str]] = {}
    for node in look.nodes:
        for domain in cluster.world.hypervisor(node).domains():
            if domain.power not in (Power.STOPPED, Power.CRASHED):
                seen.setdefault(domain.id, []).append(node)
    return [
        f"VM {vm.name} is recorded on {vm.node} and is on {' and '.join(seen[vm.id])}"
        for vm in look.vms.values()
        if seen.get(vm.id, [vm.node]) != [vm.node]
    ]
