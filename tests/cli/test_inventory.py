"""`vorch inventory`, as it is typed, and as Ansible calls it."""

from __future__ import annotations

from tests.cli.conftest import Vorch


def test_as_it_is_typed(web: Vorch) -> None:
    web.well("start", "web")
    web.world.clock.sleep(60)
    rows = web.well("inventory").out
    assert "web" in rows
    told = web.well("inventory", "--ansible", "--list").json
    address = told["_meta"]["hostvars"]["web"]["ansible_host"]
    assert address in rows
    assert told["state_running"] == {"hosts": ["web"]}
    assert web.well("inventory", "--ansible", "--host", "web").json["ansible_host"] == address
    assert web.well("inventory", "--json").json["hosts"][0]["address"] == address
    assert web("inventory", "--ansible", "--host", "nosuch").err.startswith("vorch: not-found:")
    assert web("inventory", "--list").err.startswith("vorch: invalid: cannot use --list")
