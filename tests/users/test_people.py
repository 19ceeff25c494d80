"""Users and tokens by the library: what is kept, what is refused, what is never seen."""

from __future__ import annotations

import json
import syslog
from pathlib import Path

import pytest

import vorch
from vorch import Doorkeeper, Orchestrator, Quota, Role, Settings, connect
from vorch.decide import people
from vorch.drivers import memory
from vorch.errors import Conflict, Denied, Invalid, NotFound
from vorch.execute import trim_audit

GOOD = "correct horse battery"


def test_users_are_added_changed_and_removed(cluster: Orchestrator) -> None:
    cluster.user_add("alice", quota=Quota(vms=2), password=GOOD, description="of sales")
    user = cluster.user_show("alice").user
    assert (user.role, user.scopes, user.quota.vms) == (Role.USER, ("owner:alice",), 2)
    assert user.password_at is not None
    cluster.user_change("alice", role="operator", disabled=True)
    user = cluster.user_show("alice").user
    # The scope that came with the role went with it.
    assert (user.role, user.scopes, user.disabled) == (Role.OPERATOR, ("*",), True)
    assert cluster.user_change("alice", disabled=True).task is None
    cluster.user_change("alice", password="")
    assert cluster.user_show("alice").user.password_at is None
    cluster.user_remove("alice")
    assert cluster.user_list() == ()
    assert cluster.world.state.read(["secret"]) == {}


def test_a_dry_run_changes_nothing(cluster: Orchestrator) -> None:
    done = cluster.user_add("alice", password=GOOD, dry_run=True)
    assert "VMs with the tag owner:alice" in done.plan.why
    assert cluster.user_list() == ()
    cluster.user_add("alice")
    assert cluster.token_create("alice", dry_run=True).secret == ""
    cluster.user_remove("alice", dry_run=True)
    assert cluster.token_list() == ()
    assert cluster.world.state.read(["secret"]) == {}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "Alice"}, "as user name"),
        ({"name": "a/b"}, "as user name"),
        ({"name": "service"}, "as user name"),
        ({"name": "alice", "role": "king"}, "viewer, user, operator, admin"),
        ({"name": "alice", "scopes": ("a b",)}, "as a tag of user 'alice'"),
        ({"name": "alice", "scopes": ("*", "shop")}, "all VMs already"),
        ({"name": "alice", "password": "short"}, "12 to 1024"),
        ({"name": "alice", "password": "alice-alice-alice"}, "easily guessed"),
        ({"name": "alice", "password": "aaaaaaaaaaaaaaaa"}, "easily guessed"),
    ],
)
def test_what_is_no_user(cluster: Orchestrator, wrong: dict[str, str], says: str) -> None:
    with pytest.raises(Invalid, match=says.replace("*", r"\*")):
        cluster.user_add(**wrong)  # type: ignore[arg-type]
    assert cluster.user_list() == ()


def test_one_name_and_one_identity_for_one_user(cluster: Orchestrator) -> None:
    cluster.user_add("alice", external="https://id.example|17")
    with pytest.raises(Conflict, match="there is one of that name"):
        cluster.user_add("alice")
    with pytest.raises(Conflict, match="user 'alice' has it"):
        cluster.user_add("bob", external="https://id.example|17")
    with pytest.raises(NotFound):
        cluster.user_change("carol", role="admin")


def test_a_negative_quota_is_none(cluster: Orchestrator) -> None:
    with pytest.raises(Invalid, match="quota of VMs"):
        Quota(vms=-1)


def test_tokens(cluster: Orchestrator, keeper: Doorkeeper) -> None:
    cluster.user_add("alice", role="operator")
    made = cluster.token_create("alice", role="viewer", days=1, description="for a script")
    assert made.secret.startswith(f"vorch_{made.token.id}_")
    found = keeper.by_token(made.secret, "10.0.0.9")
    assert found is not None
    assert (found.name, found.role, found.source) == ("alice", Role.VIEWER, "10.0.0.9")
    # Nothing that is kept, told or printed has the secret in it.
    secret = made.secret.rpartition("_")[2]
    assert secret not in str(world_of(cluster).store.texts)
    assert secret not in json.dumps(vorch.shown(made))
    assert secret not in repr((made, cluster.task_list(), cluster.audit_list()))
    with pytest.raises(Denied, match="no more rights than its user"):
        cluster.token_create("alice", role="admin")
    for days in (0, -1, 4000, float("inf")):
        with pytest.raises(Invalid):
            cluster.token_create("alice", days=days)


def test_a_user_has_only_so_many_tokens(
    cluster: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "TOKENS_MOST", 2)
    cluster.user_add("alice")
    cluster.user_add("bob")
    first = cluster.token_create("alice").token
    cluster.token_create("alice")
    cluster.token_create("bob")
    with pytest.raises(Conflict, match="has 2 already"):
        cluster.token_create("alice")
    cluster.token_revoke(first.id)
    cluster.token_create("alice")


def test_a_password_is_kept_as_a_hash_alone(cluster: Orchestrator) -> None:
    cluster.user_add("alice", password=GOOD)
    kept = dict(world_of(cluster).store.texts)
    assert GOOD not in str(kept)
    hashed = json.loads(kept.pop("secret/user.alice")[1])["password"]
    assert hashed.startswith("$argon2id$v=19$m=1024,t=1,p=1$")
    assert hashed not in str(kept)


@pytest.mark.parametrize("end", ["revoked", "expired", "disabled", "removed", "less"])
def test_a_token_ends(cluster: Orchestrator, end: str) -> None:
    cluster.user_add("alice", role="admin")
    made = cluster.token_create("alice", days=1)
    match end:
        case "revoked":
            cluster.token_revoke(made.token.id)
        case "expired":
            cluster.world.clock.sleep(24 * 3600 + 1)
        case "disabled":
            cluster.user_change("alice", disabled=True)
        case "removed":
            cluster.user_remove("alice")
            cluster.user_add("alice", role="admin")
        case "less":
            cluster.user_change("alice", role="viewer")
    found = Doorkeeper(cluster).by_token(made.secret, "local")
    if end == "less":
        assert found is not None
        assert found.role is Role.VIEWER
    else:
        assert found is None


@pytest.mark.parametrize("text", ["", "vorch_", "vorch_0_0", "t" * 43, "vorch_{id}_" + "0" * 64])
def test_what_is_no_token(cluster: Orchestrator, keeper: Doorkeeper, text: str) -> None:
    cluster.user_add("alice")
    made = cluster.token_create("alice")
    assert keeper.by_token(made.secret, "a") is not None
    assert keeper.by_token(text.format(id=made.token.id), "a") is None
    assert keeper.by_token(made.secret[:-1] + "!", "a") is None


def test_the_log_has_each_change_and_its_end(cluster: Orchestrator) -> None:
    cluster.create("web", disk_gib=1, networks=())
    with pytest.raises(Conflict):
        cluster.create("web", disk_gib=1, networks=())
    cluster.user_add("alice", password=GOOD)
    cluster.world.clock.sleep(1)
    cluster.user_change("alice", password=GOOD + "!")
    told = [(one.verb, one.subject, one.result) for one in cluster.audit_list()]
    assert told[:3] == [
        ("user change", "alice", "done"),
        ("user add", "alice", "done"),
        ("create", "web", "done"),
    ]
    newest = cluster.audit_list(limit=1)[0]
    assert (newest.who, newest.source) == ("you@memory", "local")
    assert cluster.audit_list(verb="create", result="done")[0].task
    assert cluster.audit_list(who="nobody") == ()


def test_the_log_has_failures(cluster: Orchestrator) -> None:
    cluster.create("web", disk_gib=1, networks=())
    world_of(cluster).faults.fail("host:h1", "start")
    with pytest.raises(vorch.VorchError):
        cluster.start("web")
    newest = cluster.audit_list(limit=1)[0]
    assert (newest.verb, newest.subject, newest.result) == ("start", "web", "failed")
    assert newest.code
    assert newest.message


def test_the_log_in_the_state_has_a_limit(cluster: Orchestrator) -> None:
    for number in range(30):
        cluster.user_add(f"u{number:02}")
    assert len(cluster.audit_list(limit=1000)) >= 30
    trim_audit(cluster.world.state, 7)
    left = cluster.audit_list()
    assert [one.subject for one in left] == [f"u{number:02}" for number in range(29, 22, -1)]


def test_the_log_goes_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    settings = Settings(uri="memory:", audit_log=str(file), password_memory_mib=1)
    with connect(settings=settings) as cluster:
        cluster.user_add("alice", password=GOOD, description="a\nb")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert (lines[-1]["verb"], lines[-1]["subject"]) == ("user add", "alice")
    assert GOOD not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_log_file_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(uri="memory:", audit_log=str(tmp_path / "nosuch" / "audit.log"))
    with connect(settings=settings) as cluster:
        cluster.user_add("alice")
        assert cluster.audit_list(limit=1)[0].subject == "alice"
    assert "audit log" in caplog.text
    with pytest.raises(vorch.BadConfig, match="whole path"):
        connect(settings=Settings(uri="memory:", audit_log="audit.log"))


def world_of(cluster: Orchestrator) -> memory.MemoryWorld:
    return memory.world_named(cluster.settings.uri.partition(":")[2])


def test_the_log_goes_to_syslog(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "syslog", lambda level, line: said.append((level, line)))
    with connect(settings=Settings(uri="memory:", audit_log="syslog")) as cluster:
        cluster.user_add("alice", description="a\nb")
        Doorkeeper(cluster).note("login", "eve\n", "10.0.0.9", "refused", "wrong", stranger=True)
    assert all("\n" not in line for _, line in said)
    (_, added), (level, refused) = said[-2:]
    assert json.loads(added)["subject"] == "alice"
    assert json.loads(refused)["who"] == "eve?"
    assert level == syslog.LOG_WARNING
