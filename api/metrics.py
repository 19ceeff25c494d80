"""/metrics: the cluster and this service, in the text format of Prometheus.

What is shown of the cluster is known already: from the picture, the last measurement and the
store. No host and no pool is asked while somebody waits.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vorch import Cluster, HostFigures, Orchestrator, Picture, VorchError, __version__

from .asking import let_in
from .gate import is_known
from .sampler import Measured, Sampler

MIB = 1024**2
HEALTH = {"HEALTH_OK": 0, "HEALTH_WARN": 1}
HTTP_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STATE_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)

router = APIRouter(tags=["service"])


class Metrics:
    """All that one service counts, in a registry of its own: two may share a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Histogram(
            "vorch_http_request_seconds",
            "How long requests took, by the path as it stands in the document of the API.",
            ("method", "route", "status"),
            buckets=HTTP_BUCKETS,
            registry=self.registry,
        )
        self._state = Histogram(
            "vorch_state_seconds",
            "How long the store of the cluster's state took to answer.",
            ("operation", "answered"),
            buckets=STATE_BUCKETS,
            registry=self.registry,
        )

    def observe_state(self, what: str, seconds: float, well: bool) -> None:
        """The `observe` of a connection."""
        self._state.labels(what, "yes" if well else "no").observe(seconds)

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).observe(seconds)

    def show(self, cluster: Orchestrator, picture: Picture, sampler: Sampler) -> None:
        """From now on what is known of the cluster is shown as well."""
        self.registry.register(_Shown(cluster, picture, sampler))

    def text(self) -> bytes:
        return generate_latest(self.registry)


@router.get("/metrics", summary="Figures for Prometheus", response_class=Response)
def metrics(request: Request) -> Response:
    # Whoever is near and nobody, as `metrics_open` has it, was let in by the gate.
    if is_known(request.scope):
        let_in(request, "metrics")
    found: Metrics = request.app.state.metrics
    return Response(found.text(), media_type=CONTENT_TYPE_LATEST)


class Measuring:
    """In front of everything, so that what is refused is counted, too."""

    METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = _route_of(scope)
            method = scope["method"] if scope["method"] in self.METHODS else "other"
            self._metrics.observe_request(method, route, status, time.monotonic() - began)


def _route_of(scope: Scope) -> str:
    """The path as the document of the API has it: words of strangers would make a series each."""
    if "route" in scope:
        return str(scope["route"].path)
    if "endpoint" not in scope:
        return "other"
    parts = scope["path"].split("/")
    for name, value in scope.get("path_params", {}).items():
        # From the end, as a VM may be called like what stands before it.
        for place in reversed(range(len(parts))):
            if parts[place] == str(value):
                parts[place] = f"{{{name}}}"
                break
    return "/".join(parts)


# ---------------------------------------------------------------------------------------------
# The cluster


class _Shown(Collector):
    def __init__(self, cluster: Orchestrator, picture: Picture, sampler: Sampler) -> None:
        self._cluster = cluster
        self._picture = picture
        self._sampler = sampler

    def describe(self) -> Iterable[Metric]:
        """None beforehand: to register must ask nobody."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield _one("vorch_info", "The version that answers.", {"version": __version__}, 1)
        measured = self._sampler.measured
        try:
            cluster = self._picture.look()
            parts = [
                *self._hosts(cluster, measured.hosts),
                *self._vms(cluster, measured.hosts),
                *_pools(measured),
                *_storage(measured),
                _promised(cluster),
                *self._tasks(),
                *self._availability(cluster),
            ]
        except VorchError:
            # Figures of before would be taken for those of now; that they are missing is told.
            yield _one("vorch_state_up", "Whether the state can be read.", {}, 0)
            return
        yield _one("vorch_state_up", "Whether the state can be read.", {}, 1)
        yield from parts

    def _hosts(self, cluster: Cluster, figures: Mapping[str, HostFigures]) -> Iterator[Metric]:
        up = _gauge("vorch_host_up", "Whether the host answers.", "host")
        cordoned = _gauge("vorch_host_cordoned", "Whether new VMs are kept off it.", "host")
        cpus = _gauge("vorch_host_cpus", "Its processors.", "host")
        memory = _gauge("vorch_host_memory_bytes", "Its memory.", "host")
        used = _gauge(
            "vorch_host_memory_used_bytes", "What of it is in use, caches left out.", "host"
        )
        busy = _counter("vorch_host_cpu_seconds", "Time that its processors were busy.", "host")
        given = _gauge("vorch_host_memory_given_bytes", "Memory of the VMs that run there.", "host")
        running: Tally[str] = Tally()
        for domain in cluster.domains.values():
            running[domain.node] += domain.memory_mib
        for name, node in sorted(cluster.nodes.items()):
            up.add_metric([name], name not in cluster.silent)
            cordoned.add_metric([name], node.cordoned)
            if node.facts is not None:
                cpus.add_metric([name], node.facts.cpus)
                memory.add_metric([name], node.facts.memory_mib * MIB)
            if name not in cluster.silent:
                given.add_metric([name], running[name] * MIB)
            if name in figures:
                used.add_metric([name], figures[name].memory_used_mib * MIB)
                busy.add_metric([name], figures[name].cpu_time_ns / 1e9)
        yield from (up, cordoned, cpus, memory, used, busy, given)

    def _vms(self, cluster: Cluster, figures: Mapping[str, HostFigures]) -> Iterator[Metric]:
        powers = {name: str(cluster.power(vm)) for name, vm in cluster.vms.items()}
        states = Tally(powers.values())
        total = _gauge("vorch_vms", "VMs by what they do.", "state")
        for state, count in sorted(states.items()):
            total.add_metric([state], count)
        yield total
        not_as_wanted = sum(
            vm.wanted == "running" and powers[name] in ("stopped", "crashed")
            for name, vm in cluster.vms.items()
        )
        yield _one("vorch_vms_down", "VMs that should run and are off.", {}, not_as_wanted)
        if not self._cluster.settings.metrics_vms:
            return
        labels = ("vm", "host")
        up = _gauge("vorch_vm_up", "Whether the VM runs.", *labels)
        memory = _gauge("vorch_vm_memory_bytes", "Memory that it has.", *labels)
        vcpus = _gauge("vorch_vm_vcpus", "vCPUs that it has.", *labels)
        busy = _counter("vorch_vm_cpu_seconds", "Time that its vCPUs ran.", *labels)
        read = _counter("vorch_vm_disk_read_bytes", "What its disks read.", *labels)
        written = _counter("vorch_vm_disk_written_bytes", "What they wrote.", *labels)
        received = _counter("vorch_vm_network_received_bytes", "What its NICs got.", *labels)
        sent = _counter("vorch_vm_network_sent_bytes", "What they sent.", *labels)
        for name, vm in cluster.vms.items():
            found, where = figures.get(vm.node), [name, vm.node]
            up.add_metric(where, powers[name] == "running")
            memory.add_metric(where, vm.memory_mib * MIB)
            vcpus.add_metric(where, vm.vcpus)
            now = None if found is None else found.vms.get(vm.id)
            if now is not None:
                busy.add_metric(where, now.cpu_time_ns / 1e9)
                read.add_metric(where, sum(disk.read_bytes for disk in now.disks))
                written.add_metric(where, sum(disk.written_bytes for disk in now.disks))
                received.add_metric(where, sum(nic.received_bytes for nic in now.nics))
                sent.add_metric(where, sum(nic.sent_bytes for nic in now.nics))
        yield from (up, memory, vcpus, busy, read, written, received, sent)

    def _tasks(self) -> Iterator[Metric]:
        kept = _gauge("vorch_tasks", "Tasks that are under way or kept.", "verb", "state")
        found = Tally((one.verb, one.state.value) for one in self._cluster.task_list())
        for (verb, state), count in sorted(found.items()):
            kept.add_metric([verb, state], count)
        yield kept

    def _availability(self, cluster: Cluster) -> Iterator[Metric]:
        status = self._picture.ha_status(cluster)
        yield _one("vorch_ha_watched", "Whether somebody watches over the VMs.", {}, status.watched)
        yield _one("vorch_ha_epoch", "Grows with each new leader.", {}, status.epoch)
        yield _one("vorch_ha_disarmed", "Whether nothing is done on purpose.", {}, status.disarmed)
        nodes = _gauge("vorch_ha_host", "What the leader takes a host for.", "host", "state")
        for node in status.nodes:
            if node.state is not None:
                nodes.add_metric([node.node, node.state.value], 1)
        vms = _gauge("vorch_ha_vms", "VMs that are looked after, by how far that is.", "state")
        by_state = Tally("unseen" if one.state is None else one.state.value for one in status.vms)
        for state, count in sorted(by_state.items()):
            vms.add_metric([state], count)
        yield from (nodes, vms)
        if status.drill is not None:
            yield _one(
                "vorch_ha_drill_timestamp_seconds",
                "When it was last tried out whether hosts can be fenced.",
                {},
                status.drill.at,
            )
            yield _one("vorch_ha_drill_passed", "Whether they could.", {}, status.drill.passed)


def _pools(measured: Measured) -> Iterator[Metric]:
    capacity = _gauge("vorch_pool_capacity_bytes", "What the pool can hold.", "pool")
    free = _gauge("vorch_pool_free_bytes", "What of that is free.", "pool")
    for name, room in measured.pools.items():
        capacity.add_metric([name], room.capacity_bytes)
        free.add_metric([name], room.free_bytes)
    yield from (capacity, free)


def _promised(cluster: Cluster) -> Metric:
    """What VMs' disks may grow to, whatever they take up now."""
    promised = _gauge("vorch_pool_provisioned_bytes", "What disks of VMs may grow to.", "pool")
    found: Tally[str] = Tally()
    for vm in cluster.vms.values():
        for disk in vm.data_disks:
            if disk.volume is not None:
                found[disk.volume.pool] += disk.size_bytes
    for name, size in sorted(found.items()):
        promised.add_metric([name], size)
    return promised


def _storage(measured: Measured) -> Iterator[Metric]:
    """What Ceph says of itself."""
    health = _gauge("vorch_ceph_health", "0: well, 1: with warnings, 2: not well.", "cluster")
    checks = _gauge("vorch_ceph_check", "A reason why it is not well.", "cluster", "check")
    monitors = _gauge("vorch_ceph_monitors", "Its monitors.", "cluster", "state")
    osds = _gauge("vorch_ceph_osds", "Its OSDs.", "cluster", "state")
    capacity = _gauge("vorch_ceph_capacity_bytes", "What its OSDs can hold.", "cluster")
    free = _gauge("vorch_ceph_free_bytes", "What of that is free.", "cluster")
    degraded = _gauge("vorch_ceph_degraded_objects", "Copies that are missing.", "cluster")
    for name, one in measured.storage.items():
        health.add_metric([name], HEALTH.get(one.status, 2))
        for check in one.checks:
            checks.add_metric([name, check], 1)
        monitors.add_metric([name, "all"], one.monitors)
        monitors.add_metric([name, "quorum"], one.monitors_in_quorum)
        osds.add_metric([name, "all"], one.osds)
        osds.add_metric([name, "up"], one.osds_up)
        osds.add_metric([name, "in"], one.osds_in)
        capacity.add_metric([name], one.capacity_bytes)
        free.add_metric([name], one.free_bytes)
        degraded.add_metric([name], one.degraded_objects)
    yield from (health, checks, monitors, osds, capacity, free, degraded)


def _gauge(name: str, words: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, labels=labels)


def _counter(name: str, words: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, words, labels=labels)


def _one(name: str, words: str, labels: Mapping[str, str], value: float) -> GaugeMetricFamily:
    found = _gauge(name, words, *labels)
    found.add_metric([*labels.values()], value)
    return found
