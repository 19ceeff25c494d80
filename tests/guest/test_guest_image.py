"""The guest images for real: booted under emulation, logged in to, seeded, frozen, plugged into."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.decide import worlds
from tests.guest.serial import ANSWER_TIMEOUT_S, BOOT_TIMEOUT_S, SerialConsole
from vorch.decide.crossing import findings
from vorch.drivers.guest_look import look_into
from vorch.lab import guest

OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARS = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
READY = r"vorch-guest ready host=(\S+) ip=(\S+) boot=(\d+)\n"

pytestmark = pytest.mark.timeout(600)


class JsonSocket:
    """QEMU's monitor and its guest agent: a line of JSON out, a line of JSON back."""

    def __init__(self, path: Path, *, greeting: bool) -> None:
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._link.settimeout(20)
        self._link.connect(str(path))
        self._lines = self._link.makefile("r")
        if greeting:
            self._lines.readline()
            self.call("qmp_capabilities")

    def call(self, command: str, **arguments: object) -> Any:
        self._link.sendall(
            json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
        )
        while True:
            answer = json.loads(self._lines.readline())
            if "error" in answer:
                raise AssertionError(f"{command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def close(self) -> None:
        self._lines.close()
        self._link.close()


class Machine:
    """One QEMU running a guest on an overlay of its image."""

    def __init__(self, image: guest.GuestImage, folder: Path, *arguments: str) -> None:
        self.folder = folder
        overlay = folder / "disk.qcow2"
        subprocess.run(
            [
                *("qemu-img", "create", "-q", "-f", "qcow2"),
                *("-F", "qcow2", "-b", str(image.path), str(overlay)),
            ],
            check=True,
        )
        self.process = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-nodefaults", "-accel", "tcg", "-cpu", "qemu64"),
                *("-m", str(image.memory_mib), "-display", "none", "-vga", "std"),
                *(
                    "-drive",
                    f"file={overlay},if=none,id=disk",
                    "-device",
                    "virtio-blk-pci,drive=disk",
                ),
                *("-serial", f"unix:{folder}/serial,server=on,wait=off"),
                *("-qmp", f"unix:{folder}/monitor,server=on,wait=off"),
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
        )
        try:
            self.console = SerialConsole.connect(folder / "serial")
            self.monitor = JsonSocket(folder / "monitor", greeting=True)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def log_in(self, image: guest.GuestImage) -> None:
        self.console.login(image.login, image.password)

    def wait_until_off(self) -> None:
        self.process.wait(ANSWER_TIMEOUT_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.monitor.close()
        self.console.close()


Boot = Callable[..., Machine]


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Boot]:
    """Starts machines, and ends whichever is still running after the test."""
    machines: list[Machine] = []

    def start(image: guest.GuestImage, *arguments: str) -> Machine:
        folder = tmp_path / f"machine-{len(machines)}"
        folder.mkdir()
        machines.append(Machine(image, folder, *arguments))
        return machines[-1]

    yield start
    for machine in machines:
        machine.close()


def _image(kind: guest.Kind) -> guest.GuestImage:
    missing = guest.missing_programs(kind)
    if missing:
        pytest.skip(
            f"building '{kind}' needs {', '.join(missing)}: "
            f"install {' '.join(sorted(set(missing.values())))}"
        )
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("no qemu-system-x86_64: install qemu-system-x86")
    return guest.build(kind)


@pytest.fixture(scope="module")
def tiny() -> guest.GuestImage:
    return _image("tiny")


def _seed(folder: Path, user_data: str, network_config: str) -> list[str]:
    """The arguments that put a NoCloud CD on the machine's SATA controller."""
    if not shutil.which("xorriso"):
        pytest.skip("no xorriso: install xorriso")
    source = folder / "seed"
    source.mkdir()
    (source / "meta-data").write_text("instance-id: i-1\nlocal-hostname: web7\n")
    (source / "user-data").write_text(user_data)
    (source / "network-config").write_text(network_config)
    target = folder / "seed.iso"
    subprocess.run(
        [
            *("xorriso", "-as", "genisoimage", "-quiet", "-V", "cidata", "-J", "-r"),
            *("-o", str(target), str(source)),
        ],
        check=True,
        capture_output=True,
    )
    drive = f"file={target},if=none,id=cd,media=cdrom,readonly=on"
    return ["-drive", drive, "-device", "ide-cd,drive=cd"]


# crypt(3) of the password "secret".
SECRET = (
    "$6$pepper$2Z6D7B1GHphRwAkDE2YJPR/Tz3pYzJVGFj5UOun/"
    "UCaxbGzjpckaQI2gu8BE7DfAQVvJ1RMHN0aDV0DT6ow8L."
)
USER_DATA = f"""#cloud-config
users:
  - name: anna
    lock_passwd: false
    shell: /bin/sh
    hashed_passwd: "{SECRET}"
    ssh_authorized_keys: [ssh-ed25519 AAAAC3Nz anna@desk]
chpasswd:
  expire: false
  users: [{{name: root, password: other, type: text}}]
runcmd:
  - echo "first of $(hostname)" > /var/ran
  - [sh, -c, "echo 'second, by list' >> /var/ran; chmod 644 /var/ran"]
"""
# Not "to: default": cloud-init 22.4 refuses it and then configures no network at all.
NETWORK_CONFIG = """version: 2
ethernets:
  id0:
    match:
      macaddress: "52:54:00:AA:BB:01"
    addresses: [10.0.2.77/24]
    routes:
      - to: 0.0.0.0/0
        via: 10.0.2.2
    nameservers:
      addresses: [10.0.2.3]
"""
NIC = (
    "-netdev",
    "user,id=net",
    "-device",
    "virtio-net-pci,netdev=net,mac=52:54:00:aa:bb:01,romfile=",
)


@pytest.mark.real
def test_a_guest_by_bios_keeps_its_data_over_a_reboot(tiny: guest.GuestImage, boot: Boot) -> None:
    machine = boot(tiny, "-machine", "pc", *NIC)
    assert machine.console.expect(READY, BOOT_TIMEOUT_S).groups() == ("tiny", "10.0.2.15", "1")
    machine.log_in(tiny)
    machine.console.run("echo kept > /data/note; echo lost > /root/note")
    machine.console.send("reboot")
    assert machine.console.expect(READY, BOOT_TIMEOUT_S).groups() == ("tiny", "10.0.2.15", "2")
    machine.log_in(tiny)
    assert machine.console.run("cat /data/note; ls /root") == "kept"
    machine.monitor.call("system_powerdown")
    machine.wait_until_off()


@pytest.mark.real
def test_a_guest_by_uefi_ends_at_the_power_button(
    tiny: guest.GuestImage, boot: Boot, tmp_path: Path
) -> None:
    if not OVMF_CODE.exists():
        pytest.skip("no UEFI firmware: install ovmf")
    variables = tmp_path / "vars.fd"
    shutil.copy(OVMF_VARS, variables)
    machine = boot(
        tiny,
        *("-machine", "q35"),
        *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}"),
        *("-drive", f"if=pflash,format=raw,unit=1,file={variables}"),
    )
    assert machine.console.expect(READY, BOOT_TIMEOUT_S).groups() == ("tiny", "none", "1")
    machine.log_in(tiny)
    assert machine.console.run("ls -d /sys/firmware/efi") == "/sys/firmware/efi"
    machine.monitor.call("system_powerdown")
    machine.wait_until_off()


@pytest.mark.real
def test_a_seed_makes_the_guest_what_it_says(
    tiny: guest.GuestImage, boot: Boot, tmp_path: Path
) -> None:
    machine = boot(tiny, "-machine", "q35", *NIC, *_seed(tmp_path, USER_DATA, NETWORK_CONFIG))
    assert machine.console.expect(READY, BOOT_TIMEOUT_S).groups() == ("web7", "10.0.2.77", "1")
    machine.console.login("anna", "secret")
    assert machine.console.run("id -un; cat .ssh/authorized_keys /var/ran").splitlines() == [
        "anna",
        "ssh-ed25519 AAAAC3Nz anna@desk",
        "first of web7",
        "second, by list",
    ]
    machine.console.run(
        "ping -c 1 -w 5 10.0.2.2 > /dev/null || ip route | grep -q 'default via 10.0.2.2'"
    )
    machine.console.run("grep -q 'nameserver 10.0.2.3' /etc/resolv.conf")
    machine.console.send("exit")
    machine.console.login("root", "other")
    # A second start of the same instance: still itself without the CD, and no command runs again.
    machine.monitor.call("eject", device="cd", force=True)
    machine.console.send("reboot")
    assert machine.console.expect(READY, BOOT_TIMEOUT_S).groups() == ("web7", "10.0.2.77", "2")
    machine.console.login("root", "other")
    machine.console.run("test ! -e /var/ran")


@pytest.mark.real
def test_the_agent_answers_freezes_and_shuts_down(
    tiny: guest.GuestImage, boot: Boot, tmp_path: Path
) -> None:
    port = tmp_path / "agent"
    machine = boot(
        tiny,
        *("-machine", "pc", "-device", "virtio-serial-pci", *NIC),
        *("-chardev", f"socket,id=agent,path={port},server=on,wait=off"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
    )
    machine.console.expect(READY, BOOT_TIMEOUT_S)
    machine.log_in(tiny)
    agent = JsonSocket(port, greeting=False)
    try:
        assert agent.call("guest-ping") == {}
        interfaces = {each["name"]: each for each in agent.call("guest-network-get-interfaces")}
        addresses = [each["ip-address"] for each in interfaces["eth0"]["ip-addresses"]]
        assert "10.0.2.15" in addresses
        assert agent.call("guest-fsfreeze-freeze") == 1
        assert agent.call("guest-fsfreeze-status") == "frozen"
        machine.console.send("echo written > /data/late && echo un''blocked")
        with pytest.raises(AssertionError):
            machine.console.expect("unblocked", 2)
        assert agent.call("guest-fsfreeze-thaw") == 1
        machine.console.expect("unblocked", 10)
        agent._link.sendall(b'{"execute": "guest-shutdown"}\n')
        machine.wait_until_off()
    finally:
        agent.close()


@pytest.mark.real
def test_disks_nics_and_cpus_come_and_go(
    tiny: guest.GuestImage, boot: Boot, tmp_path: Path
) -> None:
    extra = tmp_path / "extra.raw"
    extra.write_bytes(bytes(1 << 20))
    machine = boot(
        tiny, "-machine", "pc", "-smp", "1,sockets=2,maxcpus=2", "-netdev", "user,id=late"
    )
    machine.console.expect(READY, BOOT_TIMEOUT_S)
    machine.log_in(tiny)

    monitor = machine.monitor
    monitor.call(
        "blockdev-add",
        driver="raw",
        **{"node-name": "extra"},
        file={"driver": "file", "filename": str(extra)},
    )
    monitor.call("device_add", driver="virtio-blk-pci", id="disk2", drive="extra")
    _until(machine, "cat /sys/block/vdb/size", "2048")
    monitor.call("device_add", driver="virtio-net-pci", id="nic2", netdev="late")
    _until(machine, "ip -4 -o addr show dev eth0 | grep -o 10.0.2.15", "10.0.2.15")
    monitor.call(
        "device_add",
        driver="qemu64-x86_64-cpu",
        id="cpu2",
        **{"socket-id": 1, "core-id": 0, "thread-id": 0},
    )
    _until(machine, "nproc", "2")
    monitor.call("device_del", id="disk2")
    _until(machine, "ls /sys/block | grep -c vdb", "0")


def _until(
    machine: Machine, command: str, answer: str, timeout_s: float = ANSWER_TIMEOUT_S
) -> None:
    deadline = time.monotonic() + timeout_s
    while (seen := machine.console.run(f"{command} 2>&1; true")) != answer:
        assert time.monotonic() < deadline, f"{command}: {seen!r}, not {answer!r}"


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.thorough
def test_debian_is_seeded_by_cloud_init(boot: Boot, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("debootstrap works as root only")
    image = _image("debian")
    port = tmp_path / "agent"
    machine = boot(
        image,
        *("-machine", "q35", "-smp", "2", *NIC, *_seed(tmp_path, USER_DATA, NETWORK_CONFIG)),
        *(
            "-device",
            "virtio-serial-pci",
            "-chardev",
            f"socket,id=agent,path={port},server=on,wait=off",
        ),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
    )
    machine.console.expect(r"vorch-guest ready after", 300)
    # The prompt of before cloud-init still bears the old name: asked anew, it bears the new one.
    machine.console.send("")
    machine.console.expect(r"web7 login: $", ANSWER_TIMEOUT_S)
    machine.console.send("anna")
    machine.console.expect("assword: ?$", ANSWER_TIMEOUT_S)
    machine.console.send("secret")
    machine.console.expect(r"\$ $", ANSWER_TIMEOUT_S)
    assert machine.console.run("cat .ssh/authorized_keys /var/ran", timeout_s=60).splitlines() == [
        "ssh-ed25519 AAAAC3Nz anna@desk",
        "first of web7",
        "second, by list",
    ]
    assert "10.0.2.77/24" in machine.console.run("ip -4 addr show dev eth0")
    agent = JsonSocket(port, greeting=False)
    try:
        assert agent.call("guest-ping") == {}
    finally:
        agent.close()
    machine.monitor.call("system_powerdown")
    machine.process.wait(120)


def test_the_seed_reader_understands_what_seeds_hold(tmp_path: Path) -> None:
    if not shutil.which("busybox"):
        pytest.skip("no busybox: install busybox-static")
    text = tmp_path / "seed.yaml"
    text.write_text(
        "#cloud-config\n"
        "host: web  # a comment\n"
        "list:\n- plain text\n- {name: b, keys: [1, 'it''s']}\n- name: c\n  deep:\n    - x: y\n"
        "texts:\n  kept: |\n    one\n      two\n\n    three\n  folded: >-\n    a\n    b\n"
        '  quoted: "tab\\tend"\n'
        "flow: {a: [1,\n  2], mac: 52:54:00:00:00:01}\n"
        "nothing:\nlast: 'yes'\n"
    )
    script = files("vorch.lab").joinpath("guest_files", "yaml.awk")
    done = subprocess.run(
        ["busybox", "awk", "-f", str(script), str(text)], check=True, capture_output=True, text=True
    )
    assert dict(line.split("\t") for line in done.stdout.splitlines()) == {
        "host": "web",
        "list.0": "plain text",
        "list.1.name": "b",
        "list.1.keys.0": "1",
        "list.1.keys.1": "it's",
        "list.2.name": "c",
        "list.2.deep.0.x": "y",
        "texts.kept": "one\\n  two\\n\\nthree\\n",
        "texts.folded": "a b",
        "texts.quoted": "tab\\tend",
        "flow.a.0": "1",
        "flow.a.1": "2",
        "flow.mac": "52:54:00:00:00:01",
        "nothing": "",
        "last": "yes",
    }


def test_a_missing_program_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(guest, "PROGRAMS", {"no-such-program": "its-package"})
    with pytest.raises(
        guest.GuestBuildError, match="no-such-program not found; apt-get install its-package"
    ):
        guest.build("tiny", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_decides_on_the_hypervisor_is_found_in_it(tiny: guest.GuestImage) -> None:
    """Nobody has mounted it. It starts under both, and only SYSLINUX's configuration is KVM's."""
    size, runs = tiny.raw_path.stat().st_size, (("kvm", "/syslinux.cfg"), ("xen", "/grub/grub.cfg"))
    with tiny.raw_path.open("rb") as raw:
        found = look_into(lambda offset, length: os.pread(raw.fileno(), length, offset), size)
    assert (found.table, found.bios_starts, found.unread) == ("mbr", True, ())
    # SYSLINUX starts the same kernel, packed so that a BIOS is sooner done with it.
    kernel, fast = found.kernels
    assert (kernel.path, fast.path) == ("/vmlinuz", "/fast")
    assert {kernel.version, fast.version} == {tiny.kernel.partition(" ")[0]}
    assert sorted(kernel.entries or ()) == ["bare", "pv", "pvh"]
    assert {file for _, file in runs} == {boot.file for boot in found.boots}
    assert {kernel.drivers[one] for one in ("xen_blkfront", "virtio_blk")} == {"initramfs"}
    vm = worlds.vm()
    assert [findings(found, vm, "kvm"), findings(found, vm, "xen")] == [(), ()]
