"""RBD images on a Xen host: vorch's hook (xen_hook.py) there, put in place and asked by ssh.

libvirt runs the hook when a guest starts and when it is gone. For all else, a disk that is plugged
in or what a fenced host has left, vorch asks the same program itself.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from importlib.resources import files
from typing import Any

from vorch import xen_xml
from vorch.drivers.ssh import Shell
from vorch.errors import Conflict, StepFailed
from vorch.model import RbdSource

# libvirt runs what is in such folders since 6.5, beside a hook that somebody else may have.
PLACE = "/etc/libvirt/hooks/libxl.d/vorch"
# Longer than the program itself waits for the kernel.
HOOK_TIMEOUT_S = 75.0
LOOK_TIMEOUT_S = 30.0
# Whole or not at all. libvirt looks for hooks when it starts and when it is told to read its
# settings again, which disturbs nobody.
INSTALL = """set -e
umask 022
mkdir -p {folder}
cat >{folder}/../.vorch.new
chmod 755 {folder}/../.vorch.new
mv {folder}/../.vorch.new {place}
pkill -HUP -x 'libvirtd|virtxend' || true
"""
REMOVE = """rm -f {place}
rmdir {folder} 2>/dev/null || true
pkill -HUP -x 'libvirtd|virtxend' || true
"""
ABOUT = "test -x {place} || exit 44; exec {place} about"
MISSING = 44


def xen_hook() -> str:
    """The hook's text, for a host's package or configuration management."""
    return files("vorch.drivers").joinpath("xen_hook.py").read_text(encoding="utf-8")


class XenDisks:
    """What a Xen host's kernel has mapped."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self._place = shlex.quote(PLACE)
        self._folder = shlex.quote(PLACE.rpartition("/")[0])

    # -- the hook

    def lack(self) -> str:
        """Why the host cannot open images as it is; "" when it can. Raises if nobody can see it."""
        try:
            seen = json.loads(self._script(ABOUT, timeout_s=LOOK_TIMEOUT_S))
        except StepFailed as exc:
            if exc.fields.get("status") != MISSING:
                raise
            return f"vorch's hook is not there ({PLACE})"
        if seen["digest"] != hashlib.sha256(xen_hook().encode()).hexdigest():
            return f"vorch's hook there is of another version ({PLACE})"
        return ""

    def install(self) -> None:
        self._script(INSTALL, xen_hook().encode(), timeout_s=LOOK_TIMEOUT_S)

    def remove(self) -> None:
        self._script(REMOVE, timeout_s=LOOK_TIMEOUT_S)

    # -- images

    def map(self, source: RbdSource, *, read_only: bool = False) -> None:
        self._ask("map", xen_xml.image_of(source, read_only=read_only))

    def unmap(self, path: str) -> None:
        """Safe to repeat."""
        self._ask("unmap", {"path": path})

    def release(self) -> tuple[str, ...]:
        """Unmap everything that vorch mapped, whoever has it open; what it was.

        `Conflict` when something is mapped still: that could write.
        """
        said = self._ask("release", {"force": True})
        if said["left"]:
            node = self.shell.node.name
            raise Conflict(
                f"cannot take the images from {node!r}: {'; '.join(said['left'])}; restart the"
                " host",
                node=node,
                left=said["left"],
            )
        return tuple(said["done"])

    def sweep(self) -> None:
        """Unmap what has been mapped for a while and nobody has open."""
        self._ask("release", {"force": False})

    def _ask(self, verb: str, about: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(about).encode()
        try:
            said = self.shell.run([PLACE, verb], data, timeout_s=HOOK_TIMEOUT_S)
        except StepFailed as exc:
            # A shell's own word for a program that is not there.
            if exc.fields.get("status") not in (126, 127):
                raise
            node = self.shell.node.name
            raise StepFailed(
                f"cannot {verb} images on {node!r}: vorch's hook is not there; install it"
                f" (vorch node change {node} --install-hook)",
                node=node,
            ) from exc
        found: dict[str, Any] = json.loads(said)
        return found

    def _script(self, text: str, data: bytes = b"", *, timeout_s: float) -> bytes:
        script = text.format(place=self._place, folder=self._folder)
        return self.shell.run(["sh", "-c", script], data, timeout_s=timeout_s)
