"""`vorch send` in words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.conftest import Vorch
from vorch.drivers import memory


@pytest.fixture
def other(
    vorch: Vorch, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Vorch]:
    found = Vorch(f"{vorch.uri}-other", capsys, monkeypatch)
    yield found
    memory.forget(found.uri.partition(":")[2])


def test_a_vm_goes_to_another_cluster(vorch: Vorch, other: Vorch) -> None:
    assert other("network", "create", "office", "--kind", "bridge", "--bridge", "br0").code == 0
    assert vorch("create", "web", "--disk", "1G").code == 0
    refused = vorch("send", "web", other.uri, "--network", "default")
    assert refused.code != 0
    assert "HERE=THERE" in refused.err
    words = ("send", "web", other.uri, "--network", "default=office")
    planned = vorch(*words, "--dry-run")
    assert planned.code == 0, planned.err
    assert "record web as a VM of" in planned.out
    assert [one["vm"]["name"] for one in vorch("list", "--json").json] == ["web"]
    sent = vorch(*words, "--json")
    assert sent.code == 0, sent.err
    assert sent.json["task"]["result"]["cluster"] == other.uri
    assert vorch("list", "--json").json == []
    (there,) = other("list", "--json").json
    assert there["vm"]["nics"][0]["network"] == "office"
    assert other("start", "web").code == 0
