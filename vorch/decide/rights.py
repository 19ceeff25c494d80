"""Who may do what: one table of verbs, and the three questions that are decided from it.

`may`: before a verb is carried out, from its arguments. `held`: over the plan that it made, so that
no verb changes what is not its caller's, whatever the table says. `visible`: over what it answers.
All are denied that are not in the table.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

from vorch.availability import HaVmStatus
from vorch.decide.inventory import Inventory
from vorch.errors import Denied, NotFound, VorchError
from vorch.model import Cluster, Job, Task, Trashed, Vm, VmStatus
from vorch.plan import Plan, Save
from vorch.rights import Principal, Role
from vorch.verbs import ENTRIES

About = Literal["vm", "new-vm", "trashed", "list", "shared", "task", "cluster", "self"]

VIEWER, USER, OPERATOR, ADMIN = Role


@dataclass(frozen=True, slots=True)
class Need:
    """What a verb takes of whoever asks.

    `about` says what scopes mean for it:
    vm        the VM that `name` says; to whom it is not visible it is not there
    new-vm    a VM that is to be made, which gets its maker's scope
    trashed   a deleted VM, by `name`
    list      what it answers is cut down to what is visible
    shared    the same for all: images, networks, classes
    task      the task or job that `task_id` or `job_id` says: one's own, or of a VM that is visible
    cluster   the whole, which is shown only to those who see all of it
    self      the user that `user` or `name` says; of others only to admins
    """

    role: Role
    about: About
    changes: bool = True
    # Arguments that take a higher role, if they are given.
    above: Mapping[str, Role] = field(default_factory=dict)


# The least role of each verb stands where its route does. The others have no route there: what is
# no request, and what is asked for at the service's door all the same (BESIDE). Whoever may make a
# VM of an image can read all of it there; whoever has a console or a screen has the keyboard, too.
_ROLES: Mapping[str, Role] = {
    **{verb: Role(entry.role) for verb, entry in ENTRIES.items()},
    "console": USER,
    "display": USER,
    "image_content": USER,
    "init": ADMIN,
    "metrics": VIEWER,
    "upload_list": OPERATOR,
    "upload_create": OPERATOR,
    "upload_delete": OPERATOR,
}


def _sees(about: About, *verbs: str) -> dict[str, Need]:
    return {verb: Need(_ROLES[verb], about, changes=False) for verb in verbs}


def _does(about: About, *verbs: str, **above: Role) -> dict[str, Need]:
    return {verb: Need(_ROLES[verb], about, above=above) for verb in verbs}


NEEDS: Mapping[str, Need] = {
    # Looking
    **_sees("list", "list", "ha_list", "task_list", "job_list", "trash_list", "inventory"),
    **_sees("vm", "show", "figures", "history", "disk_list", "snapshot_list", "ha_show"),
    **_sees("task", "task_show", "task_watch", "job_show", "job_watch"),
    **_sees("shared", "image_list", "image_show", "image_content", "network_list", "network_show"),
    **_sees("shared", "class_list", "upload_list"),
    **_sees("cluster", "capacity", "doctor", "dump", "forward_list", "ha_status", "network_check"),
    **_sees("cluster", "health", "loads", "storage_status"),
    **_sees("cluster", "node_list", "node_show", "node_abilities", "node_check", "node_history"),
    **_sees("cluster", "pool_list"),
    **_sees("cluster", "rule_list", "rule_show", "volume_list", "metrics", "audit_list"),
    **_sees("cluster", "whatif_add_host", "whatif_add_vms", "whatif_fail", "whatif_remove_host"),
    # VMs
    **_does("new-vm", "create", force=OPERATOR, node=OPERATOR),
    **_does("new-vm", "install", force=OPERATOR, node=OPERATOR, kernel=ADMIN, initrd=ADMIN),
    **_does("trashed", "undelete"),
    **_does("vm", "clone", "start", force=OPERATOR),
    **_does("vm", "stop", "restart", "reset", "pause", "resume", "delete", "rename", "change"),
    **_does(
        "vm",
        "console",
        "display",
        "console_ticket",
        "cd_insert",
        "cd_eject",
        "nic_attach",
        "nic_detach",
    ),
    **_does("vm", "disk_attach", volume=OPERATOR),
    **_does("vm", "disk_detach", "disk_flatten", "disk_grow", "disk_sparsify", "disk_limit"),
    **_does("vm", "snapshot_create", "snapshot_delete", "snapshot_rollback"),
    **_does("vm", "migrate", "relocate", "disk_move", "template", "ha_set", "ha_remove"),
    **_does("vm", "forward_add", "forward_remove", "disk_export", "send"),
    **_does("task", "task_cancel", "job_cancel"),
    # What all have. Uploads are there to be imported, so they take what `image_import` does.
    **_does("shared", "image_import", "image_export", "image_delete"),
    **_does("shared", "network_create", "network_change", "network_delete"),
    **_does("shared", "upload_create", "upload_delete"),
    # The whole
    **_does("cluster", "balance", "recover", "rule_add", "rule_remove", "trash_purge"),
    **_does("cluster", "node_cordon", "node_uncordon", "node_maintenance", "node_probe"),
    **_does("cluster", "node_add", "node_change", "node_remove", "node_fence", "node_unfence"),
    **_does("cluster", "class_add", "class_remove", "pool_add", "pool_remove"),
    **_does("cluster", "ha_arm", "ha_disarm", "ha_policy", "ha_balance", "init", "state_rebuild"),
    # Users. What of it each may do for itself is in `_about_self`.
    **_does("cluster", "user_add", "user_remove"),
    **_sees("cluster", "user_list"),
    **_sees("self", "user_show", "token_list"),
    **_does("self", "user_change", "token_create", "token_revoke"),
}

BESIDE = frozenset({"metrics", "upload_create", "upload_delete", "upload_list"})

# What all may change of themselves.
_OWN = {"name", "password", "dry_run", "wait_s"}
# What is brought in from elsewhere; anything else would be a file of the machine that serves.
_FROM_ELSEWHERE = re.compile(r"(?:[hH][tT][tT][pP][sS]?://|upload:)")


def may(
    principal: Principal,
    verb: str,
    arguments: Mapping[str, Any],
    cluster: Cluster,
    task: Task | Job | None = None,
) -> VorchError | None:
    """Why somebody may not do this with these arguments; None: it is allowed.

    `arguments` are those that were given and are not the default; `task` is the one that a verb
    about a task names, if it is there.
    """
    need = NEEDS.get(verb)
    if need is None:
        return _denied(principal, verb, "nobody may by this way")
    if not principal.role.covers(need.role):
        return _denied(principal, verb, f"that takes the role {need.role}")
    refusal = _about(principal, verb, need, arguments, cluster, task)
    if refusal is not None:
        return refusal
    for name, role in need.above.items():
        if name in arguments and not principal.role.covers(role):
            return _denied(principal, verb, f"{name!r} takes the role {role}; leave it away")
    location = str(arguments.get("location", ""))
    from_here = verb == "image_import" and not _FROM_ELSEWHERE.match(location)
    if from_here and principal.role is not ADMIN:
        return _denied(principal, verb, "a file of the serving machine takes the role admin")
    return None


def _about(
    principal: Principal,
    verb: str,
    need: Need,
    arguments: Mapping[str, Any],
    cluster: Cluster,
    task: Task | Job | None,
) -> VorchError | None:
    if need.about == "self":
        return _about_self(principal, verb, arguments)
    if principal.sees_all:
        return None
    name = str(arguments.get("name", ""))
    match need.about:
        case "task":
            if task is None or not sees_task(principal, task, cluster):
                kind = "job" if "job_id" in arguments else "task"
                called = str(arguments.get(f"{kind}_id", ""))
                return NotFound(
                    f"cannot find {kind} {called!r}: there is none of that id; `vorch {kind} list`"
                    " shows all",
                    **{kind: called},
                )
            if need.changes and task.who.partition(" from ")[0] != principal.name:
                return _denied(principal, verb, "somebody else began it")
        case "vm":
            vm = cluster.vms.get(name)
            if vm is None or not principal.has(vm.tags):
                return hidden(name)
        case "trashed":
            found = [one for one in cluster.trash.values() if one.vm and one.name == name]
            last = max(found, key=lambda one: (one.deleted_at, one.key), default=None)
            if last is None or last.vm is None or not principal.has(last.vm.tags):
                return NotFound(
                    f"cannot undelete VM {name!r}: there is none of that name in the trash;"
                    " `vorch trash list` shows what is",
                    vm=name,
                )
        case "new-vm":
            if not principal.scopes:
                return _denied(principal, verb, "no scope is set that its VMs could be in")
        case "cluster":
            return _denied(principal, verb, "that takes the scope '*', which is all of it")
        case _:
            pass
    return None


def hidden(name: str) -> NotFound:
    """The same words as of a VM that is not there."""
    return NotFound(
        f"cannot find VM {name!r}: there is none of that name; `vorch list` shows all", vm=name
    )


def _about_self(principal: Principal, verb: str, arguments: Mapping[str, Any]) -> VorchError | None:
    if principal.role is ADMIN:
        return None
    if verb == "user_change" and not set(arguments) <= _OWN:
        return _denied(principal, verb, "of oneself one may change the password alone")
    if principal.via == "token" and verb in ("user_change", "token_create"):
        return _denied(principal, verb, "that takes a login; a token makes no other way in")
    whose = arguments.get("name" if verb.startswith("user") else "user")
    if whose != principal.name:
        return _denied(principal, verb, "of other users only an admin may")
    return None


def _denied(principal: Principal, verb: str, why: str) -> Denied:
    return Denied(
        f"cannot {verb.replace('_', ' ')} as {principal.name!r}, who is {principal.role}: {why}",
        verb=verb,
        user=principal.name,
        role=str(principal.role),
    )


# ---------------------------------------------------------------------------------------------
# Over the plan


def held(principal: Principal, plan: Plan, reserved: Collection[str]) -> Plan:
    """The plan, as far as it keeps to the principal's scopes: else it is refused.

    A new VM gets the first of them. `reserved` are the scopes of all users: nobody puts a VM into
    somebody else's.
    """
    if principal.sees_all:
        return plan
    steps = list(plan.steps)
    saves = [(number, step) for number, step in enumerate(steps) if _of_vm(step)]
    # A VM that goes and comes under another name is no new one.
    moved = [_tags(step.before) for _, step in saves if step.after is None]
    new = {
        step.key: _tags(step.after)
        for _, step in saves
        if step.before is None and _tags(step.after) not in moved
    }
    for key, tags in new.items():
        if not principal.has(tags):
            new[key] = (*tags, principal.scopes[0])
        _check_foreign(principal, plan, key, set(new[key]), reserved)
    for step in steps:
        vm = getattr(step, "vm", None)
        if isinstance(vm, Vm) and f"vm/{vm.name}" not in new and not principal.has(vm.tags):
            raise hidden(vm.name)
    for number, step in saves:
        if step.key in new:
            steps[number] = dataclasses.replace(
                step,
                before=_with(step.before, new[step.key]),
                after=_with(step.after, new[step.key]),
            )
            continue
        name = step.key.partition("/")[2]
        if step.before is not None and not principal.has(_tags(step.before)):
            raise hidden(name)
        if step.after is None:
            continue
        if not principal.has(_tags(step.after)):
            raise Denied(
                f"cannot {plan.verb} VM {name!r}: it would be none of yours any more; leave it one"
                f" of the tags {', '.join(principal.scopes)}",
                vm=name,
            )
        if step.before is not None:
            changed = set(_tags(step.before)) ^ set(_tags(step.after))
            _check_foreign(principal, plan, step.key, changed, reserved)
    return dataclasses.replace(plan, steps=tuple(steps))


def _check_foreign(
    principal: Principal, plan: Plan, key: str, changed: set[str], reserved: Collection[str]
) -> None:
    foreign = changed & (set(reserved) - set(principal.scopes))
    if foreign:
        name = key.partition("/")[2]
        raise Denied(
            f"cannot {plan.verb} VM {name!r}: tag {sorted(foreign)[0]!r} is the scope of somebody"
            " else; leave it as it is",
            vm=name,
        )


def _of_vm(step: object) -> TypeGuard[Save]:
    return isinstance(step, Save) and step.key.startswith("vm/")


def _with(body: dict[str, Any] | None, tags: tuple[str, ...]) -> dict[str, Any] | None:
    return None if body is None else {**body, "tags": [*tags]}


def _tags(body: Mapping[str, Any] | None) -> tuple[str, ...]:
    return tuple((body or {}).get("tags", ()))


# ---------------------------------------------------------------------------------------------
# Over the answer


def visible(principal: Principal, answer: tuple[Any, ...], cluster: Cluster) -> tuple[Any, ...]:
    """A list, without what is not the principal's."""
    if principal.sees_all:
        return answer
    return tuple(one for one in answer if _sees_one(principal, one, cluster))


def inventoried(principal: Principal, found: Inventory, cluster: Cluster) -> Inventory:
    """The machines that are the principal's, and of each group those; no group without any."""
    if principal.sees_all:
        return found
    seen = {name for name, vm in cluster.vms.items() if principal.has(vm.tags)}
    groups = {
        kind: {
            value: left
            for value, names in by_value.items()
            if (left := tuple(name for name in names if name in seen))
        }
        for kind, by_value in found.groups.items()
    }
    hosts = tuple(host for host in found.hosts if host.name in seen)
    return Inventory(hosts=hosts, groups=groups)


def _sees_one(principal: Principal, one: object, cluster: Cluster) -> bool:
    match one:
        case VmStatus():
            return principal.has(one.vm.tags)
        case Trashed():
            return one.vm is not None and principal.has(one.vm.tags)
        case Task() | Job():
            return sees_task(principal, one, cluster)
        case HaVmStatus():
            vm = cluster.vms.get(one.settings.vm)
            return vm is not None and principal.has(vm.tags)
    return False


def sees_task(principal: Principal, task: Task | Job, cluster: Cluster) -> bool:
    """One's own, and those of VMs that one sees."""
    return principal.sees_all or _sees_task(principal, task.who, task.verb, task.subject, cluster)


def _sees_task(principal: Principal, who: str, verb: str, subject: str, cluster: Cluster) -> bool:
    # NAME@HOST is somebody at a machine of the cluster, and no user.
    name, apart, _ = who.partition(" from ")
    if apart and name == principal.name:
        return True
    need = NEEDS.get(verb.replace(" ", "_"))
    vm = cluster.vms.get(subject)
    return need is not None and need.about == "vm" and vm is not None and principal.has(vm.tags)


def sees_event(
    principal: Principal, kind: str, name: str, told: Mapping[str, Any], cluster: Cluster
) -> bool:
    """Whether an event is about what is the principal's: its VMs, and the tasks that it sees."""
    if principal.sees_all:
        return True
    if kind in ("vm", "power", "havm"):
        vm = cluster.vms.get(name)
        return vm is not None and principal.has(vm.tags)
    if kind in ("task", "job"):
        said = told.get(kind)
        # Of one that is cleared away nobody knows any more whose it was.
        return isinstance(said, Mapping) and _sees_task(
            principal,
            str(said.get("who", "")),
            str(said.get("verb", "")),
            str(said.get("subject", "")),
            cluster,
        )
    return False
