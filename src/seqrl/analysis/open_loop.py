"""Futures that a model of tokens imagines under recorded actions, and what it holds likely on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from seqrl import decoding
from seqrl.analysis.references import References
from seqrl.decoding.noise import Noise, draw
from seqrl.errors import ConfigError
from seqrl.models.token import TokenModel
from seqrl.types import TokenHistory


@dataclass(frozen=True)
class Imagined:
    """Rollouts of a model of tokens, without a look at what really came.

    Attributes:
        probabilities: (B, H, O, V) float64, the marginal distribution of every scalar at every step: the mean of what
            was predicted in the rollouts. The termination token is left out, since the recordings go on. Where the
            layout has differences it is the share of the M rollouts that a difference brought there, and 0 elsewhere.
        samples: (B, M, H, O) float32, the observations of the rollouts, in the units of the data.
    """

    probabilities: np.ndarray
    samples: np.ndarray


@torch.no_grad()
def imagine(
    model: TokenModel, references: References, *, rollouts: int, context: int | None = None, seed: int = 0
) -> Imagined:
    """Sample `rollouts` futures of each reference, under its actions.

    What is hidden in the recording is hidden in the rollouts: its mark is put there, and nowhere else.

    Args:
        model: in eval mode, of tokens that stand for one scalar each.
        rollouts: M, 1 or more.
        context: transitions that the model sees, imagined ones included; None for the trained window.
        seed: of the draws.

    Raises:
        ConfigError: a layout whose actions follow more than the observation, that has a goal, or that has differences
            of observations some of which are hidden.
    """
    layout = model.layout
    if layout.goal is not None or layout.known != ("observation",) or model.tokens_per_step != layout.size:
        raise ConfigError(
            "open-loop rollouts need a layout without a goal whose actions follow the observation alone, one token for "
            "each scalar; train with layout=tt and tokenizer=uniform or quantile"
        )
    walk = _Walk(model, references, rollouts, context, seed)
    for step in range(references.horizon):
        walk.act(step)
        walk.observe(step)
    return Imagined(walk.probabilities.numpy(), walk.samples.numpy())


class _Walk:
    """The rollouts of all references, token by token."""

    def __init__(
        self, model: TokenModel, references: References, rollouts: int, context: int | None, seed: int
    ) -> None:
        self.model, self.references, self.rollouts = model, references, rollouts
        self.first, self.stop = _range(references.observation)
        self.recorded = model.tokenizer.encode(torch.from_numpy(references.values))  # (B, past + 1 + H, K)
        self.observed = torch.from_numpy(references.observed)
        self.marks = self._find_marks()
        past, count = references.past, len(references)
        known = [self.recorded[:, :past].flatten(1), self.recorded[:, past, : self.stop]]
        history = TokenHistory(torch.cat(known, 1), torch.full((count,), past))
        self.session = decoding.start(model, history, cache="exact", context=context)
        self.session.select(torch.arange(count).repeat_interleave(rollouts))
        self.noise = Noise.of(seed, torch.arange(count), 0)
        shape = (count, references.horizon, self.stop - self.first)
        self.probabilities = torch.zeros(*shape, model.tokenizer.vocab_size, dtype=torch.float64)
        self.samples = torch.zeros(count, rollouts, *shape[1:])
        self.centres = [model.tokenizer.bin_centres(place) for place in range(self.first, self.stop)]
        self.present: Tensor | None = None
        if model.layout.has("difference"):
            if not self.observed.all():
                raise ConfigError("what is hidden has no difference; train with layout=tt")
            present = torch.from_numpy(references.values[:, past, references.observation])
            self.present = present[:, None].expand(-1, rollouts, -1)

    def act(self, step: int) -> None:
        """Complete the present transition: the recorded action, and what else the layout has, as it is imagined."""
        action = self.references.action
        tokens = torch.zeros(len(self.references), self.rollouts, self.model.tokens_per_step, dtype=torch.int64)
        for place in range(self.stop, self.model.tokens_per_step):
            if action.start <= place < action.stop:
                tokens[..., place] = self.recorded[:, self.references.past + step, place, None]
            else:
                tokens[..., place] = self._draw(self._logits(), step, place)
            self.session.append(tokens[..., place].flatten())
        if self.present is not None:
            difference = self.model.layout.field("difference").slice
            self.present = self.present + self.model.tokenizer.decode(tokens)[..., difference]

    def observe(self, step: int) -> None:
        """Imagine the next observation, scalar by scalar, and keep what was held likely."""
        if self.present is not None:
            self._compute(self.present, step)
            return
        row = self.references.past + step + 1
        for scalar, place in enumerate(range(self.first, self.stop)):
            seen = self.observed[:, row, scalar]
            logits = self._logits()
            logits[seen, :, self.marks[scalar]] = -torch.inf  # the last one where nothing is ever hidden
            self.probabilities[:, step, scalar] = logits.double().softmax(-1)[..., :-1].mean(1)
            tokens = self._draw(logits, step, place)
            tokens = torch.where(seen[:, None], tokens, self.recorded[:, row, place, None])
            self.samples[:, :, step, scalar] = self.centres[scalar][tokens].float()
            self.session.append(tokens.flatten())

    def _compute(self, observations: Tensor, step: int) -> None:
        """Go on with (B, M, O) observations that were computed from differences."""
        self.samples[:, :, step] = observations
        scalars = torch.zeros(*observations.shape[:2], self.model.layout.size)
        scalars[..., self.references.observation] = observations
        tokens = self.model.tokenizer.encode(scalars)
        for scalar, place in enumerate(range(self.first, self.stop)):
            shares = nn.functional.one_hot(tokens[..., place], self.model.tokenizer.vocab_size)
            self.probabilities[:, step, scalar] = shares.double().mean(1)
            self.session.append(tokens[..., place].flatten())

    def _logits(self) -> Tensor:
        """(B, M, V + 1) of the next tokens, the end of the episode ruled out."""
        logits = self.session.logits.unflatten(0, (-1, self.rollouts)).clone()
        logits[..., self.model.termination_token] = -torch.inf
        return logits

    def _draw(self, logits: Tensor, step: int, place: int) -> Tensor:
        return draw(logits, self.noise.uniform(step * self.model.tokens_per_step + place, self.rollouts))

    def _find_marks(self) -> list[int]:
        """The token that stands for "hidden", for every scalar; the termination token where none is hidden."""
        tokens = self.recorded[..., self.first : self.stop]
        marks = []
        for scalar in range(tokens.shape[-1]):
            hidden = tokens[..., scalar][~self.observed[..., scalar]]
            marks.append(int(hidden[0]) if len(hidden) else self.model.termination_token)
        return marks


def _range(columns: slice) -> tuple[int, int]:
    return int(columns.start), int(columns.stop)
