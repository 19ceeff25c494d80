"""What a lab consists of: its size, its networks, every address and every folder. Pure data."""

from __future__ import annotations

import ipaddress
import json
import re
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from vorch.errors import Denied, Invalid, NotFound

# Where labs stand. One folder for each; `down` removes it.
HOME = Path("/var/lib/vorch/labs")
DEFAULT_NAME = "lab"
DEFAULT_RANGE = "10.77.0.0/16"
# The lab's name is part of a link's name, and the kernel gives those 15 characters.
NAME = re.compile(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?")
# Addresses end with .11 and up for KVM hosts, .51 and up for Xen hosts, a hundred more for the BMCs
# of both; the guests' begin at .171.
MOST_HOSTS = 30
# Each of them is a machine of 2 GiB, emulated.
MOST_XEN_HOSTS = 8
FIRST_XEN_ADDRESS = 51
MOST_OSDS = 60
MONITOR_COUNTS = (1, 3)
GUEST_ADDRESSES = (171, 250)
# The name of Ceph's pool for disks and of the user that may use it.
POOL = "vms"
CEPH_USER = "vorch"
BMC_USER, BMC_PASSWORD = "admin", "vorch-lab"
# What every address of a lab is derived from, so that a host keeps its UUID when it is made anew.
_UUID_ROOT = uuid.UUID("5c1f7a52-6f0e-4d0a-9a56-0d6c1d1f6a10")


@dataclass(frozen=True, slots=True)
class LabSpec:
    """One lab, as it was asked for. The networks are two /24 out of the range that was chosen."""

    name: str = DEFAULT_NAME
    hosts: int = 3
    # Hosts with Xen, beside those with KVM.
    xen: int = 0
    # They have a hypervisor that moves PV guests live, which the distribution's own does not.
    xen_live: bool = False
    # The folder of what they start from, built before the lab began.
    xen_image: str = ""
    osds: int = 3
    mons: int = 1
    hyperconverged: bool = False
    # Ceph is on the management network, as in a cluster that has no other.
    one_network: bool = False
    management: str = "10.77.0.0/24"
    storage: str = "10.77.1.0/24"
    home: str = str(HOME)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise Invalid(
                f"cannot make lab {self.name!r}: a name has 1 to 10 small letters, digits and"
                " dashes, a letter first and no dash at the end; choose another one"
            )
        if not 1 <= self.hosts <= MOST_HOSTS:
            raise Invalid(
                f"cannot make lab {self.name!r}: {self.hosts} hosts were asked for; a lab has 1 to"
                f" {MOST_HOSTS}"
            )
        if not 0 <= self.xen <= MOST_XEN_HOSTS:
            raise Invalid(
                f"cannot make lab {self.name!r}: {self.xen} Xen hosts were asked for; a lab has up"
                f" to {MOST_XEN_HOSTS} beside its KVM hosts"
            )
        if self.xen_live and not self.xen:
            raise Invalid(
                f"cannot make lab {self.name!r}: a hypervisor for live moves was asked for, and no"
                " Xen host to run it; say how many (--xen)"
            )
        if not 0 <= self.osds <= MOST_OSDS:
            raise Invalid(
                f"cannot make lab {self.name!r}: {self.osds} OSDs were asked for; a lab has 1 to"
                f" {MOST_OSDS}, or 0 for no Ceph at all"
            )
        if self.mons not in MONITOR_COUNTS:
            raise Invalid(
                f"cannot make lab {self.name!r}: {self.mons} monitors were asked for; use 1, or 3"
                " to see one of them die"
            )
        for subnet in (self.management, self.storage):
            if ipaddress.IPv4Network(subnet).prefixlen != 24:
                raise Invalid(f"cannot make lab {self.name!r}: network {subnet} is not a /24")

    # --- the parts by name ----------------------------------------------------------------------

    @property
    def ceph(self) -> bool:
        return self.osds > 0

    @property
    def kvm_names(self) -> tuple[str, ...]:
        return tuple(f"h{number}" for number in range(1, self.hosts + 1))

    @property
    def xen_names(self) -> tuple[str, ...]:
        return tuple(f"x{number}" for number in range(1, self.xen + 1))

    @property
    def host_names(self) -> tuple[str, ...]:
        return self.kvm_names + self.xen_names

    @property
    def mon_names(self) -> tuple[str, ...]:
        return ("a", "b", "c")[: self.mons] if self.ceph else ()

    @property
    def osd_numbers(self) -> tuple[int, ...]:
        return tuple(range(self.osds))

    def host_of_osd(self, osd: int) -> str | None:
        """The host that OSD lives and dies with; None where they run beside the hosts."""
        return self.kvm_names[osd % self.hosts] if self.hyperconverged else None

    def host_of_mon(self, mon: str) -> str | None:
        """The host that monitor lives and dies with: one on each host, the rest apart.

        A single one is always apart: no host's end is to be the end of all of Ceph.
        """
        number = self.mon_names.index(mon)
        on_hosts = self.hyperconverged and self.mons > 1 and number < self.hosts
        return self.kvm_names[number] if on_hosts else None

    def mons_of(self, host: str) -> tuple[str, ...]:
        return tuple(mon for mon in self.mon_names if self.host_of_mon(mon) == host)

    def osds_of(self, host: str) -> tuple[int, ...]:
        return tuple(osd for osd in self.osd_numbers if self.host_of_osd(osd) == host)

    @property
    def option(self) -> str:
        """What a command for this lab has to say beside its verb."""
        return "" if self.name == DEFAULT_NAME else f" --name {self.name}"

    def known_host(self, host: str) -> str:
        if host not in self.host_names:
            raise NotFound(
                f"cannot find host {host!r}: lab {self.name!r} has {', '.join(self.host_names)}"
            )
        return host

    def host_uuid(self, host: str) -> str:
        return str(uuid.uuid5(_UUID_ROOT, f"{self.name}/{host}"))

    def mac_address(self, host: str, cable: str) -> str:
        """A card keeps its address over a power cut: others still have it in their ARP tables."""
        digest = uuid.uuid5(_UUID_ROOT, f"{self.name}/{host}/{cable}").bytes
        # Set by software, for one receiver.
        return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))

    # --- addresses ------------------------------------------------------------------------------

    @property
    def own_management(self) -> str:
        """The address of this machine itself, where vorch runs, on the management network."""
        return _address(self.management, 1)

    @property
    def own_storage(self) -> str:
        return _address(self.storage, 1)

    def management_address(self, host: str) -> str:
        return _address(self.management, self._number(host))

    def storage_address(self, host: str) -> str:
        return _address(self.storage, self._number(host))

    def bmc_address(self, host: str) -> str:
        return _address(self.management, 100 + self._number(host))

    def mon_address(self, mon: str) -> str:
        host = self.host_of_mon(mon)
        if host is not None:
            return self.ceph_address_of(host)
        return _address(self.ceph_network, 3 + self.mon_names.index(mon))

    def osd_address(self, osd: int) -> str:
        """OSDs beside the hosts share one address: that of the storage network's own machine."""
        host = self.host_of_osd(osd)
        return self.ceph_address_of(host) if host else self.ceph_address

    @property
    def ceph_network(self) -> str:
        return self.management if self.one_network else self.storage

    def ceph_address_of(self, host: str) -> str:
        """Where a host's own traffic with Ceph comes from."""
        return self.management_address(host) if self.one_network else self.storage_address(host)

    @property
    def ceph_address(self) -> str:
        # On the management network .2 gives guests their addresses.
        return _address(self.ceph_network, 9 if self.one_network else 2)

    @property
    def dhcp_address(self) -> str:
        return _address(self.management, 2)

    @property
    def guest_range(self) -> tuple[str, str]:
        """What guests on the management network get by DHCP."""
        first, last = GUEST_ADDRESSES
        return _address(self.management, first), _address(self.management, last)

    @property
    def own_links(self) -> tuple[str, str]:
        """The two links by which this machine is on the lab's networks: management, storage."""
        return f"vl-{self.name}-m", f"vl-{self.name}-s"

    def uri(self, host: str) -> str:
        """Where libvirt of a host answers, for a client on this machine."""
        address = self.management_address(self.known_host(host))
        return f"{self._driver(host)}+tls://{address}/system?pkipath={self.client_pki}"

    def ssh_key(self, host: str) -> Path:
        return self.host_folder(self.known_host(host)) / "machine/key"

    def known_hosts(self, host: str) -> Path:
        return self.host_folder(self.known_host(host)) / "machine/known_hosts"

    def ssh(self, host: str) -> str:
        """How vorch reaches a Xen host by ssh; "": the host has no need of it."""
        if host not in self.xen_names:
            return ""
        files = f"keyfile={self.ssh_key(host)}&known_hosts={self.known_hosts(host)}"
        return f"ssh://root@{self.management_address(host)}?{files}"

    def peer_uri(self, host: str) -> str:
        """Where it answers for the lab's other hosts: the target of a peer-to-peer migration."""
        return f"{self._driver(host)}+tls://{self.known_host(host)}/system"

    def _driver(self, host: str) -> str:
        """libvirt's name for what runs there."""
        return "xen" if host in self.xen_names else "qemu"

    def bmc_url(self, host: str) -> str:
        return f"https://{self.bmc_address(self.known_host(host))}/redfish/v1/Systems/{host}"

    def _number(self, host: str) -> int:
        """The last part of its addresses."""
        if self.known_host(host) in self.xen_names:
            return FIRST_XEN_ADDRESS + self.xen_names.index(host)
        return 11 + self.kvm_names.index(host)

    # --- folders --------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return Path(self.home) / self.name

    @property
    def control(self) -> Path:
        return self.folder / "control"

    @property
    def log_folder(self) -> Path:
        return self.folder / "log"

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    @property
    def client_pki(self) -> Path:
        return self.pki / "client"

    @property
    def ca_file(self) -> Path:
        return self.client_pki / "cacert.pem"

    @property
    def ceph_folder(self) -> Path:
        return self.folder / "ceph"

    @property
    def ceph_conf(self) -> Path:
        return self.ceph_folder / "ceph.conf"

    def host_folder(self, host: str) -> Path:
        return self.folder / "hosts" / host

    # --- on disk --------------------------------------------------------------------------------

    @property
    def file(self) -> Path:
        return self.folder / "lab.json"

    def save(self) -> None:
        # Whole or not at all: a lab whose file is there is known by it.
        draft = self.file.with_suffix(".new")
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        draft.rename(self.file)

    @staticmethod
    def load(name: str, home: Path = HOME) -> LabSpec:
        try:
            return LabSpec(**json.loads((home / name / "lab.json").read_text()))
        except FileNotFoundError:
            stand = sorted(one.parent.name for one in home.glob("*/lab.json"))
            raise NotFound(
                f"cannot find lab {name!r}: "
                + (
                    f"those that stand are {', '.join(stand)} (--name)"
                    if stand
                    else "there is none; vorch lab up makes one"
                )
            ) from None
        except PermissionError as exc:
            raise Denied(
                f"cannot use lab {name!r}: a lab belongs to root; run the command with sudo"
            ) from exc
        except (ValueError, TypeError) as exc:
            raise Invalid(
                f"cannot read lab {name!r}: {home / name / 'lab.json'} is damaged ({exc});"
                f" clear it away with vorch lab down --name {name}"
            ) from exc


def _address(subnet: str, last: int) -> str:
    return str(ipaddress.IPv4Network(subnet)[last])
