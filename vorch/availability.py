"""What high availability knows: settings a person makes, and how far each host and VM is.

Settings are documents: `ha/VM`, `rule/NAME`, `policy/ha`, and the wishes `order/HOST` and
`move/VM`. How far things are is kept in documents, too (`hanode/HOST`, `havm/VM`), so that another
vorch process carries on wherever this one ends. Like `model`: frozen values that check themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from vorch.errors import Invalid
from vorch.frozen import quick
from vorch.model import Check, check_name, check_range, check_vm_name

# ---------------------------------------------------------------------------------------------
# Settings


class Requested(StrEnum):
    """What a person wants of a VM. The first two are looked after when its host is lost."""

    STARTED = "started"
    # Off, and registered on a host that lives.
    STOPPED = "stopped"
    # Off, and left where it is.
    DISABLED = "disabled"
    # Not vorch's business for now: whatever it does, it goes on doing.
    IGNORED = "ignored"


def check_seconds(value: float, what: str) -> float:
    if not 0 <= value < float("inf"):
        raise Invalid(f"cannot use {value!r} s as {what}: it must be 0 or more; choose another")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChoice:
    """A host that a VM may be on. The highest priority wins."""

    node: str
    priority: int = 0

    def __post_init__(self) -> None:
        check_name(self.node, "node name")
        check_range(self.priority, 0, 1000, "priority")


def check_choices(nodes: tuple[NodeChoice, ...], whose: str) -> None:
    names = [choice.node for choice in nodes]
    for name in names:
        if names.count(name) > 1:
            raise Invalid(f"cannot name host {name!r} twice for {whose}; name it once")


@dataclass(frozen=True, slots=True, kw_only=True)
class HaVm:
    """How a VM is looked after."""

    vm: str
    requested: Requested = Requested.STARTED
    # Preferred hosts; with `restricted` the only ones.
    nodes: tuple[NodeChoice, ...] = ()
    restricted: bool = False
    # Goes back to a better host by itself as soon as there is one.
    failback: bool = True
    # Further tries on the same host after a failed start, and hosts that are tried after that.
    max_restart: int = 1
    max_relocate: int = 1
    # After a failure of many: lower numbers first (0: no matter), each so long before the next.
    start_order: int = 0
    start_delay_s: float = 0.0
    # How it changes hosts: while it runs, or by a stop here and a start there.
    moves: Literal["live", "cold"] = "live"
    # How long its guest may take to shut down; 0: its power is cut at once.
    stop_timeout_s: float = 60.0
    # Its host answers on the storage network only, and its disks are in use: leave it alone, or
    # fence the host after that time and start it elsewhere.
    isolation: Literal["leave", "fence"] = "leave"
    isolation_after_s: float = 60.0
    # Its guest powers itself off: that is what somebody in it asked for, or it is started again.
    guest_shutdown: Literal["asked-for", "restart"] = "asked-for"

    def __post_init__(self) -> None:
        check_vm_name(self.vm)
        check_choices(self.nodes, f"VM {self.vm!r}")
        if self.restricted and not self.nodes:
            raise Invalid(
                f"cannot restrict VM {self.vm!r} to hosts that are not named; name at least one"
            )
        check_range(self.max_restart, 0, 100, "number of restarts")
        check_range(self.max_relocate, 0, 100, "number of hosts that are tried")
        check_range(self.start_order, 0, 10000, "place in the start order")
        check_seconds(self.start_delay_s, "start delay")
        check_seconds(self.stop_timeout_s, "time to shut down")
        check_seconds(self.isolation_after_s, "time before an isolated host is fenced")

    @property
    def counts(self) -> bool:
        """It is looked after when its host is lost."""
        return self.requested is Requested.STARTED or self.requested is Requested.STOPPED


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Where VMs may be: together, apart, spread evenly, or on certain hosts.

    `strict`: rather not at all than otherwise. Else it is a wish that gives way.
    """

    name: str
    kind: Literal["together", "apart", "nodes", "spread"]
    vms: tuple[str, ...]
    nodes: tuple[NodeChoice, ...] = ()
    strict: bool = True
    # Key of the domains that it is about: "rack", by hosts' tags as in rack:r1. "": hosts.
    over: str = ""
    # How many more VMs than another one a domain may hold, of those that are spread.
    max_skew: int = 1
    # What a wish counts for beside others.
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_name(self.name, "name of a rule")
        check_range(self.max_skew, 1, 1000, "skew that is allowed")
        if self.over:
            check_name(self.over, "key of the domains that a rule is about")
        if not 0 < self.weight <= 1000:
            raise Invalid(
                f"cannot use {self.weight!r} as the weight of a wish: it must be above 0 and at"
                " most 1000, as in 2"
            )
        if self.over and self.kind == "nodes":
            raise Invalid(
                f"cannot make rule {self.name!r}: it names hosts, and {self.over!r} is a key of"
                " their tags; leave one of them away"
            )
        if self.kind == "spread" and not self.over:
            raise Invalid(
                f"cannot make rule {self.name!r}: it does not say over what its VMs are spread;"
                " name a key of hosts' tags, as in rack, or host"
            )
        for vm in self.vms:
            check_vm_name(vm)
        if len(set(self.vms)) != len(self.vms):
            raise Invalid(f"cannot make rule {self.name!r}: a VM stands in it twice; name it once")
        check_choices(self.nodes, f"rule {self.name!r}")
        if self.kind == "nodes" and not (self.vms and self.nodes):
            raise Invalid(f"cannot make rule {self.name!r}: it needs VMs and hosts; name both")
        if self.kind != "nodes" and (len(self.vms) < 2 or self.nodes):
            raise Invalid(
                f"cannot make rule {self.name!r}: {self.kind!r} is about two VMs or more, and not"
                " about hosts; name the VMs only"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class HaPolicy:
    """How the whole cluster is looked after. There is one, `policy/ha`."""

    # What becomes of VMs on a host that is shut down or rebooted in good order.
    shutdown: Literal["conditional", "freeze", "failover", "migrate"] = "conditional"
    # A VM that is to be started and is off is first placed where it fits best.
    balance_on_start: bool = False
    # What takes away the room for VMs whose host may be lost: refused, only said, or not looked at.
    spare: Literal["keep", "warn", "ignore"] = "keep"
    # How many hosts may be lost at once. And a key of hosts' tags, as "rack", of which any one may
    # be lost whole; "": none.
    spare_hosts: int = 1
    spare_over: str = ""
    # When more than this share of the hosts goes silent at once, vorch suspects itself.
    silent_share: float = 0.5
    # Hands off until then: `freeze` nothing is done, `ignore` nothing is even watched.
    disarmed_until: float = 0.0
    disarmed_as: Literal["freeze", "ignore"] = "freeze"

    def __post_init__(self) -> None:
        check_range(self.spare_hosts, 1, 8, "number of hosts that may be lost at once")
        if self.spare_over:
            check_name(self.spare_over, "key of the domains that may be lost")
        if not 0.0 < self.silent_share <= 1.0:
            raise Invalid(
                f"cannot use {self.silent_share!r} as the share of hosts that may go silent at"
                " once: it must be above 0 and at most 1, as in 0.5"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOrder:
    """What a person wants of a host."""

    node: str
    # It is emptied and kept empty.
    maintenance: bool = False
    # It is to go down in good order, by the policy of the cluster.
    leaving: Literal["", "shutdown", "reboot"] = ""

    def __post_init__(self) -> None:
        check_name(self.node, "node name")


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveOrder:
    """A person wants a VM on another host, and what must be together with it as well."""

    vm: str
    target: str
    live: bool = True

    def __post_init__(self) -> None:
        check_vm_name(self.vm)
        check_name(self.target, "node name")


# ---------------------------------------------------------------------------------------------
# How far things are


class Sign(StrEnum):
    """What all that is seen of a host comes to."""

    WELL = "well"
    # libvirt is silent, the host is not, and its VMs' disks are in use.
    DAEMON_SILENT = "daemon-silent"
    # libvirt is silent, the host is not, and nobody has its VMs' disks open.
    HOLLOW = "hollow"
    # It cannot reach its VMs' disks, though it can be talked to.
    STORAGE_CUT = "storage-cut"
    # Silent on both networks.
    GONE = "gone"
    # Silent to the leader, and answering to another vorch process: the leader is cut off.
    PARTED = "parted"


class NodeState(StrEnum):
    """What is known of a host, not what is hoped."""

    ONLINE = "online"
    # It is kept empty; it may be lost or not.
    MAINTENANCE = "maintenance"
    # It is about to go down in good order.
    LEAVING = "leaving"
    # It went down in good order: nothing of vorch runs there.
    DOWN = "down"
    # Silent, and perhaps still running its VMs.
    SUSPECT = "suspect"
    # To be cut off; not proven yet.
    FENCING = "fencing"
    # Proven cut off.
    FENCED = "fenced"
    # It is back and is being cleaned up.
    RETURNING = "returning"


# Nothing runs on hosts in these states, for certain.
PROVEN_DEAD = (NodeState.FENCED, NodeState.DOWN)


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """How far vorch is with a host."""

    node: str
    state: NodeState = NodeState.ONLINE
    since: float = 0.0
    sign: Sign = Sign.WELL
    sign_since: float = 0.0
    # Its storage address has answered a knock once, so that its silence means something.
    storage_answered: bool = False
    # Why it is to be fenced, or how it is known to be dead.
    why: str = ""
    # A fence or a cleaning that failed is tried again from then on.
    retry_at: float = 0.0
    # In good order: all that is to leave it has left, so its power may go.
    ready: bool = False
    # How its VMs were left when it went down: to be started elsewhere, left alone, or none there.
    left_as: Literal["", "released", "frozen", "emptied"] = ""
    # A fence was begun, so it may be cut off in part, until it is taken back.
    begun: bool = False
    # When it was last let at its disks again though nobody knew that it was cut off.
    lifted_at: float = 0.0
    # It was proven cut off since, so its VMs may run elsewhere by now.
    proven: bool = False
    # Storage addresses that are cut off with it, to be let in again with it.
    clients: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.node, "node name")


class VmState(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    # Its host is silent; nothing is known.
    UNKNOWN = "unknown"
    # Its host is being fenced.
    AWAITING_FENCE = "waiting-for-fence"
    RECOVERING = "recovering"
    # No host that it may be on has room for it, or none is there.
    AWAITING_ROOM = "waiting-for-room"
    # Needs a person: it is left alone until it is disabled.
    ERROR = "error"
    # Left alone while its host is down on purpose.
    FROZEN = "frozen"
    IGNORED = "ignored"

    words: str

    def __init__(self, word: str) -> None:
        # As it stands in sentences.
        self.words = word.replace("-", " ")


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class VmRecord:
    """How far vorch is with a VM."""

    vm: str
    state: VmState = VmState.STOPPED
    since: float = 0.0
    # A sentence that says why.
    why: str = ""
    # Failed tries on the host where it is now, and the hosts where all tries failed, in order.
    tries: int = 0
    failed: tuple[str, ...] = ()
    # Not before then, after something has failed.
    retry_at: float = 0.0
    # It was to go back to this home after a maintenance and could not, so it stays where it is.
    home_given_up: str = ""
    # It was to go elsewhere after failed starts and could not, so it is tried here once more.
    tried_here_again: bool = False
    # A stop has failed; a disabled VM may have been written off while it still runs.
    stop_failed: bool = False
    # The host where it was seen to run last. It was first seen to be gone from there then; why, is
    # still to be heard.
    ran_on: str = ""
    gone_at: float = 0.0

    def __post_init__(self) -> None:
        check_vm_name(self.vm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """What came of the last drill of the fences, `drill/fencing`."""

    at: float
    checks: tuple[Check, ...] = ()

    @property
    def passed(self) -> bool:
        return all(check.level != "error" for check in self.checks)


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Saying:
    """A sentence, and since when it is so."""

    text: str
    since: float


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the leader has to say and no record has, `report/ha`: for whoever asks.

    Written when it changes, so that a quiet cluster is left alone.
    """

    holder: str
    epoch: int
    # It has led since then.
    since: float
    # "node/h1" and "rule/pair"; "vm/web" where its record says something else.
    said: dict[str, Saying] = field(default_factory=dict)


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a vorch process sees that does not lead: hosts that answer to it."""

    holder: str
    at: float
    # On whichever network, and on the management network.
    answering: tuple[str, ...] = ()
    managed: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------
# What is seen


class Knock(StrEnum):
    """What came of a TCP connection. A reset is an answer: somebody is at home."""

    ANSWER = "answer"
    RESET = "reset"
    SILENCE = "silence"


@quick
@dataclass(frozen=True, slots=True)
class Ending:
    """How a domain ended, as its host told it when that happened."""

    at: float
    # Its guest powered itself off. Else its power was cut, it died, or its host ended it.
    by_guest: bool
    # The host's own words, for whoever wonders.
    told: str = ""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that one look shows of a host. None: it was not asked, or nobody can say."""

    node: str
    # libvirt answered the bulk call; else why not.
    libvirt: bool
    libvirt_says: str = ""
    management: Knock | None = None
    storage: Knock | None = None
    # How many disks of its VMs are open somewhere, of how many that should be.
    disks_open: int | None = None
    disks: int = 0
    # How many OSDs on it Ceph counts as up.
    osds_up: int | None = None
    power: Literal["on", "off"] | None = None
    # Other vorch processes that it answers to, and those of them on the management network.
    answers_to: tuple[str, ...] = ()
    managed_by: tuple[str, ...] = ()
    # How domains ended there, by their ids, as far as this process was told. None: it does not
    # listen, so that nothing that is not in here means anything.
    endings: dict[str, Ending] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long what may last before vorch acts. From the settings."""

    gone_after_s: float
    storage_cut_after_s: float
    hollow_after_s: float
    silent_window_s: float
    shutdown_grace_s: float
    retry_after_s: float
    fence_retry_after_s: float
    vm_overhead_mib: int
    migration_pause_limit_ms: int
    migration_bandwidth_mib_s: int


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """One look at everything that high availability decides from, beside the cluster itself."""

    policy: HaPolicy = field(default_factory=HaPolicy)
    vms: dict[str, HaVm] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    orders: dict[str, HostOrder] = field(default_factory=dict)
    moves: dict[str, MoveOrder] = field(default_factory=dict)
    node_records: dict[str, NodeRecord] = field(default_factory=dict)
    vm_records: dict[str, VmRecord] = field(default_factory=dict)
    evidence: dict[str, Evidence] = field(default_factory=dict)
    # VMs that a plan is at now, and the host that each will be on ("" when that is not known).
    busy: dict[str, str] = field(default_factory=dict)
    # Hosts that a plan is at now.
    busy_nodes: frozenset[str] = frozenset()
    # Since when whoever decides has been looking. What others saw before was by their clocks.
    looking_since: float = 0.0
    # Version of each document as it was read ("ha/web" → 17), where that was asked for.
    versions: dict[str, int] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------
# What a person is told


@dataclass(frozen=True, slots=True, kw_only=True)
class HaVmStatus:
    """A VM that is looked after: what was set, and how far it is with it."""

    settings: HaVm
    node: str
    # As the leader saw it last; None: nobody has looked at it yet.
    state: VmState | None = None
    since: float | None = None
    sentence: str = ""
    # Names of the rules that it stands in.
    rules: tuple[str, ...] = ()
    # Hosts that it may be on, best class first; none are named when all are alike.
    classes: tuple[tuple[str, ...], ...] = ()
    together: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    # A host that a person wants it on.
    target: str = ""
    notes: tuple[str, ...] = ()

    @property
    def vm(self) -> str:
        return self.settings.vm


@dataclass(frozen=True, slots=True, kw_only=True)
class HaNodeStatus:
    """A host, as the leader saw it last."""

    node: str
    state: NodeState | None = None
    sign: Sign | None = None
    since: float | None = None
    sentence: str = ""
    order: HostOrder | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleStatus:
    rule: Rule
    # Why it is not in force; "" when it is.
    dropped: str = ""
    # How it is broken now; "" when it is kept.
    broken: str = ""

    @property
    def name(self) -> str:
        return self.rule.name


@dataclass(frozen=True, slots=True, kw_only=True)
class HaStatus:
    """All of high availability at one moment."""

    at: float
    # Somebody watches now: a lease is held whose time is not over.
    watched: bool
    leader: str = ""
    epoch: int = 0
    leading_since: float | None = None
    lease_until: float | None = None
    policy: HaPolicy = field(default_factory=HaPolicy)
    disarmed: bool = False
    nodes: tuple[HaNodeStatus, ...] = ()
    vms: tuple[HaVmStatus, ...] = ()
    # Rules that are not in force, with the reason.
    dropped_rules: dict[str, str] = field(default_factory=dict)
    drill: Drill | None = None
    # Whether what is looked after has room when a host is lost, and since when it is so.
    spare: Saying | None = None
    notes: tuple[str, ...] = ()
