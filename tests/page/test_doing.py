"""What a person does with the page: logs in, creates, uploads, moves, by mouse and by keyboard."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.page.conftest import As
from tests.page.worlds import PASSWORD, world_of
from vorch import VERBS, Orchestrator

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, Request

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]

LOOKED_FOR_S = 30_000


def fill(cluster: Orchestrator) -> None:
    for name in ("h1", "h2"):
        cluster.node_probe(name)
    cluster.create("web", image="debian-12", node="h1", start=True, tags=["owner:user"])
    cluster.create("db", image="debian-12", node="h2", start=True)


def row(page: Page, name: str) -> Locator:
    return page.locator(f".grid-row[data-id='{name}']")


def host_row(page: Page, name: str) -> Locator:
    """Of a host itself, and not of the best one, whose plan may name it."""
    called = page.locator("strong", has_text=re.compile(f"^{name}$"))
    return page.locator("dialog[open] .host-row").filter(has=called)


def carry_out(page: Page) -> None:
    """From the plan to the end of the job, and out of the dialog."""
    dialog = page.locator("dialog[open]")
    dialog.locator("ol.steps li").first.wait_for()
    dialog.locator("button.confirm").click()
    # It closes itself, or says how it ended.
    page.wait_for_timeout(100)
    dialog.get_by_role("button", name="Close").last.click(timeout=LOOKED_FOR_S)
    dialog.wait_for(state="detached")


# ---------------------------------------------------------------------------------------------
# Coming in


def test_a_wrong_password_is_told_and_the_right_one_leads_in(surf: As) -> None:
    person = surf()
    page = person.page
    page.goto(person.base)
    page.get_by_label("User").fill("admin")
    page.get_by_label("Password").fill("not this one at all")
    page.get_by_role("button", name="Log in").click()
    problem = page.get_by_role("alert")
    problem.filter(has_text="cannot").wait_for()
    assert page.locator("nav").count() == 0
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("navigation", name="Main").wait_for()
    assert page.get_by_role("heading", level=1).inner_text() == "Overview"
    # The cookie is out of reach for scripts, and leads in again.
    assert page.evaluate("document.cookie") == ""
    page.reload()
    page.get_by_role("navigation", name="Main").wait_for()
    page.get_by_role("button", name="settings and log-out").click()
    page.get_by_role("menuitem", name="Log out").click()
    page.get_by_label("Password").wait_for()
    page.reload()
    page.get_by_label("Password").wait_for()
    assert person.context.request.get(f"{person.base}/v1/vms").status == 401


# ---------------------------------------------------------------------------------------------
# Doing


def test_a_vm_is_created_after_its_plan_was_seen_and_stands_in_the_list_of_others(
    surf: As, cluster: Orchestrator
) -> None:
    onlooker = surf("viewer").show("/vms")
    page = surf("admin").show("/vms")
    page.get_by_role("button", name="Create VM").click()
    dialog = page.get_by_role("dialog")
    dialog.locator("#create-name").fill("made-here")
    dialog.locator("#create-image").select_option(label="debian-12 (4 MiB)")
    dialog.get_by_role("button", name="Show the plan").click()
    dialog.locator(".why").first.wait_for()
    # The plan says why there, and nothing was done yet.
    assert "from image 'debian-12'" in dialog.locator(".why").first.inner_text()
    assert "made-here" not in cluster.look().vms
    assert row(onlooker, "made-here").count() == 0
    carry_out(page)
    # Nobody has loaded anything anew.
    row(onlooker, "made-here").get_by_text("running").wait_for(timeout=LOOKED_FOR_S)
    assert cluster.show("made-here").power == "running"
    onlooker.goto(onlooker.url.partition("#")[0] + "#/activity")
    onlooker.locator(".grid-row").filter(has_text="made-here").first.wait_for()


def test_a_host_is_cordoned_and_what_cannot_be_done_is_said_in_the_plan_s_place(
    surf: As, cluster: Orchestrator
) -> None:
    page = surf("admin").show("/hosts/h3")
    page.get_by_role("button", name="Cordon").click()
    carry_out(page)
    page.get_by_role("button", name="Uncordon").wait_for()
    assert cluster.look().nodes["h3"].cordoned
    page.get_by_role("button", name="Uncordon").click()
    carry_out(page)
    page.locator("main").get_by_text("online").first.wait_for()
    page = surf("admin").show("/hosts/h1")
    page.get_by_role("button", name="Actions: h1").click()
    page.get_by_role("menuitem", name="Remove host").click()
    page.get_by_role("dialog").get_by_role("button", name="Show the plan").click()
    page.get_by_role("dialog").get_by_role("alert").filter(has_text="cannot").wait_for()
    assert "h1" in cluster.look().nodes


def test_a_vm_is_dragged_onto_another_host(surf: As, cluster: Orchestrator) -> None:
    page = surf("operator").show("/hosts?as=board")
    page.locator("[data-host=h2] .chip").filter(has_text="db").wait_for()
    page.locator("[data-host=h2] .chip").filter(has_text="db").drag_to(
        page.locator("[data-host=h3]")
    )
    dialog = page.get_by_role("dialog", name="Move db to h3")
    dialog.locator(".why").wait_for()
    assert cluster.look().vms["db"].node == "h2"
    carry_out(page)
    page.locator("[data-host=h3] .chip").filter(has_text="db").wait_for(timeout=LOOKED_FOR_S)
    assert cluster.look().vms["db"].node == "h3"


def test_a_menu_says_of_each_host_whether_it_fits_and_why_not(
    surf: As, cluster: Orchestrator
) -> None:
    where = cluster.look().vms["web"].node
    cluster.node_cordon("h3")
    try:
        page = surf("operator").show("/vms")
        row(page, "web").get_by_role("button", name="Actions").click()
        page.get_by_role("menuitem", name="Migrate").click()
        dialog = page.get_by_role("dialog")
        refused = host_row(page, "h3")
        refused.get_by_text("does not fit").wait_for(timeout=LOOKED_FOR_S)
        assert "cordoned" in refused.inner_text()
        assert "here" in host_row(page, where).inner_text()
        host_row(page, "h2").get_by_role("radio").check()
        dialog.locator("button.confirm").click()
        page.locator("dialog[open]").get_by_role("button", name="Close").last.click(
            timeout=LOOKED_FOR_S
        )
        row(page, "web").get_by_text("h2", exact=True).wait_for(timeout=LOOKED_FOR_S)
    finally:
        cluster.node_uncordon("h3")
    assert cluster.look().vms["web"].node == "h2"


# ---------------------------------------------------------------------------------------------
# Uploads


def drop_file(page: Page, name: str, data: bytes) -> None:
    """As from a folder of the desktop."""
    page.evaluate(
        """([name, data]) => {
          const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
          const files = new DataTransfer();
          files.items.add(new File([bytes], name, { lastModified: 1700000000000 }));
          const place = document.querySelector(".dropzone");
          for (const kind of ["dragover", "drop"]) {
            const how = { dataTransfer: files, bubbles: true, cancelable: true };
            place.dispatchEvent(new DragEvent(kind, how));
          }
        }""",
        [name, base64.b64encode(data).decode()],
    )


DATA = b"\xeb\x63\x90" + hashlib.sha256(b"image").digest() * 32768 * 20


def test_an_image_is_dropped_broken_off_gone_on_with_and_imported(
    surf: As, cluster: Orchestrator
) -> None:
    """The network breaks in the second piece, then the page is closed: the rest is sent alone."""
    person = surf("operator")
    page = person.show("/images")
    pieces: list[int] = []

    def breaking(route: Any) -> None:
        if route.request.method == "PATCH":
            pieces.append(int(route.request.headers["upload-offset"]))
            if pieces[-1] > 0:
                route.abort()
                return
        route.continue_()

    page.route("**/v1/uploads/*", breaking)
    drop_file(page, "Dropped Image.raw", DATA)
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_label("Image").first.input_value() == "dropped-image"
    dialog.get_by_label("SHA-256").fill(hashlib.sha256(DATA).hexdigest())
    dialog.get_by_role("button", name="Upload").click()
    page.locator(".uploads").get_by_text("waits for the network").wait_for()
    (there,) = json.loads(person.context.request.get(f"{person.base}/v1/uploads").body())
    assert 0 < there["offset_bytes"] < len(DATA)
    person.errors.clear()
    page.unroute("**/v1/uploads/*")
    page.reload()
    person.settled()
    page.locator(".uploads").get_by_text("paused").wait_for()
    sent: list[int] = []

    def hear(request: Request) -> None:
        if request.method == "PATCH":
            sent.append(int(request.headers["upload-offset"]))

    page.on("request", hear)
    drop_file(page, "Dropped Image.raw", DATA)
    page.get_by_role("dialog").get_by_text("was begun before").wait_for()
    page.get_by_role("dialog").get_by_role("button", name="Upload").click()
    carry_out(page)
    # It went on from where the service stood.
    assert sent[0] == there["offset_bytes"]
    row(page, "dropped-image").wait_for()
    image = cluster.image_show("dropped-image")
    assert image.sha256 == hashlib.sha256(DATA).hexdigest()
    assert cluster.world.uploads is not None
    assert cluster.world.uploads.list() == ()


def test_an_upload_that_is_another_file_is_no_image(surf: As, cluster: Orchestrator) -> None:
    page = surf("operator").show("/images")
    drop_file(page, "other.raw", DATA[:5000])
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("SHA-256").fill("0" * 64)
    dialog.get_by_role("button", name="Upload").click()
    page.locator("dialog[open] button.confirm").click(timeout=LOOKED_FOR_S)
    page.locator("dialog[open]").get_by_text("SHA-256").first.wait_for(timeout=LOOKED_FOR_S)
    assert "other" not in [one.name for one in cluster.image_list()]


# ---------------------------------------------------------------------------------------------
# Rights

# Of a viewer all that is left is to look.
LOOKING = {verb for verb, entry in VERBS.items() if entry.method == "GET"}


def test_a_viewer_gets_no_button_that_works_and_the_service_refuses(
    surf: As, cluster: Orchestrator
) -> None:
    person = surf("viewer")
    page = person.page
    asked: list[str] = []
    person.page.on("request", lambda one: asked.append(f"{one.method} {one.url}"))
    for path in ("/", "/vms", "/vms/web", "/hosts", "/hosts/h1", "/storage", "/ha", "/images"):
        person.show(path)
        assert page.locator("[data-verb]").count() == 0, path
        for more in page.locator("main [aria-haspopup=menu]").all()[:3]:
            more.click()
            for item in page.locator(".menu [role=menuitem]:not([aria-disabled=true])").all():
                text = item.inner_text()
                assert text in ("Open", "Details", "Volumes", "Try it on each host"), (path, text)
            page.keyboard.press("Escape")
        assert page.locator(".dropzone").count() == 0
    assert not [one for one in asked if not one.startswith("GET ")]
    # What the page does not offer is refused to whoever asks past it.
    answers = page.evaluate(
        """async () => {
          const me = await (await fetch("v1/self")).json();
          const ask = async (method, path, body) => (await fetch(path, {
            method, body: JSON.stringify(body),
            headers: { "Content-Type": "application/json", "X-CSRF-Token": me.csrf },
          })).status;
          return [await ask("POST", "v1/vms", { name: "x", image: "debian-12" }),
            await ask("POST", "v1/vms/web/stop", {}), await ask("DELETE", "v1/vms/web"),
            await ask("POST", "v1/nodes/h1/cordon", {}),
            await ask("POST", "v1/images", { name: "x", location: "http://x/" })];
        }"""
    )
    assert answers == [403] * 5
    assert cluster.show("web").power == "running"


def test_a_user_sees_the_own_vms_and_nothing_of_the_cluster(surf: As) -> None:
    person = surf("user")
    page = person.show("/vms")
    row(page, "web").wait_for()
    assert row(page, "db").count() == 0
    page = person.show("/")
    page.locator("main").get_by_text("your machines").wait_for()
    for path in ("/hosts", "/storage/trash", "/ha/vms", "/networks", "/images", "/activity"):
        person.show(path)


# ---------------------------------------------------------------------------------------------
# Keyboard


def focused(page: Page) -> str:
    found: str = page.evaluate(
        "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"
    )
    return found.strip()


def tab_to(page: Page, wanted: str, most: int = 60) -> None:
    for _ in range(most):
        page.keyboard.press("Tab")
        if wanted in focused(page):
            return
    raise AssertionError(f"{wanted!r} is not reached by {most} times Tab; last: {focused(page)!r}")


def test_all_of_it_goes_without_a_mouse(surf: As, cluster: Orchestrator) -> None:
    person = surf()
    page = person.page
    page.goto(person.base)
    page.get_by_label("User").wait_for()
    page.keyboard.type("admin")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("navigation", name="Main").wait_for()
    tab_to(page, "Hosts")
    page.keyboard.press("Enter")
    page.get_by_role("heading", level=1, name="Hosts").wait_for()
    person.settled()
    tab_to(page, "Actions: h2")
    # What has the focus shows that it has.
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.keyboard.press("Enter")
    page.get_by_role("menu").wait_for()
    assert "Cordon" in focused(page)
    # Another one by its first letter, and back.
    page.keyboard.type("f")
    assert "Fence" in focused(page)
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    dialog = page.locator("dialog[open]")
    dialog.locator("button.confirm").wait_for()
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Close").last.wait_for(timeout=LOOKED_FOR_S)
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    assert cluster.look().nodes["h2"].cordoned
    cluster.node_uncordon("h2")
    # From anywhere "/" leads to the search of what is shown.
    page.keyboard.press("/")
    page.keyboard.type("h3")
    assert page.locator("main .grid-space .grid-row").count() == 1


def test_the_place_for_files_is_a_file(tmp_path: Path, surf: As) -> None:
    """A person who drags nothing chooses a file."""
    file = tmp_path / "chosen.iso"
    file.write_bytes(b"\0" * 4096)
    page = surf("operator").show("/images")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload a file").click()
    chooser.value.set_files(file)
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    assert dialog.get_by_label("Kind").input_value() == "iso"


def test_nobody_is_shown_what_was_typed_as_a_secret(surf: As, cluster: Orchestrator) -> None:
    page = surf("admin").show("/people/tokens")
    page.get_by_role("button", name="Create token").click()
    dialog = page.locator("dialog[open]")
    dialog.get_by_label("User").select_option("operator") if dialog.locator(
        "select[data-field=user]"
    ).count() else dialog.locator("[data-field=user]").fill("operator")
    dialog.get_by_role("button", name="Show the plan").click()
    dialog.locator("button.confirm").click()
    dialog.get_by_text("This secret is shown only now").wait_for(timeout=LOOKED_FOR_S)
    secret = dialog.locator("pre").inner_text().strip()
    assert secret.startswith("vorch_")
    dialog.get_by_role("button", name="Close").last.click()
    (token,) = [one for one in cluster.token_list() if one.user == "operator"]
    row(page, token.id).wait_for()
    assert secret not in page.content()


def test_what_happens_elsewhere_is_shown_as_it_happens(surf: As, cluster: Orchestrator) -> None:
    """A host without power: health, state and counts follow without a reload."""
    page = surf("admin").show("/")
    health = page.get_by_role("region", name="Health of the cluster")
    world_of(cluster).host("h3").power_off()
    try:
        health.get_by_text("Host h3 does not answer.").first.wait_for(timeout=60_000)
        page.locator("main tbody tr").filter(has_text="h3").get_by_text("silent").wait_for()
    finally:
        world_of(cluster).host("h3").power_on()
    health.get_by_text("Host h3 does not answer.").first.wait_for(state="detached", timeout=60_000)
