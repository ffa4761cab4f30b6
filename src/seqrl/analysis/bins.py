"""The bins of a tokenizer as densities: where they begin and end, and what a probability of one means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from seqrl.errors import ConfigError
from seqrl.tokenizers import Tokenizer

_HALVINGS = 60  # of a dimension's range; more than a float64 has digits


@dataclass(frozen=True)
class Bins:
    """Bins of some scalars, in units of which densities are spoken of.

    Attributes:
        edges: (O, V + 1) float64, rising along a row; bin v lies between edges v and v + 1. A bin of no width is never
            encoded to.
        scale: (O,) float64, what counts as one: the standard deviation of each scalar. A scalar that never changes has
            no density, and NaN comes out.
    """

    edges: np.ndarray
    scale: np.ndarray

    @property
    def log_widths(self) -> np.ndarray:
        """(O, V) log of the width of every bin in units of `scale`; minus infinity for bins of no width."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(np.diff(self.edges) / self.scale[:, None])

    def locate(self, values: np.ndarray) -> np.ndarray:
        """(..., O) numbers to (..., O) the bins that they lie in; those outside of all lie in the nearest."""
        flat = values.reshape(-1, values.shape[-1])
        found = [
            np.searchsorted(edges[1:-1], column, "right") for edges, column in zip(self.edges, flat.T, strict=True)
        ]
        return np.stack(found, -1).reshape(values.shape)

    def log_density(self, probabilities: np.ndarray, values: np.ndarray, *, even: float = 0.0) -> np.ndarray:
        """Log-density of numbers: `log p(bin) - log width`, in nats, per unit of `scale`.

        Args:
            probabilities: (..., O, V) of every bin.
            values: (..., O).
            even: share of an even distribution over the bins that is mixed in, so that no log is without a floor.

        Returns:
            (..., O).
        """
        located = self.locate(values)
        chosen = np.take_along_axis(probabilities, located[..., None], -1)[..., 0]
        with np.errstate(divide="ignore"):
            return np.log((1 - even) * chosen + even / probabilities.shape[-1]) - self._log_widths_of(located)

    def ceiling(self, values: np.ndarray) -> np.ndarray:
        """(..., O) the most that a model of bins can give (..., O) numbers: the log-density of one sure of each bin."""
        return -self._log_widths_of(self.locate(values))

    def _log_widths_of(self, located: np.ndarray) -> np.ndarray:
        return self.log_widths[np.arange(located.shape[-1]), located]


def find_bins(tokenizer: Tokenizer, values: np.ndarray, columns: slice, *, observed: np.ndarray | None = None) -> Bins:
    """The bins of some scalars of a fitted tokenizer, found by asking it which numbers get which token.

    The outermost bins end at the smallest and the largest value.

    Args:
        values: (N, S) transitions that it was fitted to.
        columns: which O of the S scalars.
        observed: (N, O) bool, which of these count; all by default.

    Raises:
        ConfigError: tokens that are not one for each scalar, rising with its value.
    """
    if tokenizer.tokens_per_step != values.shape[-1]:
        raise ConfigError(
            f"{type(tokenizer).__name__} makes {tokenizer.tokens_per_step} tokens of {values.shape[-1]} scalars, so "
            "that its tokens are no bins; use tokenizer=uniform or quantile"
        )
    chosen = np.asarray(values[:, columns], np.float64)
    if observed is not None:
        chosen = np.where(observed, chosen, np.nan)
    low, high = np.nanmin(chosen, 0), np.nanmax(chosen, 0)
    inner = _bisect(tokenizer, low, high, values[0], columns)
    edges = np.concatenate([low[:, None], inner, high[:, None]], 1)
    scale = np.nanstd(chosen, 0)
    if not (np.diff(edges) >= 0).all():
        raise ConfigError(
            f"the tokens of {type(tokenizer).__name__} do not rise with the values, so that they are no bins; use "
            "tokenizer=uniform or quantile"
        )
    return Bins(edges, scale)


def _bisect(tokenizer: Tokenizer, low: np.ndarray, high: np.ndarray, filling: np.ndarray, columns: slice) -> np.ndarray:
    """(O, V - 1) the values at which tokens pass from at most v to more than v."""
    device = next(tokenizer.buffers()).device
    tokens = torch.arange(tokenizer.vocab_size - 1, device=device)[:, None]  # v
    shape = (len(tokens), len(low))
    below = torch.tensor(low, device=device).expand(shape)
    above = torch.tensor(high, device=device).expand(shape)
    rows = torch.tensor(filling, dtype=torch.float64, device=device).repeat(len(tokens), 1)

    def passed(at: torch.Tensor) -> torch.Tensor:
        rows[:, columns] = at
        return tokenizer.encode(rows)[:, columns] > tokens

    never, always = ~passed(above), passed(below)
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        beyond = passed(middle)
        below, above = torch.where(beyond, below, middle), torch.where(beyond, middle, above)
    found = torch.where(never, torch.tensor(high, device=device), above)
    found = torch.where(always, torch.tensor(low, device=device), found)
    return found.T.cpu().numpy()
