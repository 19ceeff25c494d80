"""libvirt's numbers about a migration, as a person reads them."""

from __future__ import annotations

import pytest

libvirt = pytest.importorskip("libvirt")

from vorch.drivers.libvirt_migration import MIB, reading  # noqa: E402 libvirt may not be there


def stats(**more: int) -> dict[str, int]:
    return {
        "type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED,
        "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT,
        "data_total": 1000 * MIB,
        "data_remaining": 250 * MIB,
        **more,
    }


def test_a_reading_says_how_far_it_is() -> None:
    percent, line = reading(stats(memory_dirty_rate=2560, memory_page_size=4096, downtime=120))
    assert percent == 75.0
    expected = "250 of 1000 MiB left, the guest writes 10 MiB/s, a pause of 120 ms is expected"
    assert line == expected


def test_what_slows_the_guest_down_is_said() -> None:
    _, line = reading(stats(auto_converge_throttle=20))
    assert line is not None
    assert line.endswith("slowed down by 20 %")


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"type": libvirt.VIR_DOMAIN_JOB_NONE},
        stats(data_total=0),
        stats(operation=libvirt.VIR_DOMAIN_JOB_OPERATION_SNAPSHOT),
    ],
)
def test_without_numbers_nothing_is_said(numbers: dict[str, int]) -> None:
    assert reading(numbers) == (None, None)
