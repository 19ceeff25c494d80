"""vorch.toml → Settings: every limit and timeout, named with its unit, checked when it is read.

Order, the later wins: the defaults below, /etc/vorch/vorch.toml, the user's own vorch.toml (or the
one file that VORCH_CONFIG names), then the environment: VORCH_ and the name in capitals.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vorch.errors import BadConfig

# What a storage fence may do to an address that is not the host's alone.
SHARED = ("refuse", "clients", "whole")
TLS = ("auto", "on", "off")
LOG_FORMATS = ("text", "json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that can be set. The comment on each is its documentation in docs/configure.md."""

    # Where the cluster's state is: memory:, sqlite:///path/to/vorch.db, or rados://POOL.
    uri: str = ""
    # The host that an embedded cluster runs on.
    hypervisor_uri: str = "qemu:///system"
    # Folder of the embedded cluster's disks; empty: "disks" beside the state file.
    pool_path: str = ""
    # How long a host may take to answer before it counts as silent.
    host_timeout_s: float = 10.0
    # How long `stop` waits for the guest before it reports.
    stop_timeout_s: float = 60.0
    # How long a disk or NIC may take to be let go by the guest.
    detach_timeout_s: float = 20.0
    # How long an installer may run.
    install_timeout_s: float = 7200.0
    # How long a guest may take to come up under another hypervisor before it goes back.
    guest_up_s: float = 300.0
    # How long deleted disks can be had back.
    keep_deleted_h: float = 24.0
    # A process that works on a plan and cannot be seen from here counts as dead after this silence.
    runner_silent_after_s: float = 30.0
    # How long a task waits for another one on the same VM; 0: it says `conflict` at once.
    wait_s: float = 0.0
    # How long Ceph may take to answer before it counts as unreachable.
    ceph_timeout_s: float = 60.0
    # How long a guest may stand still at the end of its live migration.
    migration_pause_limit_ms: int = 300
    # How fast its memory may travel, in MiB a second; 0: as fast as the network goes.
    migration_bandwidth_mib_s: int = 0
    # How long a guest that writes faster than its memory travels is waited for (and slowed down)
    # before it goes over to the other host with the rest of its memory behind it: post-copy.
    migration_converge_s: float = 60.0
    # Whether it may. Until the rest has come, it is lost when either host or the link fails.
    migration_postcopy: bool = False
    # A move for which a guest would have to be slowed down by more is refused (unless forced).
    migration_slowdown_limit_percent: int = 80
    # How fast a guest writes is measured first (a second) if its memory takes longer than this.
    migration_estimate_above_s: float = 10.0
    # Live migrations at the same time that a host takes part in, when several VMs are moved.
    migrations_per_host: int = 2
    # And between the same two hosts.
    migrations_per_link: int = 2
    # Ended tasks that are kept.
    tasks_kept: int = 500
    # Entries of the audit log that are kept in the state.
    audit_kept: int = 2000
    # Where it goes beside that: a file by its whole path, or "syslog"; empty: nowhere else.
    audit_log: str = ""
    # How costly a password is to try out: memory and rounds of argon2.
    password_memory_mib: int = 64
    password_rounds: int = 3
    # After so many wrong passwords in a row a user is locked out for so long, then twice as long.
    login_lock_after: int = 5
    login_lock_s: float = 60.0
    # Logins that one address may try in a minute.
    login_tries_per_minute: int = 10
    # How long a login lasts.
    session_h: float = 12.0
    # A provider of logins (OpenID Connect); empty: none. This service's id and secret there, and
    # where it is told to lead browsers back to: https://…/v1/login/oidc/done.
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_client_secret_file: str = ""
    oidc_redirect_url: str = ""
    # How long a token lasts where nobody says otherwise.
    token_days: float = 90.0
    # Memory of a host that is never given to guests.
    node_reserve_mib: int = 512
    # Memory that the hypervisor needs for each VM beside the guest's own.
    vm_overhead_mib: int = 64
    # What a VM has in use is a mean, in which what was so long ago counts for a third.
    load_mean_s: float = 600.0
    # How often the leader looks at all hosts.
    ha_every_s: float = 2.0
    # For how long others see that a leader is silent before one of them leads. The same for all.
    ha_lease_s: float = 15.0
    # How long a host may take to answer a look or a knock.
    ha_answer_s: float = 2.0
    # A host that is silent on both networks for so long is fenced.
    ha_gone_after_s: float = 3.0
    # The same for one that cannot reach its VMs' disks.
    ha_storage_cut_after_s: float = 20.0
    # The same for one that answers, whose libvirt does not, and that has let go of its VMs' disks.
    ha_hollow_after_s: float = 10.0
    # Hosts that fall silent within this time of each other do so "at once".
    ha_silent_window_s: float = 60.0
    # A host that went down in good order may be away for so long before its VMs are started
    # elsewhere.
    ha_shutdown_grace_s: float = 60.0
    # What has failed is tried again after this time: a start or move, a fence.
    ha_retry_after_s: float = 10.0
    ha_fence_retry_after_s: float = 5.0
    # What another vorch process sees counts for so long.
    ha_view_for_s: float = 10.0
    # How long each way of fencing a host may take.
    storage_fence_timeout_s: float = 30.0
    power_fence_timeout_s: float = 20.0
    fence_command_timeout_s: float = 30.0
    # A host's storage address that a manager, gateway or metadata server of Ceph shares: "refuse"
    # to cut it off, cut off the "clients" of its VMs alone, or the "whole" address.
    storage_fence_shared: str = "refuse"
    # A program that fences, by its whole path, with words for it; empty: none.
    fence_command: str = ""
    # Port that is knocked on at a host's storage address; 0: the one of its libvirt.
    storage_knock_port: int = 0
    # File with the token for the service that `uri` names (https:), and file with the certificate
    # that this service is to be trusted by; empty: VORCH_TOKEN, and the system's own CAs.
    token_file: str = ""
    ca_file: str = ""
    # Address and port of the service.
    listen_host: str = "127.0.0.1"
    listen_port: int = 8420
    # "auto": TLS wherever the address is not loopback; "on": there, too; "off": refused elsewhere.
    tls: str = "auto"
    # Its certificate, with the chain, and its key, as files; empty: one of its own.
    tls_certificate: str = ""
    tls_key: str = ""
    # An ending service says so by /ready for so long before it takes no more requests.
    stop_notice_s: float = 0.0
    # How long it then waits for the tasks that it is at. What is left is carried on by others.
    stop_patience_s: float = 30.0
    # Consoles that one user may have open at a service at a time.
    consoles_per_user: int = 20
    # One in which nothing is said for so long is closed.
    console_idle_s: float = 3600.0
    # Folder that uploads come to; empty: "uploads" beside the state file.
    upload_path: str = ""
    # How large one may be.
    upload_limit_gib: float = 64.0
    # When nothing has come for so long it is thrown away.
    upload_keep_h: float = 24.0
    # File of what it measured; empty: "history.db" beside the state file.
    history_path: str = ""
    # How often it measures hosts and VMs; 0: never.
    measure_every_s: float = 15.0
    # Whether /metrics shows each VM by itself; with very many that is much to read.
    metrics_vms: bool = True
    # Whether programs on the service's own machine may read /metrics without a token.
    metrics_open: bool = False
    # Lines of its log: "text" for people, or "json" for programs that collect them.
    log_format: str = "text"

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if item.type == "float" and (value < 0 or value != value):
                raise BadConfig(f"cannot use {item.name} = {value}: it must be 0 or more")
            if item.name == "storage_fence_shared" and value not in SHARED:
                raise BadConfig(
                    f"cannot use {item.name} = {value!r}: it must be one of {', '.join(SHARED)}"
                )
            if item.name == "tls" and value not in TLS:
                raise BadConfig(f"cannot use tls = {value!r}: it must be one of {', '.join(TLS)}")
            if item.name == "log_format" and value not in LOG_FORMATS:
                raise BadConfig(
                    f"cannot use {item.name} = {value!r}: it must be one of"
                    f" {', '.join(LOG_FORMATS)}"
                )
            if item.type == "int" and value < 0:
                raise BadConfig(f"cannot use {item.name} = {value}: it must be 0 or more")


def default_uri() -> str:
    """The embedded cluster's state when nobody says otherwise."""
    if os.geteuid() == 0:
        return "sqlite:///var/lib/vorch/vorch.db"
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return f"sqlite://{data}/vorch/vorch.db"


def config_files() -> tuple[Path, ...]:
    """The files that are read, where they exist, the later winning."""
    if os.environ.get("VORCH_CONFIG"):
        return (Path(os.environ["VORCH_CONFIG"]),)
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return (Path("/etc/vorch/vorch.toml"), Path(home) / "vorch" / "vorch.toml")


def load(uri: str | None = None) -> Settings:
    """The settings in force. `uri` (from a caller or option) wins over everything."""
    values: dict[str, Any] = {}
    for path in config_files():
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            if os.environ.get("VORCH_CONFIG"):
                raise BadConfig(
                    f"cannot read {str(path)!r}: there is no such file; VORCH_CONFIG names it"
                ) from None
            continue
        except (OSError, UnicodeDecodeError) as exc:
            raise BadConfig(f"cannot read {str(path)!r}: {exc}; mend or remove it") from exc
        values.update(_parse(text, path))
    values.update(_from_environment())
    if uri:
        values["uri"] = uri
    if not values.get("uri"):
        values["uri"] = default_uri()
    if "hypervisor_uri" not in values and os.geteuid() != 0:
        # Only root may use the system's libvirt without asking; a user has one of their own.
        values["hypervisor_uri"] = "qemu:///session"
    return Settings(**values)


def _from_environment() -> dict[str, Any]:
    """What is set as VORCH_NAME. An empty one is as if it were not there."""
    values: dict[str, Any] = {}
    for item in dataclasses.fields(Settings):
        variable = f"VORCH_{item.name.upper()}"
        text = os.environ.get(variable, "")
        if text:
            values[item.name] = _read_as(str(item.type), text, variable)
    return values


_SWITCHES = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _read_as(kind: str, text: str, variable: str) -> Any:
    try:
        match kind:
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "bool":
                return _SWITCHES[text.lower()]
    except (ValueError, KeyError):
        raise BadConfig(
            f"cannot use {variable} = {text!r}: it must be of type {kind}"
            + (", as in true or false" if kind == "bool" else "")
        ) from None
    return text


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise BadConfig(f"cannot read {str(path)!r}: it is not TOML: {exc}; mend it") from exc
    known = {item.name: item.type for item in dataclasses.fields(Settings)}
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in known:
            raise BadConfig(
                f"cannot use {name!r} in {str(path)!r}: there is no such setting;"
                " docs/configure.md lists all",
                setting=name,
            )
        kind = known[name]
        if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value).__name__ != kind:
            raise BadConfig(
                f"cannot use {name} = {value!r} in {str(path)!r}: it must be of type {kind}",
                setting=name,
            )
        values[name] = value
    return values
