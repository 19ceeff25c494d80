"""Play high availability through: the same decisions and the same loop, on a world in memory.

from vorch import simulate

played = simulate.play(simulate.read_scenario("power-cut.json"))
print(played.result)
"""

from vorch.simulate.faults import Failure, play_seed, schedule
from vorch.simulate.player import Played, Violation, play
from vorch.simulate.scenario import Scenario, read_scenario, scenario_of

__all__ = [
    "Failure",
    "Played",
    "Scenario",
    "Violation",
    "play",
    "play_seed",
    "read_scenario",
    "scenario_of",
    "schedule",
]
