"""Looking into guests' disks: tables, file systems of each kind, kernels; and disks that lie."""

from __future__ import annotations

import gzip
import lzma
import random
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from vorch.drivers import guest_kernel
from vorch.drivers.ext4_files import Ext4Files, Unreadable
from vorch.drivers.fat_files import FatFiles
from vorch.drivers.guest_kernel import NotUnpacked
from vorch.drivers.guest_look import first_entry, look_into
from vorch.drivers.partitions import Read, holds, table_of
from vorch.errors import Invalid
from vorch.inside import Inside

MIB = 1024**2
RELEASE = "6.1.0-9-amd64"
CONFIG = "\n".join(
    [
        *("CONFIG_XEN_PV=y", "CONFIG_XEN_PVH=y", "CONFIG_XEN_BLKDEV_FRONTEND=m"),
        *("CONFIG_XEN_NETDEV_FRONTEND=m", "CONFIG_VIRTIO_BLK=m", "CONFIG_VIRTIO_PCI=y"),
        *("CONFIG_VIRTIO_NET=m", "# CONFIG_SATA_AHCI is not set"),
    ]
)
GRUB = """
set default="1"
menuentry 'Old' {
    linux /boot/vmlinuz-5.10 root=/dev/vda1 ro
}
menuentry 'New' {
    linux\t($root)/boot/vmlinuz-6.1.0-9-amd64 root=UUID=0815 ro quiet
    initrd /boot/initrd.img-6.1.0-9-amd64
}
"""
FSTAB = """# what is mounted
UUID=0815 / ext4 errors=remount-ro 0 1
/dev/vdb1  /data ext4 nofail 0 2   # another disk
LABEL=swap none swap sw
"""


def reader(data: bytes) -> Read:
    return lambda offset, length: data[offset : offset + length]


def cpio(names: Sequence[str]) -> bytes:
    archive = bytearray()
    for name in [*names, "TRAILER!!!"]:
        data = b"x" * 5 if name.endswith(".ko") else b""
        fields = [1, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        archive += b"070701" + b"".join(b"%08X" % field for field in fields)
        archive += name.encode() + b"\0"
        archive += b"\0" * (-len(archive) % 4) + data
        archive += b"\0" * (-len(archive) % 4)
    return bytes(archive)


def kernel(image: bytes = b"", release: str = RELEASE) -> bytes:
    """A bzImage with that in it, as far as it is looked at."""
    packed = lzma.compress(image, preset=0)
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x100)
    text = f"{release} (somebody) #1 SMP".encode() + b"\0"
    head[0x300 : 0x300 + len(text)] = text
    struct.pack_into("<II", head, 0x248, 0, len(packed))
    return bytes(head) + packed


def elf(kinds: Sequence[int], words: bytes = b"") -> bytes:
    """A kernel, unpacked, with such notes for Xen."""
    notes = b"".join(struct.pack("<III", 4, 4, kind) + b"Xen\0" + bytes(4) for kind in kinds)
    head = bytearray(64)
    head[:5] = b"\x7fELF\x02"
    struct.pack_into("<Q", head, 32, 64)
    struct.pack_into("<HH", head, 54, 56, 1)
    entry = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(notes), len(notes), 4)
    return bytes(head) + entry + notes + words


# ---------------------------------------------------------------------------------------------
# Partition tables


def mbr(*entries: tuple[int, int, int], boots: bool = True) -> bytes:
    """Of (kind, first sector, sectors)."""
    sector = bytearray(512)
    if boots:
        sector[0] = 0xEB
    for number, (kind, start, count) in enumerate(entries):
        at = 446 + 16 * number
        sector[at + 4] = kind
        struct.pack_into("<II", sector, at + 8, start, count)
    sector[510:] = b"\x55\xaa"
    return bytes(sector)


def disk(size: int, *parts: tuple[int, bytes]) -> bytes:
    data = bytearray(size)
    for offset, piece in parts:
        data[offset : offset + len(piece)] = piece
    return bytes(data)


def test_an_mbr_with_logical_partitions() -> None:
    data = disk(
        8 * MIB,
        (0, mbr((0x83, 2048, 2048), (0x05, 8192, 8192))),
        (8192 * 512, mbr((0x83, 63, 1000), (0x05, 2048, 2048))),
        ((8192 + 2048) * 512, mbr((0x82, 63, 500))),
        ((8192 + 63) * 512, b"XFSB"),
    )
    kind, starts, found = table_of(reader(data), len(data))
    assert (kind, starts) == ("mbr", True)
    assert [(one.number, one.start_bytes // 512, one.holds) for one in found] == [
        (1, 2048, ""),
        (5, 8192 + 63, "xfs"),
        (6, 8192 + 2048 + 63, ""),
    ]


def test_a_table_that_leads_round_in_circles_ends() -> None:
    data = disk(MIB, (0, mbr((0x05, 100, 100))), (100 * 512, mbr((0x83, 1, 1), (0x05, 0, 9))))
    assert table_of(reader(data), len(data))[0] == "mbr"


def test_a_gpt() -> None:
    header = bytearray(b"EFI PART".ljust(512, b"\0"))
    struct.pack_into("<QII", header, 72, 2, 128, 128)
    entry = struct.pack("<16s16sQQ", b"t" * 16, b"u" * 16, 4096, 8191).ljust(128, b"\0")
    data = disk(
        8 * MIB,
        (0, mbr((0xEE, 1, 16383), boots=False)),
        (512, bytes(header)),
        (1024 + 128, entry),
        (4096 * 512, b"LUKS\xba\xbe"),
    )
    kind, starts, found = table_of(reader(data), len(data))
    assert (kind, starts) == ("gpt", False)
    assert [(one.number, one.size_bytes, one.holds) for one in found] == [(2, 2 * MIB, "luks")]


@pytest.mark.parametrize(
    ("offset", "mark", "what"),
    [
        (512, b"LABELONE", "lvm"),
        (65536 + 64, b"_BHRfS_M", "btrfs"),
        (4086, b"SWAPSPACE2", "swap"),
        (1024 + 56, b"\x53\xef", "ext4"),
        (3, b"NTFS    ", "ntfs"),
        (0, b"nothing", ""),
    ],
)
def test_what_a_partition_holds(offset: int, mark: bytes, what: str) -> None:
    assert holds(reader(disk(MIB, (4096 + offset, mark))), 4096) == what


# ---------------------------------------------------------------------------------------------
# File systems, as their own programs make them


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root file system, as far as it is looked at."""
    root = tmp_path / "root"
    for folder in ("boot/grub", "etc", f"usr/lib/modules/{RELEASE}", "many"):
        (root / folder).mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    (root / "vmlinuz").symlink_to(f"boot/vmlinuz-{RELEASE}")
    (root / "boot" / f"vmlinuz-{RELEASE}").write_bytes(kernel())
    (root / "boot" / f"config-{RELEASE}").write_text(CONFIG)
    early = cpio(["kernel/x86/microcode/AuthenticAMD.bin"])
    late = cpio([f"usr/lib/modules/{RELEASE}/kernel/drivers/block/xen-blkfront.ko"])
    initrd = early + bytes(512) + gzip.compress(late)
    (root / "boot" / f"initrd.img-{RELEASE}").write_bytes(initrd)
    (root / "boot/grub/grub.cfg").write_text(GRUB)
    (root / "etc/fstab").write_text(FSTAB)
    modules = ["xen-blkfront", "xen-netfront", "virtio_blk", "virtio_net"]
    lines = [f"kernel/drivers/some/{one}.ko.xz: kernel/other.ko.xz" for one in modules]
    (root / f"lib/modules/{RELEASE}/modules.dep").write_text("\n".join(lines))
    (root / f"lib/modules/{RELEASE}/modules.builtin").write_text("kernel/drivers/virtio_pci.ko\n")
    for number in range(600):
        (root / "many" / f"file-with-a-long-name-{number:04}").write_text(str(number))
    (root / "large").write_bytes(bytes(range(256)) * 4096)
    (root / "round").symlink_to("round")
    return root


EXT = {
    "ext4": ["-t", "ext4"],
    "ext4-small-blocks": ["-t", "ext4", "-b", "1024"],
    "ext4-meta-groups": ["-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "256"],
    "ext4-narrow": ["-t", "ext4", "-O", "^64bit,^metadata_csum"],
    "ext3": ["-t", "ext3"],
    "ext2": ["-t", "ext2", "-b", "1024"],
}


def made(tree: Path, *options: str, mib: int = 24) -> bytes:
    program = shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        pytest.skip("mke2fs is not installed (package e2fsprogs)")
    path = tree.parent / "system.img"
    command = [program, "-q", "-F", *options, "-d", str(tree), str(path), f"{mib}M"]
    subprocess.run(command, check=True, capture_output=True)
    return path.read_bytes()


@pytest.mark.parametrize("kind", EXT)
def test_files_of_ext_file_systems(kind: str, tree: Path) -> None:
    data = bytes(4096) + made(tree, *EXT[kind])
    files = Ext4Files(reader(data), 4096)
    assert files.read("/etc/fstab", MIB) == FSTAB.encode()
    assert files.read("large", 2 * MIB) == bytes(range(256)) * 4096
    assert files.read(f"/lib/modules/{RELEASE}/modules.builtin", MIB) is not None
    assert files.read("/vmlinuz", MIB) == kernel()
    assert files.read("/many/file-with-a-long-name-0599", MIB) == b"599"
    assert len(files.names("/many")) == 600
    assert files.read("/etc", MIB) is None
    assert files.read("/etc/none", MIB) is None
    assert files.read("/etc/fstab/none", MIB) is None
    assert files.names("/none") == []
    with pytest.raises(Unreadable, match="more than is looked into"):
        files.read("large", 1000)
    with pytest.raises(Unreadable, match="circles"):
        files.read("/round", MIB)


def test_what_is_kept_in_another_way_is_not_guessed(tree: Path) -> None:
    data = made(tree, "-t", "ext4", "-O", "inline_data")
    with pytest.raises(Unreadable, match="features that are not known here"):
        Ext4Files(reader(data), 0)
    (why,) = look_into(reader(data), len(data)).unread
    assert why.startswith("the disk: cannot read the file system: it uses features")


def test_a_whole_disk_is_understood(tree: Path) -> None:
    system = made(tree, *EXT["ext4"])
    data = disk(
        2 * MIB + len(system),
        (0, mbr((0x83, 2048, len(system) // 512), (0x82, 2048 + len(system) // 512, 2048))),
        (MIB, system),
    )
    found = look_into(reader(data), len(data))
    assert (found.table, found.bios_starts, found.unread) == ("mbr", True, ())
    (boot,) = found.boots
    assert (boot.file, boot.kernel) == ("/boot/grub/grub.cfg", f"/boot/vmlinuz-{RELEASE}")
    assert boot.command_line == "root=UUID=0815 ro quiet"
    (one,) = found.kernels
    assert (one.version, one.entries) == (RELEASE, frozenset(["bare", "pv", "pvh"]))
    assert (one.initramfs, one.unread) == (f"/boot/initrd.img-{RELEASE}", "")
    assert {driver: has for driver, has in one.drivers.items() if has != "no"} == {
        "xen_blkfront": "initramfs",
        "xen_netfront": "module",
        "virtio_pci": "builtin",
        "virtio_blk": "module",
        "virtio_net": "module",
    }
    assert [(one.device, one.where, one.options) for one in found.mounts] == [
        ("UUID=0815", "/", "errors=remount-ro"),
        ("/dev/vdb1", "/data", "nofail"),
        ("LABEL=swap", "none", "sw"),
    ]


def test_one_that_was_in_use_is_said_to_be_so(tree: Path) -> None:
    data = bytearray(made(tree, *EXT["ext4"]))
    assert look_into(reader(bytes(data)), len(data)).in_use == ()
    data[1024 + 96] |= 0x4
    assert look_into(reader(bytes(data)), len(data)).in_use == ("the disk",)


def test_a_file_system_on_the_whole_disk(tree: Path) -> None:
    data = made(tree, *EXT["ext4"])
    found = look_into(reader(data), len(data))
    assert (found.table, found.bios_starts) == ("none", False)
    assert [one.number for one in found.partitions] == [0]
    assert len(found.kernels) == 1


@pytest.mark.parametrize("bits", ["12", "16", "32"])
def test_files_of_fat(bits: str, tmp_path: Path) -> None:
    if shutil.which("mformat") is None:
        pytest.skip("mtools is not installed")
    sectors, options = {
        "12": (4096, []),
        "16": (40960, ["-c", "2"]),
        "32": (140000, ["-F", "-c", "1"]),
    }[bits]
    path = tmp_path / "fat.img"
    subprocess.run(
        ["mformat", "-i", str(path), "-C", *options, "-T", str(sectors), "::"], check=True
    )
    (tmp_path / "large").write_bytes(random.Random(1).randbytes(300_001))
    (tmp_path / "short").write_text("short")
    for name in ("grub", "a folder with a long name"):
        subprocess.run(["mmd", "-i", str(path), f"::{name}"], check=True)
    for source, target in (
        ("short", "::vmlinuz"),
        ("short", "::grub/grub.cfg"),
        ("large", "::a folder with a long name/Ein längerer Name.bin"),
    ):
        subprocess.run(["mcopy", "-i", str(path), str(tmp_path / source), target], check=True)
    files = FatFiles(reader(bytes(512) + path.read_bytes()), 512)
    assert files._bits == int(bits)
    assert files.read("/vmlinuz", MIB) == b"short"
    assert files.read("/grub/GRUB.cfg", MIB) == b"short"
    found = files.read("/a folder with a long name/Ein längerer Name.bin", MIB)
    assert found == (tmp_path / "large").read_bytes()
    assert files.names("/") == ["a folder with a long name", "grub", "vmlinuz"]
    assert files.read("/none", MIB) is None
    assert files.read("/grub", MIB) is None
    with pytest.raises(Invalid, match="more than is looked into"):
        files.read("/a folder with a long name/Ein längerer Name.bin", 1000)


# ---------------------------------------------------------------------------------------------
# Kernels and what starts them


@pytest.mark.parametrize(
    ("kinds", "entries"),
    [([1, 18], {"bare", "pv", "pvh"}), ([18], {"bare", "pvh"}), ([], {"bare"})],
)
def test_how_a_kernel_can_be_started_stands_in_it(kinds: list[int], entries: set[str]) -> None:
    packed = kernel(elf(kinds, b"\0xen_blkfront.max\0\0virtio_net.napi\0"))
    image = guest_kernel.image_of(packed)
    assert guest_kernel.entries_of_image(packed, image) == entries
    assert guest_kernel.builtin_in(image) == {"xen_blkfront", "virtio_net"}
    assert guest_kernel.release_of(packed) == RELEASE


def test_compressions() -> None:
    text = b"some text" * 1000
    assert guest_kernel.unpacked(gzip.compress(text) + b"more") == text
    assert guest_kernel.unpacked(lzma.compress(text)) == text
    assert len(guest_kernel.unpacked(gzip.compress(bytes(10 * MIB)), MIB)) == MIB
    with pytest.raises(NotUnpacked, match="LZ4"):
        guest_kernel.unpacked(b"\x02\x21\x4c\x18more")
    with pytest.raises(NotUnpacked, match="not known here"):
        guest_kernel.unpacked(b"what")
    with pytest.raises(NotUnpacked, match="cannot be unpacked"):
        guest_kernel.unpacked(b"\x1f\x8b" + bytes(100))


def test_zstandard_where_it_is_installed() -> None:
    zstandard = pytest.importorskip("zstandard", reason="the extra 'inside' is not installed")
    names = [f"usr/lib/modules/{RELEASE}/kernel/drivers/net/xen-netfront.ko.zst"]
    packed = zstandard.ZstdCompressor().compress(cpio(names))
    assert [*guest_kernel.names_in(packed)] == [*names, "TRAILER!!!"]
    assert guest_kernel.module_of(names[0]) == "xen_netfront"


@pytest.mark.parametrize(
    ("text", "kernel_path", "line"),
    [
        (GRUB, f"/boot/vmlinuz-{RELEASE}", "root=UUID=0815 ro quiet"),
        ("default 0\ntitle A\n kernel /vmlinuz root=/dev/sda1\n", "/vmlinuz", "root=/dev/sda1"),
        (
            "DEFAULT b\nLABEL a\n LINUX old\n APPEND x\nLABEL b\n LINUX new\n APPEND console=hvc0",
            "/new",
            "console=hvc0",
        ),
    ],
)
def test_what_a_boot_loader_starts(text: str, kernel_path: str, line: str) -> None:
    found = first_entry(text, "some.cfg")
    assert found is not None
    assert (found.kernel, found.command_line) == (kernel_path, line)


def test_a_configuration_without_a_kernel_is_none() -> None:
    assert first_entry("set timeout=5\n", "some.cfg") is None


# ---------------------------------------------------------------------------------------------
# Disks that lie


def test_what_a_guest_wrote_there_harms_nobody(tree: Path) -> None:
    """Whatever stands in a disk's tables, the look ends, and says what it could not read."""
    system = made(tree, *EXT["ext4-small-blocks"], mib=12)
    whole = disk(MIB + len(system), (0, mbr((0x83, 2048, len(system) // 512))), (MIB, system))
    chance = random.Random(8)
    # Superblock, group descriptors, inode tables and the first folders are at the beginning.
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 10, 200])):
            place = chance.choice([chance.randrange(1024), MIB + chance.randrange(MIB)])
            data[place] = chance.randrange(256)
        found = look_into(reader(bytes(data)), len(data))
        assert isinstance(found, Inside)


def test_nothing_at_all() -> None:
    found = look_into(reader(bytes(MIB)), MIB)
    assert (found.table, found.kernels, found.unread) == ("none", (), ())
    found = look_into(reader(bytes(64 * MIB)), 64 * MIB)
    assert found.unread == ("the disk holds something that is not known here",)
