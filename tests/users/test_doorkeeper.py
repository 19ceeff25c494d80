"""Logging in: who gets in, in which words others are refused, and how often they may try."""

from __future__ import annotations

import json

import pytest

from vorch import Doorkeeper, Orchestrator, Settings, connect
from vorch.decide import login
from vorch.drivers.passwords import Argon2Passwords
from vorch.errors import BadConfig, Denied, TooMany
from vorch.orchestrator import doorkeeper
from vorch.rights import Failures

GOOD = "correct horse battery"
HOME = "10.0.0.9"


@pytest.fixture
def alice(cluster: Orchestrator) -> Orchestrator:
    cluster.user_add("alice", role="operator", password=GOOD)
    return cluster


def test_a_login_is_known_by_its_cookie(alice: Orchestrator, keeper: Doorkeeper) -> None:
    session, cookie = keeper.log_in("alice", GOOD, HOME)
    found = keeper.by_session(cookie, HOME)
    assert found is not None
    principal, csrf = found
    assert (principal.name, principal.via, principal.id) == ("alice", "session", session.id)
    assert csrf == session.csrf
    # What opens the door is not in the store.
    kept = json.dumps({key: one.body for key, one in alice.world.state.read(["session"]).items()})
    assert cookie.partition(".")[2] not in kept
    for wrong in ("", ".", session.id, f"{session.id}.", cookie[:-1], f"../x.{cookie}"):
        assert keeper.by_session(wrong, HOME) is None
    keeper.log_out(principal)
    assert keeper.by_session(cookie, HOME) is None
    keeper.log_out(principal)
    told = [(one.verb, one.who, one.source, one.result) for one in alice.audit_list(who="alice")]
    assert ("login", "alice", HOME, "done") in told
    assert ("logout", "alice", HOME, "done") in told


@pytest.mark.parametrize("end", ["time", "password", "disabled", "removed"])
def test_a_login_ends(alice: Orchestrator, keeper: Doorkeeper, end: str) -> None:
    _, cookie = keeper.log_in("alice", GOOD, HOME)
    match end:
        case "time":
            alice.world.clock.sleep(alice.settings.session_h * 3600 + 1)
        case "password":
            alice.user_change("alice", password="another fine day")
        case "disabled":
            alice.user_change("alice", disabled=True)
        case "removed":
            alice.user_remove("alice")
    assert keeper.by_session(cookie, HOME) is None


def test_logins_that_are_over_are_cleared_away(alice: Orchestrator, keeper: Doorkeeper) -> None:
    for _ in range(3):
        keeper.log_in("alice", GOOD, HOME)
    assert len(alice.world.state.read(["session"])) == 3
    alice.world.clock.sleep(alice.settings.session_h * 3600 + 1)
    keeper.log_in("alice", GOOD, HOME)
    assert len(alice.world.state.read(["session"])) == 1


def test_a_user_has_only_so_many_logins(
    alice: Orchestrator, keeper: Doorkeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorkeeper, "SESSIONS_MOST", 3)
    cookies = [keeper.log_in("alice", GOOD, f"s{number}")[1] for number in range(5)]
    known = [keeper.by_session(one, HOME) is not None for one in cookies]
    assert known == [False, False, True, True, True]


def test_all_are_refused_in_the_same_words(alice: Orchestrator, keeper: Doorkeeper) -> None:
    alice.user_add("bare")
    alice.user_add("gone", password=GOOD, role="viewer")
    alice.user_change("gone", disabled=True)
    said = set()
    for number, (name, password) in enumerate(
        [
            ("alice", GOOD + "!"),
            ("alice", ""),
            ("alice", "x" * 5000),
            ("nobody", GOOD),
            ("bare", ""),
            ("gone", GOOD),
            ("", GOOD),
            ("../alice", GOOD),
            ("x" * 5000, GOOD),
            ("a\x00b\n", GOOD),
        ]
    ):
        with pytest.raises(Denied) as caught:
            keeper.log_in(name, password, f"10.0.1.{number}")
        said.add((caught.value.message, str(caught.value.fields)))
    assert len(said) == 1
    refused = alice.audit_list(verb="login", result="refused")
    assert {one.message for one in refused} == {"wrong user or password"}
    assert GOOD not in str(refused)


def test_too_many_wrong_ones_lock_out(alice: Orchestrator, keeper: Doorkeeper) -> None:
    """A user that is there and one that is not look alike from outside."""
    for name in ("alice", "nobody"):
        for number in range(alice.settings.login_lock_after):
            with pytest.raises(Denied):
                keeper.log_in(name, "wrong", f"{name}-{number}")
        with pytest.raises(TooMany) as caught:
            keeper.log_in(name, GOOD, f"{name}-last")
        assert caught.value.fields == {"retry_after_s": 60}
    alice.world.clock.sleep(61)
    # Another process has counted along.
    with pytest.raises(Denied):
        Doorkeeper(alice).log_in("alice", "wrong", "b")
    with pytest.raises(TooMany) as caught:
        keeper.log_in("alice", GOOD, "c")
    assert caught.value.fields == {"retry_after_s": 120}
    alice.world.clock.sleep(121)
    keeper.log_in("alice", GOOD, "d")
    with pytest.raises(Denied):
        keeper.log_in("alice", "wrong", "e")
    keeper.log_in("alice", GOOD, "f")


def test_a_new_password_unlocks(alice: Orchestrator, keeper: Doorkeeper) -> None:
    for number in range(6):
        with pytest.raises((Denied, TooMany)):
            keeper.log_in("alice", "wrong", f"s{number}")
    alice.user_change("alice", password="another fine day")
    keeper.log_in("alice", "another fine day", HOME)


def test_one_address_tries_only_so_often(alice: Orchestrator, keeper: Doorkeeper) -> None:
    for number in range(alice.settings.login_tries_per_minute):
        with pytest.raises(Denied):
            keeper.log_in(f"user{number}", "wrong", HOME)
    with pytest.raises(TooMany) as caught:
        keeper.log_in("alice", GOOD, HOME)
    assert 1 <= caught.value.fields["retry_after_s"] <= 60
    keeper.log_in("alice", GOOD, "10.0.0.10")


def test_strangers_do_not_fill_the_log(alice: Orchestrator, keeper: Doorkeeper) -> None:
    for number in range(200):
        keeper.note("login", f"u{number}", "x", "refused", "wrong", stranger=True)
    assert len(alice.audit_list(result="refused", limit=1000)) == 60


def test_what_is_written_down_of_strangers_steers_no_terminal(
    alice: Orchestrator, keeper: Doorkeeper
) -> None:
    with pytest.raises(Denied):
        keeper.log_in("\x1b[2Jalice\n" + "y" * 999, GOOD, HOME)
    newest = alice.audit_list(limit=1)[0]
    assert newest.who.isprintable()
    assert len(newest.who) <= 200


def test_a_weak_hash_is_made_anew_at_the_next_login(alice: Orchestrator) -> None:
    uri = alice.settings.uri
    with connect(settings=Settings(uri=uri, password_memory_mib=2, password_rounds=2)) as stronger:
        keeper = Doorkeeper(stronger)
        keeper.log_in("alice", GOOD, HOME)
        document = stronger.world.state.get("secret/user.alice")
        assert document is not None
        assert document.body["password"].startswith("$argon2id$v=19$m=2048,t=2,p=1$")
        keeper.log_in("alice", GOOD, HOME)


def test_whom_the_provider_knows(alice: Orchestrator, keeper: Doorkeeper) -> None:
    alice.user_change("alice", external="https://id.example|17")
    session, _ = keeper.log_in_as("https://id.example|17", HOME)
    assert session.user == "alice"
    for stranger in ("", "https://id.example|18", "https://other.example|17"):
        with pytest.raises(Denied, match="ask an admin"):
            keeper.log_in_as(stranger, HOME)
    alice.user_change("alice", disabled=True)
    with pytest.raises(Denied):
        keeper.log_in_as("https://id.example|17", HOME)


def test_locks_grow_and_are_forgotten() -> None:
    failures, at, spans = Failures(), 1000.0, []
    for _ in range(12):
        failures = login.failed(failures, at, lock_after=3, lock_s=60)
        spans.append(login.locked_for(failures, at))
        at += spans[-1] + 1
    assert spans == [0, 0, 60, 120, 240, 480, 900, 900, 900, 900, 900, 900]
    later = login.failed(failures, at + 3601, lock_after=3, lock_s=60)
    assert (later.count, later.locked_until) == (1, 0.0)


def test_passwords_that_cannot_be_hashed() -> None:
    with pytest.raises(BadConfig, match="at least 1"):
        Argon2Passwords(memory_mib=0, rounds=1)
    quick = Argon2Passwords(memory_mib=1, rounds=1)
    hashed = quick.hash(GOOD)
    assert quick.matches(hashed, GOOD)
    assert not quick.matches(hashed, GOOD + " ")
    assert not quick.matches("no hash", GOOD)
    assert quick.outdated("no hash")
    assert hashed != quick.hash(GOOD)
