"""Unattended installs: each kind of answer file comes to its installer as that one reads it."""

from __future__ import annotations

import pytest

from vorch.decide.answers import (
    INITRD_PATHS,
    INSTALLERS,
    KERNEL_PATHS,
    AnswerKind,
    answers,
    judge,
)
from vorch.errors import Invalid

PRESEED = """\
#### Contents of the preconfiguration file
d-i debian-installer/locale string en_US
d-i passwd/root-password-crypted password $6$x
tasksel tasksel/first multiselect standard
d-i preseed/late_command string \\
    in-target touch /done; \\
    reboot
"""
KICKSTART = "lang en_US\nrootpw --lock\nclearpart --all\n%packages\n@core\n%end\n"
AUTOINSTALL = "#cloud-config\nautoinstall:\n  version: 1\n"
UNATTEND = (
    '<?xml version="1.0" encoding="utf-8"?>\n'
    '<unattend xmlns="urn:schemas-microsoft-com:unattend"><settings/></unattend>\n'
)


def test_preseed_goes_into_the_initrd() -> None:
    found = answers(PRESEED, hostname="web")
    assert found.kind is AnswerKind.PRESEED
    assert found.boots == "kernel"
    assert found.initrd_files == {"preseed.cfg": PRESEED}
    assert (found.cd_label, found.cd_files) == ("", {})
    assert found.command_line == (
        "auto=true priority=critical console=ttyS0,115200n8 hostname=web domain="
    )


def test_kickstart_goes_onto_a_cd_that_anaconda_looks_for() -> None:
    found = answers(KICKSTART)
    assert found.kind is AnswerKind.KICKSTART
    assert found.boots == "kernel"
    assert (found.cd_label, found.cd_files) == ("OEMDRV", {"ks.cfg": KICKSTART})
    assert found.initrd_files == {}
    assert found.command_line == (
        "inst.ks=hd:LABEL=OEMDRV:/ks.cfg inst.text console=ttyS0,115200n8"
    )


def test_autoinstall_is_a_seed_for_the_installer() -> None:
    found = answers(AUTOINSTALL)
    assert found.kind is AnswerKind.AUTOINSTALL
    assert found.cd_label == "cidata"
    assert set(found.cd_files) == {"user-data", "meta-data"}
    assert found.command_line.split()[0] == "autoinstall"


def test_windows_boots_from_its_own_cd() -> None:
    found = answers(UNATTEND)
    assert found.kind is AnswerKind.AUTOUNATTEND
    assert found.boots == "cd"
    assert found.command_line == ""
    assert found.cd_files == {"autounattend.xml": UNATTEND}
    with pytest.raises(Invalid):
        answers(UNATTEND, extra_arguments="quiet")


def test_arguments_of_the_persons_own_come_last() -> None:
    found = answers(KICKSTART, extra_arguments="  inst.repo=cdrom  debug ", serial=False)
    assert found.command_line == "inst.ks=hd:LABEL=OEMDRV:/ks.cfg inst.text inst.repo=cdrom debug"
    for arguments in ("a\nb", "a\0", "é"):
        with pytest.raises(Invalid):
            answers(KICKSTART, extra_arguments=arguments)
    with pytest.raises(Invalid):
        answers(PRESEED, hostname="not a name")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (PRESEED, AnswerKind.PRESEED),
        ("d-i\tmirror/country\tstring\tmanual\n", AnswerKind.PRESEED),
        ("openssh-server openssh-server/permit-root-login boolean true\n", AnswerKind.PRESEED),
        (KICKSTART, AnswerKind.KICKSTART),
        ("# a comment\r\nurl --url=https://example.org\r\n", AnswerKind.KICKSTART),
        ("%pre\n#!/bin/sh\n%end\n", AnswerKind.KICKSTART),
        (AUTOINSTALL, AnswerKind.AUTOINSTALL),
        ('#cloud-config\n"autoinstall": {}\n', AnswerKind.AUTOINSTALL),
        (UNATTEND, AnswerKind.AUTOUNATTEND),
        ("\ufeff" + UNATTEND, AnswerKind.AUTOUNATTEND),
        ('<u:unattend xmlns:u="urn:schemas-microsoft-com:unattend"/>', AnswerKind.AUTOUNATTEND),
    ],
)
def test_kinds_by_content(text: str, kind: AnswerKind) -> None:
    assert judge(text) is kind
    assert answers(text).kind is kind


@pytest.mark.parametrize(
    "text", ["", "hello world\n", "<html></html>", "#cloud-config\nusers: []\n", "part/of a path\n"]
)
def test_what_looks_like_none(text: str) -> None:
    with pytest.raises(Invalid, match="preseed, kickstart, autoinstall, autounattend"):
        answers(text)
    assert answers(text, AnswerKind.PRESEED).kind is AnswerKind.PRESEED


def test_what_is_no_text() -> None:
    for text in ("d-i a/b string \0", "x" * (1024 * 1024 + 1)):
        with pytest.raises(Invalid):
            answers(text, AnswerKind.PRESEED)


def test_where_installers_keep_their_kernels() -> None:
    systems = {one.system for one in INSTALLERS}
    assert {"Debian", "Ubuntu", "Fedora, EL", "openSUSE"} <= systems
    for one in INSTALLERS:
        # The kernel that is found tells which initrds belong to it: those in its folder.
        assert one.kernel.rpartition("/")[0] == one.initrd.rpartition("/")[0]
    assert len(set(KERNEL_PATHS)) == len(KERNEL_PATHS)
    assert "/images/pxeboot/initrd.img" in INITRD_PATHS
