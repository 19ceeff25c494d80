"""`vorch ha` and `vorch rule`, as they are typed."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Vorch


def test_a_vm_is_looked_after(web: Vorch) -> None:
    assert web.well("ha", "list", "--json").json == []
    node = web.well("node", "list", "--json").json[0]["node"]["name"]
    web.well(
        *("ha", "set", "web", "--requested", "started", "--nodes", f"{node}:2", "--restricted"),
        *("--no-failback", "--max-restart", "2", "--max-relocate", "0", "--start-order", "1"),
        *("--start-delay", "5", "--moves", "cold", "--stop-timeout", "9", "--isolation", "fence"),
        *("--isolation-after", "30", "--guest-shutdown", "restart"),
    )
    settings = web.well("ha", "show", "web", "--json").json["settings"]
    assert settings == {
        "vm": "web",
        "requested": "started",
        "nodes": [{"node": node, "priority": 2}],
        "restricted": True,
        "failback": False,
        "max_restart": 2,
        "max_relocate": 0,
        "start_order": 1,
        "start_delay_s": 5.0,
        "moves": "cold",
        "stop_timeout_s": 9.0,
        "isolation": "fence",
        "isolation_after_s": 30.0,
        "guest_shutdown": "restart",
    }
    shown = web.well("ha", "show", "web").out
    assert f"{node}:2 only" in shown
    assert "fence after 30 s" in shown
    assert "not looked at yet" in web.well("ha", "list").out
    status = web.well("ha", "status").out
    assert "watches:" in status
    assert "nobody watches: run `vorch serve`" in status
    web.well("ha", "set", "web", "--nodes", "")
    assert web.well("ha", "show", "web", "--json").json["settings"]["nodes"] == []
    web.well("ha", "remove", "web")
    assert web("ha", "show", "web").code != 0


def test_the_policy_and_hands_off(vorch: Vorch) -> None:
    assert "shutdown of hosts: conditional" in vorch.well("ha", "policy").out
    vorch.well("ha", "policy", "--shutdown", "freeze", "--silent-share", "0.3")
    vorch.well("ha", "policy", "--balance-on-start")
    vorch.well("ha", "disarm", "--for", "2h", "--as", "ignore")
    status = vorch.well("ha", "status").out
    assert "shutdown freeze, silent share 0.3, balance on start yes" in status
    assert "disarmed (ignore) for another 2.0 h" in status
    assert vorch.well("ha", "status", "--json").json["disarmed"] is True
    vorch.well("ha", "arm")
    assert vorch.well("ha", "status", "--json").json["disarmed"] is False
    assert "as in 2h" in vorch("ha", "disarm", "--for", "soon").err


def test_what_is_kept_spare(vorch: Vorch) -> None:
    vorch.well("node", "change", next(iter(vorch.world.machines)), "--tag", "rack:r1")
    vorch.well("ha", "policy", "--spare", "warn", "--spare-hosts", "2", "--spare-over", "rack")
    assert "spare warn (for the loss of 2 hosts or a rack)" in vorch.well("ha", "status").out
    assert "any 2 hosts may die" in vorch.well("capacity").out
    vorch.well("ha", "policy", "--spare-hosts", "1", "--spare-over", "")
    assert "spare warn\n" in vorch.well("ha", "status").out
    assert "no host has a tag 'room:" in vorch("ha", "policy", "--spare-over", "room").err


def test_rules(web: Vorch) -> None:
    web.well("create", "db", "--image", "debian", "--no-start")
    node = web.well("node", "list", "--json").json[0]["node"]["name"]
    web.well("rule", "add", "pair", "--together", "--vms", "web,db")
    web.well("rule", "add", "here", "--on-nodes", f"{node}:1", "--vms", "db", "--soft")
    assert [one["rule"]["name"] for one in web.well("rule", "list", "--json").json] == [
        "here",
        "pair",
    ]
    assert f"on {node}:1" in web.well("rule", "list").out
    assert "together" in web.well("rule", "show", "pair").out
    web.well("rule", "remove", "pair")
    assert web("rule", "show", "pair").code != 0


@pytest.mark.parametrize("kind", [(), ("--together", "--apart")])
def test_a_rule_is_of_one_kind(web: Vorch, kind: tuple[str, ...]) -> None:
    assert "by one of" in web("rule", "add", "pair", *kind, "--vms", "web,db").err


def test_what_would_come_of_a_failure(web: Vorch) -> None:
    node = web.well("node", "list", "--json").json[0]["node"]["name"]
    web.well("ha", "set", "web")
    answer = web.well("whatif", "fail", node, "--json").json
    assert (answer["nodes"], answer["restarts"]) == ([node], [])
    assert [one["vm"] for one in answer["left"]] == ["web"]
    shown = web.well("whatif", "fail", node).out
    assert "These would stay off:" in shown
    assert web("whatif", "fail", "h9").code != 0


def test_rules_over_racks(web: Vorch) -> None:
    web.well("create", "db", "--image", "debian", "--no-start")
    node = web.well("node", "list", "--json").json[0]["node"]["name"]
    assert (
        "no host has a tag 'rack:…'"
        in web("rule", "add", "even", "--spread", "rack", "--vms", "web,db").err
    )
    web.well("node", "change", node, "--tag", "rack:r1", "--tag", "gpu", "--cpu-ratio", "4")
    shown = web.well("node", "show", node).out
    assert "rack:r1, gpu" in shown
    assert "4 at most" in shown
    assert web.well("node", "list", "--json").json[0]["node"]["tags"] == ["rack:r1", "gpu"]
    web.well(
        *("rule", "add", "even", "--spread", "rack", "--max-skew", "2", "--vms", "web,db"),
        *("--soft", "--weight", "3"),
    )
    web.well("rule", "add", "near", "--together", "--over", "rack", "--vms", "web,db")
    rule = web.well("rule", "show", "even", "--json").json["rule"]
    assert (rule["kind"], rule["over"], rule["max_skew"], rule["weight"]) == (
        *("spread", "rack", 2, 3.0),
    )
    listed = web.well("rule", "list").out
    assert "spread over rack, 2 more at most" in listed
    assert "together over rack" in listed
    wrong = web("rule", "add", "x", "--spread", "rack", "--over", "rack", "--vms", "web,db")
    assert "leave --over away" in wrong.err
    wrong = web("node", "change", node, "--tag", "x", "--no-tags")
    assert "--no-tags takes all tags away" in wrong.err
    web.well("node", "change", node, "--no-tags", "--cpu-ratio", "0")
    assert web.well("node", "list", "--json").json[0]["node"]["cpu_ratio"] is None


def test_what_a_vm_asks_of_hosts(web: Vorch) -> None:
    asks = ("--require-tag", "gpu", "--huge-pages", "2M", "--one-numa-cell")
    web.well("stop", "web", "--force")
    refused = web("change", "web", *asks)
    assert refused.code != 0
    node = web.well("node", "list", "--json").json[0]["node"]["name"]
    web.well("node", "change", node, "--tag", "gpu")
    web.world.host(node).lay_out(1, pages_mib=2048)
    web.well("node", "probe", node)
    web.well("change", "web", *asks)
    shown = web.well("show", "web").out
    assert "huge pages of 2M" in shown
    assert "asks for" in shown
    web.well("start", "web")
    web.well("change", "web", "--no-require-tags", "--no-one-numa-cell", "--huge-pages", "none")
    vm = web.well("show", "web", "--json").json["vm"]
    assert (vm["require_tags"], vm["huge_pages"], vm["one_numa_cell"]) == ([], "", False)


def test_room_is_kept_as_the_policy_says(vorch: Vorch) -> None:
    assert "is refused" in vorch.well("ha", "policy").out
    vorch.well("ha", "policy", "--spare", "ignore")
    assert "spare ignore" in vorch.well("ha", "status").out
    assert "keep, warn, ignore" in vorch("ha", "policy", "--spare", "some").err
