"""From two measurements of the same thing to what it did in between, per second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vorch.model import Figures, HostFigures, Rates

# Closer together, two measurements say more about the clock than about anything else.
SHORTEST_S = 0.5


def rates(
    before: Mapping[str, HostFigures], after: Mapping[str, HostFigures]
) -> tuple[dict[str, Rates], dict[str, Rates]]:
    """(by VM id, by host). What began, moved or was reset in between is left out."""
    vms: dict[str, Rates] = {}
    hosts: dict[str, Rates] = {}
    for node, now in after.items():
        then = before.get(node)
        if then is None or now.at - then.at < SHORTEST_S or now.cpu_time_ns < then.cpu_time_ns:
            continue
        here = {
            vm_id: one
            for vm_id, figures in now.vms.items()
            if vm_id in then.vms and (one := _vm(then.vms[vm_id], figures)) is not None
        }
        vms |= here
        hosts[node] = Rates(
            cpu=(now.cpu_time_ns - then.cpu_time_ns) / 1e9 / (now.at - then.at),
            memory_mib=now.memory_used_mib,
            disk_read_bytes_s=sum(one.disk_read_bytes_s for one in here.values()),
            disk_written_bytes_s=sum(one.disk_written_bytes_s for one in here.values()),
            received_bytes_s=sum(one.received_bytes_s for one in here.values()),
            sent_bytes_s=sum(one.sent_bytes_s for one in here.values()),
        )
    return vms, hosts


def _vm(before: Figures, after: Figures) -> Rates | None:
    span_s = after.at - before.at
    if span_s < SHORTEST_S or after.cpu_time_ns < before.cpu_time_ns:
        return None

    def grown(then: Mapping[str, int], now: Mapping[str, int]) -> float:
        """Of what was there both times: one that was plugged in anew began at nothing."""
        return sum(max(0, count - then.get(name, count)) for name, count in now.items()) / span_s

    return Rates(
        cpu=(after.cpu_time_ns - before.cpu_time_ns) / 1e9 / span_s,
        memory_mib=(after.memory_mib if after.memory_used_mib is None else after.memory_used_mib),
        disk_read_bytes_s=grown(
            _by_name((one.name, one.read_bytes) for one in before.disks),
            _by_name((one.name, one.read_bytes) for one in after.disks),
        ),
        disk_written_bytes_s=grown(
            _by_name((one.name, one.written_bytes) for one in before.disks),
            _by_name((one.name, one.written_bytes) for one in after.disks),
        ),
        received_bytes_s=grown(
            _by_name((one.name, one.received_bytes) for one in before.nics),
            _by_name((one.name, one.received_bytes) for one in after.nics),
        ),
        sent_bytes_s=grown(
            _by_name((one.name, one.sent_bytes) for one in before.nics),
            _by_name((one.name, one.sent_bytes) for one in after.nics),
        ),
    )


def _by_name(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    return dict(counts)
