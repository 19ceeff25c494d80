"""Arguments and options that several commands share, so that one word means the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

from . import completion, sizes

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan, step by step, and change nothing.")
]
Wait = Annotated[
    float | None,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        parser=sizes.seconds,
        help="How long to wait for another task on the same thing; else it ends with `conflict`.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        parser=sizes.seconds,
        help="How long the guest may take (default: stop_timeout_s of vorch.toml, 60).",
    ),
]

AgainstRules = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Also where a rule keeps it from (vorch rule list), or where that takes the room away"
        " that others need when a host is lost.",
    ),
]
AgainstSpare = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Also where that takes the room away that others need when a host is lost.",
    ),
]

VmName = Annotated[
    str, typer.Argument(metavar="VM", autocompletion=completion.vms, help="Name of the VM.")
]
NewVmName = Annotated[
    str,
    typer.Argument(metavar="NEW", help="Its new name: 1 to 63 of a-z, 0-9 and '-'."),
]
ImageName = Annotated[
    str,
    typer.Argument(metavar="IMAGE", autocompletion=completion.images, help="Name of the image."),
]
NetworkName = Annotated[
    str,
    typer.Argument(
        metavar="NETWORK", autocompletion=completion.networks, help="Name of the network."
    ),
]
NodeName = Annotated[
    str, typer.Argument(metavar="NODE", autocompletion=completion.nodes, help="Name of the host.")
]
NodeOrNone = Annotated[
    str | None,
    typer.Argument(metavar="NODE", autocompletion=completion.nodes, help="Name of the host."),
]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="Its id; `vorch task list` shows all.")]

Vcpus = Annotated[int | None, typer.Option("--vcpus", metavar="N", help="Number of vCPUs.")]
VcpusMax = Annotated[
    int | None,
    typer.Option("--vcpus-max", metavar="N", help="How far vCPUs can be raised while it runs."),
]
Memory = Annotated[
    int | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        parser=sizes.memory_mib,
        help="Memory, as in 512M or 2G; a plain number is MiB.",
    ),
]
MemoryMax = Annotated[
    int | None,
    typer.Option(
        "--memory-max",
        metavar="SIZE",
        parser=sizes.memory_mib,
        help="How far memory can be raised while it runs; a plain number is MiB.",
    ),
]
FirmwareOption = Annotated[
    str | None, typer.Option("--firmware", metavar="bios|uefi", help="How it boots.")
]
HypervisorOption = Annotated[
    str | None,
    typer.Option(
        "--hypervisor",
        metavar="any|kvm|xen",
        help="On which hosts it may run.",
    ),
]
XenKindOption = Annotated[
    str | None,
    typer.Option(
        "--xen-kind", metavar="pv|pvh|hvm", help="What kind of guest it is where Xen runs it."
    ),
]
XenLoaderOption = Annotated[
    str | None,
    typer.Option(
        "--xen-loader",
        metavar="pygrub|pvgrub",
        help="Who reads the kernel of a PV or PVH guest from its disk: its host, or GRUB in the"
        " guest.",
    ),
]
Machine = Annotated[
    str | None, typer.Option("--machine", metavar="TYPE", help="Machine type, as in q35.")
]
Cpu = Annotated[
    str | None,
    typer.Option(
        "--cpu",
        metavar="MODEL",
        help="'default' (runs on every host of this kind), 'host' (all that this one has) or a"
        " model's name.",
    ),
]
SecureBoot = Annotated[
    bool | None,
    typer.Option("--secure-boot/--no-secure-boot", help="UEFI starts signed systems only."),
]
Tpm = Annotated[bool | None, typer.Option("--tpm/--no-tpm", help="A TPM 2.0 of its own.")]
Graphics = Annotated[
    bool | None, typer.Option("--graphics/--no-graphics", help="A screen, seen over VNC.")
]
Agent = Annotated[
    bool | None,
    typer.Option("--agent/--no-agent", help="A channel for the QEMU guest agent."),
]
WatchdogOption = Annotated[
    str | None,
    typer.Option(
        "--watchdog",
        metavar="none|reset|poweroff|pause",
        help="A watchdog in it, and what that does when the guest feeds it no more.",
    ),
]
Tags = Annotated[
    list[str] | None,
    typer.Option(
        "--tag", metavar="TAG", help="A word to sort VMs by, as in shop or team:web; repeatable."
    ),
]
RequireTags = Annotated[
    list[str] | None,
    typer.Option(
        "--require-tag",
        metavar="TAG",
        help="It runs only on hosts with this tag (`vorch node change --tag`); repeatable.",
    ),
]
HugePagesOption = Annotated[
    str | None,
    typer.Option(
        "--huge-pages", metavar="none|2M|1G", help="Its memory is huge pages of this size."
    ),
]
OneNumaCell = Annotated[
    bool | None,
    typer.Option(
        "--one-numa-cell/--no-one-numa-cell",
        help="It goes only to hosts where one NUMA cell has room for all of it.",
    ),
]
Description = Annotated[
    str | None, typer.Option("--description", metavar="TEXT", help="A note for people.")
]
PoolOption = Annotated[
    str | None,
    typer.Option(
        "--pool", metavar="POOL", autocompletion=completion.pools, help="Where its disks go."
    ),
]
ClassOption = Annotated[
    str | None,
    typer.Option(
        "--class",
        metavar="CLASS",
        autocompletion=completion.classes,
        help="A storage class; the pool of it where most is free is taken.",
    ),
]
LimitOption = Annotated[
    str,
    typer.Option(
        "--limit",
        metavar="NAME=N,...",
        help="How much I/O its disk may do, as in iops=500,mib-s=50; see `vorch disk limit`.",
    ),
]
DiskName = Annotated[
    str, typer.Argument(metavar="DISK", help="Its name; `vorch show VM` lists them.")
]
Disk = Annotated[
    int | None,
    typer.Option(
        "--disk",
        metavar="SIZE",
        parser=sizes.disk_gib,
        help="Size of its disk, as in 20G; a plain number is GiB.",
    ),
]
Networks = Annotated[
    list[str] | None,
    typer.Option(
        "--network",
        metavar="NETWORK",
        autocompletion=completion.networks,
        help="A NIC on this network; repeatable (default: one on 'default').",
    ),
]
NoNetwork = Annotated[bool, typer.Option("--no-network", help="No NIC at all.")]
NodeOption = Annotated[
    str | None,
    typer.Option(
        "--node",
        metavar="NODE",
        autocompletion=completion.nodes,
        help="Host that it is to be on (default: the one with the most room).",
    ),
]
NicModelOption = Annotated[
    str,
    typer.Option("--nic-model", metavar="virtio|e1000e|e1000|rtl8139", help="Kind of NIC."),
]

# ---------------------------------------------------------------------------------------------
# cloud-init

User = Annotated[
    str, typer.Option("--user", metavar="NAME", help="A user that the guest makes, with sudo.")
]
SshKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--ssh-key",
        metavar="FILE|TEXT",
        help="A public key that lets --user in, or the file that holds it. Can be repeated.",
    ),
]
PasswordHash = Annotated[
    str,
    typer.Option(
        "--password-hash", metavar="HASH", help="For --user, as `openssl passwd -6` prints it."
    ),
]
Hostname = Annotated[
    str, typer.Option("--hostname", metavar="NAME", help="Host name (default: the VM's name).")
]
Addresses = Annotated[
    list[str] | None,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="Of one NIC after the other: 'dhcp', or 10.0.0.5/24[,GATEWAY[,DNS...]]."
        " Can be repeated.",
    ),
]
Packages = Annotated[
    list[str] | None,
    typer.Option(
        "--package", metavar="NAME", help="The guest installs it at its first boot. Repeatable."
    ),
]
Commands = Annotated[
    list[str] | None,
    typer.Option(
        "--run", metavar="COMMAND", help="The guest runs it at its first boot. Repeatable."
    ),
]
UserData = Annotated[
    str | None,
    typer.Option(
        "--user-data", metavar="FILE", help="More cloud-init user-data, as it is ('-': stdin)."
    ),
]
