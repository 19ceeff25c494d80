"""UEFI and a TPM on real libvirt: they work, they remember, and nothing of them outlives the VM."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.guests import (
    NVRAM_FOLDER,
    PREFIX,
    TPM_FOLDER,
    boot,
    embedded_cluster,
    guest_image,
    kept_of,
    virsh,
)
from vorch import Orchestrator

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]

NAME = PREFIX + "uefi"


@pytest.fixture(scope="module")
def cluster(libvirt_system: str) -> Iterator[Orchestrator]:
    image = guest_image("tiny")
    with embedded_cluster() as cluster:
        facts = cluster.node_show(cluster.node_list()[0].name).facts
        assert facts is not None
        if not facts.uefi:
            pytest.skip("no UEFI firmware is installed: install ovmf")
        cluster.image_import("tiny", str(image.path), memory_mib=image.memory_mib)
        yield cluster


def swtpm_of(vm_id: str) -> list[str]:
    """Command lines of the TPM emulators that serve this VM."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
        except OSError:
            continue
        line = b" ".join(words).decode(errors="replace")
        if words[0].endswith(b"swtpm") and vm_id in line:
            found.append(line)
    return found


@pytest.mark.thorough
def test_uefi_and_a_tpm_remember_and_are_forgotten(cluster: Orchestrator) -> None:
    tpm = shutil.which("swtpm") is not None
    cluster.create(NAME, image="tiny", firmware="uefi", tpm=tpm, networks=())
    vm_id = cluster.look().vm(NAME).id
    variables = NVRAM_FOLDER / f"{vm_id}_VARS.fd"
    with boot(cluster, NAME) as console:
        console.log_in()
        assert console.run("ls -d /sys/firmware/efi") == "/sys/firmware/efi"
        # The guest's firmware tables tell of the TPM, whether or not it has a driver for it.
        assert ("TPM2" in console.run("ls /sys/firmware/acpi/tables").split()) is tpm
    if tpm:
        assert "model='tpm-crb'" in virsh("dumpxml", NAME)
        assert len(swtpm_of(vm_id)) == 1
    cluster.stop(NAME, timeout_s=120)
    assert swtpm_of(vm_id) == []
    # Something that only this file holds.
    kept = variables.read_bytes()
    variables.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with boot(cluster, NAME) as console:
        assert "boot=2" in console.transcript
    cluster.stop(NAME, timeout_s=120)
    assert variables.read_bytes()[-1] == kept[-1] ^ 1
    assert len(kept_of(vm_id)) == 1 + tpm
    # In the trash it keeps them, for good it does not.
    cluster.delete(NAME)
    assert len(kept_of(vm_id)) == 1 + tpm
    cluster.undelete(NAME)
    cluster.delete(NAME, purge=True)
    assert kept_of(vm_id) == []
    assert not (TPM_FOLDER / vm_id).exists()
