"""A single-step probabilistic ensemble, what the Trajectory Transformer's long-horizon predictions are compared with.

Written in the style of PETS: members are networks that predict a Gaussian of the change of the observation, each
trained on a bootstrap sample of the transitions, and a rollout stays with one member (TS-infinity).

Reference: Chua et al. 2018, https://arxiv.org/abs/1805.12114
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.special import log_ndtr, logsumexp
from torch import Tensor, nn
from torch.nn import functional as F

from seqrl.analysis.bins import Bins
from seqrl.analysis.masking import OBSERVED
from seqrl.analysis.references import References
from seqrl.data.episodes import EpisodeStore

_FAR = 1e3  # standard deviations of the data from which on a rollout that runs away is held: numbers stay finite


class Ensemble(nn.Module):
    """E networks of observation and action, each with a Gaussian of the next observation.

    Inputs and changes are normalised by the statistics of the data that `fit_ensemble` puts into the buffers.

    Args:
        observation_size, action_size: O and A.
        members: E; 5 in PETS.
        width, layers: of the hidden layers; 200 and 3 or 4 in PETS.
    """

    mean: Tensor  # (O + A,) of observation and action
    scale: Tensor  # (O + A,)
    change_scale: Tensor  # (O,)

    def __init__(
        self, observation_size: int, action_size: int, *, members: int = 5, width: int = 200, layers: int = 3
    ) -> None:
        super().__init__()
        self.members, self.observation_size = members, observation_size
        sizes = [observation_size + action_size, *[width] * layers, 2 * observation_size]
        self.weights = nn.ParameterList(
            nn.init.trunc_normal_(torch.empty(members, before, after), std=0.5 / math.sqrt(before))
            for before, after in pairwise(sizes)
        )
        self.biases = nn.ParameterList(torch.zeros(members, 1, after) for after in sizes[1:])
        self.most = nn.Parameter(torch.full((observation_size,), 0.5))  # of the log-variance
        self.least = nn.Parameter(torch.full((observation_size,), -10.0))
        self.register_buffer("mean", torch.zeros(sizes[0]))
        self.register_buffer("scale", torch.ones(sizes[0]))
        self.register_buffer("change_scale", torch.ones(observation_size))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Gaussians of the change of the observation, in units of `change_scale`.

        Args:
            inputs: (E, n, O + A) in the units of the data, a share for each member.

        Returns:
            (E, n, O) means and (E, n, O) log-variances.
        """
        x = (inputs - self.mean) / self.scale
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if number + 1 < len(self.weights):
                x = F.silu(x)
        mean, raw = x.chunk(2, -1)
        log_variance = self.most - F.softplus(self.most - raw)
        return mean, self.least + F.softplus(log_variance - self.least)

    def predict(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(E, n, O + A) to means and standard deviations of the next observation, (E, n, O) each."""
        mean, log_variance = self(inputs)
        before = inputs[..., : self.observation_size]
        return before + mean * self.change_scale, (0.5 * log_variance).exp() * self.change_scale


def fit_ensemble(
    store: EpisodeStore,
    episodes: Sequence[int] | np.ndarray,
    *,
    steps: int = 4000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
    members: int = 5,
    width: int = 200,
    layers: int = 3,
) -> Ensemble:
    """Train an ensemble on the transitions of some episodes by maximum likelihood.

    What a recording hides (`seqrl.analysis.masking`) is no target, and counts as the mean among the inputs.

    Args:
        episodes: numbers.
        batch_size: transitions for each member and step.
        seed: of weights, bootstrap samples and batches.
    """
    rows = np.concatenate([np.arange(store.offsets[e], store.offsets[e + 1] - 1) for e in np.asarray(episodes)])
    observations = torch.tensor(np.asarray(store.observations[:]))
    actions = torch.tensor(np.asarray(store.actions[:]))
    hides = store.extras.get(OBSERVED)
    seen = torch.ones_like(observations) if hides is None else torch.tensor(np.asarray(hides[:])).float()
    inputs = torch.cat([observations, actions], 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ensemble = Ensemble(observations.shape[1], actions.shape[1], members=members, width=width, layers=layers)
    _normalise(ensemble, inputs, seen, torch.from_numpy(rows))
    optimizer = torch.optim.AdamW(ensemble.parameters(), learning_rate, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 0.01 * learning_rate)
    rng = np.random.default_rng([seed, 7])
    samples = rows[rng.integers(len(rows), size=(members, len(rows)))]  # each member's bootstrap
    for _ in range(steps):
        batch = torch.from_numpy(np.take_along_axis(samples, rng.integers(len(rows), size=(members, batch_size)), 1))
        change = (observations[batch + 1] - observations[batch]) / ensemble.change_scale
        mean, log_variance = ensemble(inputs[batch])
        errors = (change - mean).square() * (-log_variance).exp() + log_variance
        weight = seen[batch + 1]
        loss = 0.5 * (errors * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)
        optimizer.zero_grad()
        (loss.sum() + 0.01 * (ensemble.most.sum() - ensemble.least.sum())).backward()
        optimizer.step()
        schedule.step()
    return ensemble.eval()


def _normalise(ensemble: Ensemble, inputs: Tensor, seen: Tensor, rows: Tensor) -> None:
    size = ensemble.observation_size
    weight = torch.cat([seen[rows], torch.ones(len(rows), inputs.shape[1] - size)], 1)
    chosen = inputs[rows]
    ensemble.mean.copy_((chosen * weight).sum(0) / weight.sum(0))
    variance = ((chosen - ensemble.mean).square() * weight).sum(0) / weight.sum(0)
    ensemble.scale.copy_(variance.sqrt().clamp(min=1e-6))
    both = seen[rows + 1]  # a change counts from whatever stood before it
    change = (inputs[rows + 1] - chosen)[:, :size]
    ensemble.change_scale.copy_(((change.square() * both).sum(0) / both.sum(0)).sqrt().clamp(min=1e-6))


@dataclass(frozen=True)
class Rollouts:
    """Futures under recorded actions, a Gaussian for every step of each.

    Attributes:
        means, deviations: (B, M, H, O) float32 of the observations, given the rollout's own past.
        samples: (B, M, H, O) float32, what was drawn.
    """

    means: np.ndarray
    deviations: np.ndarray
    samples: np.ndarray

    def log_density(self, values: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Log of the marginal density of (B, H, O) numbers, the mean over rollouts, per unit of (O,) `scale`.

        Returns:
            (B, H, O) nats.
        """
        means, deviations = self.means.astype(np.float64), self.deviations.astype(np.float64)
        normed = (values[:, None] - means) / deviations
        each = -0.5 * (normed**2 + np.log(2 * np.pi)) - np.log(deviations)
        return logsumexp(each, axis=1) - np.log(each.shape[1]) + np.log(scale)

    def log_bin_density(self, values: np.ndarray, bins: Bins, *, even: float = 0.0) -> np.ndarray:
        """As a model of bins is judged: log of the marginal probability of each number's bin, less its log-width.

        The outermost bins take all that lies beyond them.

        Args:
            even: as in `Bins.log_density`.

        Returns:
            (B, H, O) nats.
        """
        located = bins.locate(values)
        scalars = np.arange(located.shape[-1])
        low, high = bins.edges[scalars, located], bins.edges[scalars, located + 1]
        low = np.where(located == 0, -np.inf, low)
        high = np.where(located == bins.edges.shape[1] - 2, np.inf, high)
        means, deviations = self.means.astype(np.float64), self.deviations.astype(np.float64)
        a, b = (low[:, None] - means) / deviations, (high[:, None] - means) / deviations
        mirrored = a > 0  # in the upper tail, the lower tail of the negative is exact
        a, b = np.where(mirrored, -b, a), np.where(mirrored, -a, b)
        upper, lower = log_ndtr(b), log_ndtr(a)
        with np.errstate(divide="ignore"):
            mass = upper + np.log1p(-np.exp(np.minimum(lower - upper, 0.0)))
        found = logsumexp(mass, axis=1) - np.log(mass.shape[1])
        if even > 0:
            found = np.logaddexp(np.log1p(-even) + found, np.log(even / (bins.edges.shape[1] - 1)))
        return found - bins.log_widths[scalars, located]


@torch.no_grad()
def roll_out(ensemble: Ensemble, references: References, *, rollouts: int, seed: int = 0) -> Rollouts:
    """Sample futures of each reference under its actions, an equal share from each member.

    What is hidden in the recording is hidden from the ensemble as well, in its own rollouts.

    Args:
        rollouts: M; the next multiple of E is taken.
    """
    members, count, horizon = ensemble.members, len(references), references.horizon
    share = -(-rollouts // members)
    size = ensemble.observation_size
    generator = torch.Generator().manual_seed(seed)
    state = torch.from_numpy(references.present).repeat_interleave(share, 0).expand(members, -1, -1)
    actions = torch.from_numpy(references.actions).repeat_interleave(share, 0)  # (B * share, H, A)
    seen = torch.from_numpy(references.future_observed).repeat_interleave(share, 0)
    recorded = torch.from_numpy(references.future).repeat_interleave(share, 0)
    centre, reach = ensemble.mean[:size], _FAR * ensemble.scale[:size]
    found = torch.empty(3, members, count * share, horizon, size)
    for step in range(horizon):
        given = actions[:, step].expand(members, -1, -1)
        mean, deviation = ensemble.predict(torch.cat([state, given], -1))
        drawn = mean + deviation * torch.randn(mean.shape, generator=generator)
        drawn = torch.clamp(drawn, centre - reach, centre + reach)
        found[:, :, :, step] = torch.stack([mean, deviation, drawn])
        state = torch.where(seen[:, step], drawn, recorded[:, step])
    split = found.unflatten(2, (count, share)).permute(0, 2, 1, 3, 4, 5).flatten(2, 3)
    means, deviations, samples = split.numpy()
    return Rollouts(means, deviations, samples)
