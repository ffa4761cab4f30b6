"""A far goal, reached from landmark to landmark."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from seqrl.conditions import Condition, Guide
from seqrl.conditions._goals import check_goals, encode_goals
from seqrl.data.landmarks import LandmarkGraph
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models import Model
from seqrl.registry import register_condition


@register_condition("landmarks")
class LandmarkCondition(Condition):
    """Tell the model a goal that it can reach, on the shortest way to the one that is asked for.

    The way is found in a graph of places that the data visited, with the steps that the data took between them; it is
    fitted by the section `landmarks` of a run and travels with it. The model stays as it was trained: it is told, as
    its goal, the landmark `nearest` to `farthest` steps away whose way on to the goal is shortest. A landmark is
    held until it is reached, or given up after `patience` times the steps that the data took; then the edge that led
    to it counts double for the rest of the episode. Where the goal itself is at most `farthest` steps away, it is told.

    Args:
        guidance: as of condition `goal`.
        nearest, farthest: steps of the environment, 1 or more.
        radius: distance, in the data's units, within which a landmark is reached.
        patience: above 0.
        choice: `shortest`, or `random` for a control: any landmark so far away, whether or not it leads to the goal.

    Reference: landmarks out of the data's own states as in Baek et al. 2025, https://arxiv.org/abs/2506.07744; with
    counts of steps instead of learnt distances, and a sequence model as the policy between them.
    """

    wants_goals = True
    wants_landmarks = True

    def __init__(
        self,
        *,
        guidance: Annotated[float, Interval(ge=0, le=1_000_000)] = 3.0,
        nearest: Annotated[int, Ge(1)] = 12,
        farthest: Annotated[int, Ge(1)] = 25,
        radius: Annotated[float, Gt(0)] = 0.35,
        patience: Annotated[float, Gt(0)] = 2.0,
        choice: Literal["shortest", "random"] = "shortest",
    ) -> None:
        if nearest > farthest:
            raise ConfigError(f"condition.nearest={nearest} is above condition.farthest={farthest}; give less")
        self.guidance = float(guidance)
        self.nearest = nearest
        self.farthest = farthest
        self.radius = radius
        self.patience = patience
        self.choice = choice

    def check(self, layout: Layout) -> None:
        check_goals("landmarks", layout, self.guidance)

    def prefix(self, model: Model, goals: Tensor | None, rows: int) -> Tensor | None:
        self.check(model.layout)
        return encode_goals("landmarks", model, goals, rows)

    def follow(self, model: Model, goals: Tensor) -> Guide:
        assert model.landmarks is not None and model.layout.goal is not None
        return LandmarkGuide(self, model.landmarks, list(model.layout.goal.dims), goals)


class LandmarkGuide(Guide):
    """The landmarks that the episodes of a batch are on their way to.

    Args:
        condition: its settings.
        graph: of the run.
        dims: of the observation, which the goal is made of.
        goals: (B, G) in the data's units.

    Attributes:
        given_up: how many landmarks were not reached in time.
    """

    def __init__(self, condition: LandmarkCondition, graph: LandmarkGraph, dims: list[int], goals: Tensor) -> None:
        self._settings, self._graph, self._dims, self._goals = condition, graph, dims, goals
        targets = goals.cpu().numpy()
        self._nodes = graph.find_nearest_reached(targets)  # of the goals
        self._first = np.searchsorted(graph.sources, np.arange(len(graph.nodes) + 1))  # edges of each source
        self._steps = [graph.steps] * len(targets)  # of each episode's edges, copied where one was given up
        self._left = [graph.count_steps_to(int(node)) for node in self._nodes]
        self._edge = np.full(len(targets), -1)  # that each episode is on, -1 for none
        self._held = np.zeros(len(targets), int)
        self.given_up = 0
        self.seed_draws(0, torch.arange(len(targets)))

    def seed_draws(self, seed: int, keys: Tensor) -> None:
        self._rngs = [np.random.default_rng([seed, key % 2**64, 9]) for key in keys.tolist()]

    def choose(self, observations: Tensor) -> Tensor:
        positions = observations[:, self._dims].cpu().numpy()
        told = self._goals.clone()
        for row, node in enumerate(self._graph.find_nearest(positions)):
            edge = self._choose(row, int(node), positions[row])
            if edge is not None:
                told[row] = torch.from_numpy(self._graph.nodes[self._graph.targets[edge]]).to(told)
        return told

    def _choose(self, row: int, node: int, position: np.ndarray) -> int | None:
        """The edge to follow; None for the goal itself."""
        graph, settings, goal = self._graph, self._settings, int(self._nodes[row])
        edges = np.arange(self._first[node], self._first[node + 1])
        steps, left = self._steps[row][edges], self._left[row][graph.targets[edges]]
        direct = steps[graph.targets[edges] == goal]
        if node == goal or (len(direct) and direct[0] <= settings.farthest):
            self._edge[row] = -1
            return None
        if self._edge[row] >= 0 and not self._is_over(row, position):
            return int(self._edge[row])
        steps, left = self._steps[row][edges], self._left[row][graph.targets[edges]]  # giving up changes them
        fit = (steps >= settings.nearest) & (steps <= settings.farthest) & np.isfinite(left)
        if not fit.any():
            fit = np.isfinite(left)
        if not fit.any():  # no way is known from here
            self._edge[row] = -1
            return None
        if settings.choice == "random":
            best = int(self._rngs[row].choice(edges[fit]))
        else:
            best = int(edges[np.where(fit, steps + left, np.inf).argmin()])
        self._edge[row], self._held[row] = best, 0
        return best

    def _is_over(self, row: int, position: np.ndarray) -> bool:
        """Whether the landmark of an episode is reached, or given up now."""
        graph, edge = self._graph, int(self._edge[row])
        self._held[row] += 1
        if np.linalg.norm(position - graph.nodes[graph.targets[edge]]) <= self._settings.radius:
            return True
        if self._held[row] <= self._settings.patience * graph.steps[edge]:
            return False
        self.given_up += 1
        self._steps[row] = self._steps[row].copy()
        self._steps[row][edge] *= 2
        self._left[row] = graph.count_steps_to(int(self._nodes[row]), self._steps[row])
        return True
