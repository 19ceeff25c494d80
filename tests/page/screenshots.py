"""Pictures of the main views for docs/page/, out of a cluster in memory with plausible names.

`python -m tests.page.screenshots [--to docs/page] [--all]`: `--all` takes every view in light and
dark, in French and as on a phone, for whoever works on the page.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from tests.api.serving import served
from tests.page import worlds
from tests.page.surfing import PHONE, Surfer, launched, surfing
from vorch import NodeChoice, Orchestrator, Rates, WatchLoop

HOSTS = ("atlas", "boreas", "cronos", "delos", "eos")
VMS = {
    "shop-web-1": ("atlas", 2, 4096, ("shop", "web")),
    "shop-web-2": ("boreas", 2, 4096, ("shop", "web")),
    "shop-db": ("cronos", 8, 16384, ("shop", "db")),
    "mail": ("delos", 2, 8192, ("office",)),
    "files": ("eos", 4, 8192, ("office",)),
    "wiki": ("atlas", 2, 4096, ("office",)),
    "git": ("boreas", 4, 8192, ("build",)),
    "build-1": ("cronos", 8, 16384, ("build",)),
    "build-2": ("delos", 8, 16384, ("build",)),
    "monitor": ("eos", 2, 4096, ("ops",)),
    "dns-1": ("atlas", 1, 1024, ("ops",)),
    "dns-2": ("delos", 1, 1024, ("ops",)),
    "test-anna": ("boreas", 2, 4096, ("owner:anna",)),
    "test-ben": ("eos", 2, 4096, ("owner:ben",)),
}
OFF = ("test-ben",)
LOOKED_AFTER = ("shop-web-1", "shop-web-2", "shop-db", "mail", "dns-1", "dns-2")
VIEWS = {
    "overview": "/",
    "vms": "/vms",
    "vm": "/vms/shop-db",
    "hosts": "/hosts",
    "placement": "/hosts?as=board",
    "host": "/hosts/atlas",
    "host-load": "/hosts/atlas/loads",
    "host-lost": "/hosts/cronos/lost",
    "pools": "/storage",
    "ceph": "/storage/ceph",
    "volumes": "/storage/volumes",
    "classes": "/storage/classes",
    "trash": "/storage/trash",
    "ha": "/ha",
    "ha-vms": "/ha/vms",
    "rules": "/ha/rules",
    "room": "/ha/room",
    "images": "/images",
    "networks": "/networks",
    "tasks": "/activity",
    "audit": "/activity/audit",
    "users": "/people",
    "tokens": "/people/tokens",
}
IN_DOCS = ("overview", "vms", "vm", "placement", "host-load", "ceph", "ha", "images", "tasks")


@dataclass
class Shoot:
    """How pictures are taken."""

    name: str
    how: dict[str, Any] = field(default_factory=dict)


SMALL = {"width": 1160, "height": 740}
EVERY_WAY = (
    Shoot("light"),
    Shoot("dark", {"scheme": "dark"}),
    Shoot("french", {"language": "fr-FR"}),
    Shoot("phone", {"size": PHONE, "has_touch": True}),
)


@contextmanager
def plausible(folder: Path) -> Iterator[Orchestrator]:
    """A small company's cluster: everything is there, and one host is in maintenance."""
    with worlds.cluster_in("screenshots", folder, hosts=HOSTS) as cluster:
        world = worlds.world_of(cluster)
        for name in ("debian-13", "ubuntu-24.04", "rocky-10"):
            cluster.image_import(
                name,
                str(folder / "debian-12.raw"),
                pool="fast",
                description="Cloud image",
            )
        cluster.network_create("office", kind="bridge", bridge="br0", vlan=20)
        cluster.network_create("shop", kind="overlay")
        cluster.class_add("gold", ["fast"], default=True, description="Replicated, on flash")
        for number, (name, (node, vcpus, memory, tags)) in enumerate(VMS.items()):
            network = ("office", "shop", "default")[number % 3]
            cluster.create(
                name,
                image="debian-12",
                node=node,
                vcpus=vcpus,
                memory_mib=memory,
                disk_gib=20 + 10 * (number % 4),
                networks=(network,),
                tags=tags,
                start=name not in OFF,
            )
            world.behave(name, cpu_load=0.08 + 0.11 * (number % 7))
        for name in LOOKED_AFTER:
            cluster.ha_set(name)
        cluster.rule_add("dns-apart", "apart", ["dns-1", "dns-2"])
        cluster.rule_add("shop-apart", "apart", ["shop-web-1", "shop-web-2"])
        cluster.rule_add(
            "db-on-flash",
            "nodes",
            ["shop-db"],
            nodes=[NodeChoice(node="cronos"), NodeChoice(node="eos")],
        )
        cluster.snapshot_create("shop-db", "before-upgrade", freeze=False)
        cluster.create("old-wiki", image="debian-12", networks=())
        cluster.delete("old-wiki")
        cluster.migrate("wiki", "cronos")
        cluster.node_cordon("eos")
        cluster.token_create("operator", description="Backups at night")
        watching = WatchLoop(
            cluster, say=lambda _: None, crashed=lambda exc: print(f"the watch ended: {exc!r}")
        )
        watching.start()
        try:
            cluster.doctor(fencing=True)
            remember(cluster)
            yield cluster
        finally:
            watching.stop()


def remember(cluster: Orchestrator) -> None:
    """What was measured in the last hour, so that there is something to plot."""
    assert cluster.world.past is not None
    look, now = cluster.look(), cluster.now()
    for at in range(int(now) - 3600, int(now), 15):
        vms: dict[str, Rates] = {}
        nodes: dict[str, Rates] = {}
        for number, vm in enumerate(look.vms.values()):
            wave = 1 + 0.5 * math.sin(at / (240 + 40 * number)) + 0.2 * math.sin(at / 37)
            busy = 0.09 * vm.vcpus * (1 + number % 4) * wave
            rates = Rates(busy, vm.memory_mib * 0.7, 4e5 * wave, 9e5 * wave, 2e5 * wave, 6e5 * wave)
            vms[vm.id] = rates
            before = nodes.get(vm.node, Rates(0.2, 900.0))
            nodes[vm.node] = Rates(*map(sum, zip(astuple(before), astuple(rates), strict=True)))
        cluster.world.past.write(float(at), vms, nodes)


def take(surfer: Surfer, path: str, file: Path) -> None:
    surfer.show(path)
    surfer.page.wait_for_timeout(400)
    surfer.page.screenshot(path=file, animations="disabled")


def shoot(
    browser: Browser, base: str, to: Path, shoots: tuple[Shoot, ...], views: list[str]
) -> None:
    for one in shoots:
        with surfing(browser, base, "admin", checked=False, **one.how) as surfer:
            for name in views:
                started = time.monotonic()
                take(surfer, VIEWS[name], to / f"{name}{'-' if one.name else ''}{one.name}.png")
                for error in surfer.errors:
                    print(f"{name} {one.name}: {error}")
                surfer.errors.clear()
                print(f"{name} {one.name}: {time.monotonic() - started:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", type=Path, default=Path("docs/page"))
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--views", default="")
    asked = parser.parse_args()
    asked.to.mkdir(parents=True, exist_ok=True)
    views = asked.views.split(",") if asked.views else [*(VIEWS if asked.all else IN_DOCS)]
    ways = EVERY_WAY if asked.all else (Shoot("", {"size": SMALL}),)
    with (
        tempfile.TemporaryDirectory() as folder,
        plausible(Path(folder)) as cluster,
        served(cluster) as service,
        sync_playwright() as playwright,
    ):
        browser = launched(playwright)
        shoot(browser, service.address, asked.to, ways, views)
        browser.close()


if __name__ == "__main__":
    main()
