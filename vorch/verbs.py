"""The table of all verbs: what each is over HTTP, whom it needs, and what it is about.

Routes, OpenAPI, the remote client, rights and docs/api.md are all made from it and from the
methods' own signatures. A verb that is not in here can be asked for by nobody: `NOT_OVER_HTTP` says
of each why. The paths follow from the verbs by one rule, without exception:

    verb                                     method and path
    list, show, create, change, delete       GET, GET, POST, PATCH, DELETE /v1/vms[/{name}]
    NOUN_list, _show, _add, _change, …       the same of that noun, as in DELETE /v1/nodes/{name}
    any other of one thing                   /v1/vms/{name}/clone, /v1/nodes/{name}/cordon
    of a part of one thing                   /v1/vms/{name}/disk-attach, /v1/vms/{name}/ha-set
    any other                                /v1/capacity, /v1/ha/status, /v1/trash/purge

What only looks is GET, what has none of the words above is POST. Arguments in the path bear the
names that they have in Python; all others stand in the query of GET and DELETE, else in the body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

# Each may do what those after it may: ROLES.index tells who may more.
ROLES = ("admin", "operator", "user", "viewer")
RoleName = Literal["admin", "operator", "user", "viewer"]

# read: GET. change: acts at once. task: is a job, see docs/api.md. stream: GET, and goes on.
Kind = Literal["read", "change", "task", "stream"]

PREFIX = "/v1"
COLLECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "vm": "vms",
        "node": "nodes",
        "pool": "pools",
        "class": "classes",
        "image": "images",
        "network": "networks",
        "rule": "rules",
        "task": "tasks",
        "job": "jobs",
        "user": "users",
        "token": "tokens",
    }
)
# Words of these nouns are about a part of the thing that their first argument names.
PARTS = {
    "disk": "vm",
    "nic": "vm",
    "cd": "vm",
    "snapshot": "vm",
    "forward": "vm",
    "ha": "vm",
    "volume": "pool",
}
# There is one of each only.
SINGLE = ("ha", "storage", "trash", "state", "whatif", "audit", "forward")
NEW = ("create", "add", "import")
GONE = ("delete", "remove")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One verb of `Orchestrator`."""

    verb: str
    kind: Kind
    # The least role; who has more may, too. vorch/decide/rights.py decides by it.
    role: RoleName
    # What it is about: a kind of document, or "cluster", or "self" for whoever asks.
    about: str
    # The argument that names the one thing it is about; "" if it is about none, or several.
    named: str = ""
    # Arguments that may name a file, folder or host as the serving machine sees it. Whoever is no
    # admin may give http(s): URLs there, and nothing else.
    places: tuple[str, ...] = ()
    # Arguments that nobody is shown again.
    secrets: tuple[str, ...] = ()

    @property
    def noun(self) -> str:
        first, _, rest = self.verb.partition("_")
        return first if rest and (first in COLLECTIONS or first in PARTS or first in SINGLE) else ""

    @property
    def word(self) -> str:
        """The verb without its noun, as in `node_add`."""
        return self.verb.removeprefix(f"{self.noun}_") if self.noun else self.verb

    @property
    def method(self) -> Literal["GET", "POST", "PATCH", "DELETE"]:
        if self.kind in ("read", "stream"):
            return "GET"
        if self._of_a_collection:
            if self.word == "change":
                return "PATCH"
            if self.word in GONE:
                return "DELETE"
        return "POST"

    @property
    def path(self) -> str:
        if not self._of_a_collection:
            if self.noun in PARTS and self.named:
                base = f"{PREFIX}/{COLLECTIONS[PARTS[self.noun]]}/{{{self.named}}}"
                return f"{base}/{_dashed(self.verb)}"
            return f"{PREFIX}/{self.noun + '/' if self.noun else ''}{_dashed(self.word)}"
        base = f"{PREFIX}/{COLLECTIONS[self.noun or 'vm']}"
        if self.word == "list" or self.creates:
            return base
        if self.word in ("show", "change", *GONE):
            return f"{base}/{{{self.named}}}"
        return f"{base}/{{{self.named}}}/{_dashed(self.word)}"

    @property
    def creates(self) -> bool:
        """It makes one of its collection."""
        return self._of_a_collection and self.word in NEW

    @property
    def in_path(self) -> str:
        """The argument that stands in the path."""
        return self.named if f"{{{self.named}}}" in self.path else ""

    @property
    def document(self) -> str:
        """The kind of the document whose version is the ETag of what it is about; "" for none."""
        return self.about if self.named and self.about in VERSIONED else ""

    @property
    def _of_a_collection(self) -> bool:
        if self.noun:
            return self.noun in COLLECTIONS
        return self.about == "vm" and self.verb not in PARTS


# Kinds of documents that are what one is shown of them.
VERSIONED = ("vm", "node", "pool", "class", "image", "network", "rule", "user")


def _dashed(word: str) -> str:
    return word.replace("_", "-")


def _of_vms(kind: Kind, role: RoleName, *verbs: str) -> list[Entry]:
    return [Entry(verb=verb, kind=kind, role=role, about="vm", named="name") for verb in verbs]


def _of(about: str, kind: Kind, role: RoleName, *verbs: str, named: str = "") -> list[Entry]:
    return [Entry(verb=verb, kind=kind, role=role, about=about, named=named) for verb in verbs]


_ENTRIES = [
    # -- VMs
    *_of("vm", "read", "viewer", "list"),
    *_of_vms("read", "viewer", "show", "figures", "history", "disk_list", "snapshot_list"),
    *_of("vm", "read", "viewer", "forward_list"),
    # No job: what it answers is shown once, and kept nowhere.
    *_of_vms("change", "user", "console_ticket"),
    Entry(
        verb="install",
        kind="task",
        role="user",
        about="vm",
        named="name",
        places=("kernel", "initrd"),
        secrets=("answers",),
    ),
    *_of_vms("task", "user", "create", "clone", "undelete", "delete", "rename", "change"),
    *_of_vms("task", "user", "start", "stop", "restart", "reset", "pause", "resume"),
    *_of_vms("task", "user", "snapshot_create", "snapshot_delete", "snapshot_rollback"),
    *_of_vms("task", "user", "disk_attach", "disk_detach", "disk_grow"),
    *_of_vms("task", "user", "disk_flatten", "disk_sparsify", "cd_insert", "cd_eject"),
    *_of_vms("task", "user", "nic_attach", "nic_detach"),
    *_of_vms("task", "operator", "migrate", "relocate", "disk_move", "template"),
    *_of_vms("task", "operator", "disk_limit", "forward_add", "forward_remove"),
    Entry(
        verb="disk_export",
        kind="task",
        role="admin",
        about="vm",
        named="name",
        places=("path",),
    ),
    Entry(verb="send", kind="task", role="admin", about="vm", named="name", places=("other",)),
    # -- images, networks
    *_of("image", "read", "viewer", "image_list"),
    *_of("image", "read", "viewer", "image_show", named="name"),
    Entry(
        verb="image_import",
        kind="task",
        role="operator",
        about="image",
        named="name",
        places=("location",),
    ),
    Entry(
        verb="image_export",
        kind="task",
        role="admin",
        about="image",
        named="name",
        places=("path",),
    ),
    *_of("image", "task", "operator", "image_delete", named="name"),
    *_of("network", "read", "viewer", "network_list"),
    *_of("network", "read", "viewer", "network_show", named="name"),
    *_of("network", "read", "viewer", "network_check", named="name"),
    *_of("network", "task", "operator", "network_create", named="name"),
    *_of("network", "task", "operator", "network_change", "network_delete", named="name"),
    # -- pools and their classes
    *_of("class", "read", "viewer", "class_list"),
    *_of("class", "task", "admin", "class_add", "class_remove", named="name"),
    *_of("pool", "read", "viewer", "pool_list"),
    *_of("pool", "read", "viewer", "volume_list", named="pool"),
    Entry(verb="pool_add", kind="task", role="admin", about="pool", named="name", places=("url",)),
    *_of("pool", "task", "admin", "pool_remove", named="name"),
    *_of("trash", "read", "viewer", "trash_list"),
    *_of("trash", "task", "operator", "trash_purge"),
    # -- hosts
    *_of("node", "read", "viewer", "node_list"),
    *_of("node", "read", "viewer", "node_show", "node_history", "node_abilities", named="name"),
    *_of("node", "read", "operator", "node_check", named="name"),
    *_of("node", "task", "operator", "node_cordon", "node_uncordon", named="name"),
    *_of("node", "task", "operator", "node_maintenance", "node_probe", named="name"),
    *_of("node", "task", "admin", "node_fence", "node_unfence", named="name"),
    Entry(
        verb="node_add",
        kind="task",
        role="admin",
        about="node",
        named="name",
        places=("uri", "bmc"),
        secrets=("bmc_password",),
    ),
    Entry(
        verb="node_change",
        kind="task",
        role="admin",
        about="node",
        named="name",
        places=("bmc",),
        secrets=("bmc_password",),
    ),
    *_of("node", "task", "admin", "node_remove", named="name"),
    # -- high availability, rules, balance
    *_of("cluster", "read", "viewer", "ha_status"),
    *_of("vm", "read", "viewer", "ha_list"),
    *_of_vms("read", "viewer", "ha_show"),
    *_of_vms("task", "operator", "ha_set", "ha_remove"),
    *_of("cluster", "task", "admin", "ha_policy", "ha_balance", "ha_arm", "ha_disarm"),
    *_of("rule", "read", "viewer", "rule_list"),
    *_of("rule", "read", "viewer", "rule_show", named="name"),
    *_of("rule", "task", "operator", "rule_add", "rule_remove", named="name"),
    *_of("cluster", "task", "operator", "balance"),
    # -- questions
    *_of("cluster", "read", "viewer", "health", "storage_status", "loads"),
    *_of("cluster", "read", "viewer", "capacity", "inventory"),
    *_of("cluster", "read", "viewer", "whatif_fail", "whatif_add_host"),
    *_of("cluster", "read", "viewer", "whatif_remove_host", "whatif_add_vms"),
    *_of("cluster", "read", "viewer", "dump"),
    # -- the whole
    *_of("cluster", "task", "operator", "doctor", "recover"),
    *_of("cluster", "task", "admin", "state_rebuild"),
    # -- users
    *_of("user", "read", "admin", "user_list"),
    *_of("user", "read", "viewer", "user_show", named="name"),
    Entry(
        verb="user_add",
        kind="task",
        role="admin",
        about="user",
        named="name",
        secrets=("password",),
    ),
    Entry(
        verb="user_change",
        kind="task",
        role="viewer",
        about="user",
        named="name",
        secrets=("password",),
    ),
    *_of("user", "task", "admin", "user_remove", named="name"),
    *_of("token", "read", "viewer", "token_list"),
    # No job: what it answers is shown once, and kept nowhere.
    *_of("token", "change", "viewer", "token_create"),
    *_of("token", "task", "viewer", "token_revoke", named="token"),
    *_of("cluster", "read", "admin", "audit_list"),
    # -- what is under way
    *_of("task", "read", "viewer", "task_list"),
    *_of("task", "read", "viewer", "task_show", named="task_id"),
    *_of("task", "stream", "viewer", "task_watch", named="task_id"),
    *_of("task", "change", "user", "task_cancel", named="task_id"),
    *_of("job", "read", "viewer", "job_list"),
    *_of("job", "read", "viewer", "job_show", named="job_id"),
    *_of("job", "stream", "viewer", "job_watch", named="job_id"),
    *_of("job", "change", "user", "job_cancel", named="job_id"),
]

ENTRIES: Mapping[str, Entry] = MappingProxyType({entry.verb: entry for entry in _ENTRIES})

# Verbs without a route, each with the reason.
NOT_OVER_HTTP: Mapping[str, str] = MappingProxyType(
    {
        "init": "it makes a cluster, and a service stands before one that is there",
        "console": "it is a stream in two directions: `console_ticket` opens one at /v1/console",
        "display": "the same",
    }
)
