"""One action at a time, drawn from the model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Interval, Lt

from seqrl import decoding
from seqrl.decoding.noise import Noise, draw, drop_tail, keep_top_k
from seqrl.decoding.session import CacheMode, check_context, check_session
from seqrl.errors import ConfigError
from seqrl.models.token import TokenModel
from seqrl.models.vector import VectorModel
from seqrl.planners import Planner
from seqrl.registry import register_planner
from seqrl.scores import Score
from seqrl.types import Plan, TokenHistory, VectorHistory


@register_planner("sample")
class SamplePlanner(Planner):
    """Draw the present action's tokens one after the other, or take the means of what they stand for; no look-ahead.

    Models of vectors have one answer, their regression, to which only `context` applies (and the rest where actions
    are discrete).

    Args:
        temperature: divides the logits, 0 or more; 0 takes the likeliest tokens (greedy imitation).
        top_k: keep the likeliest k tokens; None keeps all.
        tail_mass: drop the least likely tokens whose mass sums to less than this, in [0, 1); None drops none.
        action: `draw`; or `mean`: every number of the action is the expectation of its distribution, given those before
            it, whose tokens are the nearest to their means. Unlike the likeliest bins, means keep what several bins
            say, but lie between two modes. Of temperature 1 and without filters where these are not given.
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
        action: Literal["draw", "mean"] = "draw",
        context: Annotated[int, Interval(ge=1, le=1_000_000)] | None = None,
        cache: CacheMode = "exact",
    ) -> None:
        self.temperature = temperature
        self.top_k = top_k
        self.tail_mass = tail_mass
        self.action = action
        self.context = context
        self.cache = cache

    def check(self, model: TokenModel | VectorModel, score: Score) -> None:
        model.layout.field("action")
        if self.action == "mean":
            self._check_mean(model)
        if isinstance(model, TokenModel):
            check_session(model, cache=self.cache, context=self.context)
        else:
            check_context(model, self.context)

    def plan(self, model: TokenModel | VectorModel, history: Any, score: Score, noise: Noise) -> Plan:
        if isinstance(model, VectorModel):
            return self._regressed(model, history, noise)
        return self._drawn(model, history, noise)

    def _check_mean(self, model: TokenModel | VectorModel) -> None:
        """Refuse means of what is no number."""
        if "action" in model.layout.categories:
            raise ConfigError(
                "planner.action=mean takes means, and these actions are discrete; use planner.action=draw"
            )
        if isinstance(model, TokenModel) and not all(model.ordered[model.places("action")]):
            raise ConfigError(
                "planner.action=mean takes means of bins, and this checkpoint's tokenizer gives actions other tokens; "
                "use planner.action=draw, or train with tokenizer=quantile or uniform"
            )
        if self.action == "mean" and self.temperature == 0:
            raise ConfigError("planner.temperature=0 leaves one bin, whose mean is no other; use planner.action=draw")

    def _drawn(self, model: TokenModel, history: TokenHistory, noise: Noise) -> Plan:
        """An action's tokens, one after the other."""
        session = decoding.start(model, history, cache=self.cache, context=self.context)
        action = model.places("action")
        tokens = history.tokens.new_zeros(len(history.tokens), model.tokens_per_step)
        tokens[:, : action.start] = history.tokens[:, -action.start :]
        log_prob = torch.zeros(len(tokens), device=tokens.device, dtype=session.logits.dtype)
        means = []
        for place in range(action.start, action.stop):
            filtered = keep_top_k(drop_tail(session.logits, self.tail_mass), self.top_k)
            if self.action == "mean":
                centres = model.tokenizer.bin_centres(place).to(filtered.dtype)
                means.append((filtered[..., :-1] / self.temperature).softmax(-1) @ centres)
                chosen = (centres - means[-1][:, None]).abs().argmin(-1)
            else:
                chosen = draw(filtered, noise.uniform(place)[:, 0], self.temperature)
            log_prob += session.logits.log_softmax(-1).gather(-1, chosen[:, None])[:, 0]
            tokens[:, place] = chosen
            if place + 1 < action.stop:
                session.append(chosen)
        actions = model.tokenizer.decode(tokens)[:, model.layout.field("action").slice]
        if means:
            actions = torch.stack(means, -1).to(actions)
        return Plan(actions[:, None], log_prob, tokens[:, None])

    def _regressed(self, model: VectorModel, history: VectorHistory, noise: Noise) -> Plan:
        """The action that a model of vectors predicts; a draw where actions are discrete."""
        found = model.act(history, context=self.context)
        nothing = torch.zeros(len(found), device=found.device)
        if "action" not in model.layout.categories:
            return Plan(found[:, None], nothing)
        actions, log_prob = [], nothing
        for place, logits in enumerate(found.split(model.layout.choices("action"), dim=-1)):
            filtered = keep_top_k(drop_tail(logits, self.tail_mass), self.top_k)
            chosen = draw(filtered, noise.uniform(place)[:, 0], self.temperature)
            log_prob = log_prob + logits.log_softmax(-1).gather(-1, chosen[:, None])[:, 0]
            actions.append(chosen.float())
        return Plan(torch.stack(actions, -1)[:, None], log_prob)
