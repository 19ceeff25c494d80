"""Play things through without any host: high availability on a world in memory, and room in files.

from vorch import simulate

played = simulate.play(simulate.read_scenario("power-cut.json"))
print(played.result)

fleet = simulate.read_fleet("cluster.json.gz")
print(simulate.balance(fleet).why)

Each name is loaded when it is first asked for: questions about room need no world.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vorch.decide.room.balance import BalancePlan, Limits, Move, Picture
    from vorch.decide.room.capacity import Capacity
    from vorch.decide.room.empty import Emptying, evacuate
    from vorch.decide.room.fleet import Fleet, Guest, Needs, Policy
    from vorch.decide.room.imagine import (
        Change,
        Standing,
        add_guests,
        add_host,
        capacity,
        lose_hosts,
        placed_at,
        remove_hosts,
        standing,
    )
    from vorch.decide.room.keeping import balance
    from vorch.decide.room.newcomers import newcomers
    from vorch.decide.room.pick import Answer, Placed, place
    from vorch.dumped import Dump, dump_of
    from vorch.orchestrator.whatif import whatif_fail
    from vorch.simulate.faults import Failure, play_seed, play_seeds, schedule
    from vorch.simulate.htools_file import read_htools
    from vorch.simulate.placement_file import document_of
    from vorch.simulate.player import Played, Violation, play
    from vorch.simulate.room_files import (
        fleet_in,
        hosts_in,
        placed_fleet,
        read_fleet,
        read_input,
        with_spare,
    )
    from vorch.simulate.scenario import Scenario, read_scenario, scenario_of

__all__ = [
    "Answer",
    "BalancePlan",
    "Capacity",
    "Change",
    "Dump",
    "Emptying",
    "Failure",
    "Fleet",
    "Guest",
    "Limits",
    "Move",
    "Needs",
    "Picture",
    "Placed",
    "Played",
    "Policy",
    "Scenario",
    "Standing",
    "Violation",
    "add_guests",
    "add_host",
    "balance",
    "capacity",
    "document_of",
    "dump_of",
    "evacuate",
    "fleet_in",
    "hosts_in",
    "lose_hosts",
    "newcomers",
    "place",
    "placed_at",
    "placed_fleet",
    "play",
    "play_seed",
    "play_seeds",
    "read_fleet",
    "read_htools",
    "read_input",
    "read_scenario",
    "remove_hosts",
    "scenario_of",
    "schedule",
    "standing",
    "whatif_fail",
    "with_spare",
]

_HOMES = {
    "vorch.decide.room.balance": (
        "BalancePlan",
        "Limits",
        "Move",
        "Picture",
    ),
    "vorch.decide.room.capacity": ("Capacity",),
    "vorch.decide.room.empty": (
        "Emptying",
        "evacuate",
    ),
    "vorch.decide.room.fleet": (
        "Fleet",
        "Guest",
        "Needs",
        "Policy",
    ),
    "vorch.decide.room.imagine": (
        "Change",
        "Standing",
        "add_guests",
        "add_host",
        "capacity",
        "lose_hosts",
        "placed_at",
        "remove_hosts",
        "standing",
    ),
    "vorch.decide.room.keeping": ("balance",),
    "vorch.decide.room.newcomers": ("newcomers",),
    "vorch.decide.room.pick": (
        "Answer",
        "Placed",
        "place",
    ),
    "vorch.dumped": (
        "Dump",
        "dump_of",
    ),
    "vorch.orchestrator.whatif": ("whatif_fail",),
    "vorch.simulate.faults": (
        "Failure",
        "play_seed",
        "play_seeds",
        "schedule",
    ),
    "vorch.simulate.htools_file": ("read_htools",),
    "vorch.simulate.placement_file": ("document_of",),
    "vorch.simulate.player": (
        "Played",
        "Violation",
        "play",
    ),
    "vorch.simulate.room_files": (
        "fleet_in",
        "hosts_in",
        "placed_fleet",
        "read_fleet",
        "read_input",
        "with_spare",
    ),
    "vorch.simulate.scenario": (
        "Scenario",
        "read_scenario",
        "scenario_of",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

# To type checkers a name that is not above is none at all.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 'vorch.simulate' has no name {name!r}")
        value = globals()[name] = getattr(import_module(_HOME[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
