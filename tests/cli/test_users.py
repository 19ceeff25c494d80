"""Users, tokens and the audit log by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Vorch


@pytest.fixture
def quick(vorch: Vorch, tmp_path: Path) -> Vorch:
    """argon2 as quick as it can be, as anybody could set it."""
    (tmp_path / "vorch.toml").write_text("password_memory_mib = 1\npassword_rounds = 1\n")
    return vorch


def test_a_user_from_the_first_day_to_the_last(quick: Vorch, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("correct horse battery\nand no more\n")
    added = quick.well(
        "user", "add", "alice", "--password-file", str(file), "--quota", "vms=2,memory=4G,disk=1T"
    )
    assert "VMs with the tag owner:alice" in added.out
    told = quick.well("user", "show", "alice", "--json").json
    assert told["user"]["quota"] == {
        "vms": 2,
        "vcpus": None,
        "memory_mib": 4096,
        "disk_gib": 1024,
    }
    quick.well("create", "web", "--no-network", "--tag", "owner:alice")
    listed = quick.well("user", "list").out
    assert "1 of 2" in listed
    assert "of 1 TiB" in listed or "of 1" in listed
    assert "password" in listed
    quick.well("user", "change", "alice", "--role", "operator", "--no-quota", "--disable")
    shown = quick.well("user", "show", "alice").out
    assert "operator" in shown
    assert "disabled" in shown
    assert quick("user", "remove", "alice").code == 2
    quick.well("user", "remove", "alice", "--yes")
    assert quick.well("user", "list", "--json").json == []


def test_a_token_is_shown_once(quick: Vorch) -> None:
    quick.well("user", "add", "alice")
    made = quick.well("token", "create", "alice", "--role", "viewer", "--days", "2")
    assert made.out.startswith("vorch_")
    secret = made.out.strip()
    assert secret not in made.err
    token = quick.well("token", "list", "--json").json[0]
    assert token["role"] == "viewer"
    as_json = quick.well("token", "create", "alice", "--json").json
    assert as_json["secret"].startswith(f"vorch_{as_json['token']['id']}_")
    for words in (("token", "list"), ("audit", "list"), ("task", "list", "--json")):
        assert secret.rpartition("_")[2] not in quick.well(*words).out
    quick.well("token", "revoke", token["id"])
    assert len(quick.well("token", "list", "--user", "alice", "--json").json) == 1


def test_the_log(quick: Vorch) -> None:
    quick.well("create", "web", "--no-network")
    quick.well("delete", "web", "--yes")
    told = quick.well("audit", "list", "--verb", "delete", "--json").json
    assert [(one["subject"], one["result"], one["source"]) for one in told] == [
        ("web", "done", "local")
    ]
    assert "delete web" in quick.well("audit", "list").out
    assert quick.well("audit", "list", "--who", "nobody", "--json").json == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--quota", "vms"), "as a quota"),
        (("--quota", "vms=-1"), "as a quota"),
        (("--quota", "cars=1"), "vms, vcpus, memory, disk"),
        (("--role", "king"), "as role"),
        (("--password",), "there is no terminal"),
        (("--password-file", "/nosuch"), "cannot read the password"),
    ],
)
def test_what_makes_no_sense(quick: Vorch, words: tuple[str, ...], says: str) -> None:
    ended = quick("user", "add", "alice", *words)
    assert ended.code == 2
    assert says in ended.err
    assert quick.well("user", "list", "--json").json == []


def test_a_password_from_the_environment(quick: Vorch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VORCH_PASSWORD", "correct horse battery")
    quick.well("user", "add", "alice")
    assert quick.well("user", "show", "alice", "--json").json["user"]["password_at"] is not None
