#!/usr/bin/python3 -IS
"""vorch's hook for libvirt on a Xen host: RBD images are mapped by the host's own kernel.

This file is copied to the host as it is, so it needs nothing but Python's own library, not even
Ceph's programs. libvirt runs it around the life of each guest, and vorch by ssh for a disk that is
plugged in. Which images a guest has stands in vorch's mark in the guest's XML. The key to them is
not there: the host keeps it as a libvirt secret, in a file that only root reads. It goes from there
to the kernel by a keyring, which is gone with this process; no command line and no log has it.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import Any

NAMESPACE = "urn:vorch:domain:1"
# What libvirt calls the parts of a guest's life before which its images have to be there, and after
# which not. One that comes from another host is prepared like one that starts; that it is about to
# come (`migrate`) is told without its XML to a hook that is not the first (libvirt 9.0).
BEFORE, AFTER = ("prepare",), ("release",)
# Links by the names of images. What has one is vorch's; what somebody else mapped is left alone.
LINKS = "/dev/vorch"
SECRETS = "/etc/libvirt/secrets"
BUS = "/sys/bus/rbd"
LOCK = "/run/vorch-xen-hook.lock"
# The number of add_key, and the keyring of this process alone.
ADD_KEY = {"x86_64": 248, "aarch64": 217}
OWN_KEYRING = -2
# What vorch maps is known by these words: each image has a client of its own, so that each guest is
# known by it; and the monitors have so long to answer.
OWN = "noshare,mount_timeout=23"
# For all of a mapping or an unmapping.
WORK_TIMEOUT_S = 40.0
# Who has it open lets go of it in this time: a guest that has just ended.
BUSY_S = 15.0
# What was mapped a moment ago may be waiting for its guest.
YOUNG_S = 600.0
REASONS = {
    errno.ENOENT: "there is no such pool or image",
    errno.EACCES: "Ceph refuses the key",
    errno.EPERM: "Ceph refuses the key",
    errno.ETIMEDOUT: "Ceph's monitors do not answer",
    errno.EHOSTUNREACH: "Ceph's monitors are not reached",
    errno.ENETUNREACH: "Ceph's monitors are not reached",
    errno.EIO: "Ceph refuses this host, or its monitors do not answer",
    errno.ESHUTDOWN: "Ceph refuses this host, which is cut off: vorch node unfence",
    errno.ENXIO: "it has features that this kernel does not know",
    errno.EBUSY: "it is in use",
    errno.ENOKEY: "the key is not to be found",
}


class Failed(Exception):
    """What cannot be done and why, for a person."""


# -- the kernel


def order(file: str, text: str, what: str, key: tuple[str, bytes] | None = None) -> int:
    """An order to the kernel, which may hang in it for ever: then it is left to that. The errno.

    By a child, since nobody can be waked who waits in there. The key is in its keyring, and goes
    with it.
    """
    child = os.fork()
    if not child:
        status = errno.EIO
        try:
            if key is not None:
                give_key(*key)
            handle = os.open(os.path.join(BUS, file), os.O_WRONLY)
            os.write(handle, text.encode())
            status = 0
        except OSError as exc:
            status = exc.errno or errno.EIO
        finally:
            os._exit(status)
    until = time.monotonic() + WORK_TIMEOUT_S
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    raise Failed(f"cannot {what}: the kernel is not done after {WORK_TIMEOUT_S:g} s")


def give_key(description: str, key: bytes) -> None:
    number = ADD_KEY.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOKEY, "no number is known")
    library = ctypes.CDLL(None, use_errno=True)
    size, ring = ctypes.c_size_t(len(key)), ctypes.c_int(OWN_KEYRING)
    if library.syscall(ctypes.c_long(number), b"ceph", description.encode(), key, size, ring) < 0:
        raise OSError(ctypes.get_errno(), "add_key")


def read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def mapped() -> list[dict[str, Any]]:
    """Everything that this kernel has mapped, whoever had it do so."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for number in sorted(os.listdir(f"{BUS}/devices"), key=int):
            place = f"{BUS}/devices/{number}"
            parts = [read(f"{place}/{part}") for part in ("pool", "pool_ns", "name")]
            found.append(
                {
                    "number": number,
                    "image": "/".join(part for part in parts if part),
                    "client": read(f"{place}/client_addr"),
                    "own": OWN in read(f"{place}/config_info"),
                    "links": links_to(f"/dev/rbd{number}"),
                }
            )
    return found


def links_to(device: str) -> list[str]:
    found = []
    for folder, _, names in os.walk(LINKS):
        for name in names:
            link = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                if os.readlink(link) == device:
                    found.append(link)
    return found


def unmap(number: str, *, force: bool, patience_s: float) -> str:
    """Why it is mapped still; "" when it is not."""
    what = f"unmap rbd{number}"
    until = time.monotonic() + patience_s
    words = f"{number} force" if force else number
    while True:
        status = order("remove_single_major", words, what)
        if status in (0, errno.ENOENT):
            return ""
        if status != errno.EBUSY or time.monotonic() >= until:
            return REASONS.get(status, os.strerror(status))
        time.sleep(0.2)


def options(disk: dict[str, str]) -> str:
    words = [f"name={disk['user']}", f"key=client.{disk['user']}", OWN]
    # Version 2 of Ceph's protocol is spoken at this port.
    if all(one.endswith(":3300") for one in disk["monitors"].split(",")):
        words.append("ms_mode=prefer-crc")
    if disk.get("namespace"):
        words.append(f"_pool_ns={disk['namespace']}")
    if disk.get("readonly") == "yes":
        words.append("ro")
    return ",".join(words)


# -- images


def name_of(disk: dict[str, str]) -> str:
    parts = (disk["pool"], disk.get("namespace", ""), disk["image"])
    return "/".join(part for part in parts if part)


def map_image(disk: dict[str, str]) -> None:
    """Anew, if it is mapped and nobody has it open: that client may be cut off."""
    link, image = checked_link(disk["path"]), name_of(disk)
    for one in mapped():
        if one["image"] == image and link in one["links"]:
            why = unmap(one["number"], force=False, patience_s=0.0)
            if why and disk.get("readonly") != "yes":
                raise Failed(f"cannot map {image}: it is open on this host already ({why})")
            if why:
                return
    secret = os.path.join(SECRETS, f"{disk['secret']}.base64")
    try:
        with open(secret, "rb") as file:
            key = base64.b64decode(file.read())
    except (OSError, ValueError) as exc:
        raise Failed(
            f"cannot map {image}: its key is not in {secret} ({exc}); try again from vorch"
        ) from exc
    load = ("modprobe", "-q", "rbd")
    if not os.path.exists(BUS) and os.spawnvp(os.P_WAIT, load[0], load):  # noqa: S606
        raise Failed(f"cannot map {image}: this kernel has no rbd (modprobe rbd)")
    before = {one["number"] for one in mapped()}
    words = f"{disk['monitors']} {options(disk)} {disk['pool']} {disk['image']} -"
    status = order("add_single_major", words, f"map {image}", (f"client.{disk['user']}", key))
    if status:
        raise Failed(f"cannot map {image}: {REASONS.get(status, os.strerror(status))}")
    new = [one for one in mapped() if one["number"] not in before and one["image"] == image]
    if len(new) != 1:
        raise Failed(f"cannot map {image}: the kernel says that it did, and shows it not")
    device = f"/dev/rbd{new[0]['number']}"
    os.makedirs(os.path.dirname(link), mode=0o755, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link)
    os.symlink(device, link)
    until = time.monotonic() + 10
    # By the kernel itself, or by udev.
    while not os.path.exists(device):
        if time.monotonic() > until:
            unmap_image(link)
            raise Failed(f"cannot map {image}: {device} does not appear")
        time.sleep(0.05)


def unmap_image(path: str) -> None:
    """Safe to repeat."""
    link, failures = checked_link(path), []
    for one in mapped():
        if link in one["links"]:
            why = unmap(one["number"], force=False, patience_s=BUSY_S)
            if why:
                failures.append(f"{one['image']} (rbd{one['number']}): {why}")
    if failures:
        raise Failed(f"cannot unmap {', '.join(failures)}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link)


def checked_link(path: str) -> str:
    if not re.fullmatch(re.escape(LINKS) + r"(/[A-Za-z0-9_][A-Za-z0-9._-]*){3,4}", path):
        raise Failed(f"cannot use {path!r}: it is not below {LINKS}")
    return path


def release(*, force: bool) -> dict[str, Any]:
    """Unmap everything of vorch's, and see that it is gone. `force`: from who has it open, too.

    Without, what is young stays: its guest may be about to start.
    """
    left, done = [], []
    for one in mapped():
        young = any(age_s(link) < YOUNG_S for link in one["links"])
        if not (one["own"] or one["links"]) or (young and not force):
            continue
        try:
            why = unmap(one["number"], force=force, patience_s=0.0)
        except Failed as exc:
            why = str(exc)
        if why:
            left.append(f"{one['image']} (rbd{one['number']}): {why}")
            continue
        done.append(one["image"])
        for link in one["links"]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(link)
    return {"done": done, "left": left}


def age_s(path: str) -> float:
    try:
        return time.time() - os.lstat(path).st_mtime
    except OSError:
        return 0.0


# -- who asks


def images_of(domain: ElementTree.Element) -> list[dict[str, str]]:
    """The images in vorch's mark; none in a guest that is not vorch's."""
    mark = domain.find(f"metadata/{{{NAMESPACE}}}vm")
    return [] if mark is None else [dict(one.attrib) for one in mark.findall(f"{{{NAMESPACE}}}rbd")]


def links_of(domain: ElementTree.Element) -> list[str]:
    """What it has had as disks, whether it began with them or not."""
    places = [one.get("dev", "") for one in domain.findall("devices/disk/source")]
    places += [one["path"] for one in images_of(domain)]
    return sorted({place for place in places if place.startswith(f"{LINKS}/")})


def around_a_guest(operation: str) -> None:
    # By libvirt's own writing.
    domain = ElementTree.fromstring(sys.stdin.read())  # noqa: S314
    if operation in AFTER:
        failures = []
        for link in links_of(domain):
            try:
                unmap_image(link)
            except Failed as exc:
                failures.append(str(exc))
        if failures:
            raise Failed("; ".join(failures))
        return
    done: list[str] = []
    try:
        for disk in images_of(domain):
            map_image(disk)
            done.append(disk["path"])
    except Failed:
        for link in done:
            with contextlib.suppress(Failed):
                unmap_image(link)
        raise


def about() -> dict[str, Any]:
    with open(__file__, "rb") as own:
        digest = hashlib.sha256(own.read()).hexdigest()
    return {"digest": digest, "mapped": mapped()}


def ordered(verb: str) -> dict[str, Any]:
    """What vorch asks for by ssh; what it is about comes on standard input."""
    if verb == "about":
        return about()
    asked = json.load(sys.stdin)
    if verb == "map":
        map_image(asked)
    elif verb == "unmap":
        unmap_image(asked["path"])
    elif verb == "release":
        return release(force=asked["force"])
    else:
        raise Failed(f"cannot do {verb!r}: not known")
    return {}


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """One at a time."""
    handle = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def main(words: list[str]) -> int:
    by_vorch = len(words) == 1
    operation = words[0] if by_vorch else words[1]
    if not by_vorch and operation not in (*BEFORE, *AFTER):
        return 0
    try:
        with turn():
            if by_vorch:
                sys.stdout.write(json.dumps(ordered(operation)) + "\n")
            else:
                around_a_guest(operation)
    except Failed as exc:
        sys.stderr.write(f"vorch: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if len(sys.argv) > 1 else 2)
