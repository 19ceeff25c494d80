"""`vorch history` and `vorch node history`, as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Vorch
from vorch import Recorder, connect


def test_a_table_of_what_was_measured(
    web: Vorch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a service on this machine does.
    monkeypatch.setenv("VORCH_HISTORY_PATH", str(tmp_path / "history.db"))
    assert web("history", "web").err.startswith("vorch: unsupported: cannot show what was before")
    web.well("start", "web")
    with connect(web.uri) as cluster, cluster.picture() as picture:
        recorder = Recorder(cluster)
        for _ in range(3):
            recorder.take(picture.figures())
            web.world.clock.sleep(15)
        (host,) = cluster.look().nodes
    assert len(web.well("history", "web").out.splitlines()) == 3
    assert len(web.well("node", "history", host, "--for", "1h").out.splitlines()) == 3
    told = web.well("history", "web", "--json").json
    assert [point["rates"]["memory_mib"] > 0 for point in told["points"]] == [True, True]
    assert web("history", "web", "--for", "2d").err.startswith("vorch: invalid: cannot look back")
