"""The page before a real cluster: from the login to the failover of a host, in one walk.

Hosts, Ceph and guests are real, and the service is the one that `vorch serve` runs. All is asked
for and seen in the browser; only what breaks is done to the lab itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import vorch
from tests.api.serving import served
from tests.lab import bare
from tests.lab.clusters import ceph_url
from tests.lab.pictures import await_picture
from tests.page.conftest import browser
from tests.page.worlds import PASSWORD
from vorch import Orchestrator, WatchLoop
from vorch.lab import Lab, guest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.page.surfing import Surfer

__all__ = ["browser"]

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

# An image of a guest that boots in seconds is built, sent and booted on two processors.
LONG_MS = 180_000
HOSTS = ("h1", "h2", "h3")


@pytest.fixture
def cluster(fresh_lab: Lab, tmp_path: Path) -> Iterator[Orchestrator]:
    """Three hosts and a user, and somebody who watches."""
    settings = vorch.Settings(
        uri=ceph_url(fresh_lab, "rados", "page"),
        ceph_timeout_s=20,
        upload_path=str(tmp_path / "uploads"),
        history_path=str(tmp_path / "history.db"),
        measure_every_s=2.0,
        password_memory_mib=1,
        password_rounds=1,
    )
    with vorch.connect(settings=settings) as found:
        for host in HOSTS:
            found.node_add(host, fresh_lab.spec.uri(host))
        found.pool_add("fast", ceph_url(fresh_lab, "rbd"))
        found.network_create("default", kind="bridge", bridge="br0")
        found.user_add("admin", role="admin", password=PASSWORD)
        crashed: list[BaseException] = []
        watching = WatchLoop(found, say=lambda _: None, crashed=crashed.append)
        watching.start()
        try:
            yield found
        finally:
            watching.stop()
        assert crashed == []


@pytest.fixture
def person(cluster: Orchestrator, browser: Browser) -> Iterator[Surfer]:
    from tests.page.surfing import surfing

    with ExitStack() as stack:
        service = stack.enter_context(served(cluster))
        yield stack.enter_context(surfing(browser, service.address))


def carry_out(page: Page) -> None:
    """From the plan, which says why, to the end of the job, whose progress is shown."""
    dialog = page.locator("dialog[open]")
    dialog.locator(".why").first.wait_for(timeout=LONG_MS)
    dialog.locator("button.confirm").click()
    dialog.get_by_role("progressbar").first.wait_for()
    dialog.get_by_text("done", exact=True).first.wait_for(timeout=LONG_MS)
    dialog.get_by_role("button", name="Close").last.click()
    dialog.wait_for(state="detached")


def answers(page: Page) -> None:
    """The guest's getty does, to somebody who presses Enter."""
    end = time.monotonic() + LONG_MS / 1000
    text = ""
    while "login:" not in text:
        assert time.monotonic() < end, text
        page.keyboard.press("Enter")
        page.wait_for_timeout(1000)
        text = page.locator(".xterm-rows").inner_text()


def test_from_the_login_to_a_failover(
    fresh_lab: Lab, cluster: Orchestrator, person: Surfer
) -> None:
    image = guest.build("tiny")
    page = person.page
    page.goto(person.base)
    page.get_by_label("User").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("navigation", name="Main").wait_for()

    # Ceph's own health and OSDs, as they are.
    person.show("/storage/ceph")
    page.get_by_text(re.compile("HEALTH_(OK|WARN)")).first.wait_for()
    osds = page.locator("table.tree tbody tr").filter(has_text="osd.")
    assert osds.count() == cluster.storage_status()[0].health.osds > 0
    assert osds.first.locator(".meter").count() == 1, "the manager says what an OSD holds"

    # An image is uploaded.
    person.show("/images")
    page.locator("input[type=file]").set_input_files(image.path)
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Image").first.fill("tiny")
    dialog.get_by_label("Kind").select_option("disk")
    dialog.get_by_role("button", name="Upload").click()
    page.locator("dialog[open] button.confirm").wait_for(timeout=LONG_MS)
    carry_out(page)
    page.locator(".grid-row[data-id=tiny]").wait_for()

    # A VM is made of it: a name, an image and a size.
    person.show("/vms")
    page.get_by_role("button", name="Create VM").first.click()
    dialog = page.get_by_role("dialog")
    dialog.locator("#create-name").fill("walker")
    dialog.locator("#create-image").select_option("image:tiny")
    dialog.get_by_text("Own", exact=True).click()
    dialog.locator("[data-field=memory_mib]").fill(str(image.memory_mib))
    dialog.locator("[data-field=disk_gib]").fill("1")
    dialog.get_by_role("button", name="Show the plan").click()
    carry_out(page)
    page.get_by_text("running", exact=True).first.wait_for(timeout=LONG_MS)

    # Both consoles are opened, and what the guest itself says and shows is seen in them.
    source = cluster.look().vm("walker").node
    person.show("/vms/walker/consoles")
    page.locator(".xterm-rows").wait_for()
    answers(page)
    page.get_by_role("button", name="Screen", exact=True).click()
    await_picture(page, fresh_lab, source, "walker")

    # It is moved to another host while it runs, from the menu that says where it fits.
    target = next(one for one in HOSTS if one != source)
    person.show("/vms")
    page.locator(".grid-row[data-id=walker]").get_by_role("button", name="Actions").click()
    page.get_by_role("menuitem", name="Migrate").click()
    called = page.locator("strong", has_text=re.compile(f"^{target}$"))
    place = page.get_by_role("dialog").locator(".host-row").filter(has=called)
    place.get_by_text(re.compile("^(fits|does not fit)$")).wait_for(timeout=LONG_MS)
    assert place.get_by_text("fits", exact=True).count() == 1, place.inner_text()
    place.get_by_role("radio").check()
    page.locator("dialog[open] button.confirm").click()
    dialog = page.locator("dialog[open]")
    dialog.get_by_role("progressbar").first.wait_for()
    dialog.get_by_text("done", exact=True).first.wait_for(timeout=LONG_MS)
    dialog.get_by_role("button", name="Close").last.click()
    page.locator(".grid-row[data-id=walker]").get_by_text(target, exact=True).wait_for()
    assert cluster.look().vm("walker").node == target

    # It is looked after, and its host loses its power.
    person.show("/ha/vms")
    page.get_by_role("button", name="HA settings").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("VM").first.fill("walker")
    dialog.get_by_role("button", name="Show the plan").click()
    carry_out(page)
    looked_after = page.locator(".grid-row[data-id=walker]")
    looked_after.get_by_text("running", exact=True).wait_for(timeout=LONG_MS)
    person.show("/")
    health = page.get_by_role("region", name="Health of the cluster")
    health.wait_for()
    fresh_lab.power_off(target)
    health.get_by_text(re.compile(f"Host {target} (does not answer|is cut off)")).first.wait_for(
        timeout=LONG_MS
    )
    health.get_by_text(f"Host {target} is cut off.").first.wait_for(timeout=LONG_MS)
    person.show("/ha")
    lost = page.locator("table tbody tr").filter(has_text=target).first
    lost.get_by_text("cut off, proven").wait_for(timeout=LONG_MS)
    # The reason is the leader's own sentence.
    assert "cut off" in lost.inner_text()
    person.show("/ha/vms")
    looked_after.get_by_text("running", exact=True).wait_for(timeout=LONG_MS)
    where = cluster.look().vm("walker").node
    assert where != target
    looked_after.get_by_role("link", name=where).wait_for()
    person.show("/activity")
    told = page.locator(".grid-row").filter(has_text="walker").filter(has_text=target)
    told.first.wait_for()
    person.show("/vms")
    page.locator(".grid-row[data-id=walker] .dot.good").wait_for(timeout=LONG_MS)
    bare.eventually(
        lambda: cluster.show("walker").power == "running", "the guest itself runs again"
    )
