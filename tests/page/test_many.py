"""5,000 VMs in the table: how long it takes to load, search and sort them is printed."""

from __future__ import annotations

import json

import pytest

from tests.page import worlds
from tests.page.conftest import As
from vorch import Orchestrator

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]

VMS = 5000


def fill(cluster: Orchestrator) -> None:
    worlds.add_hosts(cluster, 60)
    worlds.add_many(cluster, VMS)


# From what a person does to the frame in which all of it is drawn.
TIMED = """
async ([what, value]) => {
  const main = document.querySelector("main");
  const began = performance.now();
  if (what === "search") {
    const search = main.querySelector("input[type=search]");
    search.value = value;
    search.dispatchEvent(new Event("input", { bubbles: true }));
  } else if (what === "sort") {
    main.querySelector(`.grid-head [data-key=${value}]`).click();
  } else {
    const scroll = main.querySelector(".grid-scroll");
    scroll.scrollTop = scroll.scrollHeight * value;
  }
  await new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)));
  return performance.now() - began;
}
"""


def test_five_thousand_rows_are_searched_sorted_and_scrolled(
    surf: As, capsys: pytest.CaptureFixture[str]
) -> None:
    person = surf("admin")
    page = person.page
    page.goto(f"{person.base}/#/vms")
    rows = page.locator(".grid-space .grid-row")
    rows.first.wait_for()
    first = page.evaluate("performance.now()")
    # The rest comes while the first rows can be read already.
    page.locator(".count").get_by_text("5,000 VMs", exact=True).wait_for()
    loaded = page.evaluate("performance.now()")
    # Only those that can be seen are drawn, and it is known how many there are.
    assert rows.count() < 100
    assert page.get_by_role("table").get_attribute("aria-rowcount") == str(VMS + 1)
    took = {"first rows": first, "loaded": loaded}
    took["search for vm0499"] = page.evaluate(TIMED, ["search", "vm0499"])
    assert rows.count() == 10
    took["search for 'db'"] = page.evaluate(TIMED, ["search", "db"])
    assert page.get_by_role("table").get_attribute("aria-rowcount") == str(VMS // 10 + 1)
    took["all again"] = page.evaluate(TIMED, ["search", ""])
    took["sort by name, down"] = page.evaluate(TIMED, ["sort", "name"])
    assert rows.first.get_attribute("data-id") == f"vm{VMS - 1:05}"
    took["sort by host"] = page.evaluate(TIMED, ["sort", "node"])
    took["scroll to the middle"] = page.evaluate(TIMED, ["scroll", 0.5])
    assert rows.count() < 100
    page.keyboard.press("Escape")
    with capsys.disabled():
        print()
        print(json.dumps({what: f"{ms:.0f} ms" for what, ms in took.items()}, indent=1))


def test_a_vm_that_changes_is_one_row_and_not_the_whole_list(
    surf: As, cluster: Orchestrator
) -> None:
    person = surf("admin")
    page = person.page
    page.goto(f"{person.base}/#/vms?q=vm00001")
    page.locator(".grid-row[data-id=vm00001]").wait_for()
    page.locator(".count").get_by_text("1 of 5,000 VMs").wait_for()
    whole: list[str] = []
    page.on("request", lambda one: whole.append(one.url) if "/v1/vms?" in one.url else None)
    cluster.change("vm00001", description="seen at once")
    page.locator(".grid-row[data-id=vm00001]").get_by_text("seen at once").wait_for()
    assert whole
    assert all("name=vm00001" in url for url in whole)


def test_the_overview_of_many_is_a_few_lines(surf: As) -> None:
    page = surf("admin").show("/")
    assert page.locator("main .table tbody tr").count() <= 24
    page.locator("main").get_by_text("All 63 hosts").wait_for()
