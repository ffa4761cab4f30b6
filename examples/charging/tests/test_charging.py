"""The environment's books, and the parts of the package under seqrl's own contracts."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import seqrl_charging  # noqa: F401  (registers the parts)
from gymnasium.utils.env_checker import check_env
from seqrl_charging.home import CHARGER, read_loads, read_prices
from seqrl_charging.recordings import ChargingSource

from seqrl import testing


@pytest.mark.parametrize("power", [0.0, 0.3, 1.0])
def test_what_was_lost_hour_by_hour_is_what_is_missing_at_the_end(power: float) -> None:
    env = gymnasium.make("charging/NextYear-v0")
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        wanted, unmet, charged, over = float(observation[0]), 0.0, 0.0, False
        while not over:
            before = float(observation[0])
            observation, _, over, _, info = env.step(np.array([power], np.float32))
            charged += before - float(observation[0])
            unmet += info["unmet"]
            assert before - float(observation[0]) <= CHARGER * power + 1e-4
            assert info["overload"] >= 0
        assert charged + unmet == pytest.approx(wanted, abs=1e-3)
        assert observation[1] == 0


def test_an_even_power_saves_nothing() -> None:
    """The reward is measured against the mean price of the session, which an even power pays."""
    env = gymnasium.make("charging/Home-v0")
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        power, earned, over = observation[0] / observation[1] / CHARGER, 0.0, False
        while not over:
            _, reward, over, _, _ = env.step(np.array([power]))
            earned += reward
        assert earned == pytest.approx(0.0, abs=1e-2)


@pytest.mark.filterwarnings("ignore:.*infinity")
def test_the_environment_is_one_of_gymnasium() -> None:
    check_env(gymnasium.make("charging/Home-v0").unwrapped, skip_render_check=True)


def test_prices_and_loads_are_those_of_the_files() -> None:
    assert len(read_prices()) == (np.datetime64("2020-01-01") - np.datetime64("2015-01-01")).astype(int) * 24
    assert 2 < read_prices().mean() < 8  # ct/kWh
    assert read_loads().shape == (365 * 96, 25)


def test_recordings_hold_costs_and_are_the_same_again() -> None:
    store = ChargingSource(sessions=30).load()
    assert store.num_episodes == 30
    assert store.terminated.all()
    assert set(store.extras) == {"unmet", "overload"}
    assert store.fingerprint() == ChargingSource(sessions=30).load().fingerprint()


@pytest.mark.parametrize(
    ("slot", "name", "options"), [("planner", "cheapest_hours", {}), ("data", "charging", {"sessions": 30})]
)
def test_parts_keep_their_contracts(slot: str, name: str, options: dict[str, int]) -> None:
    found = testing.check(slot, name, **options)
    assert {contract: broken for contract, broken in found if broken is not None} == {}
