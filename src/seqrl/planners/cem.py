"""The cross-entropy method over vectors of actions: a search that needs no gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from seqrl import decoding
from seqrl.critics import Critic
from seqrl.decoding.noise import Noise
from seqrl.decoding.session import CacheMode, check_session
from seqrl.errors import ConfigError
from seqrl.models.token import TokenModel
from seqrl.models.vector import VectorModel
from seqrl.planners import Planner
from seqrl.planners._beams import Beams
from seqrl.planners._checks import SHOWN, check_imagined, check_shown
from seqrl.registry import register_planner
from seqrl.scores import Score
from seqrl.types import History, Plan, TokenHistory

_INSIDE = 1e-9  # how near to 0 and 1 a uniform number may come that is made normal


@register_planner("cem")
class CemPlanner(Planner):
    """Draw sequences of actions from a normal distribution, fit it to the best of them, and so on; take the best drawn.

    The distribution begins in the middle of the data's range of actions, with a deviation for each number of each step.
    Of a model of tokens, what follows the actions is imagined greedily and ranked by the score: `score=reward` for
    imagined rewards, `score=critic` for a critic's Q (with `horizon=1`, of the action alone) or for rewards and its
    value after them. A model of vectors imagines nothing: there the action is searched that the critic of the run holds
    best in the present state, whatever the score.

    Nothing keeps such actions near those of the data: a critic or model that errs on others is searched for its errors.
    The likelihood as a term of `score=sum`, or `planner=beam`, which draws actions from the model, stays near them.

    Args:
        candidates: sequences of each round, 1 or more.
        elites: how many of the best the next distribution is fitted to, at most `candidates`.
        iterations: rounds, 1 or more.
        horizon: H, transitions of a sequence, 1 or more.
        spread: deviation of the first distribution, in halves of the data's range, above 0.
        smoothing: share of the last distribution in the next one, in [0, 1).
        context: transitions that the model sees, imagined ones included; None for the trained window.
        cache: `none`, `exact` or `window`; see `seqrl.decoding.session.DecodingSession`.
        critic: of the same run; None where it has none.

    Reference: Rubinstein 1999, "The cross-entropy method for combinatorial and continuous optimization"; as a planner
    of learnt models Chua et al. 2018, https://arxiv.org/abs/1805.12114, section 5.
    """

    shows = SHOWN
    serves = (TokenModel, VectorModel)

    def __init__(
        self,
        *,
        candidates: Annotated[int, Ge(1)] = 64,
        elites: Annotated[int, Ge(1)] = 8,
        iterations: Annotated[int, Ge(1)] = 4,
        horizon: Annotated[int, Ge(1)] = 5,
        spread: Annotated[float, Gt(0)] = 1.0,
        smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.1,
        context: Annotated[int, Ge(1)] | None = None,
        cache: CacheMode = "exact",
        critic: Critic | None = None,
    ) -> None:
        self.candidates, self.elites, self.iterations = candidates, elites, iterations
        self.horizon, self.spread, self.smoothing = horizon, spread, smoothing
        self.context, self.cache, self.critic = context, cache, critic

    def check(self, model: TokenModel | VectorModel, score: Score) -> None:
        layout = model.layout
        if self.elites > self.candidates:
            raise ConfigError(f"planner.elites={self.elites} is above planner.candidates={self.candidates}")
        if "action" in layout.categories:
            raise ConfigError("planner=cem searches among vectors, and these actions are discrete; use planner=beam")
        if isinstance(model, VectorModel):
            self._check_vectors()
            return
        if layout.has("return"):
            raise ConfigError("planner=cem cannot imagine a desired return; use planner=sample, or train layout=tt")
        further = self.horizon > 1 or score.wants_next_observation
        check_imagined(layout, "cem", further=further)
        check_shown(score, layout)
        check_session(model, cache=self.cache, context=self.context)

    def _check_vectors(self) -> None:
        if self.critic is None or self.horizon != 1:
            raise ConfigError(
                "planner=cem imagines nothing with a model of vectors, and searches for the action that a critic holds "
                "best; use planner.horizon=1 and a run that was trained with critic=iql"
            )

    def plan(self, model: TokenModel | VectorModel, history: Any, score: Score, noise: Noise) -> Plan:
        low, high = model.tokenizer.action_range(model.layout)
        if isinstance(model, VectorModel):
            return self._search(lambda actions: self._ask_critic(history, actions), low, high, noise, len(history))
        return self._search(
            lambda actions: self._imagine(model, history, score, actions), low, high, noise, len(history)
        )

    def _search(
        self, rate: Callable[[Tensor], tuple[Tensor, Plan]], low: Tensor, high: Tensor, noise: Noise, rows: int
    ) -> Plan:
        """The best plan of all rounds; the first of equals.

        Args:
            rate: (B, N, H, A) actions to their (B, N) values, and the plan of the best of each row.
            low, high: (A,) range of actions.
        """
        mean = ((low + high) / 2).expand(rows, self.horizon, -1)
        deviation = (self.spread * (high - low) / 2).expand_as(mean)
        best: Plan | None = None
        for round_number in range(self.iterations):
            normal = self._draw(noise, round_number, low)
            actions = (mean[:, None] + deviation[:, None] * normal).clamp(low, high)
            values, plan = rate(actions)
            best = plan if best is None else _choose(best, plan)
            order = values.sort(dim=1, descending=True, stable=True).indices[:, : self.elites]
            chosen = actions.gather(1, order[..., None, None].expand(-1, -1, *actions.shape[2:]))
            mean = self.smoothing * mean + (1 - self.smoothing) * chosen.mean(1)
            deviation = self.smoothing * deviation + (1 - self.smoothing) * chosen.std(1, correction=0)
        assert best is not None
        return best

    def _draw(self, noise: Noise, round_number: int, like: Tensor) -> Tensor:
        """(B, N, H, A) standard normal numbers, each with an address of its own."""
        size = len(like)
        first = round_number * self.horizon * size
        uniform = [noise.uniform(first + number, beams=self.candidates) for number in range(self.horizon * size)]
        normal = torch.special.ndtri(torch.stack(uniform, -1).clamp(_INSIDE, 1 - _INSIDE))
        return normal.unflatten(-1, (self.horizon, size)).to(like)

    def _ask_critic(self, history: History, actions: Tensor) -> tuple[Tensor, Plan]:
        assert self.critic is not None
        if history.observation is None:
            raise ConfigError("planner=cem looks at observations as they are; make histories with model.history(...)")
        states = history.observation[:, None].expand(-1, actions.shape[1], -1)
        values = self.critic.q(states, actions[:, :, 0])
        best = values.argmax(1)
        return values, Plan(actions[torch.arange(len(best)), best], values.gather(1, best[:, None])[:, 0])

    def _imagine(self, model: TokenModel, history: TokenHistory, score: Score, actions: Tensor) -> tuple[Tensor, Plan]:
        session = decoding.start(model, history, cache=self.cache, context=self.context)
        beams = Beams(session, model, history, distributions=score.wants_distributions)
        beams.repeat(self.candidates)
        everybody = torch.ones(self.candidates, dtype=torch.bool, device=history.tokens.device)
        given = model.encode_actions(actions)

        def likeliest(place: int) -> Tensor:
            return beams.logits.argmax(-1)

        for depth in range(self.horizon):
            for name in model.fields[model.fields.index("action") :]:
                proposed = (everybody, given[:, :, depth]) if name == "action" else None
                beams.decode(name, likeliest, proposed=proposed)
            if depth + 1 < self.horizon or score.wants_next_observation:
                beams.advance()
                for name in model.layout.known:
                    beams.decode(name, likeliest)
        values = score(beams.trace(score))
        best = values.argmax(1)
        return values, beams.plan_of(best, values.gather(1, best[:, None])[:, 0], self.horizon)


def _choose(one: Plan, other: Plan) -> Plan:
    """Row by row the plan of the larger value, of equals the first."""
    better = other.value > one.value
    chosen: dict[str, Any] = {}
    for field in fields(Plan):
        before, now = getattr(one, field.name), getattr(other, field.name)
        shape = (-1, *[1] * (0 if before is None else before.dim() - 1))
        chosen[field.name] = None if before is None else torch.where(better.view(shape), now, before)
    return Plan(**chosen)
