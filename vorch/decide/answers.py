"""Unattended installs: which command line, which files and where, for each kind of answer file.

    preseed        Debian (and Ubuntu up to 20.04): a file in the initrd's root
    kickstart      Fedora, EL: a CD labelled OEMDRV, which the installer looks for by itself
    autoinstall    Ubuntu Server from 20.04 on: a cloud-init seed, for the installer itself
    autounattend   Windows: a file on any CD; the installer's CD boots by itself

The first three start the installer's own kernel and initrd, taken off its CD.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from vorch.errors import Invalid
from vorch.model import check_vm_name

LARGEST_ANSWERS = 1024 * 1024
SERIAL_CONSOLE = "console=ttyS0,115200n8"


class AnswerKind(StrEnum):
    PRESEED = "preseed"
    KICKSTART = "kickstart"
    AUTOINSTALL = "autoinstall"
    AUTOUNATTEND = "autounattend"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How an installer is told its answers."""

    kind: AnswerKind
    # "kernel": start `kernel` and `initrd` with the command line. "cd": boot the installer's CD.
    boots: Literal["kernel", "cd"]
    command_line: str = ""
    # Added to the initrd's root.
    initrd_files: dict[str, str] = field(default_factory=dict, repr=False)
    # On a CD of its own, beside the installer's; no CD when there are none.
    cd_label: str = ""
    cd_files: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallerFiles:
    """Where an installer's CD has its kernel and initrd."""

    system: str
    kernel: str
    initrd: str


# In the order in which to look. Text installers come before graphical and live ones.
INSTALLERS: tuple[InstallerFiles, ...] = (
    InstallerFiles(system="Debian", kernel="/install.amd/vmlinuz", initrd="/install.amd/initrd.gz"),
    InstallerFiles(system="Debian", kernel="/install.a64/vmlinuz", initrd="/install.a64/initrd.gz"),
    InstallerFiles(system="Debian", kernel="/install/vmlinuz", initrd="/install/initrd.gz"),
    InstallerFiles(system="Debian", kernel="/linux", initrd="/initrd.gz"),
    InstallerFiles(system="Ubuntu", kernel="/casper/vmlinuz", initrd="/casper/initrd"),
    InstallerFiles(system="Ubuntu", kernel="/casper/hwe-vmlinuz", initrd="/casper/hwe-initrd"),
    InstallerFiles(system="Ubuntu", kernel="/casper/vmlinuz", initrd="/casper/initrd.gz"),
    InstallerFiles(system="Ubuntu", kernel="/casper/vmlinuz", initrd="/casper/initrd.lz"),
    InstallerFiles(
        system="Fedora, EL", kernel="/images/pxeboot/vmlinuz", initrd="/images/pxeboot/initrd.img"
    ),
    InstallerFiles(system="EL", kernel="/isolinux/vmlinuz", initrd="/isolinux/initrd.img"),
    InstallerFiles(
        system="openSUSE", kernel="/boot/x86_64/loader/linux", initrd="/boot/x86_64/loader/initrd"
    ),
    InstallerFiles(system="openSUSE", kernel="/boot/aarch64/linux", initrd="/boot/aarch64/initrd"),
)

KERNEL_PATHS: tuple[str, ...] = tuple(dict.fromkeys(one.kernel for one in INSTALLERS))
INITRD_PATHS: tuple[str, ...] = tuple(dict.fromkeys(one.initrd for one in INSTALLERS))


def answers(
    text: str,
    kind: AnswerKind | None = None,
    *,
    hostname: str = "",
    extra_arguments: str = "",
    serial: bool = True,
) -> Answers:
    """What to do with an answer file; its kind is judged by its content unless it is given.

    `extra_arguments` go to the end of the kernel's command line. With `serial` the installer talks
    on the serial console, where `vorch console` shows it.
    """
    if len(text) > LARGEST_ANSWERS or "\0" in text:
        raise Invalid("cannot use that answer file: it is not text of at most 1 MiB; check it")
    if hostname:
        check_vm_name(hostname, "host name")
    if not re.fullmatch(r"[\x20-\x7e]*", extra_arguments):
        raise Invalid(
            "cannot use those kernel arguments: they must be printable ASCII on one line; check"
            " them"
        )
    kind = kind or judge(text)
    console = [SERIAL_CONSOLE] if serial else []
    match kind:
        case AnswerKind.PRESEED:
            # auto asks late, when the answers are there; critical asks nothing that has a default.
            arguments = ["auto=true", "priority=critical", *console]
            if hostname:
                # Else d-i takes what DHCP says, or stops to ask.
                arguments += [f"hostname={hostname}", "domain="]
            return Answers(
                kind=kind,
                boots="kernel",
                command_line=_line(arguments, extra_arguments),
                initrd_files={"preseed.cfg": text},
            )
        case AnswerKind.KICKSTART:
            arguments = ["inst.ks=hd:LABEL=OEMDRV:/ks.cfg", "inst.text", *console]
            return Answers(
                kind=kind,
                boots="kernel",
                command_line=_line(arguments, extra_arguments),
                cd_label="OEMDRV",
                cd_files={"ks.cfg": text},
            )
        case AnswerKind.AUTOINSTALL:
            # The word on the command line is the consent to wipe the disk, which is else asked for.
            return Answers(
                kind=kind,
                boots="kernel",
                command_line=_line(["autoinstall", "ds=nocloud", *console], extra_arguments),
                cd_label="cidata",
                cd_files={"meta-data": "{}\n", "user-data": text},
            )
        case AnswerKind.AUTOUNATTEND:
            if extra_arguments:
                raise Invalid(
                    "cannot pass kernel arguments to that installer: Windows boots from its own CD;"
                    " leave them away"
                )
            return Answers(
                kind=kind,
                boots="cd",
                cd_label="UNATTEND",
                cd_files={"autounattend.xml": text},
            )


def _line(arguments: list[str], extra: str) -> str:
    return " ".join([*arguments, *extra.split()])


_PRESEED = re.compile(
    r"^\s*[a-z0-9][a-z0-9+.-]*\s+[A-Za-z0-9+._-]+/\S+\s+"
    r"(string|boolean|select|multiselect|password|note|text|seen|error|title)\b",
    re.MULTILINE,
)
_KICKSTART = re.compile(
    r"^\s*(%(packages|pre|post|include|addon|pre-install|onerror)\b"
    r"|(rootpw|clearpart|autopart|bootloader|zerombr|ignoredisk|ostreesetup|liveimg|authselect|lang"
    r"|keyboard|timezone|url|part|cdrom|network|reboot|poweroff)(\s|$))",
    re.MULTILINE,
)
_AUTOINSTALL = re.compile(r"""^["']?autoinstall["']?\s*:""", re.MULTILINE)
_UNATTEND = re.compile(r"<(\w+:)?unattend[\s>]")


def judge(text: str) -> AnswerKind:
    """The kind of an answer file, by its content. `Invalid` when it looks like none, or several."""
    start = text.lstrip("\ufeff \t\r\n")
    if start.startswith("<"):
        if _UNATTEND.search(start):
            return AnswerKind.AUTOUNATTEND
    elif start.startswith("#cloud-config"):
        if _AUTOINSTALL.search(start):
            return AnswerKind.AUTOINSTALL
    elif _PRESEED.search(text):
        # Commands in a preseed may look like a kickstart's lines; the reverse does not happen.
        return AnswerKind.PRESEED
    elif _KICKSTART.search(text):
        return AnswerKind.KICKSTART
    kinds = ", ".join(AnswerKind)
    raise Invalid(
        f"cannot tell what kind of answer file that is: it looks like none of {kinds}; say which it"
        " is"
    )
