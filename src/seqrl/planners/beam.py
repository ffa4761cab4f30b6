"""Beam search over imagined transitions."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval, Lt
from torch import Tensor

from seqrl import decoding
from seqrl.critics import Critic
from seqrl.decoding.noise import Noise, draw, drop_tail, keep_top_k
from seqrl.decoding.session import CacheMode, check_session
from seqrl.errors import ConfigError
from seqrl.models.token import TokenModel
from seqrl.planners import Planner
from seqrl.planners._actor_proposals import ActorProposals, check_share
from seqrl.planners._beams import Beams
from seqrl.planners._checks import SHOWN, check_imagined, check_shown
from seqrl.registry import register_planner
from seqrl.scores import Score
from seqrl.types import Plan, TokenHistory


class _Clock:
    """Whether another round would end after the budget, going by the longest one so far."""

    def __init__(self, budget_ms: float | None, device: torch.device) -> None:
        self.budget = None if budget_ms is None else budget_ms / 1000
        self.device = device
        self.start = self.round_start = self._now()
        self.longest = 0.0

    def is_up(self) -> bool:
        if self.budget is None:
            return False
        now = self._now()
        self.longest = max(self.longest, now - self.round_start)
        self.round_start = now
        return now - self.start + self.longest > self.budget

    def _now(self) -> float:
        if self.budget is not None and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # what was launched is not done yet
        return time.perf_counter()


_PUBLISHED_CONTEXT = 5  # transitions; the default, and of a model with a shorter window as many as that has


@register_planner("beam")
class BeamPlanner(Planner):
    """Sample actions, predict what follows, keep the best partial plans; for each of `horizon` transitions.

    In every transition the beams are repeated `n_expand` times and their action tokens sampled; reward and value are
    the expectations of their distributions (the termination token's probability is dropped, not renormalised) and
    enter the sequence as their modes; the `beam_width` best candidates by score survive; the next observation is
    decoded greedily (`k_obs=1`), or computed from the expected difference where the layout has that field. Ties go to
    the lower index.

    Args:
        beam_width: W, survivors of each transition, 1 or more.
        n_expand: samples per survivor, 1 or more.
        horizon: H, transitions to imagine, 1 or more; with 1 the best of `beam_width * n_expand` actions is taken.
        context: transitions that the model sees, imagined ones included; None for the trained window. The default is
            that of the published system, 5, or the window where that is shorter.
        k_act, k_obs: keep only the likeliest k tokens of an action, and of an observation or difference; None keeps
            all.
        cdf_act, cdf_obs: drop the least likely tokens whose mass sums to less than this, in [0, 1); None drops none.
        percentile: estimate reward and value by this quantile of their distributions, in [0, 1), instead of by the
            expectation (None): the value of the bin at which the cumulative probability passes it. The termination
            token, which has no value, does not count.
        percentile_rule: None for that, or `published`: the termination token counts, the value is that of the bin
            below, and where none is below, or the probability is not reached, the middle of the whole range.
        cache: `none`, `exact` or `window`; see `seqrl.decoding.session.DecodingSession`.
        time_budget_ms: stop before a transition that, going by those before it, would end later than this after the
            start of the plan for the whole batch; the best plan so far then has fewer than `horizon` transitions, but
            never less than one. Such plans depend on the machine and its load. None for no limit.
        actor_share: share of the candidates whose actions the policy of the run's critic proposes instead of the model,
            in [0, 1]; one of them in each transition is exactly that policy's, so that its own plan is among those
            that are compared. 0 needs no critic.
        actor_noise: standard deviation of Gaussian noise on the other proposals, in halves of the range of the data's
            actions, 0 or more.
        critic: of the same run; None where it has none.

    Reference: Janner et al. 2021, algorithm 1; defaults of their code.
    """

    shows = SHOWN

    def __init__(
        self,
        *,
        beam_width: Annotated[int, Interval(ge=1, le=1_000_000)] = 128,
        n_expand: Annotated[int, Interval(ge=1, le=10_000)] = 2,
        horizon: Annotated[int, Interval(ge=1, le=10_000)] = 15,
        context: Annotated[int, Interval(ge=1, le=1_000_000)] | None = _PUBLISHED_CONTEXT,
        k_act: Annotated[int, Ge(1)] | None = None,
        k_obs: Annotated[int, Ge(1)] | None = 1,
        cdf_act: Annotated[float, Ge(0), Lt(1)] | None = 0.6,
        cdf_obs: Annotated[float, Ge(0), Lt(1)] | None = None,
        percentile: Annotated[float, Ge(0), Lt(1)] | None = None,
        percentile_rule: Literal["published"] | None = None,
        cache: CacheMode = "exact",
        time_budget_ms: Annotated[float, Gt(0)] | None = None,
        actor_share: Annotated[float, Interval(ge=0, le=1)] = 0.0,
        actor_noise: Annotated[float, Ge(0)] = 0.2,
        critic: Critic | None = None,
    ) -> None:
        self.beam_width = beam_width
        self.n_expand = n_expand
        self.horizon = horizon
        self.context = context
        self.filters = {"action": (k_act, cdf_act), **dict.fromkeys(("observation", "difference"), (k_obs, cdf_obs))}
        self.percentile = percentile
        self.percentile_as_published = percentile_rule == "published"
        self.cache = cache
        self.time_budget_ms = time_budget_ms
        self.actor_share = actor_share
        self.proposals = None if critic is None or not actor_share else ActorProposals(critic, actor_share, actor_noise)

    def check(self, model: TokenModel, score: Score) -> None:
        layout = model.layout
        if layout.has("return"):
            raise ConfigError(
                "the checkpoint's layout begins with 'return', which planner=beam cannot imagine; use planner=sample, "
                "or train with layout=tt"
            )
        further = self.horizon > 1 or score.wants_next_observation
        check_imagined(layout, "beam", further=further)
        if self.actor_share and self.proposals is None:
            raise ConfigError(
                f"planner.actor_share={self.actor_share:g} lets a critic's policy propose actions, and the run has no "
                "critic; use planner.actor_share=0, or train with critic=iql"
            )
        check_share(self.actor_share, self.beam_width * self.n_expand)
        check_shown(score, layout)
        check_session(model, cache=self.cache, context=self._context_of(model))

    def _context_of(self, model: TokenModel) -> int | None:
        """The transitions that a model sees: of the default, as many as its window has."""
        if self.context == _PUBLISHED_CONTEXT:
            return min(self.context, model.context)
        return self.context

    def plan(self, model: TokenModel, history: TokenHistory, score: Score, noise: Noise) -> Plan:
        first = model.fields.index("action")
        clock = _Clock(self.time_budget_ms, history.tokens.device)
        session = decoding.start(model, history, cache=self.cache, context=self._context_of(model))
        beams = Beams(session, model, history, distributions=score.wants_distributions)
        for depth in range(self.horizon):
            # The first transition starts from one row per environment, all later ones from the survivors.
            copies = self.n_expand * (self.beam_width if depth == 0 else 1)
            beams.repeat(copies)
            proposed = None
            if self.proposals is not None:
                states = beams.find_observations()
                proposed = self.proposals.propose(model, states, noise, depth=depth, copies=copies)
            for name in model.fields[first:]:
                self._decode(beams, name, noise, depth, proposed if name == "action" else None)
            if score.wants_next_observation:
                self._observe(beams, noise, depth + 1)
            best, order = score(beams.trace(score)).sort(dim=1, descending=True, stable=True)
            if depth + 1 == self.horizon or clock.is_up():
                break
            beams.select(order[:, : self.beam_width])
            if not score.wants_next_observation:
                self._observe(beams, noise, depth + 1)
        return beams.plan_of(order[:, 0], best[:, 0], depth + 1)

    def _observe(self, beams: Beams, noise: Noise, depth: int) -> None:
        """Decode what is known before the next action."""
        beams.advance()
        for name in beams.model.layout.known:
            self._decode(beams, name, noise, depth)

    def _decode(
        self,
        beams: Beams,
        field: str,
        noise: Noise,
        depth: int,
        proposed: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        top_k, tail_mass = self.filters.get(field, (1, None))

        def choose(place: int) -> Tensor:
            logits = beams.logits
            if top_k == 1:
                return logits.argmax(-1)
            uniform = noise.uniform(depth * beams.model.tokens_per_step + place, beams=logits.shape[1])
            return draw(keep_top_k(drop_tail(logits, tail_mass), top_k), uniform)

        percentile, as_published = self.percentile, self.percentile_as_published
        beams.decode(
            field, choose, proposed=proposed, percentile=percentile, as_published=as_published, drawn=top_k != 1
        )
