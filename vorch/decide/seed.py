"""What a guest is told at its first boot: the files of a cloud-init NoCloud seed.

YAML is written as JSON, which every YAML reader takes. The instance id is the caller's: a clone
gets one of its own, so that cloud-init runs anew there (host keys, host name, network).
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

from vorch.errors import Invalid
from vorch.model import CloudInit, Nic, StaticAddress, check_vm_name

LABEL = "cidata"

# First line of user-data → its MIME type. Longer ones first: the first that fits counts.
_KINDS: tuple[tuple[str, str], ...] = (
    ("## template: jinja", "jinja2"),
    ("#cloud-config-archive", "cloud-config-archive"),
    ("#cloud-config-jsonp", "cloud-config-jsonp"),
    ("#cloud-config", "cloud-config"),
    ("#cloud-boothook", "cloud-boothook"),
    ("#part-handler", "part-handler"),
    ("#include-once", "x-include-once-url"),
    ("#include", "x-include-url"),
    ("#!", "x-shellscript"),
)
# Without it, cloud-init lets a later part's lists replace ours: a `users:` or `packages:` of the
# person's own would make the user and packages that were asked for vanish.
_MERGE = "list(append)+dict(no_replace,recurse_list)+str()"
# The same text every time, so that the same seed is the same bytes.
_BOUNDARY = "vorch-user-data"


def seed_files(
    vm_name: str, instance_id: str, nics: tuple[Nic, ...], cloud_init: CloudInit
) -> dict[str, str]:
    """meta-data, user-data and, when there are NICs, network-config."""
    check_vm_name(vm_name)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", instance_id):
        raise Invalid(f"cannot use {instance_id!r} as instance id: letters, digits, '.', '_', '-'")
    if len(cloud_init.addresses) > len(nics):
        raise Invalid(
            f"cannot give VM {vm_name!r} {len(cloud_init.addresses)} addresses: it has {len(nics)}"
            " NICs; give at most one address for each NIC, in their order"
        )
    hostname = cloud_init.hostname or vm_name
    files = {
        "meta-data": _json({"instance-id": instance_id, "local-hostname": hostname}),
        "user-data": _user_data(cloud_init),
    }
    if nics:
        files["network-config"] = _json(_network(nics, cloud_init.addresses))
    return files


def _json(body: dict[str, Any]) -> str:
    # Not ASCII alone: escapes of pairs (\ud83d\ude00) mean something else in YAML than in JSON.
    text = json.dumps(body, indent=2, ensure_ascii=False)
    # JSON leaves these as they are, and YAML takes them for line ends.
    for sign in "\x7f\x85\u2028\u2029\ufeff":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text + "\n"


def _cloud_config(cloud_init: CloudInit) -> dict[str, Any]:
    config: dict[str, Any] = {"manage_etc_hosts": "localhost"}
    if cloud_init.user:
        user: dict[str, Any] = {
            "name": cloud_init.user,
            "shell": "/bin/bash",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "lock_passwd": not cloud_init.password_hash,
        }
        if cloud_init.password_hash:
            user["passwd"] = cloud_init.password_hash
        if cloud_init.ssh_keys:
            user["ssh_authorized_keys"] = list(cloud_init.ssh_keys)
        config["users"] = [user]
    if cloud_init.packages:
        config["package_update"] = True
        config["packages"] = list(cloud_init.packages)
    if cloud_init.commands:
        config["runcmd"] = list(cloud_init.commands)
    return config


def _user_data(cloud_init: CloudInit) -> str:
    ours = "#cloud-config\n" + _json(_cloud_config(cloud_init))
    if not cloud_init.user_data:
        return ours
    return _joined([("cloud-config", ours), (_kind_of(cloud_init.user_data), cloud_init.user_data)])


def _kind_of(user_data: str) -> str:
    try:
        user_data.encode()
    except UnicodeEncodeError as exc:
        raise Invalid("cannot use that user-data: it is not sound text; give it as UTF-8") from exc
    if user_data.lower().startswith(("content-type:", "mime-version:")):
        raise Invalid(
            "cannot use that user-data: it is a MIME message already; give its parts one by one, or"
            " as a '#cloud-config-archive'"
        )
    for beginning, kind in _KINDS:
        if user_data.startswith(beginning):
            return kind
    first = user_data.split("\n", 1)[0][:60]
    raise Invalid(
        f"cannot use that user-data: its first line, {first!r}, is not one that cloud-init knows;"
        f" begin it with one of {', '.join(beginning for beginning, _ in reversed(_KINDS))}"
    )


def _joined(parts: list[tuple[str, str]]) -> str:
    # Imported here: few seeds need it, and it takes as long to load as all of `decide`.
    from email.mime.multipart import MIMEMultipart
    from email.mime.text import MIMEText

    message = MIMEMultipart(boundary=_BOUNDARY)
    for number, (kind, text) in enumerate(parts, 1):
        part = MIMEText(text, kind, "utf-8")
        part.add_header("Content-Disposition", "attachment", filename=f"part-{number}")
        if number > 1 and kind == "cloud-config":
            part.add_header("Merge-Type", _MERGE)
        message.attach(part)
    return message.as_string()


def _network(nics: tuple[Nic, ...], addresses: tuple[StaticAddress | None, ...]) -> dict[str, Any]:
    """Version 2. Found by MAC address, so it does not matter what the guest calls the device."""
    ethernets: dict[str, Any] = {}
    for number, nic in enumerate(nics):
        static = addresses[number] if number < len(addresses) else None
        ethernets[nic.name] = {"match": {"macaddress": nic.mac}, **_addresses(static)}
        if number:
            # Only the first one holds up the boot when nothing answers on it.
            ethernets[nic.name]["optional"] = True
    return {"version": 2, "ethernets": ethernets}


def _addresses(static: StaticAddress | None) -> dict[str, Any]:
    if static is None:
        return {"dhcp4": True}
    found: dict[str, Any] = {"dhcp4": False, "addresses": [static.address]}
    if static.gateway:
        # Written out: "default" is not known to older guests, and gateway4 no more to newer ones.
        everywhere = "0.0.0.0/0" if ipaddress.ip_address(static.gateway).version == 4 else "::/0"
        found["routes"] = [{"to": everywhere, "via": static.gateway}]
    if static.dns:
        found["nameservers"] = {"addresses": list(static.dns)}
    return found
