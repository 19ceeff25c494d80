"""The hook of Xen hosts as a program of its own, and how a host is reached by ssh."""

from __future__ import annotations

import json
import os
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.test_domain_xml import disk, vm
from tests.test_xen_xml import CASES, made
from vorch.drivers import xen_hook
from vorch.drivers.ssh import Shell
from vorch.drivers.xen_disks import xen_hook as hook_text
from vorch.errors import Invalid, StepFailed, Unreachable
from vorch.model import Node


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of a host on which nothing is mapped."""
    for name in ("bus/devices", "links", "secrets"):
        (tmp_path / name).mkdir(parents=True)
    for name, place in (("BUS", "bus"), ("LINKS", "links"), ("SECRETS", "secrets")):
        monkeypatch.setattr(xen_hook, name, str(tmp_path / place))
    monkeypatch.setattr(xen_hook, "LOCK", str(tmp_path / "lock"))
    return tmp_path


def mapping(host: Path, number: int, image: str, words: str = "") -> None:
    """As the kernel shows one; what is written to the bus changes nothing here."""
    place = host / "bus/devices" / str(number)
    place.mkdir()
    pool, _, name = image.partition("/")
    texts = {"pool": pool, "pool_ns": "", "name": name, "client_addr": "10.0.0.5:0/7"}
    for part, text in {**texts, "config_info": words}.items():
        (place / part).write_text(f"{text}\n")


def test_the_file_that_is_installed_is_this_one_and_can_be_run() -> None:
    assert hook_text() == Path(xen_hook.__file__).read_text()
    assert hook_text().startswith("#!/usr/bin/python3 -IS\n")


@pytest.mark.parametrize("operation", ["start", "started", "stopped", "reconnect"])
def test_of_most_of_a_guest_s_life_it_wants_to_know_nothing(operation: str) -> None:
    done = subprocess.run(
        ["/usr/bin/python3", "-IS", xen_hook.__file__, "web", operation, "begin", "-"],
        input="this is no XML",
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_images_are_those_in_the_mark_and_links_are_those_of_all_disks() -> None:
    domain = ElementTree.fromstring(made(CASES["mapped"]))
    images = xen_hook.images_of(domain)
    assert [xen_hook.name_of(one) for one in images] == ["vms/team/web", "vms/tools"]
    assert [one["readonly"] for one in images] == ["no", "yes"]
    plugged = made(CASES["mapped"]).replace("/team/web", "/team/more", 1)
    links = xen_hook.links_of(ElementTree.fromstring(plugged))
    assert [link.rpartition("/")[2] for link in links] == ["more", "web", "tools"]
    other = ElementTree.fromstring(made(vm(disks=(disk(),))))
    assert (xen_hook.images_of(other), xen_hook.links_of(other)) == ([], [])


def test_the_kernel_is_told_by_which_protocol_and_never_the_key() -> None:
    image = {"user": "vorch", "namespace": "", "monitors": "10.0.0.1:3300,10.0.0.2:3300"}
    words = xen_hook.options(image)
    assert words == f"name=vorch,key=client.vorch,{xen_hook.OWN},ms_mode=prefer-crc"
    older = {**image, "monitors": "10.0.0.1:6789", "namespace": "team", "readonly": "yes"}
    assert xen_hook.options(older).endswith(f"{xen_hook.OWN},_pool_ns=team,ro")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/dev/vorch/../sda", "/dev/vorch/a", "/dev/vorch/a/b/c/d/e", "/vorch/a"]
)
def test_links_stay_where_they_belong(path: str) -> None:
    with pytest.raises(xen_hook.Failed, match="it is not below /dev/vorch"):
        xen_hook.checked_link(path)


def test_an_image_without_its_key_is_not_mapped(
    host: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {
        "path": f"{host}/links/1/vms/web",
        "pool": "vms",
        "image": "web",
        "user": "vorch",
        "secret": "1",
        "monitors": "10.0.0.1:3300",
        "namespace": "",
        "readonly": "no",
    }
    read, write = os.pipe()
    os.write(write, json.dumps(asked).encode())
    os.close(write)
    with os.fdopen(read) as given:
        monkeypatch.setattr("sys.stdin", given)
        assert xen_hook.main(["map"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("vorch: cannot map vms/web: its key is not in")


def test_what_somebody_else_mapped_is_left_alone(host: Path) -> None:
    mapping(host, 0, "vms/theirs", "10.0.0.1:3300 name=admin,key=client.admin vms theirs -")
    mapping(host, 3, "vms/ours", f"10.0.0.1:3300 name=vorch,{xen_hook.OWN} vms ours -")
    (host / "bus/remove_single_major").touch()
    assert [(one["image"], one["own"]) for one in xen_hook.mapped()] == [
        ("vms/theirs", False),
        ("vms/ours", True),
    ]
    assert xen_hook.release(force=True) == {"done": ["vms/ours"], "left": []}
    assert (host / "bus/remove_single_major").read_text() == "3 force"


def test_what_cannot_be_unmapped_is_told(host: Path) -> None:
    """Here for want of a kernel that is asked."""
    mapping(host, 3, "vms/ours", xen_hook.OWN)
    (host / "bus/remove_single_major").mkdir()
    left = xen_hook.release(force=True)["left"]
    assert left == ["vms/ours (rbd3): Is a directory"]


@pytest.mark.parametrize(
    ("uri", "ssh", "way"),
    [
        ("xen+tls://x1/system", "", "root@x1"),
        ("xen+tls://x1:16514/system?pkipath=/p", "", "root@x1"),
        ("xen+ssh://admin@x1:2222/system?keyfile=/k", "", "admin@x1:2222"),
        ("xen+tls://[fd00::5]/system", "", "root@fd00::5"),
        ("xen+tls://x1/system", "root@10.0.0.5", "root@10.0.0.5"),
        ("xen+tls://x1/system", "ssh://10.0.0.5:23?keyfile=/k", "root@10.0.0.5:23"),
        ("xen:///system", "", ""),
    ],
)
def test_the_way_by_ssh_is_that_of_the_uri_or_the_one_that_was_given(
    uri: str, ssh: str, way: str
) -> None:
    assert Shell(Node(name="x1", uri=uri, ssh=ssh)).way == way


@pytest.mark.parametrize(
    "ssh", ["root:hush@x1", "-oProxyCommand=x@x1", "root@-x1", "http://x1", "root@", "root@x1/etc"]
)
def test_a_way_that_is_none_is_refused(ssh: str) -> None:
    with pytest.raises(Invalid, match="way by ssh"):
        Node(name="x1", uri="xen+tls://x1/system", ssh=ssh)


def test_this_machine_s_own_commands_need_no_ssh() -> None:
    shell = Shell(Node(name="x1", uri="xen:///system"))
    assert shell.run(["cat"], b"given", timeout_s=20) == b"given"
    with pytest.raises(StepFailed, match="cannot run 'sh' on 'x1': no way out") as caught:
        shell.run(["sh", "-c", "echo no way out >&2; exit 7"], timeout_s=20)
    assert caught.value.fields["status"] == 7
    with pytest.raises(Unreachable, match=r"not done after 0\.2 s"):
        shell.run(["sleep", "5"], timeout_s=0.2)
    with pytest.raises(Unreachable, match="is not there"):
        shell.run(["no-such-program"], timeout_s=20)
    shell.close()


@pytest.mark.parametrize(
    ("first", "tries"),
    [
        ("Connection timed out during banner exchange", 2),
        # What ssh says when the connection that serves all commands breaks.
        ("", 2),
        ("Permission denied (publickey)", 1),
    ],
)
def test_what_never_ran_is_run_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, tries: int
) -> None:
    asked = tmp_path / "asked"
    program = tmp_path / "ssh"
    program.write_text(
        f"#!/bin/sh\necho once >>{asked}\n[ $(wc -l <{asked}) -gt 1 ] && exec echo done\n"
        f"[ -z '{first}' ] || echo '{first}' >&2\nexit 255\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    shell = Shell(Node(name="x1", uri="xen+tls://x1/system"))
    if tries == 2:
        assert shell.run(["true"], timeout_s=20) == b"done\n"
    else:
        with pytest.raises(Unreachable, match="Permission denied"):
            shell.run(["true"], timeout_s=20)
    assert len(asked.read_text().split()) == tries
    shell.close()
