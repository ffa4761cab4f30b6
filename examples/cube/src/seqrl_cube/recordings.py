"""A robot arm carries a cube to random places: recorded with OGBench's scripted expert, and noise on what it does."""

from __future__ import annotations

from typing import Annotated, Any

import gymnasium
import numpy as np
from annotated_types import Ge

from seqrl import DataSource, EpisodeStore, register_data
from seqrl.paths import data_dir

LONGEST = 150  # steps of a recorded episode


@register_data("cube")
class CubeSource(DataSource):
    """One cube, one place to carry it to, an episode each. They are recorded once and kept in `$SEQRL_DATA/cube`.

    Args:
        episodes: how many.
        noise: standard deviation of what is added to the expert's actions, which lie in [-1, 1].
        seed: of places and noise.
    """

    env_id = "cube-single-v0"

    def __init__(
        self,
        *,
        episodes: Annotated[int, Ge(1)] = 400,
        noise: Annotated[float, Ge(0)] = 0.2,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        self.episodes, self.noise, self.seed = episodes, noise, seed

    def load(self) -> EpisodeStore:
        folder = data_dir() / "cube" / f"{self.episodes}-noise{self.noise}-seed{self.seed}"
        if not folder.exists():
            self.record().save(folder)
        return EpisodeStore.open(folder)

    def record(self) -> EpisodeStore:
        import ogbench  # noqa: F401  (registers its environments)

        env = gymnasium.make(self.env_id, mode="data_collection", terminate_at_goal=False, max_episode_steps=LONGEST)
        draws = np.random.default_rng(self.seed)
        np.random.seed(self.seed)  # noqa: NPY002  (which the expert draws from)
        episodes = [self._carry(env, draws) for _ in range(self.episodes)]
        env.close()
        name = f"cube, {self.episodes} times carried by a scripted expert"
        return EpisodeStore.from_episodes(episodes, attributes={"name": name, "env_id": self.env_id})

    def _carry(self, env: gymnasium.Env[Any, Any], draws: np.random.Generator) -> dict[str, Any]:
        """One episode, which ends when the expert has let the cube go and moved away."""
        from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle

        observation, info = env.reset(seed=int(draws.integers(2**31)))
        expert = CubeMarkovOracle(env=env, min_norm=0.4)
        expert.reset(observation, info)
        steps: dict[str, Any] = {"observations": [], "actions": [], "rewards": [], "terminated": False}
        over = False
        while not (over or expert.done):
            action = np.asarray(expert.select_action(observation, info))
            action = np.clip(action + draws.normal(0.0, self.noise, 5), -1.0, 1.0)
            steps["observations"].append(observation)
            steps["actions"].append(action)
            observation, _, _, over, info = env.step(action)
            steps["rewards"].append(float(info["success"]))
        return steps
