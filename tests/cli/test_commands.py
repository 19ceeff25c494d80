"""The commands, one after the other, on a world in memory."""

from __future__ import annotations

import email
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Ended, Vorch
from vorch import Done, Figures, VmStatus, connect
from vorch.codec import decode
from vorch.drivers.iso import read_from_iso
from vorch.drivers.media import IsoMedia
from vorch.model import DiskFigures, Power
from vorch_cli.commands.looks import rates

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHzs you@home"


def states(vorch: Vorch) -> dict[str, str]:
    return {one["vm"]["name"]: one["power"] for one in vorch.well("list", "--json").json}


def test_the_life_of_a_vm(web: Vorch) -> None:
    assert states(web) == {"web": "running"}
    for words, after in (
        (("pause", "web"), "paused"),
        (("resume", "web"), "running"),
        (("reset", "web"), "running"),
        (("restart", "web"), "running"),
        (("stop", "web", "--timeout", "30"), "stopped"),
        (("start", "web"), "running"),
        (("stop", "web", "--force"), "stopped"),
    ):
        ended = web.well(*words)
        assert ended.out.startswith(f"{words[0]} web: done in "), ended.out
        assert states(web) == {"web": after}
    web.well("rename", "web", "www")
    web.well("change", "www", "--memory", "3G", "--vcpus", "2")
    web.well("clone", "www", "second")
    web.well("template", "www", "golden", "--description", "of www")
    assert set(states(web)) == {"www", "second"}
    vm = web.well("show", "www", "--json").json["vm"]
    assert (vm["memory_mib"], vm["vcpus"]) == (3072, 2)
    assert "golden" in web.well("image", "list").out
    web.well("delete", "www", "--yes")
    assert set(states(web)) == {"second"}
    web.well("undelete", "www", "--as", "again")
    assert set(states(web)) == {"second", "again"}


def test_a_list_can_be_watched(web: Vorch) -> None:
    watched = web("list", "--watch", "--count", "1", "--json")
    assert (watched.code, len(watched.out.splitlines())) == (0, 1)
    assert [one["vm"]["name"] for one in watched.json] == ["web"]
    assert "web" in web("list", "--watch", "--count", "1").out
    # Nothing happens by itself where time stands still.
    endless = web("list", "--watch", "--json")
    assert endless.code != 0
    assert "clock=system" in endless.err


def test_what_a_pool_does_not_tell_is_not_rebuilt(web: Vorch) -> None:
    refused = web("state", "rebuild", "local", "--dry-run", "--json")
    assert refused.error["code"] == "unsupported"


def test_what_is_so_already_is_no_failure(web: Vorch) -> None:
    ended = web.well("start", "web")
    assert ended.out == "start web: nothing to do; it is running already\n"


@pytest.mark.parametrize(
    ("words", "running"),
    [
        (("create", "a", "--image", "debian"), True),
        (("create", "a", "--image", "debian", "--no-start"), False),
        (("create", "a", "--disk", "5G"), False),
        (("create", "a", "--disk", "5G", "--start"), True),
    ],
)
def test_a_new_vm_starts_where_it_has_something_to_boot(
    web: Vorch, words: tuple[str, ...], running: bool
) -> None:
    web.well(*words)
    assert states(web)["a"] == ("running" if running else "stopped")


def test_create_says_all_that_was_asked_for(web: Vorch, tmp_path: Path) -> None:
    key, data = tmp_path / "id.pub", tmp_path / "more.yaml"
    key.write_text(f"# mine\n{KEY}\n")
    data.write_text("#cloud-config\nlocale: C\n")
    words: tuple[str, ...] = (
        "create",
        "big",
        "--image",
        "debian",
        "--vcpus",
        "4",
        "--vcpus-max",
        "6",
    )
    words += (
        "--vcpus-max",
        "6",
        "--memory",
        "2G",
        "--memory-max",
        "4G",
        "--disk",
        "1T",
        "--firmware",
        "uefi",
    )
    words += (
        "--tpm",
        "--cpu",
        "host",
        "--no-graphics",
        "--mac",
        "52:54:00:00:00:01",
        "--node",
        "h1",
    )
    words += ("--network", "default", "--network", "default", "--description", "<b>&", "--full")
    words += ("--user", "joe", "--ssh-key", str(key), "--ssh-key", KEY, "--address", "dhcp")
    words += ("--address", "10.80.0.9/24,10.80.0.1,9.9.9.9", "--package", "vim", "--run", "id")
    words += ("--user-data", str(data), "--hostname", "large", "--watchdog", "reset", "--json")
    done = decode(Done, web.well(*words).json)
    assert done.task is not None
    seed = next(step for step in done.plan.steps if step.kind == "write-iso")
    # What is told to the guest is between the two of them.
    assert set(seed.files.values()) == {"(not shown)"}
    with connect(web.uri) as cluster:
        iso = cluster.world.images(seed.volume.pool).open_read(seed.volume.name)
        files = {name: read_from_iso(iso, name).decode() for name in seed.files}
    parts = email.message_from_string(files["user-data"]).walk()
    told = "\n".join([*files.values(), *(str(part.get_payload(decode=True)) for part in parts)])
    for word in ("joe", KEY, "10.80.0.9", "9.9.9.9", "vim", "large", "locale: C"):
        assert word in told, word
    vm = web.well("show", "big", "--json").json["vm"]
    wanted: dict[str, object] = {
        "vcpus": 4,
        "vcpus_max": 6,
        "memory_mib": 2048,
        "memory_max_mib": 4096,
    }
    wanted |= {"firmware": "uefi", "tpm": True, "cpu": "host", "graphics": False}
    wanted |= {"description": "<b>&", "watchdog": "reset"}
    assert {name: vm[name] for name in wanted} == wanted
    assert [nic["network"] for nic in vm["nics"]] == ["default", "default"]
    assert vm["nics"][0]["mac"] == "52:54:00:00:00:01"
    assert vm["disks"][0]["size_bytes"] == 1024**4


def test_no_network(web: Vorch) -> None:
    web.well("create", "alone", "--image", "debian", "--no-network")
    assert web.well("show", "alone", "--json").json["vm"]["nics"] == []
    ended = web("create", "b", "--no-network", "--network", "default")
    assert (ended.code, ended.err.startswith("vorch: invalid: ")) == (2, True)


def test_disks_nics_and_cds(web: Vorch, disk_image: str) -> None:
    web.well("disk", "attach", "web", "--size", "5")
    web.well("disk", "grow", "web", "data1", "10G")
    sizes = {
        d["name"]: d["size_bytes"] for d in web.well("show", "web", "--json").json["vm"]["disks"]
    }
    assert sizes["data1"] == 10 * 1024**3
    web.well("disk", "detach", "web", "data1", "--keep")
    kept = next(
        one["name"] for one in web.well("volume", "list", "--json").json if "data1" in one["name"]
    )
    web.well("disk", "attach", "web", "--volume", f"local/{kept}", "--name", "back")
    web.well("disk", "detach", "web", "back", "--yes")
    web.well("nic", "attach", "web", "--mac", "52:54:00:00:00:02")
    web.well("nic", "detach", "web", "52:54:00:00:00:02")
    cd = Path(disk_image).with_name("live.iso")
    cd.write_bytes(IsoMedia().iso("live", {"hello": "world"}))
    web.well("image", "import", "live", str(cd), "--iso")
    web.well("create", "cd", "--iso", "live", "--disk", "1")
    web.well("cd", "eject", "cd")
    web.well("cd", "insert", "cd", "live")


def test_snapshots(web: Vorch) -> None:
    ended = web.well("snapshot", "create", "web", "before", "--no-freeze")
    assert ended.out.endswith("snapshot before: crash-consistent, as after a power cut\n")
    assert [one["name"] for one in web.well("snapshot", "list", "web", "--json").json] == ["before"]
    web.well("stop", "web")
    web.well("snapshot", "rollback", "web", "before", "--yes")
    web.well("snapshot", "delete", "web", "before", "--yes")
    assert web.well("snapshot", "list", "web", "--json").json == []


def test_networks(vorch: Vorch) -> None:
    vorch.well("network", "create", "lab", "--kind", "isolated", "--subnet", "10.9.0.0/24")
    assert vorch.well("network", "show", "lab", "--json").json["subnet"] == "10.9.0.0/24"
    assert "10.9.0.0/24" in vorch.well("network", "show", "lab").out
    vorch.well("network", "delete", "lab", "--yes")
    assert "lab" not in vorch.well("network", "list").out


def test_images(web: Vorch, disk_image: str) -> None:
    assert "disks: " in web.well("image", "show", "debian").out
    web.well("image", "delete", "debian", "--yes")
    assert web.well("image", "list", "--json").json == []


def test_a_file_is_named_from_where_one_stands(
    vorch: Vorch, disk_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(disk_image).parent)
    vorch.well("image", "import", "debian", Path(disk_image).name)
    assert vorch.well("image", "show", "debian", "--json").json["source"].endswith(disk_image)


def test_hosts_pools_and_volumes(web: Vorch) -> None:
    assert web.well("node", "probe", "h1", "--json").json["accelerator"] == "kvm"
    assert "kvm (guests in memory run at once)" in web.well("node", "show", "h1").out
    assert [one["node"]["name"] for one in web.well("node", "list", "--json").json] == ["h1"]
    assert "online" in web.well("node", "list").out
    (pool,) = web.well("pool", "list", "--json").json
    assert pool["pool"]["name"] == "local"
    assert pool["usage"]["capacity_bytes"] > 0
    assert "local" in web.well("pool", "list").out
    assert "web.root" in web.well("volume", "list", "local").out


def test_tasks(web: Vorch) -> None:
    newest, *_ = web.well("task", "list", "--json").json
    assert web.well("task", "show", newest["id"], "--json").json == newest
    assert newest["id"] in web.well("task", "list", "--limit", "1").out
    assert "log:" in web.well("task", "show", newest["id"]).out
    assert web.well("task", "watch", newest["id"]).out.endswith(": done\n")
    assert web("task", "cancel", newest["id"]).code == 4
    assert web("task", "show", "nosuch").code == 3


def test_watching_a_task_ends_as_it_did(web: Vorch) -> None:
    web.world.faults.fail("host:h1", "shut_down", times=1)
    failed = web("stop", "web", "--json")
    assert failed.code == 7
    watched = web("task", "watch", failed.error["fields"]["task"], "--json")
    assert watched.code == 7
    assert watched.json["state"] == "failed"
    assert watched.error["code"] == "unreachable"


def test_leaving_a_watch_does_not_end_the_task(web: Vorch, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    newest, *_ = web.well("task", "list", "--json").json
    monkeypatch.setattr("vorch.Orchestrator.task_watch", interrupted)
    ended = web("task", "watch", newest["id"])
    assert ended.code == 130
    assert f"task {newest['id']} goes on" in ended.err


def test_trash(web: Vorch) -> None:
    web.well("delete", "web", "--force", "--yes")
    (thing,) = web.well("trash", "list", "--json").json
    assert web.well("trash", "purge").out.startswith("There is nothing")
    assert "for good" in web.well("trash", "purge", thing["key"], "--dry-run").out
    web.well("trash", "purge", thing["key"], "--yes")
    assert web.well("trash", "list", "--json").json == []


def test_recover(web: Vorch) -> None:
    assert web.well("recover").out == "Nothing was left unfinished.\n"
    assert web.well("recover", "--json").json == []


def test_recover_says_what_it_found(web: Vorch) -> None:
    """Left behind by a process that died in the middle of it."""
    with connect(web.uri, hook=die_after_the_first_step) as other:
        with pytest.raises(Died):
            other.create("half", disk_gib=1)
        web.world.kill(other.world)
    ended = web.well("recover")
    assert "create half" in ended.out
    assert "undone" in ended.out
    assert set(states(web)) == {"web"}


class Died(BaseException):
    """As kill -9 would: nothing is tidied up, as every call after it fails as well."""


def die_after_the_first_step(point: str, journal: Any) -> None:
    if point == "after" or journal.direction == "backward":
        raise Died


def test_init_is_safe_to_repeat(vorch: Vorch) -> None:
    first = vorch.well("init", "--json").json
    assert [one["name"] for one in first["nodes"]] == ["h1"]
    assert first["nodes"][0]["facts"]["accelerator"] == "kvm"
    assert [one["name"] for one in first["networks"]] == ["default"]
    again = vorch.well("init", "--json").json
    assert again["networks"] == first["networks"]
    assert "accelerator: kvm" in vorch.well("init").out


def test_doctor(vorch: Vorch) -> None:
    ended = vorch.well("doctor", "--json")
    assert {one["level"] for one in ended.json} == {"ok"}
    assert "LEVEL" in vorch.well("doctor").out


def test_doctor_has_an_answer_where_nothing_can_be_opened(vorch: Vorch) -> None:
    vorch.uri = "sqlite:///proc/nowhere/vorch.db"
    ended = vorch("doctor", "--json")
    assert ended.code == 1
    assert [(one["name"], one["level"]) for one in ended.json] == [("cluster", "error")]


def test_version(vorch: Vorch) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", vorch.well("version").out)


def test_display_says_where_a_viewer_is_to_go(web: Vorch) -> None:
    told = web.well("display", "web", "--for", "0").out
    assert re.fullmatch(r"/\S+/vnc\.sock\n", told)
    assert not Path(told.strip()).parent.exists()
    told = web.well("display", "web", "--port", "0", "--for", "0").out
    assert re.fullmatch(r"vnc://127\.0\.0\.1:\d+\n", told)
    assert web.well("display", "web", "--for", "0", "--json").json["kind"] == "vnc"
    web.well("change", "web", "--no-graphics")
    web.well("stop", "web")
    assert web("display", "web", "--for", "0").code == 4
    web.well("start", "web")
    assert "has none" in web("display", "web", "--for", "0").err


# ---------------------------------------------------------------------------------------------
# Figures


def test_figures(web: Vorch) -> None:
    assert "processor:" in web.well("figures", "web").out
    assert web.well("figures", "web", "--json").json["power"] == "running"


def test_figures_go_on(web: Vorch) -> None:
    lines = web.well("figures", "web", "-f", "--count", "2", "--every", "0.1").out.splitlines()
    assert lines[0].startswith("TIME")
    assert len(lines) == 3
    assert {len(line) for line in lines} == {80}
    samples = web.well("figures", "web", "-f", "--count", "2", "--every", "0.1", "--json").out
    assert len(samples.splitlines()) == 2


def test_rates_are_the_difference_of_two_samples() -> None:
    def sample(at: float, cpu_s: float, read: int) -> Figures:
        return Figures(
            at=at,
            power=Power.RUNNING,
            vcpus=2,
            cpu_time_ns=int(cpu_s * 1e9),
            memory_mib=1024,
            memory_used_mib=256,
            disks=(DiskFigures(name="root", read_bytes=read),),
        )

    line = rates(sample(100, 10, 1024), sample(102, 13, 5120))
    assert line[2:5] == ("150%", "256 MiB", "2 KiB")
    # It was started anew in between.
    assert rates(sample(100, 10, 4096), sample(102, 1, 1024))[2:5] == ("50%", "256 MiB", "512 B")
    assert rates(sample(100, 1, 1), sample(100, 1, 1))[2] == "0%"


# ---------------------------------------------------------------------------------------------
# Plans and questions

DESTRUCTIVE = [
    ("delete", "web", "--force"),
    ("snapshot", "delete", "web", "s"),
    ("snapshot", "rollback", "web", "s"),
    ("image", "delete", "debian"),
    ("network", "delete", "spare"),
    ("disk", "detach", "web", "data1"),
    ("trash", "purge", "KEY"),
]


@pytest.fixture
def rich(web: Vorch) -> Vorch:
    """A world in which there is something of everything to lose."""
    web.well("disk", "attach", "web", "--size", "1")
    web.well("disk", "attach", "web", "--size", "1")
    web.well("disk", "detach", "web", "data2", "--yes")
    web.well("network", "create", "spare", "--kind", "isolated")
    return web


def prepared(rich: Vorch, words: tuple[str, ...]) -> tuple[str, ...]:
    if words[0] == "snapshot":
        rich.well("snapshot", "create", "web", "s")
    if words[1] == "rollback":
        rich.well("stop", "web")
    (thing,) = rich.well("trash", "list", "--json").json
    return tuple(thing["key"] if word == "KEY" else word for word in words)


def store(vorch: Vorch) -> dict[str, Any]:
    """Everything that is recorded, but for tasks and what was found out about hosts."""
    with connect(vorch.uri, recover=False) as cluster:
        kinds = ["vm", "image", "network", "trash", "claim", "plan"]
        return {key: one.body for key, one in cluster.world.state.read(kinds).items()}


@pytest.mark.parametrize("words", DESTRUCTIVE, ids=lambda words: " ".join(words))
def test_what_destroys_is_not_done_without_a_word(rich: Vorch, words: tuple[str, ...]) -> None:
    words = prepared(rich, words)
    before, tasks = store(rich), rich.well("task", "list", "--json").json
    piped = rich(*words)
    assert piped.code == 2
    assert piped.err.startswith("vorch: invalid: ")
    assert "--yes" in piped.err
    refused = rich(*words, typed="n\n")
    assert refused.code == 9
    assert "Go on? [y/N]" in refused.err
    assert "  1. " in refused.err
    assert refused.out == ""
    assert rich(*words, typed="").code == 9
    assert store(rich) == before
    dry = rich(*words, "--dry-run")
    assert (dry.code, "  1. " in dry.out) == (0, True)
    assert store(rich) == before
    assert rich.well("task", "list", "--json").json == tasks
    assert rich(*words, typed="y\n").code == 0
    assert len(rich.well("task", "list", "--json").json) == len(tasks) + 1


CHANGING = [
    ("create", "new", "--image", "debian"),
    ("stop", "web"),
    ("restart", "web"),
    ("reset", "web"),
    ("pause", "web"),
    ("change", "web", "--memory", "2G"),
    ("clone", "web", "new"),
    ("template", "web", "golden"),
    ("snapshot", "create", "web", "s"),
    ("disk", "attach", "web", "--size", "1"),
    ("disk", "grow", "web", "root", "5"),
    ("nic", "attach", "web"),
    ("nic", "detach", "web", "nic0"),
    ("image", "import", "other", "FILE"),
    ("network", "create", "other"),
]


@pytest.mark.parametrize("words", CHANGING, ids=lambda words: " ".join(words))
def test_a_dry_run_prints_the_plan_and_changes_nothing(
    web: Vorch, disk_image: str, words: tuple[str, ...]
) -> None:
    words = tuple(disk_image if word == "FILE" else word for word in words)
    before, running = store(web), states(web)
    plan = web.well(*words, "--dry-run").out
    assert re.match(r"\S.*: .+\n  1\. ", plan)
    as_json = web.well(*words, "--dry-run", "--json").json
    assert as_json["task"] is None
    assert as_json["plan"]["steps"]
    assert (store(web), states(web)) == (before, running)
    assert decode(Done, web.well(*words, "--json").json).task is not None


def test_a_disk_that_is_kept_is_not_asked_about(rich: Vorch) -> None:
    rich.well("disk", "detach", "web", "data1", "--keep")


# ---------------------------------------------------------------------------------------------
# What is printed


def test_json_is_the_values_of_the_library(web: Vorch) -> None:
    with connect(web.uri) as cluster:
        assert decode(VmStatus, web.well("show", "web", "--json").json) == cluster.show("web")


LISTS = ("list", "image list", "network list", "node list", "pool list", "volume list", "task list")


@pytest.mark.parametrize("words", LISTS)
def test_piped_tables_are_plain_columns(web: Vorch, words: str) -> None:
    head, *rows = web.well(*words.split()).out.splitlines()
    assert rows
    assert "\x1b" not in head + "".join(rows)
    assert re.fullmatch(r"[A-Z]+(  +[A-Z]+)*", head)
    count = len(head.split())
    assert all(len(re.split(r"  +", row.strip())) == count for row in rows)


def test_nothing_is_cut_off_in_a_pipe(web: Vorch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    name = "a" + "b" * 61 + "c"
    web.well("create", name, "--disk", "1")
    assert name in web.well("list").out


def test_what_is_shown_cannot_steer_a_terminal(web: Vorch) -> None:
    web.well("network", "create", "lab", "--kind", "isolated")
    description = "two\nlines [red]not red[/red]"
    web.well("change", "web", "--description", description)
    shown = web.well("show", "web").out
    assert "[red]not red[/red]" in shown
    ended = web("change", "web", "--description", "\x1b[2J")
    assert ended.code == 2
    assert "\x1b" not in web("show", "\x1b[2J").err


def test_progress_goes_to_stderr_a_line_per_step(web: Vorch) -> None:
    ended = web.well("create", "db", "--image", "debian")
    assert len(ended.out.splitlines()) == 1
    assert re.search(r"^\[ *\d+%\] start db on h1$", ended.err, re.MULTILINE)
    quiet = web.well("create", "db2", "--image", "debian", "--json")
    assert quiet.err == ""


def quiet(ended: Ended) -> bool:
    return ended.out == "" and len(ended.err.splitlines()) == 1


# ---------------------------------------------------------------------------------------------
# Errors


@pytest.mark.parametrize(
    ("words", "code", "name"),
    [
        (("show", "nosuch"), 3, "not-found"),
        (("create", "web"), 4, "conflict"),
        (("create", "big", "--image", "debian", "--memory", "900G"), 5, "no-room"),
        (("create", "Bad_Name"), 2, "invalid"),
        (("create", "../../etc"), 2, "invalid"),
        (("create", "a", "--memory", "lots"), 2, "invalid"),
        (("create", "a", "--memory", "0"), 2, "invalid"),
        (("create", "a", "--disk", "512M"), 2, "invalid"),
        (("create", "a", "--vcpus", "x"), 2, "invalid"),
        (("create", "a", "--firmware", "lilo"), 2, "invalid"),
        (("create", "a", "--mac", "01:00:00:00:00:00"), 2, "invalid"),
        (("create", "a", "--address", "10.0.0.5"), 2, "invalid"),
        (("create", "a", "--user", "joe", "--ssh-key", "/nosuch.pub"), 2, "invalid"),
        (("create", "a", "--ssh-key", KEY), 2, "invalid"),
        (("create", "a", "--user-data", "/nosuch"), 2, "invalid"),
        (("stop", "web", "--timeout", "-1"), 2, "invalid"),
        (("stop", "web", "--timeout", "nan"), 2, "invalid"),
        (("stop", "web", "--wait", "soon"), 2, "invalid"),
        (("network", "create", "x", "--kind", "fast"), 2, "invalid"),
        (("list", "--nosuch"), 2, "invalid"),
        (("show",), 2, "invalid"),
        (("nosuch",), 2, "invalid"),
        (("disk", "nosuch"), 2, "invalid"),
        (("list", "more", "words"), 2, "invalid"),
        (("show", "a\udcff"), 2, "invalid"),
        (("create", "a", "--description", "\udc80"), 2, "invalid"),
        (("image", "import", "x", "/tmp/\udcfe.raw"), 2, "invalid"),
        (("--uri", "nosuch:", "list"), 12, "bad-config"),
    ],
)
def test_errors_have_one_form_and_a_code(
    web: Vorch, words: tuple[str, ...], code: int, name: str
) -> None:
    before = store(web)
    ended = web(*words)
    assert ended.code == code
    assert ended.err.splitlines()[-1].startswith(f"vorch: {name}: cannot ")
    assert ended.out == ""
    as_json = web(*words, "--json")
    assert as_json.code == code
    assert as_json.error["code"] == name
    assert set(as_json.error) == {"code", "message", "fields"}
    assert as_json.out == ""
    assert store(web) == before


def test_a_private_key_is_refused_and_not_repeated(web: Vorch, tmp_path: Path) -> None:
    key = tmp_path / "id"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nhush\n-----END OPENSSH PRIVATE KEY-----\n")
    ended = web("create", "a", "--user", "joe", "--ssh-key", str(key))
    assert ended.code == 2
    assert "hush" not in ended.err


def test_what_nobody_foresaw_is_one_line(web: Vorch, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("vorch.Orchestrator.list", mistaken)
    ended = web("list")
    assert ended.code == 1
    assert quiet(ended)
    assert ended.err.startswith("vorch: error: cannot go on: ZeroDivisionError: division by zero")
    assert "--verbose" in ended.err
    assert web("list", "--json").error["code"] == "error"
    assert "Traceback" in web("--verbose", "list").err


def test_a_failure_says_that_it_was_undone(web: Vorch) -> None:
    before = store(web)
    web.world.faults.fail("host:h1", "start", times=1)
    ended = web("create", "db", "--image", "debian")
    assert ended.code == 7
    assert ended.err.endswith("what had been done was undone\n")
    assert store(web) == before


def test_ctrl_c_undoes(web: Vorch, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store(web)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vorch.drivers.memory_host.MemoryHost.start", interrupted)
    ended = web("create", "db", "--image", "debian")
    assert ended.code == 130
    last = ended.err.splitlines()[-1]
    assert last == (
        "vorch: cancelled: cannot finish: it was interrupted; what had been done was undone"
    )
    assert store(web) == before
    assert web("create", "db", "--image", "debian", "--json").error["code"] == "cancelled"


def test_two_at_once_is_a_conflict(web: Vorch) -> None:
    codes: list[int] = []

    def meanwhile(point: str, journal: Any) -> None:
        if point == "before" and not codes:
            codes.append(web("pause", "web", "--wait", "0").code)

    with connect(web.uri, hook=meanwhile) as other:
        other.stop("web")
    assert codes == [4]


# ---------------------------------------------------------------------------------------------
# Completion


def completed(vorch: Vorch, monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
    words = f"vorch --uri {vorch.uri} {line}"
    monkeypatch.setenv("_VORCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    vorch._capture.readouterr()
    from vorch_cli.main import main

    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    captured = vorch._capture.readouterr()
    assert captured.err == ""
    return captured.out.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("star", ["start"]),
        (
            "disk ",
            [
                "attach",
                "detach",
                "grow",
                "list",
                "move",
                "flatten",
                "sparsify",
                "export",
                "limit",
            ],
        ),
        ("start ", ["web"]),
        ("show we", ["web"]),
        ("show x", []),
        ("image show ", ["debian"]),
        ("create a --image ", ["debian"]),
        ("network show ", ["default"]),
        ("node show ", ["h1"]),
        ("rule show ", []),
        ("volume list ", ["local"]),
    ],
)
def test_tab(web: Vorch, monkeypatch: pytest.MonkeyPatch, line: str, offered: list[str]) -> None:
    assert completed(web, monkeypatch, line) == offered


def test_tab_is_silent_where_nothing_can_be_opened(
    vorch: Vorch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "deep" / "vorch.db"
    for uri in ("nosuch:", f"sqlite://{file}", "sqlite://relative"):
        vorch.uri = uri
        assert completed(vorch, monkeypatch, "start ") == []
    assert not file.parent.exists()


def test_vms_are_listed_by_tag(web: Vorch) -> None:
    web.well("change", "web", "--tag", "shop", "--tag", "team:web")
    web.well("create", "db", "--no-network", "--tag", "shop")
    listed = [one["vm"]["name"] for one in web.well("list", "--tag", "shop", "--json").json]
    assert listed == ["db", "web"]
    assert "team:web" in web.well("show", "web").out
    listed = [one["vm"]["name"] for one in web.well("list", "--tag", "team:web", "--json").json]
    assert listed == ["web"]
    web.well("change", "web", "--no-tags")
    assert web.well("show", "web", "--json").json["vm"]["tags"] == []
