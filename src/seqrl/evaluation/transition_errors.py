"""How far a model errs on the first transitions that a search imagines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from seqrl.data.episodes import EpisodeStore
from seqrl.decoding.noise import Noise
from seqrl.evaluation.swapped_search import SwappedSearch

_ROWS = 200_000  # of the data, whose deviations are units


@dataclass(frozen=True)
class TransitionErrors:
    """Errors of the observation after the first transition, over all candidates in all states that were looked at.

    An error is the root mean square over the dimensions of an observation, each in the deviations that the data have
    in it. Candidates with which the episode truly ends, or is imagined to, are left out: they have no observation.

    Attributes:
        transitions: how many there are.
        median, percentile_99, largest: of the errors.
        mean: of the errors.
        mean_of_choices: of those of the candidates that the model promises most of, one in each state; None where all
            of these are left out. A search that takes what its model errs on has more here than in the mean.
        mean_of_no_change: of the errors that the present observation has as a prediction of the next.
    """

    transitions: int
    median: float
    percentile_99: float
    largest: float
    mean: float
    mean_of_choices: float | None
    mean_of_no_change: float

    @property
    def sentence(self) -> str:
        """The same in words."""
        chosen = (
            ""
            if self.mean_of_choices is None
            else f", by {self.mean_of_choices:.3g} for those that it promises most of"
        )
        return (
            f"Of {self.transitions} first transitions that the model imagines, half err by less than {self.median:.3g} "
            f"deviations of the data, one in a hundred by more than {self.percentile_99:.3g}; they err by "
            f"{self.mean:.3g} in the mean{chosen}, and no change at all would err by {self.mean_of_no_change:.3g}."
        )


@torch.no_grad()
def measure_errors(
    learnt: SwappedSearch,
    true: SwappedSearch,
    states: list[np.ndarray],
    deviations: np.ndarray,
    action_size: int,
    *,
    seed: int,
) -> TransitionErrors | None:
    """Compare what a search imagines to follow its first actions with what the simulator says; None where all of them
    are left out.

    Args:
        learnt, true: the same but for their dynamics.
        states: (n, O) observations of each episode.
        deviations: (O,) units of the errors.
        action_size: numbers of a transition's action.
        seed: of the candidates that are drawn: with that of `rank_candidates`, they are the same.
    """
    rows = torch.from_numpy(np.concatenate(states).astype(np.float32))
    noise = Noise.of(seed, torch.arange(len(rows)), 0)
    choice = learnt.rate_first_actions(rows, action_size, noise).argmax(1).cpu().numpy()
    imagined, real = (search.try_first_actions(rows, noise) for search in (learnt, true))
    following = real.observations.double().cpu().numpy()
    counted = ~(real.over | imagined.over.to(real.over)).cpu().numpy()
    errors, without = (
        np.sqrt((((guess - following) / deviations) ** 2).mean(-1))
        for guess in (imagined.observations.double().cpu().numpy(), rows[:, None].double().numpy())
    )
    every = np.arange(len(rows))
    chosen = errors[every, choice][counted[every, choice]]
    errors, without = errors[counted], without[counted]
    if not len(errors):
        return None
    return TransitionErrors(
        len(errors),
        float(np.median(errors)),
        float(np.quantile(errors, 0.99)),
        float(errors.max()),
        float(errors.mean()),
        float(chosen.mean()) if len(chosen) else None,
        float(without.mean()),
    )


def find_deviations(store: EpisodeStore) -> np.ndarray:
    """(O,) standard deviations of the observations of a data set; 1 where they never change."""
    rows = np.unique(np.linspace(0, len(store) - 1, min(len(store), _ROWS)).astype(np.int64))
    found = np.asarray(store.observations[rows], np.float64).std(0)
    return np.where(found > 0, found, 1.0)
