"""CDs and initrd archives: what is written is read by others, and what others wrote is read."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pycdlib import PyCdlib

from vorch.drivers.initrd import newc_archive
from vorch.drivers.iso import find_in_iso, make_iso, read_from_iso
from vorch.errors import Invalid, NotFound

SEED = {
    "meta-data": '{"instance-id": "i-1"}\n',
    "user-data": "#cloud-config\n" + "x" * 5000,
    "network-config": "",
    "autounattend.xml": "<unattend>é</unattend>",
    "meta_data": "another",
}


def image(label: str = "cidata", files: dict[str, str] | None = None) -> io.BytesIO:
    return io.BytesIO(make_iso(label, SEED if files is None else files))


def test_what_is_written_is_read_back() -> None:
    cd = image()
    for name, text in SEED.items():
        assert read_from_iso(cd, f"/{name}") == text.encode()
        assert read_from_iso(cd, name) == text.encode()


def test_names_are_right_for_linux_and_for_windows(tmp_path: Path) -> None:
    cd = image()
    iso: Any = PyCdlib()
    iso.open_fp(cd)
    for space in ("rr_path", "joliet_path"):
        for name, text in SEED.items():
            data = io.BytesIO()
            iso.get_file_from_iso_fp(data, **{space: f"/{name}"})
            assert data.getvalue() == text.encode()
    # And capitals for those who know neither, each name once.
    plain = {child.file_identifier() for child in iso.list_children(iso_path="/")}
    assert {b"META_DATA.;1", b"META_DATA_2.;1", b"AUTOUNATTEND.XML;1"} <= plain
    iso.close()


def test_the_label_is_where_guests_look_for_it() -> None:
    for label in ("cidata", "OEMDRV"):
        data = make_iso(label, {"a": "b"})
        assert data[32769:32774] == b"CD001"
        assert data[32768 + 40 : 32768 + 72] == label.encode().ljust(32)
        assert len(data) < 200_000
        assert len(data) % 2048 == 0


@pytest.mark.skipif(shutil.which("isoinfo") is None, reason="isoinfo is not here")
def test_another_program_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "cd.iso"
    path.write_bytes(image().getvalue())
    for option in ("-R", "-J"):
        for name, text in SEED.items():
            found = subprocess.run(
                ["isoinfo", option, "-x", f"/{name}", "-i", path], capture_output=True, check=True
            )
            assert found.stdout == text.encode()


def test_labels_and_names_that_do_not_fit() -> None:
    for label in ("", "a" * 17, "a b", "é", "a\0"):
        with pytest.raises(Invalid):
            make_iso(label, {"a": "b"})
    for name in ("", "a/b", "..", ".hidden", "a" * 65, "a\0", "é", "a;1"):
        with pytest.raises(Invalid):
            make_iso("cidata", {name: "x"})


def test_an_empty_cd() -> None:
    assert find_in_iso(image(files={}), ["/a"]) is None


def installer(tmp_path: Path, **kind: Any) -> Path:
    """A CD as installers have it, with or without the extensions."""
    iso: Any = PyCdlib()
    iso.new(interchange_level=1, **kind)
    rock, joliet, udf = (bool(kind.get(one)) for one in ("rock_ridge", "joliet", "udf"))

    def names(path: str) -> dict[str, str]:
        found = {"joliet_path": path} if joliet else {}
        found |= {"udf_path": path} if udf else {}
        return found | ({"rr_name": path.rpartition("/")[2]} if rock else {})

    iso.add_directory("/INSTALL", **names("/install.amd"))
    for plain, path, data in (
        ("/INSTALL/VMLINUZ.;1", "/install.amd/vmlinuz", b"kernel" * 1000),
        ("/INSTALL/INITRD.GZ;1", "/install.amd/initrd.gz", b"initrd" * 1000),
    ):
        iso.add_fp(io.BytesIO(data), len(data), plain, **names(path))
    target = tmp_path / "installer.iso"
    iso.write(str(target))
    iso.close()
    return target


@pytest.mark.parametrize(
    "kind",
    [
        {"rock_ridge": "1.09"},
        {"joliet": 3},
        {"udf": "2.60"},
        {"rock_ridge": "1.09", "joliet": 3},
    ],
)
def test_an_installers_kernel(kind: dict[str, Any], tmp_path: Path) -> None:
    path = installer(tmp_path, **kind)
    assert read_from_iso(path, "/install.amd/vmlinuz") == b"kernel" * 1000
    assert read_from_iso(str(path), "install.amd/initrd.gz") == b"initrd" * 1000
    candidates = ["/casper/vmlinuz", "/install.amd", "/install.amd/vmlinuz", "/install.amd/initrd"]
    assert find_in_iso(path, candidates) == "/install.amd/vmlinuz"
    for missing in ("/install.amd/none", "/none/vmlinuz", "/", "", "/install.amd",
                    "/install.amd/../install.amd/vmlinuz", "/install.amd/vmlinuz/x"):  # fmt: skip
        with pytest.raises(NotFound):
            read_from_iso(path, missing)


def test_a_plain_iso_9660(tmp_path: Path) -> None:
    path = installer(tmp_path)
    # No extension tells the real names: capitals, and a version behind each.
    assert read_from_iso(path, "/install/vmlinuz") == b"kernel" * 1000
    assert find_in_iso(path, ["/install/initrd.gz"]) == "/install/initrd.gz"
    assert find_in_iso(path, ["/install/none", "/install"]) is None


@pytest.mark.skipif(shutil.which("xorriso") is None, reason="xorriso is not here")
def test_a_cd_that_xorriso_wrote(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "images/pxeboot").mkdir(parents=True)
    (tree / "images/pxeboot/vmlinuz").write_bytes(b"kernel")
    (tree / "link").symlink_to("images/pxeboot/vmlinuz")
    path = tmp_path / "cd.iso"
    subprocess.run(
        ["xorriso", "-as", "mkisofs", "-quiet", "-V", "X", "-R", "-J", "-o", path, tree],
        check=True, capture_output=True,
    )  # fmt: skip
    assert read_from_iso(path, "/images/pxeboot/vmlinuz") == b"kernel"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 100,
        bytes(100_000),
        make_iso("a", {"a": "b" * 9000})[:34000],
        make_iso("a", {"a": "b"})[:40000] + b"\xff" * 20000,
    ],
    ids=["empty", "short", "zeros", "cut off in the volume descriptors", "rubbish"],
)
def test_what_is_no_cd(data: bytes) -> None:
    with pytest.raises((Invalid, NotFound)):
        read_from_iso(io.BytesIO(data), "/a")
    with suppress(Invalid):
        assert find_in_iso(io.BytesIO(data), ["/a"]) is None


def test_a_cd_that_was_cut_off_in_a_file() -> None:
    data = make_iso("a", {"a": "b" * 90_000})
    with pytest.raises(Invalid):
        read_from_iso(io.BytesIO(data[:-30_000]), "/a")


def test_a_cd_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_from_iso(tmp_path / "none.iso", "/a")


# -- initrd


def test_an_archive_byte_by_byte() -> None:
    data = newc_archive({"preseed.cfg": "d-i\n"})
    assert len(data) % 512 == 0
    assert data[:6] == b"070701"
    assert int(data[14:22], 16) == 0o100644
    assert int(data[54:62], 16) == 4
    assert data[110:122] == b"preseed.cfg\0"
    assert data[124:128] == b"d-i\n"
    assert b"TRAILER!!!\0" in data


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not here")
def test_cpio_unpacks_it_behind_another_archive(tmp_path: Path) -> None:
    first = newc_archive({"init": "#!/bin/sh\n", "preseed.cfg": "old"})
    files = {"preseed.cfg": "new é\n", "etc/deep/file": "x" * 1001, "empty": ""}
    whole = first + bytes(-len(first) % 4) + newc_archive(files)
    target = tmp_path / "root"
    target.mkdir()
    # cpio stops at the end of the first archive, where the kernel goes on.
    for part in (first, whole[len(first) :]):
        subprocess.run(["cpio", "-idu", "--quiet"], input=part, cwd=target, check=True)
    for name, text in {"init": "#!/bin/sh\n", **files}.items():
        assert (target / name).read_text() == text
    assert gzip.compress(first)


def test_paths_that_do_not_belong_into_an_initrd() -> None:
    for path in (
        "/etc/passwd",
        "../x",
        "a/../b",
        "",
        "a//b",
        "a/",
        "TRAILER!!!",
        "a\0b",
        "a" * 300,
    ):
        with pytest.raises(Invalid):
            newc_archive({path: "x"})
