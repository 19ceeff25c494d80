"""Which host a VM that is looked after goes to: filter by rules, rank by load, take one. Pure.

Decisions of one round are taken one after the other and count at once (`Board`), so that many VMs
of a lost host spread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vorch.decide import racks
from vorch.decide.place import in_cells, lack, out_of_reach, pages_mib, without_tags
from vorch.decide.rules import Placement
from vorch.frozen import quick
from vorch.model import Cluster, Node, Vm


@dataclass
class Board:
    """Who is where in this round: VMs that run, and those that were decided to."""

    # Hosts on which a VM counts: two while it moves, none while it is off.
    where: dict[str, set[str]] = field(default_factory=dict)
    memory_mib: dict[str, int] = field(default_factory=dict)
    vcpus: dict[str, int] = field(default_factory=dict)
    # The hosts that VMs are about to leave.
    left: dict[str, str] = field(default_factory=dict)

    def put(self, vm: Vm, node: str, overhead_mib: int) -> None:
        if node in self.where.setdefault(vm.name, set()):
            return
        self.where[vm.name].add(node)
        # Huge pages are set aside already.
        memory_mib = 0 if vm.huge_pages else vm.memory_mib
        self.weigh(node, memory_mib + overhead_mib, vm.vcpus)

    def weigh(self, node: str, memory_mib: int, vcpus: int) -> None:
        self.memory_mib[node] = self.memory_mib.get(node, 0) + memory_mib
        self.vcpus[node] = self.vcpus.get(node, 0) + vcpus

    def on(self, node: str, vms: Iterable[str]) -> list[str]:
        return sorted(vm for vm in vms if node in self.where.get(vm, ()))


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a choice rests on, beside who is where."""

    cluster: Cluster
    placement: Placement
    # Hosts that VMs may be started on or moved to.
    open: frozenset[str]
    overhead_mib: int
    # Target of each VM that moves.
    moving: Mapping[str, str] = field(default_factory=dict)


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """The host, and the words for it. No host: the words say what is in the way."""

    node: str | None
    why: str


def choose(
    scene: Scene,
    board: Board,
    vm: Vm,
    *,
    avoid: Iterable[str] = (),
    home: str = "",
    stays: bool = False,
    failback: bool = True,
) -> Pick:
    """The host for a VM. `avoid`: where it failed. `stays`: its present host wins if it will do.

    Order: rules, then its home after a maintenance, then where it is, then the least load.
    """
    if stays and not home and not avoid and _nothing_moves(scene, board, vm):
        # Mostly all is as it was, and the other hosts need not be looked at.
        return Pick(node=vm.node, why="it is there")
    fit = [name for name in sorted(scene.open) if _fits(scene, board, vm, name) is None]
    hosts = scene.placement.hosts.get(vm.name)
    classes = hosts.classes(fit) if hosts is not None else [fit] if fit else []
    if not classes:
        return Pick(node=None, why=_nowhere(scene, board, vm))
    best = [name for name in classes[0] if name not in set(avoid)]
    kept = [name for name in best if not _rivals_on(scene, board, vm, name)]
    off = _off_racks(scene, board, vm) if scene.placement.over else {}
    # Nobody is moved for these: where it is, it may stay.
    kept = [name for name in kept if name not in off or (stays and name == vm.node)]
    if not kept:
        return Pick(node=None, why=_taken(scene, board, vm, classes[0], avoid, off))
    together = _with_mates(scene, board, vm, kept)
    if home and home in together:
        return Pick(node=home, why="that is its home, and its maintenance is over")
    if stays and vm.node in together:
        return Pick(node=vm.node, why="it is there")
    if stays and not failback and _may_stay(scene, board, vm, classes):
        return Pick(node=vm.node, why="it is there, and does not go back by itself")
    node = min(together, key=lambda name: (*_rank(scene, board, vm, name), name))
    return Pick(node=node, why=_because(scene, board, vm, node, together))


# ---------------------------------------------------------------------------------------------
# Filters


def _fits(scene: Scene, board: Board, vm: Vm, name: str) -> str | None:
    """Why the host cannot have the VM; None when it can. One that has it already can."""
    node = scene.cluster.nodes[name]
    if name in board.where.get(vm.name, ()):
        return None
    far = out_of_reach(scene.cluster, node, vm) or without_tags(node, vm)
    if far is not None or node.facts is None:
        return far
    free = node.facts.memory_mib - node.reserve_mib - board.memory_mib.get(name, 0)
    if node.facts.cells:
        free -= pages_mib(node.facts)
    wanted = (0 if vm.huge_pages else vm.memory_max_mib) + scene.overhead_mib
    if wanted > free:
        return f"{wanted - max(free, 0)} MiB of memory are short"
    return lack(node.facts, vm) or _celled(scene, board, vm, node)


def _celled(scene: Scene, board: Board, vm: Vm, node: Node) -> str | None:
    """Whether its NUMA cells and huge pages hold the VM, if it asks for that."""
    if node.facts is None or not (vm.huge_pages or vm.one_numa_cell):
        return None
    there = [
        one
        for name, hosts in board.where.items()
        if node.name in hosts and (one := scene.cluster.vms.get(name)) is not None
    ]
    return in_cells(node, node.facts, vm, there)


def may_be(scene: Scene, board: Board, vm: Vm, name: str) -> bool:
    """The host can have it, and none that it must be apart from is there."""
    return (
        name in scene.open
        and _fits(scene, board, vm, name) is None
        and not _rivals_on(scene, board, vm, name)
    )


def _rivals_on(scene: Scene, board: Board, vm: Vm, node: str) -> list[str]:
    """Of two on one host one has to go: not the other as well, when one is about to."""
    found = board.on(node, scene.placement.rivals.get(vm.name, ()))
    if node in board.where.get(vm.name, ()):
        return [rival for rival in found if board.left.get(rival) != node]
    return found


def _off_racks(scene: Scene, board: Board, vm: Vm) -> dict[str, str]:
    """Hosts that strict rules over racks and other domains leave out, with the reason."""
    found: dict[str, str] = {}
    for rule in scene.placement.over.get(vm.name, ()):
        if rule.strict:
            found |= racks.barred(
                rule,
                vm.name,
                scene.cluster.nodes,
                lambda other: board.where.get(other, ()),
                scene.open,
            )
    return found


def _with_mates(scene: Scene, board: Board, vm: Vm, nodes: list[str]) -> list[str]:
    """The host with the most of those that it must be together with; all, when none is anywhere."""
    mates = scene.placement.mates.get(vm.name, frozenset())
    counts = dict.fromkeys(nodes, 0)
    for mate in mates:
        target = scene.moving.get(mate)
        for name in {target} if target else board.where.get(mate, set()):
            if name in counts:
                counts[name] += 1
    most = max(counts.values(), default=0)
    return [min(name for name in nodes if counts[name] == most)] if most else nodes


def _nothing_moves(scene: Scene, board: Board, vm: Vm) -> bool:
    """It is on a host that may have it, and no rule is about it."""
    if scene.placement.binds(vm.name):
        return False
    return vm.node in scene.open and _fits(scene, board, vm, vm.node) is None


def _may_stay(scene: Scene, board: Board, vm: Vm, classes: list[list[str]]) -> bool:
    permitted = any(vm.node in names for names in classes)
    mates = scene.placement.mates.get(vm.name, ())
    elsewhere = any(board.where.get(mate, {vm.node}) != {vm.node} for mate in mates)
    return permitted and not elsewhere and not _rivals_on(scene, board, vm, vm.node)


# ---------------------------------------------------------------------------------------------
# Rank: wishes first, then how full the host would be


def _rank(scene: Scene, board: Board, vm: Vm, name: str) -> tuple[float, float]:
    placement = scene.placement
    wishes: float = len(board.on(name, placement.far.get(vm.name, ()))) - len(
        board.on(name, placement.near.get(vm.name, ()))
    )
    for rule in placement.over.get(vm.name, ()):
        if not rule.strict:
            wishes += racks.disliked(
                rule,
                vm.name,
                scene.cluster.nodes[name],
                scene.cluster.nodes,
                lambda other: board.where.get(other, ()),
                scene.open,
            )
    return wishes, round(load(scene, board, vm, scene.cluster.nodes[name]), 9)


def load(scene: Scene, board: Board, vm: Vm, node: Node) -> float:
    """The share of the host that would be in use with the VM on it: memory or vCPUs, the larger."""
    here = node.name in board.where.get(vm.name, ())
    memory = board.memory_mib.get(node.name, 0) + (
        0 if here else vm.memory_mib + scene.overhead_mib
    )
    vcpus = board.vcpus.get(node.name, 0) + (0 if here else vm.vcpus)
    if node.facts is None:
        return float(memory)
    # A vCPU is shared by many guests where memory is not, so it weighs less.
    return max(memory / node.facts.memory_mib, vcpus / node.facts.cpus / VCPUS_PER_CPU)


# How many vCPUs a processor carries before it counts as full.
VCPUS_PER_CPU = 4.0


# ---------------------------------------------------------------------------------------------
# Words


def _nowhere(scene: Scene, board: Board, vm: Vm) -> str:
    if not scene.open:
        return "no host is there that could take it"
    hosts = scene.placement.hosts.get(vm.name)
    reasons = []
    for name in sorted(scene.open):
        why = _fits(scene, board, vm, name)
        if why is None and hosts is not None:
            why = "its rules do not permit it"
        reasons.append(f"{name}: {why}")
    return "; ".join(reasons)


def _taken(
    scene: Scene,
    board: Board,
    vm: Vm,
    names: list[str],
    avoid: Iterable[str],
    off: Mapping[str, str],
) -> str:
    failed = set(avoid)
    parts = []
    for name in names:
        rivals = _rivals_on(scene, board, vm, name)
        if name in failed:
            parts.append(f"{name}: it failed there")
        elif rivals:
            parts.append(f"{name}: it must be apart from {', '.join(rivals)}")
        elif name in off:
            parts.append(f"{name}: {off[name]}")
    return "; ".join(parts)


def _because(scene: Scene, board: Board, vm: Vm, node: str, among: list[str]) -> str:
    mates = board.on(node, scene.placement.mates.get(vm.name, ()))
    if mates:
        return f"{', '.join(mates)} {'are' if len(mates) > 1 else 'is'} there"
    if len(among) == 1:
        return "it is the only host that it may be on now"
    return "it has the most room"
