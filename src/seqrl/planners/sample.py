"""One action at a time, drawn from the model."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge, Interval, Lt

from seqrl import decoding
from seqrl.decoding.noise import Noise, draw, drop_tail, keep_top_k
from seqrl.decoding.session import CacheMode, check_context, check_session
from seqrl.models.token import TokenModel
from seqrl.models.vector import VectorModel
from seqrl.planners import Planner
from seqrl.registry import register_planner
from seqrl.scores import Score
from seqrl.types import Plan, TokenHistory, VectorHistory


@register_planner("sample")
class SamplePlanner(Planner):
    """Draw the present action's tokens one after the other; no look-ahead.

    Models of vectors have one answer, their regression, to which only `context` applies (and the rest where actions
    are discrete).

    Args:
        temperature: divides the logits, 0 or more; 0 takes the likeliest tokens (greedy imitation).
        top_k: keep the likeliest k tokens; None keeps all.
        tail_mass: drop the least likely tokens whose mass sums to less than this, in [0, 1); None drops none.
        context: transitions that the model sees, the present one included; None for the trained window.
        cache: `none`, `exact` or `window`; see `seqrl.decoding.session.DecodingSession`.
    """

    horizon = 1
    shows = None
    serves = (TokenModel, VectorModel)

    def __init__(
        self,
        *,
        temperature: Annotated[float, Ge(0)] = 1.0,
        top_k: Annotated[int, Ge(1)] | None = None,
        tail_mass: Annotated[float, Ge(0), Lt(1)] | None = None,
        context: Annotated[int, Interval(ge=1, le=1_000_000)] | None = None,
        cache: CacheMode = "exact",
    ) -> None:
        self.temperature = temperature
        self.top_k = top_k
        self.tail_mass = tail_mass
        self.context = context
        self.cache = cache

    def check(self, model: TokenModel | VectorModel, score: Score) -> None:
        model.layout.field("action")
        if isinstance(model, TokenModel):
            check_session(model, cache=self.cache, context=self.context)
        else:
            check_context(model, self.context)

    def plan(self, model: TokenModel | VectorModel, history: Any, score: Score, noise: Noise) -> Plan:
        if isinstance(model, VectorModel):
            return self._regressed(model, history, noise)
        return self._drawn(model, history, noise)

    def _drawn(self, model: TokenModel, history: TokenHistory, noise: Noise) -> Plan:
        """An action's tokens, one after the other."""
        session = decoding.start(model, history, cache=self.cache, context=self.context)
        action = model.places("action")
        tokens = history.tokens.new_zeros(len(history.tokens), model.tokens_per_step)
        tokens[:, : action.start] = history.tokens[:, -action.start :]
        log_prob = torch.zeros(len(tokens), device=tokens.device, dtype=session.logits.dtype)
        for place in range(action.start, action.stop):
            filtered = keep_top_k(drop_tail(session.logits, self.tail_mass), self.top_k)
            chosen = draw(filtered, noise.uniform(place)[:, 0], self.temperature)
            log_prob += session.logits.log_softmax(-1).gather(-1, chosen[:, None])[:, 0]
            tokens[:, place] = chosen
            if place + 1 < action.stop:
                session.append(chosen)
        actions = model.tokenizer.decode(tokens)[:, model.layout.field("action").slice]
        return Plan(actions[:, None], log_prob, tokens[:, None])

    def _regressed(self, model: VectorModel, history: VectorHistory, noise: Noise) -> Plan:
        """The action that a model of vectors predicts; a draw where actions are discrete."""
        found = model.act(history, context=self.context)
        nothing = torch.zeros(len(found), device=found.device)
        if "action" not in model.layout.categories:
            return Plan(found[:, None], nothing)
        filtered = keep_top_k(drop_tail(found, self.tail_mass), self.top_k)
        chosen = draw(filtered, noise.uniform(0)[:, 0], self.temperature)
        log_prob = found.log_softmax(-1).gather(-1, chosen[:, None])[:, 0]
        return Plan(chosen[:, None, None].float(), log_prob)
