"""Runs the benchmark: each case in turn, each run by vorch's own verbs, watched from outside."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import vorch
from vorch import Figures, Invalid, Orchestrator, Pool, StepFailed, VorchError
from vorch.lab import guest

from . import marks, media, surroundings
from .likeness import Difference, differences
from .mirror import Mirror
from .results import Case, Results, Run

Say = Callable[[str], None]

SAMPLE_EVERY_S = 2.0
SIGNALS_HEARD_S = 1.0
LOOK_EVERY_S = 0.15
PREFIX = "bench"
# What an image's first start needs where nobody says more.
TIMEOUT_S = 2 * 3600.0
NETWORKS = ("one", "two")
# KVM's is on the command line of every install.
CONSOLES = {"kvm": "", "xen": "console=hvc0"}
DISKS = {"kvm": "/dev/vda", "xen": "/dev/xvda"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be measured, and with what."""

    hosts: tuple[str, ...]
    # Pool → "one" or "two" networks; "" where the cluster itself can tell.
    pools: Mapping[str, str]
    methods: tuple[str, ...]
    runs: int = 3
    packages: str = "minbase"
    # What guests are on Xen: pv or pvh.
    xen_kind: str = "pv"
    vcpus: int = 1
    memory_mib: int = 1024
    disk_gib: int = 4
    network: str = "default"
    # A mirror that the guests reach; or an address of this machine to serve packages on.
    mirror: str = ""
    serve: str = ""
    suite: str = "bookworm"
    # A folder with the kernel and initrd of Debian's installer, for another suite than the one
    # whose installer this machine's archive has.
    installer: Path | None = None
    # For import and clone.
    image: Path | None = None
    way_in: str = ""
    # More for the command line of installers' kernels, the same on every hypervisor.
    arguments: str = ""
    timeout_s: float = TIMEOUT_S
    unlike: bool = False
    note: str = ""
    # Where each run's consoles are kept, whole; None: nowhere.
    consoles: Path | None = None
    cache: Path = field(default_factory=lambda: guest.default_cache() / "install")


@dataclass(slots=True)
class _Counted:
    """What a guest's own counters came to, over its domains one after the other."""

    before: dict[str, float] = field(default_factory=dict)
    now: dict[str, float] = field(default_factory=dict)

    def take(self, figures: Figures) -> None:
        seen = {
            "guest_cpu_s": figures.cpu_time_ns / 1e9,
            "disk_read_bytes": sum(one.read_bytes for one in figures.disks),
            "disk_written_bytes": sum(one.written_bytes for one in figures.disks),
            "disk_reads": sum(one.reads for one in figures.disks),
            "disk_writes": sum(one.writes for one in figures.disks),
            "net_received_bytes": sum(one.received_bytes for one in figures.nics),
            "net_sent_bytes": sum(one.sent_bytes for one in figures.nics),
        }
        if not figures.disks:
            # The host tells nothing of them (a Xen host of what a QEMU serves), which is not 0.
            seen = {name: value for name, value in seen.items() if not name.startswith("disk_")}
        self.now = {name: float(value) for name, value in seen.items()}

    def next_domain(self) -> None:
        for name, value in self.now.items():
            self.before[name] = self.before.get(name, 0.0) + value
        self.now = {}

    @property
    def total(self) -> dict[str, float]:
        names = {*self.before, *self.now}
        return {name: self.before.get(name, 0.0) + self.now.get(name, 0.0) for name in names}


class _Watched:
    """A VM's console and counters, followed by two threads until it is over."""

    def __init__(
        self, found: Orchestrator, name: str, counted: _Counted, kept: Path | None
    ) -> None:
        self._found, self._name, self._counted, self._kept = found, name, counted, kept
        self.reader = marks.Reader()
        self.said = b""
        self._over = threading.Event()
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=one, daemon=True) for one in (self._listen, self._count)
        ]

    def __enter__(self) -> _Watched:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                # One that was lost may still be held by a connection that is gone.
                console = self._found.console(self._name, force=True)
            except VorchError:
                # Not there yet, or over.
                self._over.wait(LOOK_EVERY_S)
                continue
            self._note("running", time.monotonic())
            try:
                while not self._over.is_set():
                    data = console.read(0.2)
                    if data:
                        self.said = (self.said + data)[-20000:]
                        if self._kept:
                            with self._kept.open("ab") as file:
                                file.write(data)
                        self.reader.feed(data, time.monotonic())
                        with self._changed:
                            self._changed.notify_all()
            except VorchError:
                continue
            finally:
                with contextlib.suppress(VorchError):
                    console.close()

    def _note(self, mark: str, now: float) -> None:
        with self._changed:
            self.reader.seen.setdefault(mark, now)
            self._changed.notify_all()

    def _count(self) -> None:
        while not self._over.wait(SAMPLE_EVERY_S):
            with contextlib.suppress(VorchError):
                self._counted.take(self._found.figures(self._name))

    def await_mark(self, mark: str, until: float) -> None:
        """Returns when it has been seen; StepFailed when the guest gave up, or is late."""
        with self._changed:
            while mark not in self.reader.seen:
                self.check()
                left = until - time.monotonic()
                if left <= 0:
                    raise StepFailed(
                        f"cannot measure {self._name!r}: {mark!r} did not come in time; the last"
                        f" of its console: {self.last_words}"
                    )
                self._changed.wait(min(left, 1.0))

    def check(self) -> None:
        if self.reader.failure or marks.FAILURE in self.reader.seen:
            raise StepFailed(
                f"cannot install {self._name!r}: {self.reader.failure or 'it gave up'}; the last"
                f" of its console: {self.last_words}"
            )

    @property
    def last_words(self) -> str:
        lines = self.said.decode(errors="replace").replace("\r", "").splitlines()
        return " / ".join(line for line in lines if line.strip())[-600:]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """One host with one pool."""

    host: str
    hypervisor: str
    pool: Pool
    storage: str
    networks: str

    def case(self, method: str) -> Case:
        return Case(
            method=method,
            hypervisor=self.hypervisor,
            storage=self.storage,
            networks=self.networks,
        )


def places(found: Orchestrator, request: Request) -> tuple[_Place, ...]:
    """Every pair of a host and a pool that it reaches."""
    cluster = found.look()
    made = []
    for host in request.hosts:
        node = cluster.node(host)
        if node.facts is None:
            raise Invalid(
                f"cannot measure on host {host!r}: it was never tried out; `vorch node probe"
                f" {host}` does that"
            )
        for name, label in request.pools.items():
            pool = cluster.pool(name)
            if pool.node and pool.node != host:
                continue
            rbd = pool.url.startswith("rbd:")
            made.append(
                _Place(
                    host=host,
                    hypervisor="xen" if node.facts.hypervisor == "xen" else "kvm",
                    pool=pool,
                    storage="rbd" if rbd else "local",
                    networks=_label(host, node, pool, label) if rbd else "none",
                )
            )
    idle = [name for name in request.pools if name not in {place.pool.name for place in made}]
    if idle or not made:
        raise Invalid(
            f"cannot measure on pool {', '.join(idle) or '(none named)'}: none of the hosts"
            f" {', '.join(request.hosts)} reaches it; name the host that it is on, or another pool"
        )
    return tuple(made)


def _label(host: str, node: vorch.Node, pool: Pool, label: str) -> str:
    """Whether management and storage share a network on that host, by what vorch recorded."""
    if label:
        if label not in NETWORKS:
            raise Invalid(
                f"cannot label pool {pool.name!r} {label!r}: say how many networks storage and"
                f" management have there, {' or '.join(NETWORKS)}, as in {pool.name}=two"
            )
        return label
    address = urlsplit(node.uri).hostname
    if not node.storage_address or not address:
        raise Invalid(
            f"cannot tell whether host {host!r} has one network or two for management and Ceph:"
            f" its storage address is not recorded; say it, as in --pool {pool.name}=two"
        )
    return "one" if address == node.storage_address else "two"


def _check(request: Request) -> None:
    unknown = [one for one in request.methods if one not in marks.METHODS]
    if unknown or not request.methods:
        raise Invalid(
            f"cannot measure {', '.join(unknown) or 'nothing'}: the methods are"
            f" {', '.join(marks.METHODS)}; name some of these"
        )
    if request.packages not in media.SETS:
        raise Invalid(
            f"cannot install the set {request.packages!r}: there is no such set; choose"
            f" {' or '.join(media.SETS)}"
        )
    if not 1 <= request.runs <= 1000:
        raise Invalid(f"cannot run each case {request.runs} times: 1 to 1000 are sensible")
    installs = [one for one in request.methods if one in marks.INSTALLS]
    if installs and bool(request.mirror) == bool(request.serve):
        raise Invalid(
            "cannot install without packages: name a mirror that the guests reach (--mirror), or"
            " an address of this machine to serve its own archive on (--serve), and not both"
        )
    if "debootstrap" in installs and request.packages == "short" and not request.serve:
        raise Invalid(
            "cannot install the set 'short' from a mirror: it is an archive of its own, which"
            " comes with --serve ADDRESS"
        )
    if request.installer is not None and "installer" not in installs:
        raise Invalid("cannot use an installer without --method installer; add it, or leave it out")
    if "installer" in installs and request.suite != media.DI_SUITE and request.installer is None:
        raise Invalid(
            f"cannot install {request.suite!r} by the installer of {media.DI_SUITE!r}, the one in"
            " this machine's archive: it would find no parts of its own there; name the folder of"
            " that suite's own (--installer)"
        )
    if {"import", "clone"} & {*request.methods} and request.image is None:
        raise Invalid(
            "cannot import or clone without an image: name the file of one that starts by BIOS"
            " and under pygrub and has a login on its serial console (--image)"
        )
    if request.image is not None and not request.image.is_file():
        raise Invalid(f"cannot use image {str(request.image)!r}: there is no such file; check it")


class Benchmark:
    """One call: what is asked for, made ready; then `run`."""

    def __init__(self, found: Orchestrator, request: Request, say: Say) -> None:
        _check(request)
        self._found, self._request, self._say = found, request, say
        self._places = places(found, request)
        self._look = surroundings.way_in(request.way_in) if request.way_in else None
        self._media: dict[str, media.Medium] = {}
        self._mirror: Mirror | None = None
        self._short_kernel = ""
        self._templates: dict[str, str] = {}
        self._folder = Path()
        # Of the run under way.
        self._console: Path | None = None

    def run(self) -> Results:
        """All runs, interleaved. What fails spoils its run and no other."""
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            self._prepare(stack)
            results = Results(
                began_at=time.time(),
                setup=self._setup(),
                hosts=self._host_facts(),
                pools={
                    place.pool.name: surroundings.pool_facts(place.pool, place.networks)
                    for place in self._places
                },
                runs=(),
                unlike_allowed=self._request.unlike,
                note=self._request.note,
            )
            refuse_unlike(differences([results]), allowed=self._request.unlike)
            runs: list[Run] = []
            try:
                for place, method, number in self._turns():
                    runs.append(self._one(place, method, number))
            finally:
                self._remove_templates()
            return Results(
                began_at=results.began_at,
                setup=results.setup,
                hosts=results.hosts,
                pools=results.pools,
                runs=tuple(runs),
                unlike_allowed=results.unlike_allowed,
                note=results.note,
            )

    def _turns(self) -> Iterator[tuple[_Place, str, int]]:
        """Each case once, then each again: what changes with time is spread over all of them."""
        every = [(place, method) for method in self._request.methods for place in self._places]
        for number in range(1, self._request.runs + 1):
            # Who goes first changes, too.
            turn = (number - 1) % len(every)
            for place, method in (*every[turn:], *every[:turn]):
                yield place, method, number

    # -- before ---------------------------------------------------------------------------------

    def _prepare(self, stack: contextlib.ExitStack) -> None:
        request = self._request
        if "debootstrap" in request.methods:
            self._media["debootstrap"] = media.debootstrap_medium(request.cache, self._say)
        if "installer" in request.methods:
            self._media["installer"] = media.installer_medium(
                request.cache, self._say, request.installer
            )
        if request.serve and self._media:
            address, _, port = request.serve.partition(":")
            if port and not port.isdecimal():
                raise Invalid(
                    f"cannot serve packages on {request.serve!r}: say ADDRESS or ADDRESS:PORT"
                )
            mirror = Mirror(request.cache, address, int(port or 0), self._say)
            self._mirror = stack.enter_context(mirror)
            if request.packages == "short":
                self._short_kernel = self._mirror.make_short()

    def _host_facts(self) -> dict[str, dict[str, str]]:
        cluster = self._found.look()
        return {
            host: surroundings.host_facts(cluster.node(host), self._look)
            for host in dict.fromkeys(place.host for place in self._places)
        }

    def _setup(self) -> dict[str, str]:
        request = self._request
        found = {
            "vorch": vorch.__version__,
            "vCPUs": str(request.vcpus),
            "memory MiB": str(request.memory_mib),
            "disk GiB": str(request.disk_gib),
        }
        if self._media:
            own = self._mirror
            found["mirror"] = f"own, indices {own.digest}" if own else request.mirror
            found["suite"] = own.suite if own else request.suite
        if self._media and request.arguments:
            found["kernel arguments"] = request.arguments
        if "debootstrap" in self._media:
            found["debootstrap's set"] = request.packages
        for method, medium in self._media.items():
            found[f"{method}: kernel"] = medium.release
            found[f"{method}: kernel and initrd"] = medium.digest
        if any(place.hypervisor == "xen" for place in self._places):
            found["Xen guests"] = request.xen_kind
        if request.image is not None:
            digest = hashlib.sha256(request.image.read_bytes()).hexdigest()
            found["image"] = digest[:16]
        return found

    # -- one run --------------------------------------------------------------------------------

    def _one(self, place: _Place, method: str, number: int) -> Run:
        request, case = self._request, place.case(method)
        self._say(f"run {number}: {method}, {case.title}, on {place.host} in {place.pool.name}")
        around = surroundings.Around(self._found, place.host, place.pool, self._look)
        name = f"{PREFIX}-{method[:6]}-{place.host}-{place.pool.name}"[:55].lower()
        if request.consoles is not None:
            request.consoles.mkdir(parents=True, exist_ok=True)
            self._console = request.consoles / f"{name}-{number}.log"
            self._console.unlink(missing_ok=True)
        fetched = self._mirror.fetched if self._mirror else 0
        began_at, counted = time.time(), _Counted()
        phases: tuple[marks.Phase, ...] = ()
        amounts: dict[str, float] = {}
        spoilt = ""
        try:
            if method == "clone":
                self._template(place)
            before = around.look()
            if method in marks.INSTALLS:
                phases = self._install(place, method, name, counted)
            else:
                phases = self._from_image(place, method, name, counted)
            amounts = surroundings.between(before, around.look(after=True)) | counted.total
        except (VorchError, ValueError) as exc:
            # Whatever of its figures there are would be those of half a run.
            phases, amounts, spoilt = (), {}, str(exc)
        finally:
            self._remove(name)
        if not spoilt and self._mirror and self._mirror.fetched != fetched:
            spoilt = (
                f"the mirror had to fetch {self._mirror.fetched - fetched} files meanwhile, which"
                " is not the hypervisor's time; they are there for the next run"
            )
        took = f"{sum(phase.seconds for phase in phases):.1f} s"
        self._say(f"run {number}: {method}, {case.title}: {spoilt or took}")
        return Run(
            case=case,
            host=place.host,
            pool=place.pool.name,
            number=number,
            began_at=began_at,
            phases=phases,
            amounts=dict(sorted(amounts.items())),
            spoilt=spoilt,
        )

    def _install(
        self, place: _Place, method: str, name: str, counted: _Counted
    ) -> tuple[marks.Phase, ...]:
        request, medium = self._request, self._media[method]
        until = time.monotonic() + request.timeout_s
        failed: list[VorchError] = []
        # A thread's own end cannot be waited for again, once a signal has broken into that.
        ended = threading.Event()

        def install() -> None:
            try:
                self._found.install(
                    name,
                    self._answers(place, method),
                    kernel=str(medium.kernel),
                    initrd=str(medium.initrd),
                    kind="preseed",
                    arguments=f"{request.arguments} {CONSOLES[place.hypervisor]}".strip(),
                    timeout_s=request.timeout_s,
                    start=False,
                    disk_gib=request.disk_gib,
                    **self._of_every_vm(place),
                )
            except VorchError as exc:
                failed.append(exc)
            finally:
                ended.set()

        with _Watched(self._found, name, counted, self._console) as watched:
            began = time.monotonic()
            threading.Thread(target=install, daemon=True).start()
            try:
                # A signal in the moment before a wait is heard when that wait is over.
                while not ended.wait(SIGNALS_HEARD_S):
                    pass
            except BaseException:
                # Ctrl-C ends this thread's wait; the installer in the other one is told of it.
                self._cancel(name)
                ended.wait()
                raise
            if failed:
                watched.check()
                raise failed[0]
            if marks.INSTALLED not in watched.reader.seen:
                watched.check()
                raise ValueError(f"{name} ended without a word: {watched.last_words}")
        counted.next_domain()
        return self._first_start(name, method, began, watched.reader.seen, counted, until)

    def _cancel(self, name: str) -> None:
        for task in self._found.task_list():
            if task.subject == name and not task.over:
                with contextlib.suppress(VorchError):
                    self._found.task_cancel(task.id)

    def _answers(self, place: _Place, method: str) -> str:
        request, own = self._request, self._mirror
        suite = own.suite if own else request.suite
        mirror = f"{own.url}/debian" if own else request.mirror
        if method == "installer":
            return media.preseed(mirror, suite, DISKS[place.hypervisor])
        more = " ".join(media.MINBASE_MORE)
        if request.packages == "short":
            assert own is not None
            mirror, suite, more = f"{own.url}/short", "short", self._short_kernel
        return media.debootstrap_answers(mirror, suite, request.packages, self._media[method], more)

    def _of_every_vm(self, place: _Place) -> dict[str, Any]:
        return {
            "vcpus": self._request.vcpus,
            "memory_mib": self._request.memory_mib,
            "networks": (self._request.network,),
            "pool": place.pool.name,
            "node": place.host,
            "hypervisor": place.hypervisor,
            "xen_kind": self._request.xen_kind if place.hypervisor == "xen" else None,
        }

    def _first_start(
        self,
        name: str,
        method: str,
        began: float,
        seen: Mapping[str, float],
        counted: _Counted,
        until: float,
    ) -> tuple[marks.Phase, ...]:
        with _Watched(self._found, name, counted, self._console) as watched:
            again = time.monotonic()
            self._found.start(name)
            watched.await_mark(marks.UP, until)
            with contextlib.suppress(VorchError):
                counted.take(self._found.figures(name))
        merged = {**seen, marks.UP: watched.reader.seen[marks.UP]}
        return marks.phases(method, began, merged, again)

    def _from_image(
        self, place: _Place, method: str, name: str, counted: _Counted
    ) -> tuple[marks.Phase, ...]:
        assert self._request.image is not None
        until = time.monotonic() + self._request.timeout_s
        seen: dict[str, float] = {}
        image = self._templates.get(place.pool.name, f"{name}-image")
        began = time.monotonic()
        if method == "import":
            image = f"{name}-image"
            self._found.image_import(
                image,
                str(self._request.image),
                pool=place.pool.name,
                memory_mib=self._request.memory_mib,
            )
            seen["imported"] = time.monotonic()
        self._found.create(
            name,
            image=image,
            # A copy of its own is what an import is for; a clone stands on its template.
            linked=method == "clone",
            **self._of_every_vm(place),
        )
        seen["asked"] = time.monotonic()
        return self._first_start(name, method, began, seen, counted, until)

    def _template(self, place: _Place) -> None:
        """Once for each pool, before the time is taken."""
        if place.pool.name in self._templates:
            return
        name = f"{PREFIX}-template-{place.pool.name}"[:60].lower()
        self._found.image_import(
            name,
            str(self._request.image),
            pool=place.pool.name,
            memory_mib=self._request.memory_mib,
        )
        self._templates[place.pool.name] = name

    # -- after ----------------------------------------------------------------------------------

    def _remove(self, name: str) -> None:
        """Whatever of it is there. What cannot be removed must not end the other runs."""
        try:
            cluster = self._found.look()
            if name in cluster.vms:
                self._found.delete(name, force=True, purge=True)
            if f"{name}-image" in cluster.images:
                self._found.image_delete(f"{name}-image")
        except VorchError as exc:
            self._say(f"{name} is left: {exc}")

    def _remove_templates(self) -> None:
        for name in self._templates.values():
            with contextlib.suppress(VorchError):
                self._found.image_delete(name)


def refuse_unlike(found: Sequence[Difference], *, allowed: bool) -> None:
    if found and not allowed:
        listed = "\n".join(f"  {one}" for one in found)
        raise Invalid(
            "cannot compare what is not alike: these differ beside what is to be compared:\n"
            f"{listed}\nmake them the same, or see what comes of it all the same (--unlike), which"
            " is written over every result"
        )
