"""Disks and storage classes, as they are typed, on a world in memory."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Vorch


def pool_of(vorch: Vorch, name: str, disk: str = "root") -> str:
    uses = vorch.well("disk", "list", name, "--json").json
    return str(next(use["disk"]["volume"]["pool"] for use in uses if use["disk"]["name"] == disk))


def test_disks_move_by_pool_and_by_class(web: Vorch) -> None:
    web.well("pool", "add", "bulk", "memory:bulk")
    web.well("class", "add", "slow", "--pool", "bulk", "--default")
    assert "bulk" in web.well("class", "list").out
    web.well("disk", "attach", "web", "--size", "1G", "--name", "data")
    assert (pool_of(web, "web"), pool_of(web, "web", "data")) == ("local", "bulk")
    dry = web.well("disk", "move", "web", "root", "--class", "slow", "--dry-run")
    assert "copy disk 'root' of web to bulk/" in dry.out
    assert pool_of(web, "web") == "local"
    ended = web.well("disk", "move", "web", "--class", "slow")
    assert ended.out.count("disk move web: ") == 2
    assert "is in pool 'bulk' already" in ended.out
    assert pool_of(web, "web") == "bulk"
    # Beside its image, unless told otherwise.
    web.well("create", "second", "--image", "debian")
    assert pool_of(web, "second") == "local"
    web.well("create", "third", "--image", "debian", "--class", "slow")
    assert pool_of(web, "third") == "bulk"
    web.well("clone", "third", "fourth", "--pool", "local")
    assert pool_of(web, "fourth") == "local"
    web.well("template", "third", "golden", "--pool", "local")
    refused = web("pool", "remove", "bulk")
    assert refused.code != 0
    assert "class 'slow' has it" in refused.err
    web.well("class", "remove", "slow")


def test_a_move_needs_to_know_where_to(web: Vorch) -> None:
    assert "--pool" in web("disk", "move", "web").err
    both = web("disk", "move", "web", "--pool", "local", "--class", "x")
    assert "name one of the two" in both.err


def test_what_a_disk_takes_up(web: Vorch) -> None:
    table = web.well("disk", "list", "web").out
    assert "root" in table
    assert "image.debian" in table
    web.well("disk", "flatten", "web", "root")
    assert "image.debian" not in web.well("disk", "list", "web").out
    web.well("stop", "web", "--force")
    web.well("disk", "sparsify", "web", "root")
    (use,) = web.well("disk", "list", "web", "--json").json
    assert (use["used_bytes"], use["base"]) == (0, None)


def test_exports_are_new_files(web: Vorch, tmp_path: Path) -> None:
    file = tmp_path / "out.img"
    ended = web.well("disk", "export", "web", "root", str(file), "--format", "raw")
    assert "crash-consistent" in ended.out
    assert file.stat().st_size == 1024 * 1024
    again = web("disk", "export", "web", "root", str(file))
    assert "there is a file of that name" in again.err
    web.well("image", "export", "debian", str(tmp_path / "image.raw"), "--format", "raw")
    assert sorted(path.name for path in tmp_path.glob("*.part")) == []


def test_limits_are_set_shown_and_lifted(web: Vorch) -> None:
    web.well("disk", "limit", "web", "root", "--iops", "500", "--mib-s", "50")
    assert "at most 500 iops, 50 MiB/s" in web.well("show", "web").out
    web.well("disk", "limit", "web", "root", "--iops", "0")
    assert "at most 50 MiB/s" in web.well("show", "web").out
    web.well("disk", "attach", "web", "--size", "1G", "--limit", "write-iops=10,burst-iops=20")
    assert "10 write iops, bursts of 20 iops for 1 s" in web.well("disk", "list", "web").out
    web.well("create", "second", "--limit", "mib-s=5")
    assert "at most 5 MiB/s" in web.well("show", "second").out
    for nonsense in ("iops", "iops=x", "speed=5", "iops=-1"):
        assert "the names are iops" in web("create", "third", "--limit", nonsense).err
