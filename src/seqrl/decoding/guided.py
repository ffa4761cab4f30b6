"""Guidance: sequences that follow their goals more closely than the data did."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from seqrl.decoding.session import CacheMode, DecodingSession, Session
from seqrl.models.token import TokenModel
from seqrl.types import TokenHistory


class GuidedSession(Session):
    """Sequences that follow their goals more closely than the data did: classifier-free guidance of actions.

    Each row is decoded twice, after its goal g and after the null goal. Where the next token x is of an action it has
    the logits `log p(x) + w (log p(x | g) - log p(x))`: what the goal changes counts w times. What an action leads to
    is the environment's business whatever the goal: those tokens have the logits that follow the goal. One session
    holds both, so that a step costs as much as one of twice the rows.

    Args:
        model: trained with a null goal.
        history: with a goal.
        guidance: w, 0 or more: actions follow the null goal with 0, the goal with 1.
        cache, context, static: as for `DecodingSession`.

    Reference: Ho and Salimans 2022, equation 6, whose weight is w - 1; Sanchez et al. 2023, equation 7, for tokens.
    """

    def __init__(
        self,
        model: TokenModel,
        history: TokenHistory,
        *,
        guidance: float,
        cache: CacheMode = "exact",
        context: int | None = None,
        static: bool | None = None,
    ) -> None:
        null = model.encode_goals(None, len(history))
        assert history.goal is not None and null is not None
        self._weight = guidance
        self._actions = model.places("action")
        goals, lengths = torch.cat([history.goal, null]), history.lengths.repeat(2)
        both = replace(history, tokens=history.tokens.repeat(2, 1), lengths=lengths, goal=goals)
        self._session = DecodingSession(model, both, cache=cache, context=context, static=static)
        self._mix()

    @property
    def place(self) -> int:
        return self._session.place

    def append(self, tokens: Tensor) -> None:
        self._session.append(tokens.repeat(2))
        self._mix()

    def select(self, rows: Tensor) -> None:
        self._session.select(torch.cat([rows, rows + len(self.logits)]))
        self.logits = self.logits[rows]

    def _mix(self) -> None:
        toward, without = self._session.logits.log_softmax(-1).chunk(2)
        guided = self._actions.start <= self.place < self._actions.stop
        self.logits = without + self._weight * (toward - without) if guided else toward
