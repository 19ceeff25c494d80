"""The libvirt driver on this machine's libvirt: what the contract does not say of every host."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.hypervisors import LibvirtUnderTest, a_disk
from vorch.errors import Conflict, Denied, NoRoom, NotFound, StepFailed, Unreachable
from vorch.model import FileSource, Firmware, Node, Power
from vorch.ports import no_progress

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def host(libvirt_system: str) -> Iterator[LibvirtUnderTest]:
    made = LibvirtUnderTest(libvirt_system)
    yield made
    made.close()


def handle(host: LibvirtUnderTest) -> Any:
    """libvirt-python's own connection, to look at things past the driver."""
    return host.hypervisor.connection.handle()  # type: ignore[attr-defined]


# -- the accelerator


def test_the_probe_is_sound_and_leaves_nothing(host: LibvirtUnderTest) -> None:
    from vorch.drivers import kvm_probe

    facts = replace(host.hypervisor.facts(), accelerator="tcg")
    identifier = str(uuid.uuid4())
    verdict = kvm_probe.run(handle(host), facts, identifier, session=False, progress=no_progress)
    assert verdict.works, verdict.seen
    # Others may be probing at the same time.
    name = f"vorch-probe-{identifier[:8]}"
    assert name not in [one.name() for one in handle(host).listAllDomains()]
    assert name not in [one.name() for one in handle(host).listAllStoragePools()]
    assert not Path("/var/lib/libvirt/images", name).exists()


def test_a_cpu_that_lacks_what_the_probe_needs_fails_it(host: LibvirtUnderTest) -> None:
    from vorch.drivers import kvm_probe

    # Without 64-bit mode the sector comes no further than real mode.
    facts = replace(host.hypervisor.facts(), accelerator="tcg")
    verdict = kvm_probe.run(
        handle(host),
        facts,
        str(uuid.uuid4()),
        session=False,
        progress=no_progress,
        cpu="pentium3",
    )
    assert not verdict.works
    assert "real mode" in verdict.seen
    assert "64-bit mode" in verdict.seen


def test_a_probed_host_knows_its_accelerator_and_why(libvirt_system: str) -> None:
    from vorch.drivers.kvm import KvmHost

    fresh = KvmHost(Node(name="h1", uri=libvirt_system), clock=lambda: 1234.5)
    assert fresh.facts().accelerator == ""
    lines: list[str] = []

    def progress(percent: float | None = None, line: str | None = None) -> None:
        if line:
            lines.append(line)

    facts = fresh.probe(progress)
    assert facts.accelerator in ("kvm", "tcg")
    assert facts.accelerator_why
    assert facts.probed_at == 1234.5
    assert fresh.facts() == facts
    assert lines[-1].startswith(f"accelerator: {facts.accelerator}")
    fresh.close()


# -- names and marks


def test_a_name_that_a_stranger_has_is_gone_round(host: LibvirtUnderTest) -> None:
    stranger = host.vm("taken")
    ours = host.vm("taken")
    host.hypervisor.start(stranger, {}, {})
    host.hypervisor.start(ours, {}, {})
    try:
        names = {one.UUIDString(): one.name() for one in handle(host).listAllDomains()}
        assert names[ours.id] == f"{ours.name}-{ours.id[:8]}"
        seen = host.hypervisor.domain(ours.id)
        assert seen is not None
        assert seen.name == ours.name
    finally:
        host.hypervisor.cut(stranger.id)
        host.hypervisor.cut(ours.id)


def test_somebody_elses_domain_is_shown_as_such(host: LibvirtUnderTest) -> None:
    name, identifier = "xml-stranger", str(uuid.uuid4())
    domain = handle(host).defineXML(
        f"<domain type='qemu'><name>{name}</name><uuid>{identifier}</uuid>"
        "<memory unit='MiB'>32</memory><os><type arch='x86_64'>hvm</type></os></domain>"
    )
    try:
        seen = host.hypervisor.domain(identifier)
        assert seen is not None
        assert (seen.name, seen.ours, seen.power) == (name, False, Power.STOPPED)
        assert seen in host.hypervisor.domains()
        with pytest.raises(Conflict, match="somebody defined"):
            host.hypervisor.start(replace(host.vm("x"), id=identifier), {}, {})
    finally:
        domain.undefine()


def test_awkward_characters_reach_libvirt_whole(host: LibvirtUnderTest) -> None:
    from vorch.domain_xml import read_domain

    plain = host.volume("awkward")
    path = Path(plain.path).with_name("a b,c&<'\">ü=.qcow2")
    Path(plain.path).rename(path)
    description = "<b>\"Tom\" & 'Jerry'</b> ]]> –"
    disk = a_disk("data.one_two-three")
    vm = host.vm("awkward", description=description, disks=(disk,))
    host.hypervisor.start(vm, {disk.name: FileSource(path=str(path), format="qcow2")}, {})
    try:
        seen = read_domain(handle(host).lookupByUUIDString(vm.id).XMLDesc())
        assert seen.description == description
        assert [(one.name, one.path) for one in seen.disks] == [(disk.name, str(path))]
        host.hypervisor.snapshot(vm, vm.data_disks, "s")
    finally:
        host.hypervisor.cut(vm.id)
    assert host.snapshots_of(FileSource(path=str(path), format="qcow2")) == {"s"}


# -- what outlives a run


def test_uefis_variables_outlive_a_rename_and_go_when_forgotten(host: LibvirtUnderTest) -> None:
    from vorch.drivers.kvm import SYSTEM_NVRAM_FOLDER, KvmHost

    assert isinstance(host.hypervisor, KvmHost)
    if not host.hypervisor.facts().uefi:
        pytest.skip("no UEFI firmware is installed")
    vm = host.vm("uefi", firmware=Firmware.UEFI, memory_mib=128, memory_max_mib=128)
    file = Path(SYSTEM_NVRAM_FOLDER, f"{vm.id}_VARS.fd")
    host.hypervisor.start(vm, {}, {})
    host.hypervisor.cut(vm.id)
    kept = file.read_bytes()
    # Something that only this file holds.
    marked = kept[:-1] + bytes([kept[-1] ^ 1])
    file.write_bytes(marked)
    renamed = replace(vm, name="xml-renamed")
    host.hypervisor.start(renamed, {}, {})
    try:
        with pytest.raises(Conflict):
            host.hypervisor.forget(renamed)
    finally:
        host.hypervisor.cut(vm.id)
    assert file.read_bytes()[-1] == marked[-1]
    for _ in range(2):
        host.hypervisor.forget(renamed)
    assert not file.exists()


def test_a_tpms_secrets_outlive_a_run_and_go_when_forgotten(host: LibvirtUnderTest) -> None:
    from vorch.drivers.kvm import KvmHost

    assert isinstance(host.hypervisor, KvmHost)
    if not host.hypervisor.facts().tpm:
        pytest.skip("no swtpm is installed")
    vm = host.vm("tpm", tpm=True)
    folder = Path("/var/lib/libvirt/swtpm", vm.id)
    host.hypervisor.start(vm, {}, {})
    host.hypervisor.cut(vm.id)
    assert folder.exists()
    host.hypervisor.forget(vm)
    assert not folder.exists()


# -- disks


def test_a_file_system_that_always_caches_is_coped_with(host: LibvirtUnderTest) -> None:
    folder = Path(tempfile.mkdtemp(prefix="vorch-test-", dir="/var/tmp"))
    mounted = subprocess.run(["mount", "-t", "ramfs", "ramfs", folder], check=False).returncode == 0
    try:
        if not mounted:
            pytest.skip("no ramfs can be mounted here")
        folder.chmod(0o711)
        root = shutil.copy(host.volume("cached").path, folder / "root.qcow2")
        extra = shutil.copy(host.volume("cached").path, folder / "extra.qcow2")
        vm = host.vm("cached", disks=(a_disk("root"),))
        host.hypervisor.start(vm, {"root": FileSource(path=str(root), format="qcow2")}, {})
        try:
            host.hypervisor.attach_disk(
                vm, a_disk("extra", "vdb"), FileSource(path=str(extra), format="qcow2")
            )
            text = handle(host).lookupByUUIDString(vm.id).XMLDesc()
            assert text.count("cache='writeback'") == 2
        finally:
            host.hypervisor.cut(vm.id)
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def test_a_disk_that_is_not_there_is_said_to_be(host: LibvirtUnderTest) -> None:
    vm = host.vm("lost", disks=(a_disk("root"),))
    with pytest.raises(NotFound, match=r"cannot start VM 'xml-lost' on 'h1': .*No such file"):
        host.hypervisor.start(
            vm, {"root": FileSource(path="/var/tmp/xml-none.qcow2", format="qcow2")}, {}
        )


def test_a_folder_that_qemu_may_not_enter_is_said_to_be(host: LibvirtUnderTest) -> None:
    from vorch.drivers.kvm_checks import folder_check

    folder = Path(tempfile.mkdtemp(prefix="vorch-test-", dir="/var/tmp"))
    try:
        path = shutil.copy(host.volume("shut").path, folder / "root.qcow2")
        vm = host.vm("shut", disks=(a_disk("root"),))
        capabilities = handle(host).getCapabilities()
        finding = folder_check(folder, capabilities)
        if finding.level == "ok":
            pytest.skip("QEMU runs as root here")
        assert str(folder) in finding.remedy
        with pytest.raises(Denied, match="QEMU user"):
            host.hypervisor.start(vm, {"root": FileSource(path=str(path), format="qcow2")}, {})
        folder.chmod(0o711)
        assert folder_check(folder, capabilities).level == "ok"
    finally:
        shutil.rmtree(folder)


def test_a_raw_disk_has_no_snapshots_inside(host: LibvirtUnderTest) -> None:
    from vorch.errors import Unsupported

    raw = Path(host.volume("raw").path).with_suffix(".raw")
    raw.write_bytes(bytes(2**20))
    vm = host.vm("raw", disks=(a_disk("root"), a_disk("raw", "vdb")))
    root = host.volume("root")
    places = {"root": root, "raw": FileSource(path=str(raw), format="raw")}
    host.hypervisor.start(vm, places, {})
    try:
        with pytest.raises(Unsupported, match="'raw'"):
            host.hypervisor.snapshot(vm, vm.data_disks, "s")
    finally:
        host.hypervisor.cut(vm.id)
    assert host.snapshots_of(root) == set()


# -- the connection


def test_a_daemon_that_does_not_run_is_unreachable() -> None:
    from vorch.drivers.kvm import KvmHost

    host = KvmHost(Node(name="h9", uri="qemu+unix:///system?socket=/nowhere/libvirt-sock"))
    with pytest.raises(Unreachable, match="see whether libvirtd runs"):
        host.domains()
    findings = host.checks()
    assert [one.level for one in findings] == ["error"]
    assert findings[0].remedy


@pytest.mark.parametrize(("timeout_s", "silences"), [(2.0, 3), (10.0, 3), (30.0, 9)])
def test_who_waits_longer_for_answers_bears_longer_silence(timeout_s: float, silences: int) -> None:
    from vorch.drivers.libvirt_connection import silences_borne

    assert silences_borne(3, timeout_s) == silences


def test_nothing_is_printed_past_the_errors(
    host: LibvirtUnderTest, capfd: pytest.CaptureFixture[str]
) -> None:
    assert host.hypervisor.domain(str(uuid.uuid4())) is None
    assert capfd.readouterr().err == ""


SESSION_STORY = """
    import os, signal, sys, time
    from dataclasses import replace
    from pathlib import Path
    from vorch.drivers.kvm import KvmHost
    from vorch.model import Disk, FileSource, Network, Nic, Node, Vm, Volume
    from vorch.errors import Unsupported

    folder = Path(sys.argv[1])
    first = KvmHost(Node(name="h1", uri="qemu:///session"))
    facts = first.facts()
    assert not facts.networks, facts
    host = KvmHost(Node(name="h1", uri="qemu:///session", facts=replace(facts, accelerator="tcg")))
    network = Network(name="lan", kind="nat", bridge="vo-lan", subnet="10.80.0.0/24")
    inner = Network(name="inner", kind="isolated", bridge="vo-inner", dhcp=False)
    host.ensure_network(network)
    try:
        host.ensure_network(inner)
    except Unsupported:
        print("isolated refused")
    vm = Vm(
        name="xml-session",
        id="6f1c7e0e-5a4f-4a8e-9e55-0f6d9a3b1c2d",
        node="h1",
        memory_mib=64,
        memory_max_mib=64,
        disks=(Disk(name="root", target="vda", volume=Volume(pool="p", name="root")),),
        nics=(Nic(name="lan", mac="52:54:00:aa:bb:07", network="lan"),),
    )
    source = FileSource(path=str(folder / "root.qcow2"), format="qcow2")
    host.start(vm, {"root": source}, {"lan": network})
    print("started", host.domain(vm.id).power)
    daemon = folder / "run/libvirt/libvirtd.pid"
    # Root's session may be served by the system's daemon, which is not ours to end.
    if daemon.exists():
        os.kill(int(daemon.read_text()), signal.SIGKILL)
        time.sleep(0.5)
    print("again", [one.name for one in host.domains() if one.name == vm.name])
    print("levels", {one.level for one in host.checks()} <= {"ok", "warning"})
    host.remove_network(network)
    host.cut(vm.id)
    print("gone", host.domain(vm.id))
    host.close()
"""


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_a_session_of_its_own_survives_its_daemon(libvirt_system: str, user: str) -> None:
    """Somebody's own libvirt: user networking; killed, it is started and asked again."""
    folder = Path(tempfile.mkdtemp(prefix="vorch-test-", dir="/var/tmp"))
    folder.chmod(0o711)
    places = {"XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": "config", "XDG_CACHE_HOME": "cache"}
    for name in places.values():
        (folder / name).mkdir(mode=0o700)
    environment = {**os.environ, **{key: str(folder / name) for key, name in places.items()}}
    environment |= {"HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    disk = folder / "root.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "16M"], check=True)
    account = pwd.getpwnam(user)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(SESSION_STORY), folder],
            env=environment,
            cwd=folder,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        if "No module named" in ended.stderr:
            pytest.skip(f"user {user} may not read vorch where it is")
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.splitlines() == [
            "isolated refused",
            "started running",
            "again ['xml-session']",
            "levels True",
            "gone None",
        ]
    finally:
        end_daemon(folder / "run/libvirt/libvirtd.pid")
        shutil.rmtree(folder, ignore_errors=True)


def end_daemon(pid_file: Path) -> None:
    try:
        daemon = int(pid_file.read_text())
        os.kill(daemon, signal.SIGTERM)
    except (FileNotFoundError, ProcessLookupError):
        return
    deadline = time.monotonic() + 10
    while Path(f"/proc/{daemon}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)


# -- the table of errors


def libvirt_error(code: int, message: str) -> Any:
    import libvirt

    error = libvirt.libvirtError(message)
    error.err = (code, 10, message, 2, message, None, None, -1, -1)
    return error


@pytest.mark.parametrize(
    ("code", "message", "kind", "words"),
    [
        (38, "Failed to connect socket to '/run/x': No such file or directory", Unreachable, "x"),
        (38, "Failed to connect socket to '/run/x': Permission denied", Denied, "group libvirt"),
        (38, "Cannot access storage file '/p/x': Permission denied", Denied, "/p/x"),
        (1, "internal error: client socket is closed", Unreachable, "closed"),
        (
            1,
            "internal error: process exited while connecting to monitor: "
            "2026-01-01T00:00:00.000001Z qemu-system-x86_64: cannot set up guest memory"
            " 'pc.ram': Cannot allocate memory",
            NoRoom,
            "cannot do it: cannot set up guest memory",
        ),
        (1, "internal error: something new", StepFailed, "something new; look at"),
        (42, "Domain not found: no domain with matching uuid", NotFound, "start it"),
    ],
)
def test_errors_are_translated(code: int, message: str, kind: type, words: str) -> None:
    from vorch.drivers.libvirt_connection import translate

    error = translate(libvirt_error(code, message), "do it")
    assert type(error) is kind
    assert error.message.startswith("cannot do it: ")
    assert words in error.message
    assert error.fields == {"libvirt_code": code}


# -- reading the kernel's routing table


def test_routes_are_read() -> None:
    from vorch.drivers.libvirt_figures import routes

    table = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "br0\t0000500A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    )
    assert list(routes(table)) == ["192.0.2.0/24", "10.80.0.0/16"]
