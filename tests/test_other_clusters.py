"""Another cluster, as a process reaches it from its own: by its URI, and until it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

import vorch
from vorch.model import Node
from vorch.ports import Change


def connect(path: Path) -> vorch.Orchestrator:
    return vorch.connect(settings=vorch.Settings(uri=f"sqlite://{path}"), prepare=False)


def test_it_is_kept_and_closed_with_the_own_one(tmp_path: Path) -> None:
    uri = f"sqlite://{tmp_path}/there.db"
    with connect(tmp_path / "there.db") as there:
        there.world.state.commit([Change("node/h1", 0, vorch_node())])
    here = connect(tmp_path / "here.db")
    other = here.world.other(uri)
    assert other is here.world.other(uri)
    assert list(other.state.read(["node"])) == ["node/h1"]
    assert here.world.state.read(["node"]) == {}
    here.close()
    with pytest.raises(vorch.VorchError):
        other.state.read(["node"])


def vorch_node() -> dict[str, object]:
    node = Node(name="h1", uri="qemu:///system")
    return {"name": node.name, "uri": node.uri}


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with connect(tmp_path / "here.db") as here, pytest.raises(vorch.NotFound, match="no such file"):
        here.world.other(f"sqlite://{tmp_path}/there.db")
    assert not (tmp_path / "there.db").exists()


def test_one_that_was_moved_away_is_refused(tmp_path: Path) -> None:
    with connect(tmp_path / "there.db") as there:
        there.world.state.commit([Change("cluster/moved", 0, {"to": "rados://vms", "id": "1"})])
    with connect(tmp_path / "here.db") as here, pytest.raises(vorch.BadConfig, match="was moved"):
        here.world.other(f"sqlite://{tmp_path}/there.db")


def test_a_cluster_that_a_vm_is_coming_to_is_not_copied(tmp_path: Path) -> None:
    with connect(tmp_path / "there.db") as there:
        there.world.state.commit([Change("arrival/0123", 0, {"vm": "web", "arrived": False})])
    with pytest.raises(vorch.Conflict, match="arrival/0123"):
        vorch.copy_state(f"sqlite://{tmp_path}/there.db", f"sqlite://{tmp_path}/new.db")
