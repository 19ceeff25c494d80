"""Fixtures for everybody: the real parts of this machine, or the reason why there are none."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def libvirt_system() -> str:
    """The URI of this machine's libvirt, when it answers."""
    libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root may use this machine's libvirt")
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("QEMU is not installed")
    try:
        libvirt.open("qemu:///system").close()
    except libvirt.libvirtError as exc:
        pytest.skip(f"libvirt does not answer: {exc}")
    return "qemu:///system"
