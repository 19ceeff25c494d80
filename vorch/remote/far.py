"""`Orchestrator` over HTTP: each verb is made from the same table as the service's routes."""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

from vorch.calling import Call, call_of
from vorch.config import Settings
from vorch.errors import StepFailed, Unreachable, Unsupported, VorchError, from_dict
from vorch.execute import Watcher
from vorch.model import Cluster, Job, JobState, Task
from vorch.orchestrator import Orchestrator, Picture
from vorch.ports import Content
from vorch.remote.content import Download
from vorch.remote.link import Link
from vorch.telling import adapter_of, from_json
from vorch.verbs import ENTRIES, NOT_OVER_HTTP, Entry

# How long an answer may wait for the end before progress is asked for instead.
QUICK_S = 1
WAIT_S = 20
# A service that was away is asked again for so long, while a job of ours is with it.
AWAY_S = 120.0
AGAIN_S = 1.0
# Any other time that a question may take: hosts that do not answer are waited for over there.
LONG_S = 600.0


class RemoteOrchestrator(Orchestrator):
    """Made by `vorch.connect("https://…")`. What it is asked for becomes a job over there.

    A job of it goes on when this process ends; Ctrl-C asks for its cancellation and waits.
    """

    def __init__(self, link: Link, settings: Settings, *, watch: Watcher | None = None) -> None:
        # Nothing of what verbs stand on elsewhere: there is no world here, only the way to it.
        self.settings = settings
        self._link = link
        self._watch = watch

    def close(self) -> None:
        self._link.close()

    def now(self) -> float:
        return time.time()

    def look(self, hosts: Iterable[str] | None = ()) -> Cluster:
        self._not_here("look at all of a cluster at once")

    def picture(self, *, refresh_s: float = 0.0) -> Picture:
        self._not_here("keep a picture")

    @contextlib.contextmanager
    def image_content(self, name: str, disk: str | None = None) -> Iterator[Content]:
        words = "" if disk is None else f"?{urlencode({'disk': disk})}"
        download = Download(self._link, f"/v1/images/{quote(name, safe='')}/content{words}")
        try:
            yield Content(download.size_bytes, [(0, download.size_bytes)], download.read)
        finally:
            download.close()

    def cluster_of(self, documents: Mapping[str, Any]) -> Cluster:
        self._not_here("read documents")

    def lean_on(self, picture: Picture | None) -> None:
        self._not_here("keep a picture")

    def _not_here(self, what: str, why: str = "it has no verb for that") -> NoReturn:
        raise Unsupported(
            f"cannot {what} of a cluster through its service: {why}; do that on a machine that has"
            " the cluster's state"
        )

    # -- asking

    def _ask(self, entry: Entry, arguments: Mapping[str, Any]) -> Any:
        call = call_of(entry.verb)
        if "show" in arguments and entry.kind == "stream":
            return self._listen(entry, arguments)
        rest = {name: value for name, value in arguments.items() if name != entry.in_path}
        told = {
            name: adapter_of(call.parameters[name].annotation).dump_python(value, mode="json")
            for name, value in rest.items()
        }
        path = _path(entry, arguments)
        if entry.method in ("GET", "DELETE"):
            path += _query(told)
            body = None
        else:
            body = told
        if entry.kind == "task" and not arguments.get("dry_run"):
            return self._have_done(entry, call, path, body)
        answer = self._link.ask(entry.method, path, body=body, timeout_s=LONG_S)
        if entry.verb == "dump":
            from vorch.dumped import dump_of

            return dump_of(answer.body)
        return None if answer.body is None else from_json(answer.body, call.returns)

    def _have_done(self, entry: Entry, call: Call, path: str, body: Any) -> Any:
        # With a key, so that a request whose answer was lost can be sent again.
        headers = {"Idempotency-Key": uuid.uuid4().hex, "Prefer": f"wait={QUICK_S}"}
        answer = self._link.ask(entry.method, path, body=body, headers=headers)
        if answer.status != 202:
            value = None if answer.body is None else from_json(answer.body, call.returns)
            self._tell_end(value)
            return value
        job = from_json(answer.body, Job)
        try:
            ended = self._followed(job.id)
        except KeyboardInterrupt:
            with contextlib.suppress(VorchError):
                self._link.ask("POST", f"/v1/jobs/{job.id}/cancel", body={})
                self._followed(job.id)
            raise
        if ended.state is not JobState.DONE:
            raise from_dict(dict(ended.error or StepFailed("cannot say how it ended").as_dict()))
        return None if ended.result is None else from_json(ended.result, call.returns)

    def _followed(self, job_id: str) -> Job:
        """The job when it is over, with its progress on the way."""
        away_since: float | None = None
        while True:
            try:
                for kind, data in self._link.events(f"/v1/jobs/{job_id}/watch"):
                    away_since = None
                    if kind == "task" and self._watch is not None:
                        self._watch(from_json(data, Task))
                    elif kind == "job":
                        job: Job = from_json(data, Job)
                        if job.over:
                            return job
            except Unreachable:
                now = time.monotonic()
                away_since = now if away_since is None else away_since
                if now - away_since > AWAY_S:
                    raise
                time.sleep(AGAIN_S)

    def _tell_end(self, value: Any) -> None:
        task = getattr(value, "task", None)
        if self._watch is not None and isinstance(task, Task):
            self._watch(task)

    def _listen(self, entry: Entry, arguments: Mapping[str, Any]) -> Any:
        show = arguments["show"]
        timeout_s = arguments.get("timeout_s")
        query = "" if timeout_s is None else _query({"timeout_s": timeout_s})
        last: Any = None
        for kind, data in self._link.events(_path(entry, arguments) + query):
            one = from_json(data, Task if kind == "task" else Job)
            show(one)
            if kind == entry.about:
                last = one
        if last is None or not last.over:
            from vorch.errors import TimedOut

            raise TimedOut(
                f"cannot wait any longer for {entry.about} {arguments[entry.named]!r}: it is still"
                " running"
            )
        return last


def _path(entry: Entry, arguments: Mapping[str, Any]) -> str:
    if not entry.in_path:
        return entry.path
    # A dot alone would be taken for a step within the path.
    name = quote(str(arguments[entry.in_path]), safe="").replace(".", "%2E")
    return entry.path.replace(f"{{{entry.in_path}}}", name)


def _query(told: Mapping[str, Any]) -> str:
    words: list[tuple[str, str]] = []
    for name, value in told.items():
        if value is None:
            continue
        for one in value if isinstance(value, list) else [value]:
            words.append((name, str(one).lower() if isinstance(one, bool) else str(one)))
    return f"?{urlencode(words)}" if words else ""


def _verb(entry: Entry) -> Callable[..., Any]:
    original = getattr(Orchestrator, entry.verb)
    signature = inspect.signature(original)

    @functools.wraps(original)
    def verb(self: RemoteOrchestrator, *args: Any, **kwargs: Any) -> Any:
        given = dict(signature.bind(self, *args, **kwargs).arguments)
        del given["self"]
        return self._ask(entry, given)

    return verb


def _not_over_http(name: str, why: str) -> Callable[..., Any]:
    @functools.wraps(getattr(Orchestrator, name))
    def verb(self: RemoteOrchestrator, *args: Any, **kwargs: Any) -> NoReturn:
        self._not_here(name.replace("_", " "), why)

    return verb


for _entry in ENTRIES.values():
    setattr(RemoteOrchestrator, _entry.verb, _verb(_entry))
for _name, _why in NOT_OVER_HTTP.items():
    setattr(RemoteOrchestrator, _name, _not_over_http(_name, _why))
