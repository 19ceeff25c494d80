"""Bringing disk images of strangers into a local pool: fetch, judge, convert, put in place.

A raw image is converted straight from where it is, since nothing in it can refer elsewhere. Every
other format is first copied into the pool, then judged, then opened by qemu-img: between judgement
and opening nobody else can change it. Whatever goes wrong, nothing of it stays behind.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vorch.drivers.disk_formats import Judged, is_cd, judge_disk
from vorch.drivers.fetch import Origin, pour
from vorch.drivers.pool_folder import PoolFolder, opened, read_header, sync_file
from vorch.drivers.qemu_img import cpu_limit_s, qemu_img
from vorch.errors import Invalid, StepFailed, VorchError
from vorch.ports import Imported, Progress

_CHECK_CPU_S = 600
# What qemu-img check ends with when it found nothing wrong, lost space only, or knows no checks.
_CHECK_PASSED = (0, 3, 63)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def check_sha256(sha256: str, what: str) -> None:
    """Before anything is fetched: one that nothing can have is a slip of the hand."""
    if sha256 and not _SHA256.fullmatch(sha256):
        raise Invalid(
            f"cannot {what}: {sha256!r} is not a SHA-256, which has 64 of 0-9 and a-f; give it"
            " whole, or leave it away"
        )


@dataclass(frozen=True, slots=True)
class Conversion:
    """From an image of a known format to one of our own."""

    format: str
    source: str
    size_bytes: int
    what: str
    options: tuple[str, ...] = ()
    pass_files: tuple[int, ...] = ()
    fault: type[VorchError] = StepFailed
    target_format: Literal["qcow2", "raw"] = "qcow2"

    def check_room(self, folder: PoolFolder) -> None:
        """Holes take no room, and compressed parts take more than they do now: qemu-img knows."""
        measured = qemu_img(
            ["measure", "--output=json", *self.options, "-f", self.format,
             "-O", self.target_format, self.source],
            self.what,
            cpu_s=_CHECK_CPU_S,
            pass_files=self.pass_files,
            fault=self.fault,
        )  # fmt: skip
        folder.check_room(int(json.loads(measured)["required"]), self.what)

    def run(self, target: Path, progress: Progress) -> None:
        qemu_img(
            ["convert", "-p", *self.options, "-f", self.format, "-O", self.target_format,
             self.source, str(target)],
            self.what,
            cpu_s=cpu_limit_s(self.size_bytes),
            progress=progress,
            pass_files=self.pass_files,
            fault=self.fault,
        )  # fmt: skip


def import_plain(
    folder: PoolFolder,
    location: str,
    source: Origin,
    volume: str,
    content: Literal["iso", "file"],
    sha256: str,
    progress: Progress,
) -> Imported:
    """Just as it is; a CD image must be one."""
    what = f"import {location!r}"
    with folder.work_file() as work:
        found = pour(source, work, what, progress, folder.room_for(what))
        _check_sum(what, sha256, found)
        with opened(work) as file:
            size = os.fstat(file).st_size
            if content == "iso" and not is_cd(file):
                raise Invalid(
                    f"cannot {what}: it is not a CD image (ISO 9660 or UDF); a disk image is"
                    " imported as a disk"
                )
        folder.place(work, volume, "raw", what)
    return Imported(size, "iso" if content == "iso" else "raw", found)


def import_disk(
    folder: PoolFolder,
    location: str,
    source: Origin,
    volume: str,
    sha256: str,
    progress: Progress,
) -> Imported:
    what = f"import {location!r}"
    judged: Judged | None = None
    if source.file is not None:
        # What cannot be taken is refused before it is copied.
        judged = judge_disk(source.file, what)
    with folder.work_file() as work:
        if source.file is not None and judged is not None and judged.format == "raw":
            found = _convert_raw(folder, source, source.file, judged, work, what, sha256, progress)
        else:
            judged, found = _convert_copy(folder, source, work, location, sha256, progress)
        sync_file(work)
        size = read_header(work).size_bytes
        folder.place(work, volume, "qcow2", what)
    return Imported(size, judged.format, found)


def _convert_copy(
    folder: PoolFolder,
    source: Origin,
    work: Path,
    location: str,
    sha256: str,
    progress: Progress,
) -> tuple[Judged, str]:
    what = f"import {location!r}"
    with folder.work_file() as copy:
        found = pour(source, copy, what, _span(progress, 0, 50), folder.room_for(what))
        _check_sum(what, sha256, found)
        with opened(copy) as file:
            judged = judge_disk(file, what)
        progress(50, f"it is a {judged.format} image of {judged.size_bytes} bytes")
        _check_whole(judged, copy, what)
        conversion = Conversion(judged.format, str(copy), judged.size_bytes, what, fault=Invalid)
        conversion.check_room(folder)
        conversion.run(work, _span(progress, 50, 100))
    return judged, found


def _convert_raw(
    folder: PoolFolder,
    source: Origin,
    file: int,
    judged: Judged,
    work: Path,
    what: str,
    sha256: str,
    progress: Progress,
) -> str:
    before = _state_of(file)
    progress(0, f"it is a raw image of {judged.size_bytes} bytes")
    found = pour(source, None, what, _span(progress, 0, 40), folder.room_for(what))
    _check_sum(what, sha256, found)
    # The open file is handed on, not its name: what was judged is what is converted.
    conversion = Conversion(
        "raw", f"/dev/fd/{file}", judged.size_bytes, what, pass_files=(file,), fault=Invalid
    )
    conversion.check_room(folder)
    conversion.run(work, _span(progress, 40, 100))
    if _state_of(file) != before:
        raise Invalid(f"cannot {what}: it changed meanwhile; import it when nobody writes it")
    return found


def _check_whole(judged: Judged, path: Path, what: str) -> None:
    """Parts that are missing at the end of a file would be read as zeros, and nobody told."""
    if judged.format != "raw":
        qemu_img(
            ["check", "-q", "-f", judged.format, str(path)],
            f"{what}: it is damaged or was cut off",
            cpu_s=_CHECK_CPU_S,
            fault=Invalid,
            accept=_CHECK_PASSED,
        )


def _check_sum(what: str, wanted: str, found: str) -> None:
    if wanted and wanted.lower() != found:
        raise Invalid(
            f"cannot {what}: its SHA-256 is {found}, not {wanted.lower()} as it should be; fetch it"
            " again, or correct the checksum",
            expected=wanted.lower(),
            found=found,
        )


def _state_of(file: int) -> tuple[int, int, int]:
    state = os.fstat(file)
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _span(progress: Progress, low: float, high: float) -> Progress:
    """A part's own 0 to 100 percent as a stretch of the whole's."""

    def part(percent: float | None = None, line: str | None = None) -> None:
        progress(None if percent is None else low + (high - low) * percent / 100, line)

    return part
