"""Many writers started on a slow machine: a few at a time, and each watched until it has written.

Under emulation a guest takes ten seconds of a core until it writes, and twenty of them at once keep
each other waiting for minutes. Now and then a kernel falls over in emulation, or hangs: it is told
from a slow one by the time that its CPU has taken, and started anew, which a warning tells. So this
is for what comes before a test proper.
"""

from __future__ import annotations

import re
import time
import warnings
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import libvirt
import pytest

from tests.lab import bare
from vorch import Orchestrator
from vorch.errors import VorchError
from vorch.lab import Lab
from vorch.lab.writer_log import parse_acks
from vorch.ports import Console

# Kernels that are unpacked and booted at the same time.
AT_ONCE = 4
# Many times what a boot takes of a core.
FELL_OVER_CPU_S = 120.0
# For one that takes no time at all, neither.
BOOT_TIMEOUT_S = 600.0
ATTEMPTS = 3
LOOK_EVERY_S = 5.0
ANSWER_TIMEOUT_S = 60.0
TOLD_LINES = 12
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\x00]")


class _Boot:
    """One attempt of one guest, heard through its console from its start on."""

    def __init__(self, lab: Lab, cluster: Orchestrator, name: str) -> None:
        self._lab = lab
        self._vm = cluster.show(name).vm
        self.name = name
        self.started_at = time.monotonic()
        self.looked_at = self.started_at
        self.cpu_s = 0.0
        self.power = "it runs"
        self.text = ""
        self._console: Console | None = None
        with suppress(VorchError):
            self._console = cluster.console(name)

    def listen(self) -> str:
        """The boot that has written, or ""."""
        if self._console is not None:
            try:
                self.text += self._console.read(0.05).decode(errors="replace")
            except VorchError:
                self.close()
        return next((ack.boot for ack in parse_acks(self.text)), "")

    def look(self) -> str:
        """Why this attempt is given up, or ""."""
        now = time.monotonic()
        if now - self.looked_at < LOOK_EVERY_S:
            return ""
        self.looked_at = now
        with bare.connected(self._lab, self._vm.node) as host:
            try:
                state, *_, cpu_ns = host.lookupByUUIDString(self._vm.id).info()
            except libvirt.libvirtError as exc:
                if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
                return "its QEMU has ended"
        self.cpu_s = cpu_ns / 1e9
        if state != libvirt.VIR_DOMAIN_RUNNING:
            self.power = f"libvirt's state {state}"
            return "it does not run"
        if self.cpu_s > FELL_OVER_CPU_S:
            return f"it hangs: {self.cpu_s:.0f} s of CPU and nothing written"
        if now - self.started_at > BOOT_TIMEOUT_S:
            return f"nothing written after {BOOT_TIMEOUT_S:.0f} s"
        return ""

    def told(self) -> str:
        lines = [line for line in _ESCAPES.sub("", self.text).splitlines() if line.strip()]
        said = "\n".join(f"    {line}" for line in lines[-TOLD_LINES:]) or "    nothing"
        return (
            f"{self.name} on {self._vm.node}, {time.monotonic() - self.started_at:.0f} s after its"
            f" start, {self.cpu_s:.0f} s of CPU, {self.power}; its console said last:\n{said}"
        )

    def close(self) -> None:
        if self._console is not None:
            with suppress(VorchError):
                self._console.close()
            self._console = None


def start_and_await(lab: Lab, cluster: Orchestrator, names: Sequence[str]) -> dict[str, str]:
    """Start these writers, which are off; returns once each has written: its boot → its name."""
    waiting = deque(names)
    booting: list[_Boot] = []
    attempts = dict.fromkeys(names, 0)
    written: dict[str, str] = {}
    try:
        while waiting or booting:
            while waiting and len(booting) < AT_ONCE:
                name = waiting.popleft()
                attempts[name] += 1
                cluster.start(name)
                booting.append(_Boot(lab, cluster, name))
            for one in list(booting):
                boot = one.listen()
                why = "" if boot else one.look()
                if not boot and not why:
                    continue
                one.close()
                booting.remove(one)
                if boot:
                    written[boot] = one.name
                    continue
                told = f"{one.name} does not write: {why}\n{one.told()}"
                if attempts[one.name] == ATTEMPTS:
                    others = "\n".join(other.told() for other in booting)
                    pytest.fail(f"{told}\nafter {ATTEMPTS} attempts. Booting beside it:\n{others}")
                warnings.warn(f"started anew before the test: {told}", stacklevel=2)
                cluster.stop(one.name, force=True)
                waiting.append(one.name)
            time.sleep(0.1)
    finally:
        for one in booting:
            one.close()
    return written


def plight(lab: Lab, cluster: Orchestrator, name: str) -> tuple[bool, str]:
    """Of a guest that has stopped writing: whether its kernel has fallen over, and what is seen.

    One that waits for its disk still answers at its console: somebody who presses the return key
    gets a prompt, or at least his key back. Of one whose QEMU runs and that is deaf there, too,
    nothing but its processor is left to blame.
    """
    vm = cluster.show(name).vm
    said, running, used_s = "", False, 0.0
    with bare.connected(lab, vm.node) as host:
        domain = host.lookupByUUIDString(vm.id)
        before = domain.info()[4]
        try:
            console = cluster.console(name)
            try:
                deadline = time.monotonic() + ANSWER_TIMEOUT_S
                while not said and time.monotonic() < deadline:
                    console.write(b"\r")
                    said = _ESCAPES.sub("", console.read(LOOK_EVERY_S).decode(errors="replace"))
            finally:
                console.close()
        except VorchError as exc:
            said = f"(no console: {exc.message})"
        state, *_, after = domain.info()
        running, used_s = state == libvirt.VIR_DOMAIN_RUNNING, (after - before) / 1e9
    answer = repr(said[-500:]) if said else f"nothing in {ANSWER_TIMEOUT_S:.0f} s"
    return running and not said, (
        f"{name} on {vm.node}: {'runs' if running else f'libvirt state {state}'}, {used_s:.1f} s of"
        f" CPU while its console was asked, which answered {answer}"
    )
