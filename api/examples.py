"""What a request may look like, for the OpenAPI document: a body or query for each verb.

A test sees that each of them is understood.
"""

from __future__ import annotations

from typing import Any

EXAMPLES: dict[str, dict[str, Any]] = {
    "create": {
        "name": "web",
        "image": "debian-12",
        "vcpus": 2,
        "memory_mib": 2048,
        "cloud_init": {"user": "ann", "packages": ["nginx"]},
        "start": True,
    },
    "clone": {"new_name": "web2", "linked": True, "start": True},
    "install": {"answers": "d-i debian-installer/locale string en_GB", "iso": "debian-12-netinst"},
    "change": {"vcpus": 4, "memory_mib": 4096},
    "rename": {"new_name": "www"},
    "stop": {"timeout_s": 120},
    "migrate": {"node": "h2"},
    "relocate": {"node": "h2"},
    "send": {"other": "rados://other", "networks": {"default": "lan"}},
    "template": {"image": "web-golden"},
    "snapshot_create": {"snapshot": "before-upgrade", "description": "Debian 12 to 13"},
    "snapshot_delete": {"snapshot": "before-upgrade"},
    "snapshot_rollback": {"snapshot": "before-upgrade"},
    "disk_attach": {"size_gib": 20, "storage_class": "fast"},
    "disk_detach": {"disk": "data", "keep": True},
    "disk_export": {"disk": "root", "path": "/srv/export/web.qcow2"},
    "disk_flatten": {"disk": "root"},
    "disk_grow": {"disk": "root", "size_gib": 40},
    "disk_limit": {"disk": "root", "iops": 500, "mib_s": 100},
    "disk_move": {"pool": "ssd"},
    "disk_sparsify": {"disk": "root"},
    "cd_insert": {"image": "virtio-win"},
    "nic_attach": {"network": "lan"},
    "nic_detach": {"nic": "nic1"},
    "forward_add": {"port": "8080:80"},
    "forward_remove": {"port": "8080"},
    "image_import": {
        "name": "debian-12",
        "location": "https://cloud.debian.org/images/cloud/bookworm/latest/"
        "debian-12-genericcloud-amd64.qcow2",
    },
    "image_export": {"path": "/srv/export/debian-12.qcow2"},
    "network_create": {"name": "lan", "kind": "bridge", "bridge": "br0"},
    "network_change": {"bridge": "br1"},
    "class_add": {"name": "fast", "pools": ["ssd"], "default": True},
    "pool_add": {"name": "ssd", "url": "rbd://ssd"},
    "node_add": {"name": "h2", "uri": "qemu+tls://h2/system", "tags": ["rack=b"]},
    "node_change": {"tags": ["rack=c"]},
    "node_maintenance": {"on": True},
    "user_add": {"name": "ann", "role": "user", "quota": {"vms": 5, "memory_mib": 65536}},
    "user_change": {"role": "operator"},
    "token_create": {"user": "ann", "role": "viewer", "days": 30},
    "ha_set": {"requested": "started", "max_restart": 2},
    "ha_policy": {"shutdown": "migrate"},
    "ha_balance": {"auto": True},
    "ha_disarm": {"for_s": 3600},
    "rule_add": {"name": "db-apart", "kind": "apart", "vms": ["db1", "db2"]},
    "state_rebuild": {"pool": "ssd"},
    "trash_purge": {"key": "web.3f9a1c2b"},
    "capacity": {"vcpus": 2, "memory_mib": 4096},
    "whatif_fail": {"nodes": ["h1"]},
    "whatif_add_host": {"name": "h9", "cpus": 32, "memory_mib": 131072},
    "whatif_remove_host": {"names": ["h1"]},
    "whatif_add_vms": {"count": 10, "vcpus": 2, "memory_mib": 4096},
}
