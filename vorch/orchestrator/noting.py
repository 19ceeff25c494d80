"""Definitions are kept on the disks as well, so that a lost store can be rebuilt from its pools.

No verb waits for that, and none fails for it. The commit that writes a definition also writes a
marker (`note/vm.web`) that it is still to be noted; a thread does it and takes the marker away, if
the definition is still the one that was noted. What a process leaves behind, the next one notes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Any

from vorch.codec import decode, encode
from vorch.decide import rebuild
from vorch.errors import Conflict, VorchError
from vorch.model import Image, Network, Vm, Volume
from vorch.plan import Save
from vorch.ports import Change, Document, World

KIND = rebuild.MARKER
KINDS = ("vm", "image")
# So long it waits for other verbs to end, which it would take time from.
DELAY_S = 0.5
# How long the end of a process waits for notes that are on their way.
CLOSE_TIMEOUT_S = 3.0
# A definition that changes while it is noted is noted again.
TRIES = 5


class Noter:
    """One thread at a time, which ends when nothing is left to note."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._again = False
        self._hurry = threading.Event()

    def markers(self, saves: Sequence[tuple[Save, dict[str, Any] | None]]) -> list[Change]:
        """What is written along with these documents, each with the body that it gets."""
        changes = {}
        for save, body in saves:
            kind, _, name = save.key.partition("/")
            pools = sorted(self._pools(save.before) | self._pools(body)) if kind in KINDS else []
            if pools:
                key, marker = rebuild.marker(kind, name, pools)
                changes[key] = Change(key, None, marker)
        return list(changes.values())

    def _pools(self, body: dict[str, Any] | None) -> set[str]:
        """Those of its disks' pools that keep notes."""
        found = set()
        for disk in (body or {}).get("disks", ()):
            pool = (disk.get("volume") or {}).get("pool")
            with contextlib.suppress(VorchError):
                if pool and pool not in found and self._world.images(pool).keeps_notes:
                    found.add(pool)
        return found

    def wake(self) -> None:
        """Something may be there to be noted."""
        if not self._world.threads:
            self._round()
            return
        with self._lock:
            self._again = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="vorch-notes", daemon=True)
                self._thread.start()

    def close(self) -> None:
        self._hurry.set()
        thread = self._thread
        if thread is not None:
            thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._again:
                    self._thread = None
                    return
                self._again = False
            self._hurry.wait(DELAY_S)
            self._round()

    def _round(self) -> None:
        # What cannot be noted now keeps its marker.
        with contextlib.suppress(VorchError):
            for marker in self._world.state.read([KIND]).values():
                with contextlib.suppress(VorchError):
                    self._note(marker)

    def _note(self, marker: Document) -> None:
        key = str(marker.body["key"])
        for _ in range(TRIES):
            document = self._world.state.get(key)
            if key.startswith("vm/"):
                self._note_vm(document)
            else:
                self._note_image(key.partition("/")[2], document, marker.body["pools"])
            version = 0 if document is None else document.version
            try:
                self._world.state.commit(
                    [Change(marker.key, None, None), Change(key, version, check_only=True)]
                )
            except Conflict:
                continue
            return

    def _note_vm(self, document: Document | None) -> None:
        if document is None:
            # Its disks are in the trash, or are nobody's now.
            return
        vm = decode(Vm, document.body)
        volume = self._home(vm)
        if volume is None:
            return
        networks = []
        for name in dict.fromkeys(nic.network for nic in vm.nics):
            found = self._world.state.get(f"network/{name}")
            if found is not None:
                networks.append(decode(Network, found.body))
        text = rebuild.vm_note(encode(vm), [encode(one) for one in networks], volume.pool)
        self._world.images(volume.pool).note(volume.name, rebuild.VM_NOTE, text)

    def _home(self, vm: Vm) -> Volume | None:
        """The first of its own disks that a note can be kept on."""
        for disk in vm.data_disks:
            if disk.volume is not None and self._world.images(disk.volume.pool).keeps_notes:
                return disk.volume
        return None

    def _note_image(self, name: str, document: Document | None, pools: Sequence[str]) -> None:
        """On the pool itself: clones would inherit what is on their base."""
        image = None if document is None else decode(Image, document.body)
        for pool in pools:
            here = image is not None and image.disks[0].volume.pool == pool
            text = rebuild.image_note(encode(image), pool) if here else ""
            self._world.images(pool).note("", rebuild.IMAGE_NOTE + name, text)
