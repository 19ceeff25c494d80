"""The simulator sees it when a safeguard is taken out of vorch, and is content when it is there."""

from __future__ import annotations

import pytest

from tests.simulate.mutations import MUTATIONS
from vorch import simulate
from vorch.simulate import faults

# A seed that sees each.
SEEN_BY = {
    "no-fence": 0,
    "no-map-wait": 5,
    "lock-before-blocklist": 5,
    "no-epoch": 10,
    "no-address-after-migration": 364,
    "no-second-look": 247,
}


def scenario_of(name: str) -> simulate.Scenario:
    return simulate.schedule(SEEN_BY[name])


@pytest.mark.parametrize("name", MUTATIONS)
def test_it_is_seen(name: str) -> None:
    scenario = scenario_of(name)
    assert faults.trouble_with(scenario) is None
    with pytest.MonkeyPatch.context() as patch:
        MUTATIONS[name](patch)
        assert faults.trouble_with(scenario) is not None


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_is_printed_shows_it_again(name: str) -> None:
    """Also where somebody stood still, in the middle of a plan, with a clock that stood as well."""
    again = simulate.scenario_of(faults.as_file(scenario_of(name)))
    with pytest.MonkeyPatch.context() as patch:
        MUTATIONS[name](patch)
        assert faults.trouble_with(again) is not None
