"""`OnBehalf`: the verbs of a cluster as one user has them. Doors for others lead through here.

Each call is looked at three times: may the caller do this at all, does the plan that it makes keep
to the caller's scopes and quota, and what of the answer is the caller's to see. Whatever changes
something, or was refused, is in the audit log: of tasks whoever ends them writes it, of the rest
this does.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vorch.codec import decode
from vorch.decide import quota, rights
from vorch.decide.inventory import Inventory
from vorch.errors import Denied, VorchError
from vorch.execute import Executor
from vorch.model import Cluster, Job, Task, Vm
from vorch.orchestrator.core import Core, Done
from vorch.orchestrator.doorkeeper import Doorkeeper
from vorch.orchestrator.elsewhere import check_elsewhere
from vorch.plan import Journal, Plan
from vorch.rights import Minted, Principal, Role, Token, User

# About the connection, and no verbs: they show nothing of the cluster.
_OF_THE_CONNECTION = frozenset({"settings"})


class OnBehalf:
    """One cluster for one caller. Costs nothing to make: a service makes one for each request.

    It has the verbs of `Orchestrator`, and nothing else of it.
    """

    def __init__(
        self,
        cluster: Core,
        principal: Principal,
        doorkeeper: Doorkeeper,
        *,
        look: Callable[[], Cluster] | None = None,
    ) -> None:
        """`look`: how to find out whose VM it is, where a picture knows that already."""
        world = dataclasses.replace(cluster.world, who=principal.who, close=lambda: None)
        inner = copy.copy(cluster)
        inner.world = world
        inner.executor = Executor(
            world,
            cluster.settings,
            watch=cluster.executor.watch,
            hook=cluster.executor.hook,
            beside=cluster.noter.markers,
        )
        inner.judge = self._judged
        self._cluster = inner
        self._look = look or inner.look
        self._doorkeeper = doorkeeper
        self.principal = principal

    def __getattr__(self, name: str) -> Any:
        if name in _OF_THE_CONNECTION:
            return getattr(self._cluster, name)
        if name.startswith("_"):
            raise AttributeError(name)
        method = getattr(self._cluster, name)
        if not callable(method):
            raise AttributeError(name)
        return functools.wraps(method)(functools.partial(self._call, name, method))

    def permit(self, verb: str, arguments: Mapping[str, Any]) -> None:
        """Raises what would be said before anything is looked at, and notes it."""
        need = rights.NEEDS.get(verb)
        parameters = {}
        if need is not None:
            parameters = self._parameters(verb)
        # What is said as it would be anyway was not said.
        given = {
            name: value
            for name, value in arguments.items()
            if name not in parameters or value != parameters[name].default
        }
        refusal = self._refusal(verb, given)
        if refusal is None:
            return
        changes = need is None or (need.changes and not given.get("dry_run"))
        if changes or isinstance(refusal, Denied):
            self._note(verb, given, refusal)
        raise refusal

    def noted(self, what: str, **arguments: Any) -> None:
        """Something is done that is no verb: for the audit log."""
        self._note(what, arguments, None)

    # -- a call

    def _parameters(self, verb: str) -> dict[str, inspect.Parameter]:
        if verb in rights.BESIDE:
            return {}
        return dict(inspect.signature(getattr(self._cluster, verb)).parameters)

    def _call(self, verb: str, method: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        need = rights.NEEDS.get(verb)
        if need is None:
            self.permit(verb, {})
        assert need is not None
        bound = inspect.signature(method).bind(*args, **named)
        arguments = dict(bound.arguments)
        changes = need.changes and not arguments.get("dry_run")
        admin = self.principal.role is Role.ADMIN
        if verb == "token_list" and arguments.get("user") is None and not admin:
            bound.arguments["user"] = arguments["user"] = self.principal.name
        self.permit(verb, arguments)
        try:
            answer = method(*bound.args, **bound.kwargs)
        except VorchError as exc:
            # Of a task that has begun, whoever ended it has written how.
            if changes and not self._is_own(exc.fields.get("task")):
                self._note(verb, arguments, exc)
            raise
        if changes and not _has_tasks(answer):
            self._note(verb, arguments, None)
        if isinstance(answer, Inventory):
            return rights.inventoried(self.principal, answer, self._known())
        if need.about == "list":
            return rights.visible(self.principal, answer, self._known())
        return answer

    def _refusal(self, verb: str, arguments: Mapping[str, Any]) -> VorchError | None:
        need = rights.NEEDS.get(verb)
        about = "" if need is None else need.about
        task = self._task(arguments) if about == "task" else None
        if verb == "token_revoke":
            arguments = {**arguments, "user": self._holder(str(arguments.get("token", "")))}
        refusal = rights.may(self.principal, verb, arguments, self._known(), task)
        if refusal is None and self.principal.role is not Role.ADMIN and "location" in arguments:
            try:
                check_elsewhere(str(arguments["location"]))
            except Denied as exc:
                return exc
        return refusal

    def _known(self) -> Cluster:
        """Of whoever sees all, nothing need be known."""
        return Cluster() if self.principal.sees_all else self._look()

    def _task(self, arguments: Mapping[str, Any]) -> Task | Job | None:
        kinds: dict[str, type[Task] | type[Job]] = {"task": Task, "job": Job}
        for word, kind in kinds.items():
            called = str(arguments.get(f"{word}_id", ""))
            key = f"{word}/{called}"
            document = self._cluster.world.state.get(key) if called.isalnum() else None
            if document is not None:
                return decode(kind, document.body)
        return None

    def _holder(self, token: str) -> str:
        document = self._cluster.world.state.get(f"token/{token}") if token.isalnum() else None
        return "" if document is None else decode(Token, document.body).user

    def _is_own(self, task_id: object) -> bool:
        task = self._task({"task_id": task_id}) if task_id else None
        return task is not None and task.who == self.principal.who

    # -- a plan

    def _judged(self, plan: Plan) -> Plan:
        principal, state = self.principal, self._cluster.world.state
        if principal.sees_all and principal.quota.none:
            return plan
        users = [decode(User, one.body) for one in state.read(["user"]).values()]
        reserved = {tag for user in users for tag in user.scopes}
        plan = rights.held(principal, plan, reserved)
        if principal.quota.none or plan.empty:
            return plan
        # First the versions, then what there is: a plan that begins after this moves them.
        turns = {}
        for scope in principal.scopes:
            document = state.get(f"quota/{scope}")
            turns[f"quota/{scope}"] = 0 if document is None else document.version
        documents = state.read(["vm", "plan"])
        # Of thousands only one's own are of interest.
        vms = {
            one.name: decode(Vm, one.body)
            for key, one in documents.items()
            if key.startswith("vm/") and principal.has(tuple(one.body.get("tags", ())))
        }
        under_way = [
            decode(Journal, one.body).plan
            for key, one in documents.items()
            if key.startswith("plan/")
        ]
        grows = quota.check(principal, plan, vms, under_way)
        return quota.with_turns(plan, turns) if grows else plan

    # -- the log

    def _note(self, verb: str, arguments: dict[str, Any], error: VorchError | None) -> None:
        subject = next(
            (
                str(arguments[name])
                for name in (
                    "name",
                    "task_id",
                    "job_id",
                    "upload_id",
                    "token",
                    "user",
                    "key",
                    "pool",
                )
                if name in arguments
            ),
            "",
        )
        self._doorkeeper.note(
            verb.replace("_", " "),
            self.principal.name,
            self.principal.source,
            "done" if error is None else "refused",
            "" if error is None else error.message,
            subject=subject,
            code="" if error is None else error.code,
        )


def _has_tasks(answer: object) -> bool:
    """Tasks came of it, and each has written its own line; or there was nothing to be done."""
    if isinstance(answer, Done | Task | Minted):
        return True
    return isinstance(answer, Iterable) and all(isinstance(one, Done | Task) for one in answer)
