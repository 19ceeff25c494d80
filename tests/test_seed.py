"""What guests are told by cloud-init: right for YAML readers, and nothing gets lost in merging."""

from __future__ import annotations

import email
import json
from email.message import Message
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vorch.decide.seed import seed_files
from vorch.errors import Invalid
from vorch.model import CloudInit, Nic, StaticAddress

NIC = Nic(name="net0", mac="52:54:00:00:00:01", network="default")
SECOND = Nic(name="net1", mac="52:54:00:00:00:02", network="default")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPoTNRQJ you@home"
HASH = "$6$salt$abcdefgh12345678"


def config(cloud_init: CloudInit) -> Any:
    text = seed_files("web", "i-1", (), cloud_init)["user-data"]
    first, rest = text.split("\n", 1)
    assert first == "#cloud-config"
    return json.loads(rest)


def parts(text: str) -> list[Message]:
    """Of a MIME message, as cloud-init reads it."""
    found = list(email.message_from_string(text).walk())
    assert found[0].is_multipart()
    return found[1:]


def network(nics: tuple[Nic, ...], *addresses: StaticAddress | None) -> Any:
    files = seed_files("web", "i-1", nics, CloudInit(addresses=addresses))
    return json.loads(files["network-config"])


def test_who_the_guest_is() -> None:
    files = seed_files("web", "i-1", (NIC,), CloudInit())
    assert set(files) == {"meta-data", "user-data", "network-config"}
    assert json.loads(files["meta-data"]) == {"instance-id": "i-1", "local-hostname": "web"}
    named = seed_files("web", "i-2", (), CloudInit(hostname="front"))
    assert json.loads(named["meta-data"]) == {"instance-id": "i-2", "local-hostname": "front"}
    assert "network-config" not in named


def test_the_user() -> None:
    found = config(CloudInit(user="alice", ssh_keys=(KEY,), password_hash=HASH))
    assert found["users"] == [
        {
            "name": "alice",
            "shell": "/bin/bash",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "lock_passwd": False,
            "passwd": HASH,
            "ssh_authorized_keys": [KEY],
        }
    ]
    (only_key,) = config(CloudInit(user="alice", ssh_keys=(KEY,)))["users"]
    assert only_key["lock_passwd"] is True
    assert "passwd" not in only_key
    assert "users" not in config(CloudInit())


def test_packages_and_commands() -> None:
    found = config(CloudInit(packages=("nginx",), commands=("echo 'a: b' > /x", "true")))
    assert found["packages"] == ["nginx"]
    assert found["package_update"] is True
    assert found["runcmd"] == ["echo 'a: b' > /x", "true"]


def test_networks_by_mac_address() -> None:
    found = network((NIC, SECOND))
    assert found == {
        "version": 2,
        "ethernets": {
            "net0": {"match": {"macaddress": NIC.mac}, "dhcp4": True},
            "net1": {"match": {"macaddress": SECOND.mac}, "dhcp4": True, "optional": True},
        },
    }


def test_static_addresses() -> None:
    static = StaticAddress(address="10.0.0.5/24", gateway="10.0.0.1", dns=("10.0.0.2", "9.9.9.9"))
    found = network((NIC, SECOND), None, static)["ethernets"]
    assert found["net0"]["dhcp4"] is True
    assert found["net1"] == {
        "match": {"macaddress": SECOND.mac},
        "dhcp4": False,
        "addresses": ["10.0.0.5/24"],
        "routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}],
        "nameservers": {"addresses": ["10.0.0.2", "9.9.9.9"]},
        "optional": True,
    }
    six = StaticAddress(address="fd00::5/64", gateway="fd00::1")
    assert network((NIC,), six)["ethernets"]["net0"]["routes"] == [{"to": "::/0", "via": "fd00::1"}]
    bare = network((NIC,), StaticAddress(address="10.0.0.5/24"))["ethernets"]["net0"]
    assert set(bare) == {"match", "dhcp4", "addresses"}


def test_more_addresses_than_nics() -> None:
    with pytest.raises(Invalid, match="at most one"):
        seed_files("web", "i-1", (NIC,), CloudInit(addresses=(None, None)))


@pytest.mark.parametrize(
    ("user_data", "kind"),
    [
        ("#!/bin/sh\necho hello\n", "text/x-shellscript"),
        ("#cloud-config\nruncmd: [true]\n", "text/cloud-config"),
        ("#cloud-config-archive\n- x\n", "text/cloud-config-archive"),
        ("#cloud-config-jsonp\n[]\n", "text/cloud-config-jsonp"),
        ("#cloud-boothook\n#!/bin/sh\n", "text/cloud-boothook"),
        ("#include\nhttps://example.org/x\n", "text/x-include-url"),
        ("#include-once\nhttps://example.org/x\n", "text/x-include-once-url"),
        ("#part-handler\n", "text/part-handler"),
        ("## template: jinja\n#cloud-config\n", "text/jinja2"),
    ],
)
def test_user_data_of_the_persons_own(user_data: str, kind: str) -> None:
    cloud_init = CloudInit(user="alice", ssh_keys=(KEY,), user_data=user_data)
    text = seed_files("web", "i-1", (), cloud_init)["user-data"]
    # cloud-init looks for this in the first 4096 bytes.
    assert "mime-version:" in text[:4096].lower()
    ours, theirs = parts(text)
    assert ours.get_content_type() == "text/cloud-config"
    assert "alice" in str(ours.get_payload(decode=True))
    assert theirs.get_content_type() == kind
    assert theirs.get_payload(decode=True) == user_data.encode()


def test_lists_of_the_person_are_added_to_ours() -> None:
    text = seed_files("web", "i-1", (), CloudInit(user="a", user_data="#cloud-config\nusers: []\n"))
    _, theirs = parts(text["user-data"])
    assert theirs["Merge-Type"] == "list(append)+dict(no_replace,recurse_list)+str()"


def test_user_data_in_any_language_comes_through_unread() -> None:
    user_data = "#!/bin/sh\necho 'größer – 大きい 😀'\r\n--vorch-user-data\n" + "x" * 2000 + "\n"
    text = seed_files("web", "i-1", (), CloudInit(user_data=user_data))["user-data"]
    _, theirs = parts(text)
    assert theirs.get_payload(decode=True) == user_data.encode()


@pytest.mark.parametrize(
    "user_data",
    [
        "hello",
        "\n#cloud-config\n",
        "cloud-config",
        "#upstart-job\n",
        "{}",
        "\ufeff#cloud-config\n",
        "Content-Type: multipart/mixed\n\nx",
        "MIME-Version: 1.0\n",
        "#!/bin/sh\n\ud800",
    ],
)
def test_user_data_that_cloud_init_does_not_know(user_data: str) -> None:
    with pytest.raises(Invalid):
        seed_files("web", "i-1", (), CloudInit(user_data=user_data))


def test_names_that_do_not_fit() -> None:
    with pytest.raises(Invalid):
        seed_files("Web Server", "i-1", (), CloudInit())
    for instance in ("", "a b", "a\nb", "a" * 129):
        with pytest.raises(Invalid):
            seed_files("web", instance, (), CloudInit())


def test_the_same_seed_is_the_same_bytes() -> None:
    cloud_init = CloudInit(user="alice", ssh_keys=(KEY,), user_data="#!/bin/sh\n")
    one, two = (seed_files("web", "i-1", (NIC,), cloud_init) for _ in range(2))
    assert one == two


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40))
def test_commands_mean_the_same_in_yaml_and_json(command: str) -> None:
    yaml = pytest.importorskip("yaml")
    try:
        cloud_init = CloudInit(commands=(command,))
    except Invalid:
        return
    text = seed_files("web", "i-1", (), cloud_init)["user-data"]
    assert yaml.safe_load(text)["runcmd"] == [command]
    assert json.loads(text.split("\n", 1)[1])["runcmd"] == [command]
