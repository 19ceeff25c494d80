"""Sizes, times and addresses as people write them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vorch import Invalid, StaticAddress
from vorch_cli import sizes


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("512", 512),
        ("512M", 512),
        ("512mib", 512),
        ("2G", 2048),
        ("2 GiB", 2048),
        ("1.5g", 1536),
        ("1T", 1024 * 1024),
        ("1tib", 1024 * 1024),
    ],
)
def test_memory(text: str, mib: int) -> None:
    assert sizes.memory_mib(text) == mib


@pytest.mark.parametrize(
    ("text", "gib"), [("20", 20), ("20G", 20), ("1T", 1024), ("2048M", 2), ("0.5T", 512)]
)
def test_disk(text: str, gib: int) -> None:
    assert sizes.disk_gib(text) == gib


@pytest.mark.parametrize(
    "text",
    ["", " ", "G", "-1G", "+1", "2GB", "2 G B", "1e3", "0x10", "nan", "1,5G", "٣", "1" * 13],
)
def test_nonsense_is_invalid(text: str) -> None:
    for read in (sizes.memory_mib, sizes.disk_gib):
        with pytest.raises(Invalid):
            read(text)


@pytest.mark.parametrize("text", ["1.5G", "512M", "0.1T", "1M"])
def test_disks_are_whole_gib(text: str) -> None:
    with pytest.raises(Invalid, match="whole number of GiB"):
        sizes.disk_gib(text)


def test_memory_is_whole_mib() -> None:
    with pytest.raises(Invalid, match="whole number of MiB"):
        sizes.memory_mib("0.3")


@given(st.text())
def test_any_text_is_a_size_or_invalid(text: str) -> None:
    for read in (sizes.memory_mib, sizes.disk_gib, sizes.seconds):
        with suppress(Invalid):
            assert read(text) >= 0


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "604801", "5 min"])
def test_times(text: str) -> None:
    assert sizes.seconds("1.5") == 1.5
    with pytest.raises(Invalid):
        sizes.seconds(text)


def test_addresses() -> None:
    assert sizes.address("DHCP") is None
    assert sizes.address("10.0.0.5/24") == StaticAddress(address="10.0.0.5/24")
    assert sizes.address("10.0.0.5/24, 10.0.0.1,9.9.9.9,8.8.8.8") == StaticAddress(
        address="10.0.0.5/24", gateway="10.0.0.1", dns=("9.9.9.9", "8.8.8.8")
    )
    assert sizes.address("10.0.0.5/24,,9.9.9.9") == StaticAddress(
        address="10.0.0.5/24", dns=("9.9.9.9",)
    )
    for text in ("", "10.0.0.5", "10.0.0.5/24,10.9.0.1", "dhcp,10.0.0.1", "a/b"):
        with pytest.raises(Invalid):
            sizes.address(text)


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (20 * 1024**3, "20 GiB"), (1024**4, "1 TiB")],
)
def test_shown_bytes(size: int, shown: str) -> None:
    assert sizes.shown_bytes(size) == shown


@pytest.mark.parametrize(
    ("span_s", "shown"),
    [
        (0.04, "0.0 s"),
        (42.4, "42 s"),
        (59.7, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (277000, "3 d 4 h"),
    ],
)
def test_shown_span(span_s: float, shown: str) -> None:
    assert sizes.shown_span(span_s) == shown
