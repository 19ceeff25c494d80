"""Every view in a browser: in both languages, on a phone, without a serious fault by axe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.page.conftest import As
from vorch import Orchestrator

if TYPE_CHECKING:
    from tests.page.surfing import Surfer

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]

TEXTS = Path(__file__).parents[2] / "api" / "page" / "texts"
# What each shows when its data are there.
VIEWS = {
    "/": "h1111",
    "/vms": "web",
    "/vms/web": "web",
    "/hosts": "h1111",
    "/hosts?as=board": "web",
    "/hosts/h1111": "x86_64",
    "/hosts/h1111/vms": "web",
    "/hosts/h1111/loads": "",
    "/hosts/h1111/lost": "web",
    "/hosts/h1111/checks": "",
    "/storage": "fast",
    "/storage/ceph": "osd.0",
    "/storage/volumes": "web.root",
    "/storage/classes": "gold",
    "/storage/trash": "gone",
    "/ha": "h1111",
    "/ha/vms": "web",
    "/ha/rules": "apart-rule",
    "/ha/room": "h1111",
    "/images": "debian-12",
    "/networks": "default",
    "/networks/forwards": "8080",
    "/activity": "web",
    "/activity/audit": "web",
    "/people": "olga",
    "/people/tokens": "backups",
}
HOSTS = ("h1111", "h2222", "h3333")


def fill(cluster: Orchestrator) -> None:
    """Something in each list."""
    cluster.create("web", image="debian-12", node="h1111", start=True, tags=["owner:user", "shop"])
    cluster.create("db", image="debian-12", node="h2222", start=True)
    cluster.create("gone", image="debian-12")
    cluster.delete("gone")
    cluster.class_add("gold", ["fast"])
    cluster.ha_set("web")
    cluster.rule_add("apart-rule", "apart", ["web", "db"])
    cluster.forward_add("web", "8080:80")
    cluster.user_add("olga", role="operator")
    cluster.token_create("olga", description="backups")


@pytest.fixture(scope="module")
def admin(place: tuple[Orchestrator, str], browser: object) -> Iterator[Surfer]:
    from tests.page.surfing import surfing

    with surfing(browser, place[1], "admin") as found:  # type: ignore[arg-type]
        yield found


@pytest.mark.parametrize("path", VIEWS)
def test_each_view_shows_its_things(admin: Surfer, path: str) -> None:
    page = admin.show(path)
    page.locator("main").get_by_text(VIEWS[path]).first.wait_for()
    admin.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(surf: As, scheme: str) -> None:
    person = surf("admin", scheme=scheme)
    found = {}
    for path in VIEWS:
        person.show(path)
        if faults := person.faults():
            found[path] = faults
    assert not found, json.dumps(found, indent=1)


def test_axe_finds_nothing_serious_at_the_login(surf: As) -> None:
    for scheme in ("light", "dark"):
        person = surf(scheme=scheme)
        person.page.goto(person.base)
        person.page.locator("input").first.wait_for()
        assert person.faults() == []


def test_on_a_phone_nothing_is_wider_than_the_screen(surf: As) -> None:
    from tests.page.surfing import PHONE

    person = surf("admin", size=PHONE, has_touch=True)
    for path, text in VIEWS.items():
        page = person.show(path)
        page.locator("main").get_by_text(text).first.wait_for(state="attached")
        wide = page.evaluate(
            "[document.documentElement.scrollWidth, document.querySelector('main').scrollWidth]"
        )
        assert max(wide) <= PHONE["width"], path
    person.show("/images")
    assert person.faults() == []


def test_in_french_there_is_no_english_of_the_page(surf: As) -> None:
    english = json.loads((TEXTS / "views.en.json").read_text(encoding="utf-8"))
    french = json.loads((TEXTS / "views.fr.json").read_text(encoding="utf-8"))
    assert english.keys() == french.keys()
    # Sentences that are the page's own; words of the service itself are marked as English.
    own = {text for key, text in english.items() if french[key] != text and len(text) > 14}
    person = surf("admin", language="fr-FR")
    for path in VIEWS:
        page = person.show(path)
        assert page.evaluate("document.documentElement.lang") == "fr"
        said = page.evaluate(
            """() => {
              const whole = document.querySelector("main").cloneNode(true);
              for (const one of whole.querySelectorAll("[lang=en]")) one.remove();
              return [...whole.querySelectorAll("*")].filter((one) => !one.children.length)
                .map((one) => one.textContent.trim());
            }"""
        )
        assert not own & set(said), path
        # A key that has no text is shown as it is.
        assert not [one for one in said if one in english], path


def test_every_state_that_a_row_can_have_has_words() -> None:
    from vorch.availability import NodeState, VmState
    from vorch.decide import health

    source = Path(health.__file__).read_text(encoding="utf-8")
    for language in ("en", "fr"):
        texts = json.loads((TEXTS / f"views.{language}.json").read_text(encoding="utf-8"))
        for state in NodeState:
            assert f"host.is.{state.value}" in texts
        for vm_state in VmState:
            assert f"ha.is.{vm_state.value}" in texts
        # Each concern of the cluster's health, and what to do about it.
        codes = [key for key in texts if key.startswith("health.") and key.endswith(".do")]
        for code in (key.removeprefix("health.").removesuffix(".do") for key in codes):
            assert f'"{code}"' in source


def test_a_search_and_an_order_stay_in_the_address(admin: Surfer) -> None:
    page = admin.show("/hosts")
    rows = page.locator(".grid-space .grid-row")
    page.locator("main input[type=search]").fill("h2")
    assert rows.count() == 1
    page.reload()
    rows.first.wait_for()
    assert rows.count() == 1
    assert page.locator("main input[type=search]").input_value() == "h2"
    page.locator("main input[type=search]").fill("")
    page.get_by_role("button", name="Host", exact=True).click()
    assert rows.first.text_content().startswith("h3333")  # type: ignore[union-attr]
    assert "sort=name" in page.url
    page.locator("main input[type=search]").fill("nothing like it")
    page.locator("main").get_by_text("Nothing fits").wait_for()
