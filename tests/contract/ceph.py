"""The Ceph that tests of the state run on: that of the lab, a namespace for each store."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

import pytest

from vorch.drivers.rados_connection import ceph_address, kept_cluster
from vorch.drivers.rados_state import OBJECT, RadosState
from vorch.lab import Lab
from vorch.lab.spec import CEPH_USER, POOL

# Short, so that a test of an outage is short, too; longer than a failover in the lab takes.
TIMEOUT_S = 20.0


class Ceph(NamedTuple):
    conf: str
    user: str
    pool: str

    def uri(self, namespace: str) -> str:
        return f"rados://{self.pool}/{namespace}?conf={quote(self.conf)}&id={self.user}"


def ceph_of(lab: Lab) -> Ceph:
    return Ceph(str(lab.spec.ceph_conf), CEPH_USER, POOL)


def the_lab(request: pytest.FixtureRequest) -> Lab:
    """The lab of the whole run, or the one that stands already and VORCH_TEST_LAB names."""
    name = os.environ.get("VORCH_TEST_LAB")
    if name:
        return Lab.find(name)
    made: Lab = request.getfixturevalue("lab")
    return made


def rados_state(uri: str, *, timeout_s: float = TIMEOUT_S, **more: float) -> RadosState:
    address = ceph_address(uri)
    return RadosState(
        address.pool,
        address.namespace,
        conf=address.conf,
        user=address.user,
        timeout_s=timeout_s,
        poll_watching_s=more.get("poll_watching_s", 2.0),
        kept_commits=int(more.get("kept_commits", 1000)),
    )


@contextlib.contextmanager
def ioctx_of(uri: str) -> Iterator[object]:
    """Past the driver, to look at what it keeps or to spoil it."""
    address = ceph_address(uri)
    cluster = kept_cluster(address.conf, address.user, TIMEOUT_S)
    try:
        # Closed before the connection is: whoever has it in a variable still would hold that up.
        with cluster.handle().open_ioctx(address.pool) as ioctx:
            ioctx.set_namespace(address.namespace)
            yield ioctx
    finally:
        cluster.release()


@contextlib.contextmanager
def namespace_of(ceph: Ceph) -> Iterator[str]:
    """The URI of a store that nobody has used yet; it is gone afterwards."""
    import rados

    uri = ceph.uri(f"test-{secrets.token_hex(6)}")
    try:
        yield uri
    finally:
        with ioctx_of(uri) as ioctx, contextlib.suppress(rados.ObjectNotFound):
            ioctx.remove_object(OBJECT)  # type: ignore[attr-defined]
