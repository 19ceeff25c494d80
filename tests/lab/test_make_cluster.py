"""`vorch lab cluster`: from the hosts of a lab to a VM that runs, by what it says itself."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest

from tests.lab import bare
from vorch.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]


def vorch(*words: str, uri: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "vorch_cli", *words],
        env={**os.environ, **({"VORCH_URI": uri} if uri else {})},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_it_says_works(fresh_lab: Lab) -> None:
    name = fresh_lab.spec.name
    told = vorch("lab", "cluster", "--name", name)
    (export,) = [line for line in told.splitlines() if "export VORCH_URI=" in line]
    uri = shlex.split(export)[1].partition("=")[2]
    # Once more it finds all of it there.
    assert uri in vorch("lab", "cluster", "--name", name)
    hosts = vorch("node", "list", uri=uri)
    assert all(host in hosts for host in fresh_lab.spec.host_names)
    (create,) = [line for line in told.splitlines() if "vorch create web" in line]
    vorch(*shlex.split(create)[1:], uri=uri)
    bare.eventually(
        lambda: any("web" in host.vms for host in fresh_lab.status().hosts), "it really runs"
    )
    # The fence that a cluster of a lab has from the start is the host's own BMC, too.
    assert "redfish" in vorch("node", "show", "h1", "--json", uri=uri)
    vorch("delete", "web", "--force", "--purge", "--yes", uri=uri)
