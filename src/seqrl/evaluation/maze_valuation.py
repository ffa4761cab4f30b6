"""What a state of a maze is really worth, for a `SwappedSearch`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from seqrl.errors import ConfigError
from seqrl.evaluation.swapped_search import Outcome, Valuation
from seqrl.worlds.maze import Maze


class MazeValuation(Valuation):
    """The sparse reward of driving the shortest way to a maze's target at a steady speed and staying there.

    Args:
        maze: the map.
        target: (2,) position of the goal.
        speed: distance of one step of the environment.
        discount: gamma of one step of the environment.
        stride: steps of a transition.

    Raises:
        ConfigError: a discount of 1, at which to stay is worth more than any number.
    """

    def __init__(self, maze: Maze, target: np.ndarray, speed: float, discount: float, stride: int) -> None:
        if discount >= 1:
            raise ConfigError(
                "the model has layout.discount=1, at which staying at a maze's target has no finite value; diagnose a "
                "model with less"
            )
        self.maze, self.target, self.speed = maze, np.asarray(target, np.float64), speed
        self.discount, self.stride = discount, stride
        self._next = maze.next_cells(maze.cell_of(self.target))
        self._distances = maze.distances(maze.cell_of(self.target))

    def rate(self, observations: Tensor, actions: Tensor, outcome: Outcome) -> Tensor:
        away = np.array([self._length(place) for place in outcome.observations[:, :2].double().cpu().numpy()])
        steps = torch.from_numpy((away - self.maze.radius).clip(0.0) / self.speed).to(outcome.rewards)
        return outcome.rewards + self.discount**self.stride * self.discount**steps / (1 - self.discount)

    def _length(self, position: np.ndarray) -> float:
        """From a position to the target: straight to the next cell's centre, then from cell to cell."""
        cell = self.maze.cell_of(position)
        if self._distances.get(cell, 0) == 0:
            return float(np.linalg.norm(position - self.target))  # in the target's cell, or pushed into a wall
        following = self._next[cell]
        centre = self.maze.centre_of(following)
        rest = self._distances[following] * self.maze.unit
        home = self.maze.centre_of(self.maze.cell_of(self.target))
        detour = float(np.linalg.norm(home - self.target)) if rest == 0 else 0.0
        return float(np.linalg.norm(position - centre)) + rest + detour
