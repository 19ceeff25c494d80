"""Images that want to read the host's files, or break what opens them: each is refused by name.

Most are made byte by byte, as somebody with bad intent would. That a refusal comes before qemu-img
has opened anything is shown by a qemu-img that writes down every call.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vorch.drivers.disk_formats import Damaged, judge_disk, read_qcow2
from vorch.drivers.local import LocalImages
from vorch.errors import Invalid, VorchError
from vorch.ports import no_progress

MIB = 1024**2
SECRET = b"root:$6$this-must-never-be-seen:19000:0:99999:7:::\n"


@pytest.fixture
def pool(tmp_path: Path) -> LocalImages:
    return LocalImages("local", tmp_path / "pool")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that vorch may read and a guest must not."""
    path = tmp_path / "secret"
    path.write_bytes(SECRET * (MIB // len(SECRET) + 1))
    return path


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What qemu-img is asked to do, one line for each time."""
    log = tmp_path / "calls"
    log.touch()
    folder = tmp_path / "bin"
    folder.mkdir()
    real = subprocess.run(["which", "qemu-img"], capture_output=True, text=True).stdout.strip()
    script = folder / "qemu-img"
    script.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {real} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return lambda: log.read_text().splitlines()


def qcow2(
    *,
    version: int = 3,
    size: int = 16 * MIB,
    cluster_bits: int = 16,
    encryption: int = 0,
    features: int = 0,
    backing: bytes = b"",
    extensions: tuple[tuple[int, bytes], ...] = (),
    header_length: int = 104,
    l1_entries: int = 1,
    snapshots: int = 0,
    length: int = 5 * 65536,
) -> bytes:
    """A small and, by itself, empty image."""
    parts = b""
    for kind, body in extensions:
        parts += struct.pack(">II", kind, len(body)) + body + bytes(-len(body) % 8)
    parts += bytes(8)
    name_at = header_length + len(parts) if backing else 0
    head = b"QFI\xfb" + struct.pack(
        ">IQIIQIIQQIIQ",
        version,
        name_at,
        len(backing),
        cluster_bits,
        size,
        encryption,
        l1_entries,
        3 * 65536,
        65536,
        1,
        snapshots,
        4 * 65536 if snapshots else 0,
    )
    if version == 3:
        head += struct.pack(">QQQII", features, 0, 0, 4, header_length)
    image = bytearray(length)
    whole = head + parts + backing
    image[: len(whole)] = whole
    if length >= 4 * 65536:
        struct.pack_into(">Q", image, 65536, 2 * 65536)
        for cluster in range(length // 65536 if not snapshots else 4):
            struct.pack_into(">H", image, 2 * 65536 + 2 * cluster, 1)
    return bytes(image)


def vmdk(
    descriptor: str,
    *,
    capacity: int = 32768,
    descriptor_at: int = 1,
    directory: int = 21,
    version: int = 1,
    line_ends: bytes = b"\n \r\n",
    extra: tuple[int, bytes] = (0, b""),
    length: int = 256 * 1024,
) -> bytes:
    head = struct.pack("<4sIIQQQQIQQQB4sH", b"KDMV", version, 3, capacity, 128, descriptor_at, 20,
                       512, 0, directory, 128, 0, line_ends, 0)  # fmt: skip
    image = bytearray(length)
    image[: len(head)] = head
    image[descriptor_at * 512 : descriptor_at * 512 + len(descriptor)] = descriptor.encode()
    at, what = extra
    image[at : at + len(what)] = what
    return bytes(image)


def descriptor(
    kind: str = "monolithicSparse",
    extents: str = 'RW 32768 SPARSE "a.vmdk"',
    more: str = "",
) -> str:
    return (
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
        f'createType="{kind}"\n{more}\n# Extent description\n{extents}\n'
    )


def vdi(*, kind: int = 1, parent: bytes = bytes(16), used: int = 0, size: int = 4 * MIB,
        block: int = MIB, version: int = 0x00010001) -> bytes:  # fmt: skip
    image = bytearray(2 * MIB)
    image[:64] = b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0")
    struct.pack_into("<IIII", image, 64, 0xBEDA107F, version, 400, kind)
    struct.pack_into("<II", image, 340, 512, MIB)
    struct.pack_into("<I", image, 360, 512)
    struct.pack_into("<QIIII", image, 368, size, block, 0, 4, used)
    image[392:408] = bytes(range(16))
    image[440:456] = parent
    image[512:528] = b"\xff" * 16
    return bytes(image)


ZEROED = bytes(2 * MIB)

REFUSED: dict[str, tuple[bytes, str]] = {
    # qcow2 that refers to other files
    "backing file": (qcow2(backing=b"/etc/shadow"), "backing file"),
    "backing file, version 2": (qcow2(version=2, header_length=72, backing=b"/etc/shadow"),
                                "backing file"),
    "backing file by protocol": (qcow2(backing=b"nbd:localhost:10809"), "backing file"),
    "backing file as json": (qcow2(backing=b'json:{"driver":"file","filename":"/etc/shadow"}'),
                             "backing file"),
    "backing file, not a host name": (qcow2(backing=b"\xff\xfe"), "backing file"),
    "external data file": (qcow2(features=4, extensions=((0x44415441, b"/etc/shadow"),)),
                           "another file"),
    "external data file by flag only": (qcow2(features=4), "another file"),
    "external data file by name only": (qcow2(extensions=((0x44415441, b"/etc/shadow"),)),
                                        "another file"),
    "data file after other extensions": (
        qcow2(extensions=((0x6803F857, bytes(144)), (0x1234, b"x"), (0x44415441, b"/etc/shadow"))),
        "another file",
    ),
    # qcow2 that is not fully understood, or not sound
    "encrypted, AES": (qcow2(encryption=1), "encrypted"),
    "encrypted, LUKS": (qcow2(encryption=2, extensions=((0x0537BE77, bytes(16)),)), "encrypted"),
    "unknown feature": (qcow2(features=1 << 40), "not known"),
    "marked as corrupt": (qcow2(features=2), "corrupt"),
    "version 4": (qcow2(version=4), "version 4"),
    "cluster size": (qcow2(cluster_bits=40), "cluster size"),
    "header length": (qcow2(header_length=104)[:100] + b"\xff\xff\xff\xff" + bytes(MIB), "header"),
    "size of zero": (qcow2(size=0), "0 bytes"),
    "size beyond all": (qcow2(size=2**63), "bytes"),
    "size over 64 TiB": (qcow2(size=64 * 1024**4 + 512), "64 TiB"),
    "tables beyond all": (qcow2(l1_entries=2**31), "tables"),
    "snapshots beyond all": (qcow2(snapshots=2**31), "tables"),
    "snapshot table beyond all": (
        qcow2(snapshots=1)[:64] + b"\x80" + qcow2(snapshots=1)[65:],
        "no file has",
    ),
    "snapshot table beyond the end": (qcow2(snapshots=3, length=4 * 65536), "cut off"),
    "endless extension": (qcow2(extensions=((0x1234, b""),))[:108] + b"\x7f\xff\xff\xff"
                          + bytes(MIB), "extension"),
    "backing name beyond its place": (qcow2()[:8] + struct.pack(">QI", 2**50, 10)
                                      + qcow2()[20:], "backing"),
    "only a magic": (b"QFI\xfb\0\0\0\3", "header"),
    "cut off in the header": (qcow2()[:80], "header"),
    "cut off before the tables": (qcow2()[: 2 * 65536], "cut off"),
    # vmdk
    "descriptor only": (descriptor("monolithicFlat", 'RW 32768 FLAT "/etc/shadow" 0').encode(),
                        "descriptor"),
    "descriptor without its first line": (
        b'version=1\ncreateType="vmfs"\nRW 63 VMFS "/etc/shadow"\n', "descriptor"
    ),
    "vmdk whose capacity of zero makes its extents count": (
        vmdk(descriptor(extents='RW 32768 FLAT "/etc/shadow" 0'), capacity=0), "several files"
    ),
    "vmdk without descriptor": (vmdk("", descriptor_at=0), "several files"),
    "vmdk, flat": (vmdk(descriptor("monolithicFlat", 'RW 32768 FLAT "/etc/shadow" 0')), "refers"),
    "vmdk, flat extent in sparse": (vmdk(descriptor(extents='RW 32768 FLAT "/etc/shadow" 0')),
                                    "refers"),
    "vmdk, extent by path": (vmdk(descriptor(extents='RW 32768 SPARSE "/etc/shadow"')), "refers"),
    "vmdk, extent by path upwards": (vmdk(descriptor(extents='RW 9 SPARSE "..\\\\x"')), "refers"),
    "vmdk, two extents": (vmdk(descriptor(extents='RW 1 SPARSE "a"\nRW 1 SPARSE "b"')), "refers"),
    "vmdk, no extent": (vmdk(descriptor(extents="")), "refers"),
    "vmdk, split": (vmdk(descriptor("twoGbMaxExtentSparse")), "refers"),
    "vmdk with a parent": (vmdk(descriptor(more='parentFileNameHint="/etc/shadow"')), "parent"),
    "vmdk with a parent where only qemu looks": (
        vmdk(descriptor(), descriptor_at=100, extra=(600, b'parentFileNameHint="/etc/shadow"')),
        "parent",
    ),
    "vmdk with a parent after a zero": (
        vmdk(descriptor(), extra=(9000, b'\0parentFileNameHint="/etc/shadow"')), "parent"
    ),
    "vmdk, unknown version": (vmdk(descriptor(), version=9), "version 9"),
    "vmdk as text": (vmdk(descriptor(), line_ends=b"\n \n\n"), "line ends"),
    "vmdk, no footer": (vmdk(descriptor("streamOptimized"), directory=2**64 - 1), "footer"),
    "vmdk, footer that disagrees": (
        vmdk(descriptor("streamOptimized"), directory=2**64 - 1,
             extra=(256 * 1024 - 1024, vmdk("", capacity=0)[:512])), "do not agree",
    ),
    "vmdk too large": (vmdk(descriptor(), capacity=2**50), "bytes"),
    "vmdk, old": (b"COWD" + ZEROED, "old ESX"),
    # vdi
    "vdi with a parent": (vdi(parent=b"\1" * 16), "another file"),
    "vdi, differencing": (vdi(kind=4), "another file"),
    "vdi cut off": (vdi(used=3), "cut off"),
    "vdi, odd blocks": (vdi(block=512), "header"),
    "vdi, unknown version": (vdi(version=0x20000), "version"),
    # other formats, by name
    "qcow": (b"QFI\xfb\0\0\0\1" + ZEROED, "version 1"),
    "vhdx": (b"vhdxfile" + ZEROED, "VHDX"),
    "vhd": (b"conectix" + ZEROED, "VHD"),
    "vhd, fixed": (ZEROED + b"conectix" + bytes(504), "VHD"),
    "dmg": (ZEROED + b"koly" + bytes(508), "DMG"),
    "qed": (b"QED\0" + ZEROED, "QED"),
    "parallels": (b"WithoutFreeSpace" + ZEROED, "Parallels"),
    "luks": (b"LUKS\xba\xbe" + ZEROED, "LUKS"),
    "iso": (bytes(32768) + b"\x01CD001\x01" + ZEROED, "CD image"),
    "udf": (bytes(34816) + b"\x00NSR03\x01" + ZEROED, "CD image"),
    "gzip": (gzip.compress(ZEROED), "gunzip"),
    "xz": (lzma.compress(ZEROED), "unxz"),
    "zstd": (b"\x28\xb5\x2f\xfd" + ZEROED, "unzstd"),
    "zip": (b"PK\3\4" + ZEROED, "zip"),
    "tar": (bytes(257) + b"ustar\0" + ZEROED, "OVA"),
    "web page": (b"\n<!DOCTYPE html><html>" + ZEROED, "web page"),
    # raw
    "a text file": (b"root:x:0:0:root:/root:/bin/sh\n" * 20, "too short"),
    "nothing": (b"", "too short"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_before_qemu_img_sees_it(
    name: str, pool: LocalImages, tmp_path: Path, calls: Callable[[], list[str]]
) -> None:
    data, reason = REFUSED[name]
    # The name of the file says nothing: it is judged by its content.
    path = tmp_path / "innocent.img"
    path.write_bytes(data)
    with pytest.raises(Invalid, match=reason) as caught:
        pool.import_file(str(path), "a", "disk", "", no_progress)
    assert str(path) in caught.value.message
    assert ";" in caught.value.message
    assert calls() == []
    assert pool.list() == ()
    assert not [one for one in (tmp_path / "pool/.work").iterdir() if one.suffix != ".lock"]


def test_the_plain_ones_of_these_are_taken(pool: LocalImages, tmp_path: Path) -> None:
    """The refusals above are for what was changed, not for how these images are made."""
    path = tmp_path / "image"
    for number, (data, kind) in enumerate(
        (
            (qcow2(), "qcow2"),
            (vdi(), "vdi"),
            (ZEROED, "raw"),
            (qcow2(version=2, header_length=72), "qcow2"),
        )
    ):
        path.write_bytes(data)
        found = pool.import_file(str(path), f"a{number}", "disk", "", no_progress)
        assert found.format == kind
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", path, "16M"], check=True)
    assert pool.import_file(str(path), "b", "disk", "", no_progress).format == "vmdk"


@pytest.mark.parametrize("kind", ["qcow2", "vmdk"])
def test_images_that_qemu_img_made_over_a_secret(
    kind: str, pool: LocalImages, tmp_path: Path, secret: Path
) -> None:
    base = tmp_path / "base"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, secret, base], check=True)
    path = tmp_path / "overlay"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", kind, "-b", base, "-F", kind, path], check=True
    )
    with pytest.raises(Invalid, match=r"backing file|parent"):
        pool.import_file(str(path), "a", "disk", "", no_progress)
    assert nothing_of_it_in(tmp_path / "pool")


def test_an_external_data_file_that_qemu_img_made(
    pool: LocalImages, tmp_path: Path, secret: Path
) -> None:
    path = tmp_path / "disk"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-o",
         f"data_file={tmp_path / 'data'},data_file_raw=on", path, "1M"], check=True,
    )  # fmt: skip
    with pytest.raises(Invalid, match="another file"):
        pool.import_file(str(path), "a", "disk", "", no_progress)


def test_a_raw_image_that_says_qcow2_inside_stays_what_it_was_judged_to_be(
    pool: LocalImages, tmp_path: Path, secret: Path
) -> None:
    """A guest may write a qcow2 header over the start of its own disk, then have it cloned."""
    path = tmp_path / "disk"
    path.write_bytes(ZEROED)
    pool.import_file(str(path), "a", "disk", "", no_progress)
    bad = qcow2(backing=str(secret).encode(), size=MIB)
    source = tmp_path / "bad"
    source.write_bytes(bad)
    place = pool.locate("a")
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", f"write -s {source} 0 {len(bad)}", place.path],
        check=True, capture_output=True,
    )  # fmt: skip
    pool.copy("a", None, "b", no_progress)
    pool.snapshot(["a"], "s")
    pool.copy("a", "s", "c", no_progress)
    pool.clone("b", "d", 2 * MIB)
    for volume in "abcd":
        flat = tmp_path / "flat"
        subprocess.run(
            ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", pool.locate(volume).path, flat],
            check=True,
        )
        assert flat.read_bytes()[: len(bad)] == bad
        assert pool.info(volume).base in (None, "b")
    assert nothing_of_it_in(tmp_path / "pool")


def test_a_file_that_changes_while_it_is_imported(
    pool: LocalImages, tmp_path: Path, secret: Path
) -> None:
    """Sound when it is judged, with a backing file when it is opened: if it were opened."""
    path = tmp_path / "disk"
    bad = qcow2(backing=str(secret).encode(), size=MIB)

    def swap(percent: float | None = None, line: str | None = None) -> None:
        with path.open("r+b") as file:
            file.write(bad)

    # As raw image: it is raw whatever it becomes, and the change is noticed.
    path.write_bytes(ZEROED)
    with pytest.raises(Invalid, match="changed"):
        pool.import_file(str(path), "a", "disk", "", swap)
    assert pool.list() == ()
    # As qcow2: what was judged is a copy.
    path.write_bytes(qcow2(size=MIB))
    pool.import_file(str(path), "b", "disk", "", swap)
    flat = tmp_path / "flat"
    subprocess.run(
        ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", pool.locate("b").path, flat], check=True
    )
    assert flat.read_bytes() == bytes(MIB)
    assert nothing_of_it_in(tmp_path / "pool")


def nothing_of_it_in(folder: Path) -> bool:
    return not any(SECRET[:30] in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_format_and_source_are_always_given_to_qemu_img(
    pool: LocalImages, tmp_path: Path, calls: Callable[[], list[str]]
) -> None:
    """Nothing is guessed, and no name that a person typed is handed on."""
    for number, (name, data) in enumerate(
        {"nbd:localhost:1": ZEROED, "json:{}": qcow2(), "-help": vdi()}.items()
    ):
        (tmp_path / name).write_bytes(data)
        pool.import_file(str(tmp_path / name), f"a{number}", "disk", "", no_progress)
    pool.create("new", MIB)
    pool.clone("a0", "clone", 2 * MIB)
    pool.snapshot(["clone"], "s")
    pool.rollback(["clone"], "s")
    pool.copy("clone", "s", "copy", no_progress)
    pool.drop_snapshot(["clone"], "s")
    pool.grow("clone", 4 * MIB)
    pool.make_base("clone", "base")
    assert calls()
    for call in calls():
        assert " -f " in call or "--image-opts driver=qcow2,file.driver=file" in call
        assert not any(name in call for name in ("nbd:", "json:", "-help"))


def test_only_one_process_is_started_for_a_clone(
    pool: LocalImages, calls: Callable[[], list[str]]
) -> None:
    pool.create("base", MIB)
    before = len(calls())
    pool.clone("base", "a", MIB)
    pool.locate("a")
    pool.info("a")
    pool.list()
    pool.usage()
    assert len(calls()) == before + 1


@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "vdi"])
@pytest.mark.parametrize("keep", [0.2, 0.6, 0.95])
def test_images_that_were_cut_off(
    kind: str, keep: float, pool: LocalImages, tmp_path: Path
) -> None:
    """qemu-img reads what is missing as zeros, and says nothing."""
    raw = tmp_path / "raw"
    raw.write_bytes(hashlib.sha256(b"x").digest() * (8 * MIB // 32))
    path = tmp_path / "image"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, raw, path], check=True)
    os.truncate(path, int(path.stat().st_size * keep))
    with pytest.raises(Invalid):
        pool.import_file(str(path), "a", "disk", "", no_progress)
    assert pool.list() == ()


def test_formats_that_are_taken_hold_the_same_content(pool: LocalImages, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    content = os.urandom(MIB) + bytes(6 * MIB) + os.urandom(MIB + 512)
    raw.write_bytes(content)
    options: dict[str, list[list[str]]] = {
        "qcow2": [["-c"], ["-o", "compat=0.10"], ["-o", "extended_l2=on,cluster_size=128k"],
                  ["-o", "cluster_size=512"], ["-c", "-o", "compression_type=zstd"]],
        "vmdk": [["-o", "subformat=monolithicSparse"], ["-o", "subformat=streamOptimized"]],
        "vdi": [[], ["-o", "static=on"]],
        "raw": [[]],
    }  # fmt: skip
    for kind, variants in options.items():
        for number, variant in enumerate(variants):
            path, name = tmp_path / "image", f"{kind}{number}"
            path.unlink(missing_ok=True)
            subprocess.run(
                ["qemu-img", "convert", "-f", "raw", "-O", kind, *variant, raw, path], check=True
            )
            found = pool.import_file(str(path), name, "disk", "", no_progress)
            assert (found.format, found.size_bytes) == (kind, len(content))
            assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            flat = tmp_path / "flat"
            place = pool.locate(name)
            assert place.format == "qcow2"
            subprocess.run(
                ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", place.path, flat], check=True
            )
            assert flat.read_bytes() == content
            assert pool.info(name).used_bytes < 4 * MIB


def test_things_that_are_no_files(pool: LocalImages, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for location in (str(pipe), "/dev/zero", "/dev/null", str(tmp_path), "file:///dev/zero"):
        for content in ("disk", "iso", "file"):
            with pytest.raises(Invalid, match=r"device|folder"):
                pool.import_file(location, "a", content, "", no_progress)
    assert pool.list() == ()


def test_memory_and_time_of_qemu_img_are_bounded(
    pool: LocalImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "qemu-img"
    # The limits are set right after the start, so look once more a moment later.
    script.write_text(
        f"#!/bin/sh\nsleep 0.2\n(ulimit -v; ulimit -t; ulimit -c) > {folder}/limits\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    pool.create("a", MIB)
    memory_kib, seconds, core = (folder / "limits").read_text().split()
    assert int(memory_kib) <= 4 * MIB
    assert int(seconds) <= 600
    assert core == "0"


# -- whatever the bytes are


def judged(data: bytes) -> Any:
    file = os.memfd_create("image")
    try:
        os.write(file, data)
        return judge_disk(file, "import 'x'")
    finally:
        os.close(file)


GOOD = (qcow2(length=4 * 65536), vmdk(descriptor()), vdi()[: MIB + 4096])


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(range(3)),
    st.lists(st.tuples(st.integers(0, 600), st.binary(min_size=1, max_size=9)), max_size=4),
)
def test_changed_headers_are_taken_or_refused_and_nothing_else(
    image: int, changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray(GOOD[image])
    for at, new in changes:
        data[at : at + len(new)] = new
    try:
        found = judged(bytes(data))
    except Invalid:
        return
    assert 0 < found.size_bytes <= 64 * 1024**4
    if found.format == "qcow2":
        assert data[8:16] == bytes(8)
        assert not data[79] & 4


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_after_a_qcow2_magic(tail: bytes) -> None:
    file = os.memfd_create("image")
    try:
        os.write(file, b"QFI\xfb\0\0\0\3" + tail)
        # Sound or damaged, but nothing else, and it comes to an end.
        with suppress(Damaged):
            read_qcow2(file)
    finally:
        os.close(file)


def test_every_refusal_is_one_of_vorchs(tmp_path: Path, pool: LocalImages) -> None:
    path = tmp_path / "image"
    for image in GOOD:
        for cut in range(0, 700, 37):
            path.write_bytes(image[:cut])
            with pytest.raises(VorchError):
                pool.import_file(str(path), "a", "disk", "", no_progress)
