"""`vorch migrate` in words and figures."""

from __future__ import annotations

from tests.cli.conftest import Vorch


def test_a_move_tells_what_it_came_to(vorch: Vorch) -> None:
    vorch.world.add_host("there")
    first = next(name for name in vorch.world.machines if name != "there")
    assert vorch("create", "web", "--disk", "1G", "--no-network", "--start").code == 0
    planned = vorch("migrate", "web", "there", "--dry-run")
    assert planned.code == 0, planned.err
    assert "how long it takes is unknown" in planned.out
    moved = vorch("migrate", "web", "there", "--pause-limit", "50")
    assert moved.code == 0, moved.err
    assert "the guest stood still for" in moved.out
    assert "MiB were sent for" in moved.out
    told = vorch("migrate", "web", first, "--json").json
    result = told["task"]["result"]
    assert (result["node"], result["postcopy"]) == (first, False)
    shown = vorch("task", "show", told["task"]["id"])
    assert "pause_ms:" in shown.out
    refused = vorch("migrate", "web", "there", "--pool", "local")
    assert refused.code != 0
    assert "leave the pool out" in refused.err
