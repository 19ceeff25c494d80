"""The image with another hypervisor: what can be said of it without building one."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

from vorch.lab.xen_live import SERIES, take_over

FILES = files("vorch.lab")


def test_the_hypervisor_is_of_the_series_of_its_tools() -> None:
    """Tools of one series do not speak to a hypervisor of another."""
    install = FILES.joinpath("xen_files/install").read_text()
    assert f" xen-utils-{SERIES} " in install
    assert f" xen-hypervisor-{SERIES}-amd64 " in install
    assert f"/xen-{SERIES}/" in FILES.joinpath("xen_files/start").read_text()


def test_a_disk_is_shared_by_both_images_and_a_saved_state_is_not(tmp_path: Path) -> None:
    plain, shelf = tmp_path / "xen-1", tmp_path / "shelf"
    plain.mkdir()
    for name in ("dom0.raw", "vmlinux", "key", "xen", "state", "saved.qcow2"):
        (plain / name).write_text(name)
    take_over(plain, shelf)
    assert {one.name for one in shelf.iterdir()} == {"dom0.raw", "vmlinux", "key"}
    # Without taking room, and for good.
    assert (shelf / "dom0.raw").samefile(plain / "dom0.raw")
    shutil.rmtree(plain)
    assert (shelf / "dom0.raw").read_text() == "dom0.raw"
