"""`Picture`: the cluster as it is now, for a process that lives long and looks often.

Documents follow the store's changes, domains follow the hosts' events. Events may be missed and a
host may be lost without a word, so each host is looked at anew at intervals and after every gap.
It is made for looking. Whoever decides from it is held by the versions in it, like by any look.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import is_
from types import TracebackType
from typing import TYPE_CHECKING, Self

from vorch.availability import HaStatus
from vorch.decide import filters
from vorch.decide.hosts import statuses
from vorch.decide.seen import seen
from vorch.decide.status import status
from vorch.errors import Unreachable, Unsupported, VorchError
from vorch.model import Cluster, Domain, HostFigures, NodeStatus, Silence, Vm, VmStatus
from vorch.orchestrator import kept, silence
from vorch.ports import Document, Hypervisor, Subscription

if TYPE_CHECKING:
    from vorch.orchestrator.core import Core

# How often a host is looked at though it told of nothing.
REFRESH_S = 30.0
# How often one that is silent is tried.
SILENT_REFRESH_S = 5.0
# Looks at one host that tells much follow each other no closer than this.
GAP_S = 0.05
# How long one waiting call to the store takes; `close` waits for the end of one.
STORE_WAIT_S = 1.0
# How long a host that just got something to do is waited for by one who looks.
DUE_S = 0.5
# For a thread to say that its host's time is over.
GRACE_S = 0.3
# Of more changed documents than this all are read, in one call.
READ_ONE_BY_ONE = 16
# Of hosts that tell of nothing but the time that their processors ran, a look may be so old.
QUIET_S = 1.0
# Questions whose answers are kept for as long as they hold.
MOST_ASKED = 8
# While they change under it, documents are read so often before all are, as of one moment.
STEADY_AFTER = 4

Answer = tuple[Domain, ...] | VorchError


@dataclass(frozen=True, slots=True)
class _Look:
    """The last one: what it was made of, when, and how much had happened by then."""

    cluster: Cluster
    parts: tuple[object, ...]
    at: float
    changes: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some VMs of all that were asked for, by name."""

    cluster: Cluster
    vms: tuple[Vm, ...]
    # All that fit, whatever page they are on.
    total: int
    # The name after which the next page begins; "" for none.
    after: str = ""

    def __iter__(self) -> Iterator[VmStatus]:
        return (status(self.cluster, vm) for vm in self.vms)


class Picture:
    """Safe to use from several threads. Its own threads end with `close`."""

    def __init__(self, core: Core, kinds: tuple[str, ...], *, refresh_s: float = REFRESH_S) -> None:
        self._core = core
        self._kinds = kinds
        self.refresh_s = refresh_s
        self._threads = core.world.threads
        self._reading = threading.Lock()
        self._revision = 0
        self._documents: dict[str, Document] = {}
        self._cluster = Cluster()
        self._hosts: dict[str, _Host] = {}
        self._last: _Look | None = None
        # Hosts that have something to do, and have not been looked at since.
        self._due: set[str] = set()
        # The VMs that were asked for, by the question, and what they were found in.
        self._asked: dict[object, tuple[object, Sequence[Vm]]] = {}
        # Its VMs by name, and what they were put in order from; the same of hosts.
        self._order: tuple[object, tuple[Vm, ...]] = (None, ())
        self._statuses: tuple[object, tuple[NodeStatus, ...]] = (None, ())
        self._news = threading.Condition()
        self._changes = 0
        self._over = threading.Event()
        if self._threads:
            self._follow()
            self._follower = threading.Thread(
                target=self._follow_the_store, name="vorch-picture", daemon=True
            )
            self._follower.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Safe to repeat. Only a call into a host that hangs goes on by itself until it ends."""
        self._over.set()
        if not self._threads:
            return
        with self._reading:
            hosts, self._hosts = self._hosts, {}
        for host in hosts.values():
            host.end()
        for host in hosts.values():
            host.join()
        self._follower.join(2 * STORE_WAIT_S)
        self._changed()

    # -- looking

    def look(self, max_age_s: float | None = None) -> Cluster:
        """What the store says now, and what hosts show: as they told last, or no older than that.

        Where nothing can go on by itself (a world whose time stands still) it is a look like any.
        """
        if not self._threads:
            return self._core.look(None)
        self._follow()
        # Before anything is read: what comes meanwhile is news for the next look.
        changes, began, last = self._changes, time.monotonic(), self._last
        if (
            max_age_s is None
            and last is not None
            and not self._due
            and last.changes == changes
            and began - last.at < QUIET_S
        ):
            # Most looks: nothing has happened, which need not be found out host by host.
            return last.cluster
        with self._reading:
            cluster, hosts = self._cluster, dict(self._hosts)
        since = float("-inf") if max_age_s is None else time.monotonic() - max_age_s
        if max_age_s is not None:
            for host in hosts.values():
                host.hurry(since)
        self._await_due(hosts)
        # They were asked at the same time, so this takes as long as the slowest, and no host is
        # waited for longer than its time.
        until = time.monotonic() + self._core.settings.host_timeout_s + GRACE_S
        answers = {}
        for name, host in hosts.items():
            known = host.known(since)
            answers[name] = host.answer(since, until) if known is None else known
        silent_since = {name: host.silent_since for name, host in hosts.items()}
        # Where nobody has told of anything new, it is as it was.
        parts = (cluster, *answers.values(), *silent_since.values())
        last = self._last
        if last is not None and len(last.parts) == len(parts) and all(map(is_, last.parts, parts)):
            self._last = dataclasses.replace(last, at=began, changes=changes)
            return last.cluster
        cluster = seen(
            cluster,
            {
                name: answer.message if isinstance(answer, VorchError) else answer
                for name, answer in answers.items()
            },
        )
        silences = {
            name: Silence(since=since, waited_at=since)
            for name, since in silent_since.items()
            if since is not None
        }
        cluster = dataclasses.replace(cluster, silences={**cluster.silences, **silences})
        self._last = _Look(cluster, parts, began, changes)
        return cluster

    def _await_due(self, hosts: dict[str, _Host]) -> None:
        """Whoever has just started a VM, and looks, wants to see it run.

        For a moment only: a host that hangs would hold up everybody else.
        """
        until = time.monotonic() + DUE_S
        for name in list(self._due):
            host = hosts.get(name)
            if host is not None:
                host.await_due(until)
            # Taken out before it is asked: so none is lost that becomes due meanwhile.
            self._due.discard(name)
            if host is not None and host.due:
                self._due.add(name)

    def documents(self) -> Cluster:
        """What the store says now, without what hosts show."""
        if not self._threads:
            return self._core.look()
        self._follow()
        with self._reading:
            return self._cluster

    def list(self, max_age_s: float | None = None) -> tuple[VmStatus, ...]:
        """All VMs by name, as `Orchestrator.list` shows them."""
        cluster = self.look(max_age_s)
        return tuple(status(cluster, cluster.vms[name]) for name in sorted(cluster.vms))

    def ha_status(self, cluster: Cluster) -> HaStatus:
        """All of high availability, as `Orchestrator.ha_status` shows it, of this look."""
        return kept.status_of(self._core.world.state, cluster, self._core.world.clock.now())

    def figures(self) -> dict[str, HostFigures]:
        """Counters of every host that answers now, and of all that runs there."""
        clock = self._core.world.clock
        self._follow()
        with self._reading:
            names = sorted(self._cluster.nodes)
        answers = self._core.hosts.ask(names, lambda host: host.host_figures(now=clock.now()))
        return {name: answer for name, answer in answers.items() if isinstance(answer, HostFigures)}

    def page(
        self,
        wanted: filters.Wanted | None = None,
        *,
        after: str = "",
        limit: int | None = None,
        may_see: Callable[[Vm], bool] | None = None,
        max_age_s: float | None = None,
    ) -> Page:
        """VMs that fit `wanted` (`decide.filters`), those after that name, at most so many."""
        wanted = wanted or {}
        filters.check_vms(wanted)
        cluster = self.look(max_age_s)
        fitting = self._fitting(cluster, wanted, may_see)
        begin = bisect.bisect_right(fitting, after, key=_name) if after else 0
        end = len(fitting) if limit is None else min(len(fitting), begin + limit)
        more = fitting[end - 1].name if begin < end < len(fitting) else ""
        return Page(cluster, tuple(fitting[begin:end]), len(fitting), more)

    def _fitting(
        self, cluster: Cluster, wanted: filters.Wanted, may_see: Callable[[Vm], bool] | None
    ) -> Sequence[Vm]:
        """A page that is looked at asks the same again and again."""
        fitting: Sequence[Vm] = self._in_order(cluster)
        if may_see is None and not wanted:
            return fitting
        question = (may_see, tuple((name, *values) for name, values in sorted(wanted.items())))
        # What is seen of hosts matters for that one alone.
        of: object = cluster if wanted.get("state") else cluster.vms
        known = self._asked.get(question)
        if known is not None and known[0] is of:
            return known[1]
        if may_see is not None:
            fitting = [vm for vm in fitting if may_see(vm)]
        if wanted:
            fitting = filters.fitting(cluster, fitting, wanted)
        if len(self._asked) >= MOST_ASKED:
            self._asked.clear()
        self._asked[question] = (of, fitting)
        return fitting

    def nodes(self) -> tuple[NodeStatus, ...]:
        """All hosts by name, as `Orchestrator.node_list` shows them."""
        cluster = self.look()
        of, told = self._statuses
        if of is not cluster:
            nodes = [cluster.nodes[name] for name in sorted(cluster.nodes)]
            told = statuses(cluster, nodes, self._core.settings.vm_overhead_mib)
            self._statuses = (cluster, told)
        return told

    def node(self, name: str) -> NodeStatus:
        """One of them, as it is known: nothing is tried out."""
        cluster = self.look()
        (one,) = statuses(cluster, [cluster.node(name)], self._core.settings.vm_overhead_mib)
        return one

    def _in_order(self, cluster: Cluster) -> tuple[Vm, ...]:
        of, order = self._order
        if of is not cluster.vms:
            order = tuple(cluster.vms[name] for name in sorted(cluster.vms))
            self._order = (cluster.vms, order)
        return order

    @property
    def changes(self) -> int:
        """Grows with all that happens."""
        return self._changes

    def wait(self, seen_changes: int, timeout_s: float) -> int:
        """Returns when more has happened than that, or when the time is over. How much it is."""
        if not self._threads:
            raise Unsupported(
                "cannot wait for changes: time stands still in this world in memory; give it a"
                " clock (memory:NAME?clock=system)"
            )
        with self._news:
            self._news.wait_for(
                lambda: self._changes != seen_changes or self._over.is_set(), timeout_s
            )
            return self._changes

    def _changed(self) -> None:
        with self._news:
            self._changes += 1
            self._news.notify_all()

    # -- the store

    def _follow_the_store(self) -> None:
        state = self._core.world.state
        while not self._over.is_set():
            try:
                _, keys = state.changes(self._revision, STORE_WAIT_S)
                if keys and not self._over.is_set():
                    self._follow()
            except VorchError:
                # Whoever looks is told so; here it is tried again.
                self._over.wait(STORE_WAIT_S)

    def _follow(self) -> None:
        """Read what was written since."""
        with self._reading:
            if self._over.is_set():
                return
            revision, documents = self._revision, self._documents
            gap = False
            for attempt in range(STEADY_AFTER + 1):
                revision, keys = self._core.world.state.changes(revision, 0)
                ours = [key for key in keys if key.partition("/")[0] in self._kinds]
                gap = gap or "*" in keys
                if gap or len(ours) > READ_ONE_BY_ONE or attempt == STEADY_AFTER:
                    # Newer than `revision`, if anything: what is newer is only read once more.
                    documents = self._core.world.state.read(self._kinds)
                    break
                if not ours:
                    break
                documents = self._read(documents, ours)
            changed = documents is not self._documents
            self._revision = revision
            if not changed:
                return
            before, self._documents = self._cluster, documents
            self._cluster = self._core.cluster_of(documents)
            self._meet_hosts(gap)
            if not gap:
                self._hurry_for(before)
        self._changed()

    def _hurry_for(self, before: Cluster) -> None:
        """Where the record of a VM was written, most likely something was done with it."""
        after = self._cluster
        if before.vms is after.vms:
            return
        for name in before.vms.keys() | after.vms.keys():
            old, new = before.vms.get(name), after.vms.get(name)
            if old is not new:
                for vm in (old, new):
                    if vm is not None and vm.node in self._hosts:
                        self._hosts[vm.node].now_due()
                        self._due.add(vm.node)

    def _read(self, documents: dict[str, Document], keys: Sequence[str]) -> dict[str, Document]:
        after = dict(documents)
        for key in keys:
            document = self._core.world.state.get(key)
            if document is None:
                after.pop(key, None)
            else:
                after[key] = document
        return after

    def _meet_hosts(self, gap: bool) -> None:
        """Those that are there now, and no others."""
        for name in self._hosts.keys() - self._cluster.nodes.keys():
            self._hosts.pop(name).end()
        for name in self._cluster.nodes:
            if name not in self._hosts:
                self._hosts[name] = _Host(self._core, name, self._changed, self.refresh_s)
            elif gap:
                self._hosts[name].stir("")


class _Host:
    """One host, in a thread of its own: told by events, looked at when told and at intervals."""

    def __init__(
        self, core: Core, name: str, changed: Callable[[], None], refresh_s: float
    ) -> None:
        self._core = core
        self._name = name
        self._say_changed = changed
        self._refresh_s = refresh_s
        self._over = threading.Event()
        self._subscription: Subscription | None = None
        # Each has told of something when its number is not that of the last look.
        self._stirred = 0
        self._lock = threading.Condition()
        self._answer: Answer | None = None
        self._looked_at = float("-inf")
        self._due = float("-inf")
        # In the world's time.
        self.silent_since: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"vorch-see-{name}", daemon=True)
        self._thread.start()

    # -- from outside

    def stir(self, vm_id: str) -> None:
        """Something has happened there; "" if nobody knows what, as the host was lost."""
        with self._lock:
            if not vm_id:
                lost = self._subscription
                self._subscription = None
                if lost is not None:
                    # Not here: this may be the thread that tells.
                    threading.Thread(target=lost.close, daemon=True).start()
            self._stirred += 1
            self._lock.notify_all()

    def hurry(self, since: float) -> None:
        with self._lock:
            if self._looked_at < since:
                self._stirred += 1
                self._lock.notify_all()

    def now_due(self) -> None:
        """What it said before this moment may be of the past."""
        with self._lock:
            self._due = time.monotonic()
            self._stirred += 1
            self._lock.notify_all()

    @property
    def due(self) -> bool:
        return self._looked_at < self._due and not self._over.is_set()

    def await_due(self, until: float) -> None:
        if not self.due:
            return
        with self._lock:
            self._lock.wait_for(
                lambda: self._over.is_set() or self._looked_at >= self._due,
                max(0.0, until - time.monotonic()),
            )

    def known(self, since: float) -> Answer | None:
        """What it said last, if that is new enough: without a lock, as most looks find it so."""
        return self._answer if self._looked_at >= since else None

    def answer(self, since: float, until: float) -> Answer:
        """What it said to the last look, if that began late enough; else to the next one."""
        with self._lock:
            fresh = self._lock.wait_for(
                lambda: (
                    self._over.is_set() or (self._answer is not None and self._looked_at >= since)
                ),
                max(0.0, until - time.monotonic()),
            )
            if fresh and self._answer is not None:
                return self._answer
        return Unreachable(
            f"cannot look at host {self._name!r}: it has not answered in time; see whether it and"
            " its libvirtd run",
            node=self._name,
        )

    def end(self) -> None:
        with self._lock:
            self._over.set()
            subscription, self._subscription = self._subscription, None
            self._lock.notify_all()
        if subscription is not None:
            subscription.close()

    def join(self) -> None:
        self._thread.join(2 * STORE_WAIT_S)

    # -- inside

    def _run(self) -> None:
        while not self._over.is_set():
            with self._lock:
                stirred = self._stirred
            began = time.monotonic()
            answer = self._core.hosts.ask([self._name], self._look)[self._name]
            self._took(answer, began)
            patience_s = SILENT_REFRESH_S if isinstance(answer, VorchError) else self._refresh_s
            with self._lock:
                self._lock.wait_for(self._over.is_set, GAP_S)
                self._lock.wait_for(partial(self._has_stirred, stirred), patience_s)

    def _has_stirred(self, before: int) -> bool:
        return self._over.is_set() or self._stirred != before

    def _look(self, host: Hypervisor) -> tuple[Domain, ...]:
        """Listen first, so that nothing falls between."""
        if self._subscription is None:
            subscription = host.events(self.stir)
            with self._lock:
                keep = not self._over.is_set() and self._subscription is None
                if keep:
                    self._subscription = subscription
            if not keep:
                subscription.close()
        domains = host.domains()
        if self.silent_since is not None:
            # One that was given up has come back after all.
            self.stir(self._name)
        return domains

    def _took(self, answer: Answer, began: float) -> None:
        now = self._core.world.clock.now()
        with self._lock:
            news = _essence(answer) != _essence(self._answer)
            self._answer, self._looked_at = answer, began
            turned = isinstance(answer, VorchError) != (self.silent_since is not None)
            if turned:
                self.silent_since = now if isinstance(answer, VorchError) else None
            over = self._over.is_set()
            if news and not over:
                # Before anybody goes on who waits for this answer.
                self._say_changed()
            self._lock.notify_all()
        if turned and not over:
            self._note(answer)

    def _note(self, answer: Answer) -> None:
        """Other processes need not wait for what this one knows."""
        with contextlib.suppress(VorchError):
            known = self._core.look().silences
            silent = [self._name] if isinstance(answer, VorchError) else []
            after = silence.note(self._core.world, known, [self._name], silent)
            if silent:
                self.silent_since = after[self._name].since


def _essence(answer: Answer | None) -> object:
    """What makes a look differ from the last: not the time that processors have run since."""
    if answer is None:
        return None
    if isinstance(answer, VorchError):
        return False
    return tuple(sorted((dataclasses.replace(one, cpu_time_ns=0) for one in answer), key=_id))


def _name(vm: Vm) -> str:
    return vm.name


def _id(domain: Domain) -> str:
    return domain.id
