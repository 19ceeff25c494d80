"""CD images: small ones are written for guests and installers, installers' are read.

Written with Joliet and Rock Ridge, so that names like `user-data` and `autounattend.xml` are right
under Windows as well as under Linux.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from vorch.drivers.os_errors import translated
from vorch.errors import Invalid, NotFound

# A kernel or initrd is far smaller; what is larger does not belong into memory.
LARGEST_FILE_BYTES = 512 * 1024**2
_BLOCK_BYTES = 2048
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,15}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


def make_iso(label: str, files: Mapping[str, str]) -> bytes:
    """A CD image with these texts at its root."""
    # Imported here: it takes a tenth of a second, and few commands need it.
    from pycdlib import PyCdlib
    from pycdlib.pycdlibexception import PyCdlibException

    if not _LABEL.fullmatch(label):
        raise Invalid(
            f"cannot label a CD {label!r}: a label has 1 to 16 of letters, digits, '_' and '-'"
        )
    plain_names = _plain_names(files)
    iso = PyCdlib()
    try:
        iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", sys_ident="LINUX",
                vol_ident=label)  # fmt: skip
        for name, text in files.items():
            data = text.encode()
            iso.add_fp(
                io.BytesIO(data),
                len(data),
                f"/{plain_names[name]}",
                rr_name=name,
                joliet_path=f"/{name}",
                file_mode=0o100444,
            )
        image = io.BytesIO()
        iso.write_fp(image)
    except PyCdlibException as exc:
        raise Invalid(f"cannot write CD {label!r}: {exc}; choose other file names") from exc
    finally:
        iso.close()
    return image.getvalue()


def _plain_names(files: Mapping[str, str]) -> dict[str, str]:
    """Names of capitals, digits and one dot, for readers that know neither of the extensions."""
    found: dict[str, str] = {}
    for name in files:
        if not _NAME.fullmatch(name):
            raise Invalid(
                f"cannot put {name!r} on a CD: a name has 1 to 64 of letters, digits, '.', '_' and"
                " '-', and is no path"
            )
        stem, _, ending = name.upper().rpartition(".") if "." in name else (name.upper(), "", "")
        stem = re.sub(r"[^A-Z0-9_]", "_", stem)[:20]
        ending = re.sub(r"[^A-Z0-9_]", "_", ending)[:5]
        plain, count = f"{stem}.{ending};1", 1
        while plain in found.values():
            count += 1
            plain = f"{stem}_{count}.{ending};1"
        found[name] = plain
    return found


def read_from_iso(image: str | Path | BinaryIO, inner_path: str) -> bytes:
    """One file off a CD. NotFound if it is not on it."""
    with _opened(image) as (iso, length):
        found = _locate(iso, inner_path)
        if found is None:
            raise NotFound(
                f"cannot find {inner_path!r} on the CD: there is no such file; look at what is on"
                " it, and name the path as it is there",
                path=inner_path,
            )
        record = iso.get_record(**found)
        size = record.get_data_length()
        if size > LARGEST_FILE_BYTES:
            raise Invalid(
                f"cannot read {inner_path!r} off the CD: it has {size} bytes, more than the"
                f" {LARGEST_FILE_BYTES} that a kernel or initrd may have; name another file"
            )
        # pycdlib quietly shortens a file that goes beyond the end of the image.
        promised = iso.pvd.space_size * _BLOCK_BYTES
        if length < promised and record.extent_location() * _BLOCK_BYTES + size >= length:
            raise Invalid(
                f"cannot read {inner_path!r} off the CD: the image was cut off after {length} of"
                f" {promised} bytes; fetch it anew"
            )
        data = io.BytesIO()
        iso.get_file_from_iso_fp(data, **found)
    return data.getvalue()


def find_in_iso(image: str | Path | BinaryIO, candidates: Sequence[str]) -> str | None:
    """The first of these paths that is a file on the CD."""
    with _opened(image) as (iso, _):
        return next((path for path in candidates if _locate(iso, path) is not None), None)


@contextmanager
def _opened(image: str | Path | BinaryIO) -> Iterator[tuple[Any, int]]:
    """pycdlib's view of it, and how many bytes it has."""
    from pycdlib import PyCdlib
    from pycdlib.pycdlibexception import PyCdlibException

    iso = PyCdlib()
    with translated("read the CD image"), ExitStack() as stack:
        if isinstance(image, str | Path):
            image = stack.enter_context(Path(image).open("rb"))
        try:
            length = image.seek(0, io.SEEK_END)
            image.seek(0)
            iso.open_fp(image)
            stack.callback(iso.close)
            yield iso, length
        except (PyCdlibException, ArithmeticError, LookupError, ValueError, struct.error) as exc:
            # pycdlib also stumbles with plain Python errors over what is no CD.
            raise Invalid(
                f"cannot read the CD image: {type(exc).__name__}: {exc}; see that it is a whole"
                " ISO 9660 image"
            ) from exc


def _locate(iso: Any, path: str) -> dict[str, str] | None:
    """The file as pycdlib wants it named, in the best of the name spaces that the CD has."""
    parts = [part for part in path.split("/") if part]
    if not parts or ".." in parts:
        return None
    whole = "/" + "/".join(parts)
    for kind, there in (
        ("rr_path", iso.has_rock_ridge()),
        ("joliet_path", iso.has_joliet()),
        ("udf_path", iso.has_udf()),
    ):
        if there and _is_file(iso, {kind: whole}):
            return {kind: whole}
    # Plain ISO 9660 has capitals and version numbers, and dots where there was nothing to divide.
    found = ""
    for part in parts:
        name = _child(iso, found or "/", part)
        if name is None:
            return None
        found = f"{found}/{name}"
    return {"iso_path": found} if _is_file(iso, {"iso_path": found}) else None


def _child(iso: Any, folder: str, wanted: str) -> str | None:
    from pycdlib.pycdlibexception import PyCdlibException

    try:
        names = [
            child.file_identifier().decode("utf-8", "replace")
            for child in iso.list_children(iso_path=folder)
            if child is not None and not child.is_dot() and not child.is_dotdot()
        ]
    except PyCdlibException:
        return None
    return next((name for name in names if _bare(name) == _bare(wanted)), None)


def _bare(name: str) -> str:
    return re.sub(r";[0-9]+$", "", name).rstrip(".").casefold().replace("-", "_")


def _is_file(iso: Any, place: dict[str, str]) -> bool:
    from pycdlib.pycdlibexception import PyCdlibException

    try:
        return bool(iso.get_record(**place).is_file())
    except PyCdlibException:
        return False
