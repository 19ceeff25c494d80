"""VMs in a browser: every verb by its form and plan, several at once, what each role is shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.page.conftest import As
from tests.page.worlds import world_of
from vorch import NotFound, Orchestrator
from vorch.model import Power

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]


def fill(cluster: Orchestrator) -> None:
    cluster.image_import("rescue", _iso(cluster), kind="iso", pool="fast")
    for name in ("calm", "busy"):
        cluster.create(name, image="debian-12", node="h1", vcpus=1, memory_mib=512)
    cluster.start("busy")
    cluster.create("mine", image="debian-12", tags=["owner:user"])
    for number in range(1, 5):
        cluster.create(f"many-{number}", image="debian-12", tags=["many"])


def _iso(cluster: Orchestrator) -> str:
    """A CD with nothing on it but the mark that it is one."""
    path = Path(cluster.settings.upload_path).parent / "rescue.iso"
    sectors = (b"\x01CD001\x01", b"\xffCD001\x01")
    path.write_bytes(bytes(0x8000) + b"".join(one.ljust(2048, b"\0") for one in sectors))
    return str(path)


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog")


def done(page: Page) -> None:
    """The plan that is shown is carried out, and has ended well."""
    box = dialog(page)
    box.locator(".why").first.wait_for()
    box.locator(".confirm").click()
    close = box.locator(".dialog-foot").get_by_role("button", name="Close")
    close.wait_for()
    assert box.locator(".dot.good").is_visible(), box.inner_text()
    close.click()
    box.wait_for(state="detached")


def planned(page: Page) -> None:
    dialog(page).get_by_role("button", name="Show the plan").click()


def put(page: Page, field: str, value: str) -> None:
    control = dialog(page).locator(f"[data-field={field}]")
    control.wait_for(state="attached")
    more = dialog(page).get_by_text("More options")
    if not control.is_visible() and more.count():
        more.first.click()
    if control.evaluate("one => one.tagName") == "SELECT":
        control.select_option(value)
    else:
        control.fill(value)


def of_menu(page: Page, verb: str) -> None:
    page.locator("main .head").get_by_role("button", name="More").click()
    page.get_by_role("menuitem", name=verb, exact=True).click()
    dialog(page).wait_for()


def test_every_verb_of_a_vm_by_its_form(surf: As, cluster: Orchestrator) -> None:
    """One VM through its life: each verb shows its plan, and does what it says."""
    admin = surf("admin")
    page = admin.show("/vms/calm")

    of_menu(page, "Change")
    put(page, "description", "Keeps calm")
    put(page, "tags", "quiet, shop")
    planned(page)
    done(page)
    vm = cluster.show("calm").vm
    assert (vm.description, vm.tags, vm.vcpus) == ("Keeps calm", ("quiet", "shop"), 1)

    of_menu(page, "Take snapshot")
    put(page, "snapshot", "before")
    planned(page)
    done(page)
    page.locator(".tabs").get_by_role("link", name="Snapshots").click()
    page.get_by_role("button", name="Roll back").click()
    done(page)
    page.get_by_role("button", name="Delete", exact=True).click()
    done(page)
    assert cluster.show("calm").vm.snapshots == ()

    page.locator(".tabs").get_by_role("link", name="Disks").click()
    page.get_by_role("button", name="Attach disk").click()
    put(page, "disk", "data")
    put(page, "size_gib", "2")
    planned(page)
    done(page)
    page.get_by_role("button", name="Actions for disk data").click()
    page.get_by_role("menuitem", name="Grow disk").click()
    put(page, "size_gib", "3")
    planned(page)
    done(page)
    page.get_by_role("button", name="Actions for disk data").click()
    page.get_by_role("menuitem", name="Limit I/O").click()
    put(page, "iops", "500")
    planned(page)
    done(page)
    disk = cluster.show("calm").vm.disk("data")
    assert (disk.size_bytes, disk.limits.iops) == (3 * 1024**3, 500)
    page.get_by_role("button", name="Actions for disk data").click()
    page.get_by_role("menuitem", name="Detach disk").click()
    planned(page)
    done(page)
    page.get_by_role("button", name="Actions for disk root").click()
    page.get_by_role("menuitem", name="Make independent of its base").click()
    done(page)
    assert [one.name for one in cluster.show("calm").vm.disks if one.device == "disk"] == ["root"]

    of_menu(page, "Insert CD")
    put(page, "image", "rescue")
    planned(page)
    done(page)
    page.get_by_role("button", name="Eject CD").click()
    if dialog(page).get_by_role("button", name="Show the plan").is_visible():
        planned(page)
    done(page)

    page.locator(".tabs").get_by_role("link", name="Network").click()
    page.get_by_role("button", name="Attach NIC").click()
    planned(page)
    done(page)
    page.get_by_role("button", name="Forward a port").click()
    put(page, "port", "8080:80")
    if cluster.show("calm").vm.nics[1:]:
        put(page, "nic", "nic0")
    planned(page)
    done(page)
    assert [one.forward.host_port for one in cluster.forward_list("calm")] == [8080]
    page.get_by_role("button", name="Stop forwarding").click()
    done(page)
    page.get_by_role("button", name="Detach NIC").last.click()
    done(page)
    assert [one.name for one in cluster.show("calm").vm.nics] == ["nic0"]

    of_menu(page, "HA settings")
    put(page, "requested", "stopped")
    put(page, "nodes", "h1:2, h2")
    planned(page)
    done(page)
    nodes = cluster.ha_show("calm").settings
    assert nodes is not None
    assert [(one.node, one.priority) for one in nodes.nodes] == [("h1", 2), ("h2", 0)]
    of_menu(page, "No longer look after")
    done(page)

    of_menu(page, "Clone")
    put(page, "new_name", "calm-2")
    planned(page)
    done(page)
    of_menu(page, "Make an image of it")
    put(page, "image", "calm-image")
    planned(page)
    done(page)
    assert cluster.image_show("calm-image").kind == "template"

    of_menu(page, "Rename")
    put(page, "new_name", "calmer")
    planned(page)
    done(page)
    page.get_by_role("heading", name="calmer").wait_for()
    of_menu(page, "Delete")
    planned(page)
    done(page)
    page.get_by_role("heading", name="Virtual machines").wait_for()
    with pytest.raises(NotFound):
        cluster.show("calmer")

    page.get_by_role("button", name="Other ways to a VM").click()
    page.get_by_role("menuitem", name="Undelete").click()
    put(page, "name", "calmer")
    planned(page)
    done(page)
    assert cluster.show("calmer").vm.description == "Keeps calm"


def test_power_of_a_vm(surf: As, cluster: Orchestrator) -> None:
    page = surf("operator").show("/vms/busy")
    head = page.locator("main .head")
    of_menu(page, "Pause")
    done(page)
    head.get_by_text("paused").wait_for()
    head.get_by_role("button", name="Resume").click()
    done(page)
    head.get_by_text("running").wait_for()
    of_menu(page, "Reset")
    # What cannot be undone is not what Enter does by itself.
    dialog(page).locator(".confirm").wait_for()
    focused = page.evaluate("document.activeElement.textContent")
    assert focused == "Cancel"
    done(page)
    head.get_by_role("button", name="Stop").click()
    dialog(page).get_by_label("Force").check()
    planned(page)
    dialog(page).get_by_text("Cut the power of busy on h1").wait_for()
    done(page)
    head.get_by_text("stopped").wait_for()
    assert cluster.show("busy").power is Power.STOPPED
    head.get_by_role("button", name="Start").click()
    planned(page)
    done(page)
    assert cluster.show("busy").power is Power.RUNNING


def test_several_at_once(surf: As, cluster: Orchestrator) -> None:
    page = surf("operator").show("/vms?tag=many")
    page.get_by_text("4 of").wait_for()
    page.get_by_label("Choose all").check()
    page.get_by_role("button", name="Start (4)").click()
    dialog(page).get_by_role("button", name="Show the plans").click()
    dialog(page).get_by_text("4 ready").wait_for()
    dialog(page).get_by_role("button", name="Start (4)").click()
    dialog(page).get_by_text("4 done").wait_for()
    dialog(page).locator(".dialog-foot").get_by_role("button", name="Close").click()
    assert {cluster.show(f"many-{one}").power for one in range(1, 5)} == {Power.RUNNING}
    # One that cannot is said to be refused, and the others go on.
    cluster.delete("many-4", force=True)
    page.get_by_text("3 of").wait_for()
    page.get_by_text("3 chosen").wait_for()
    page.get_by_role("button", name="Migrate (3)").click()
    put(page, "node", "h2")
    dialog(page).get_by_role("button", name="Show the plans").click()
    go = dialog(page).get_by_role("button", name=re.compile(r"^Migrate \(\d\)$"))
    go.wait_for()
    go.click()
    dialog(page).get_by_text(re.compile(r"\d done")).wait_for()
    assert {cluster.show(f"many-{one}").vm.node for one in range(1, 4)} == {"h2"}


def test_what_somebody_else_does_is_shown_at_once(surf: As, cluster: Orchestrator) -> None:
    page = surf("viewer").show("/vms")
    row = page.get_by_role("row").filter(has_text="mine")
    row.get_by_text("stopped").wait_for()
    cluster.start("mine")
    row.get_by_text("running").wait_for(timeout=45_000)
    cluster.create("newcomer", disk_gib=1, networks=())
    page.get_by_role("link", name="newcomer").wait_for(timeout=45_000)
    cluster.delete("newcomer")
    page.get_by_role("link", name="newcomer").wait_for(state="detached", timeout=45_000)


def test_a_change_that_somebody_else_was_quicker_with_is_refused(
    surf: As, cluster: Orchestrator
) -> None:
    page = surf("admin").show("/vms/busy")
    of_menu(page, "Change")
    cluster.change("busy", description="Of somebody else")
    put(page, "description", "Mine")
    planned(page)
    dialog(page).get_by_role("alert").filter(has_text="stale").wait_for()
    assert cluster.show("busy").vm.description == "Of somebody else"


def test_a_job_is_cancelled_and_undone(surf: As, cluster: Orchestrator) -> None:
    cluster.create("deaf", image="debian-12", start=True, networks=())
    world_of(cluster).behave("deaf").obeys_shutdown = False
    page = surf("admin").show("/vms/deaf")
    page.locator("main .head").get_by_role("button", name="Stop").click()
    planned(page)
    dialog(page).locator(".confirm").click()
    dialog(page).get_by_role("progressbar").wait_for()
    dialog(page).get_by_role("button", name="Cancel and undo").click()
    dialog(page).get_by_text(re.compile("cancelled|undone")).first.wait_for()
    assert cluster.show("deaf").power is Power.RUNNING


def test_a_viewer_gets_no_button_that_works(surf: As) -> None:
    viewer = surf("viewer")
    page = viewer.show("/vms/busy")
    for tab in ("", "/disks", "/snapshots", "/network", "/history"):
        page = viewer.show(f"/vms/busy{tab}")
        names = page.locator("main").get_by_role("button").all_inner_texts()
        assert set(names) <= {"Last hour", "Last day", "Expand", ""}, tab
    page = viewer.show("/vms")
    assert page.get_by_role("button", name="Create VM").count() == 0
    assert page.get_by_role("checkbox").count() == 0
    assert page.get_by_role("button", name="Actions for busy").count() == 0


def test_a_user_sees_and_uses_the_own_only(surf: As, cluster: Orchestrator) -> None:
    page = surf("user").show("/vms")
    page.get_by_role("link", name="mine").wait_for()
    assert page.get_by_role("link", name="busy").count() == 0
    page.get_by_role("button", name="Actions for mine").click()
    assert page.get_by_role("menuitem", name="Migrate").count() == 0
    page.keyboard.press("Escape")
    # A user may not override rules and kept room: the form does not offer it.
    page.get_by_role("button", name="Create VM").click()
    assert dialog(page).locator("[data-field=force]").count() == 0
    assert dialog(page).locator("[data-field=node]").count() == 0
    page = surf("user").show("/vms/busy")
    page.get_by_role("heading", name="There is no VM called busy").wait_for()


def test_the_table_is_used_by_keys_alone(surf: As) -> None:
    page = surf("admin").show("/vms")
    page.keyboard.press("/")
    page.keyboard.type("many")
    page.locator(".count").get_by_text("of").wait_for()
    first = page.locator("a.name").first
    first.focus()
    page.keyboard.press("ArrowDown")
    second = page.evaluate("document.activeElement.textContent")
    assert second == page.locator("a.name").nth(1).inner_text()
    page.keyboard.press("End")
    last = page.evaluate("document.activeElement.textContent")
    assert last == page.locator("a.name").last.inner_text()
    more = page.get_by_role("button", name=f"Actions for {last}")
    more.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "menuitem"
    page.keyboard.press("Escape")
    assert more.evaluate("one => document.activeElement === one")
    page.get_by_role("columnheader", name="Memory").get_by_role("button").press("Enter")
    assert page.get_by_role("columnheader", name="Memory").get_attribute("aria-sort") == "ascending"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dialogs_have_no_serious_fault(surf: As, scheme: str) -> None:
    admin = surf("admin", scheme=scheme)
    page = admin.show("/vms/busy")
    of_menu(page, "Change")
    assert admin.faults() == []
    page.keyboard.press("Escape")
    page.locator("main .head").get_by_role("button", name="Migrate").click()
    dialog(page).get_by_text("fits", exact=True).first.wait_for()
    assert admin.faults() == []
    page.keyboard.press("Escape")
    page = admin.show("/vms")
    page.get_by_role("button", name="Create VM").click()
    dialog(page).get_by_text("More options").click()
    assert admin.faults() == []
    dialog(page).locator("#create-name").fill("Not A Name")
    planned(page)
    dialog(page).get_by_text("Use 1 to 63").wait_for()
    assert admin.faults() == []
