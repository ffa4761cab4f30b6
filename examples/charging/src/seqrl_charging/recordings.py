"""Sessions recorded by three habits of charging, with mistakes."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from seqrl import DataSource, EpisodeStore, collect_episodes, register_data
from seqrl_charging.home import CHARGER


@register_data("charging")
class ChargingSource(DataSource):
    """Sessions of the years 2015 to 2018.

    Args:
        sessions: how many.
        seed: of the sessions and of what is done in them.
    """

    env_id = "charging/Home-v0"  # by which `seqrl train --check` knows the sizes before anything is recorded

    def __init__(self, *, sessions: Annotated[int, Ge(1)] = 4000, seed: Annotated[int, Ge(0)] = 0) -> None:
        self.sessions, self.seed = sessions, seed

    def load(self) -> EpisodeStore:
        return collect_episodes(
            self.env_id,
            Habits(self.seed),
            episodes=self.sessions,
            seed=self.seed,
            batch=64,
            extras={"unmet": "after", "overload": "after"},
            attributes={"name": "charging, prices of 2015 to 2018"},
        )


class Habits:
    """A session is charged at once, evenly, or below the mean price alone; one hour in four, with any power."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def reset(self, num: int, *, environments: np.ndarray | None = None) -> None:
        keys = range(num) if environments is None else environments
        self.draws = [np.random.default_rng([self.seed, int(key)]) for key in keys]
        self.habits = [draw.integers(3) for draw in self.draws]

    def act(self, observations: np.ndarray, rewards: np.ndarray | None, active: np.ndarray | None) -> np.ndarray:
        wanted, left, price = observations[:, 0], observations[:, 1].clip(1), observations[:, 3]
        powers = np.stack([np.ones_like(price), wanted / left / CHARGER, (price < 0) * 1.0], 1)
        rows = [
            draw.random() if draw.random() < 0.25 else row[habit]
            for draw, row, habit in zip(self.draws, powers, self.habits, strict=True)
        ]
        return np.array(rows)[:, None]
