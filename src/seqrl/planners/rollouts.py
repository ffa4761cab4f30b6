"""Many imagined futures, sampled to their ends and ranked once."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
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
from seqrl.planners._outside import can_tell_outside
from seqrl.registry import TOKENIZER, register_planner
from seqrl.scores import Score
from seqrl.types import Plan, TokenHistory


@register_planner("rollouts")
class RolloutsPlanner(Planner):
    """Sample `candidates` futures of `horizon` transitions as the data would go on, and take the best by score.

    Nothing is ranked on the way, so that no candidate is given up for what looks bad after a few steps; where the score
    can tell that one is lost for good (it entered a region to be avoided), another one that is not takes its place, and
    the two go on differently from there. This is what objectives need that are chosen when acting, and whose sums over
    a part of a plan say little about the whole.

    With `actor_share` and `follow=actor` it is policy improvement by rollouts: a candidate begins with an action near
    that of the critic's policy (or with one of the data), and is judged by what that policy makes of it. Errors of the
    value at the end count less the longer the policy is followed, and are much the same for candidates that it leads to
    the same place.

    Args:
        candidates: sampled futures, 1 or more.
        horizon: H, transitions to imagine, 1 or more.
        context: transitions that the model sees, imagined ones included; None for the trained window.
        temperature: divides the logits of actions, 0 or more.
        k_act, k_obs: keep only the likeliest k tokens of an action, and of an observation or difference; None keeps
            all. Observations are the likeliest ones by default: among thousands of sampled states some are impossible,
            and a search finds the one that went through a wall.
        cdf_act: drop the least likely action tokens whose mass sums to less than this, in [0, 1); None drops none.
        cache: `none`, `exact` or `window`; see `seqrl.decoding.session.DecodingSession`.
        actor_share: share of the candidates whose first action the policy of the run's critic proposes instead of the
            model, in [0, 1]; one of them is exactly the policy's. 0 needs no critic.
        actor_noise: standard deviation of Gaussian noise on the other proposals, in halves of the range of the data's
            actions, 0 or more.
        actor_margin: how much more than the policy's own plan another must promise to be carried out instead, in units
            of the score, 0 or more, so that what a model errs on draws no good policy away from what it does.
        outside_cost: what a candidate loses for the states that it imagines outside of the range of the data, in units
            of the score: so much for each, times the share of the range's width by which it lies outside, summed over
            dimensions; 0 or more. Past an imagined end nothing costs. Out there the model reads the tokens of the
            border and goes on as if it were there, with the rewards of the border, and a critic extrapolates. Only sums
            of differences lead there; the observations of other models are decoded tokens, which lie within the range.
        follow: who acts after the first transition, in all candidates: the `model`, or the critic's policy (`actor`).
        critic: of the same run; None where it has none.

    Reference: random shooting as in Nagabandi et al. 2018, https://arxiv.org/abs/1708.02596, section IV-C, with a model
    of the data's own actions as the sampler; lost candidates are replaced as in a particle filter. Rollouts of a policy
    as in Tesauro and Galperin 1996, "On-line policy improvement using Monte-Carlo search". A cost of leaving the data
    as in Kidambi et al. 2020, https://arxiv.org/abs/2005.05951, section 4, here one that grows with the distance.
    """

    shows = SHOWN

    def __init__(
        self,
        *,
        candidates: Annotated[int, Ge(1)] = 64,
        horizon: Annotated[int, Ge(1)] = 40,
        context: Annotated[int, Ge(1)] | None = None,
        temperature: Annotated[float, Ge(0)] = 1.0,
        k_act: Annotated[int, Ge(1)] | None = None,
        k_obs: Annotated[int, Ge(1)] | None = 1,
        cdf_act: Annotated[float, Interval(ge=0, lt=1)] | None = None,
        cache: CacheMode = "exact",
        actor_share: Annotated[float, Interval(ge=0, le=1)] = 0.0,
        actor_noise: Annotated[float, Ge(0)] = 0.2,
        actor_margin: Annotated[float, Ge(0)] = 0.0,
        outside_cost: Annotated[float, Ge(0)] = 0.0,
        follow: Literal["model", "actor"] = "model",
        critic: Critic | None = None,
    ) -> None:
        self.candidates = candidates
        self.horizon = horizon
        self.context = context
        self.temperature = temperature
        self.filters = {"action": (k_act, cdf_act), **dict.fromkeys(("observation", "difference"), (k_obs, None))}
        self.cache = cache
        self.actor_share, self.actor_margin, self.follow = actor_share, actor_margin, follow
        self.outside_cost = outside_cost
        self.proposals: ActorProposals | None = None
        self.policy: ActorProposals | None = None
        if critic is not None:
            self.proposals = ActorProposals(critic, actor_share, actor_noise) if actor_share else None
            self.policy = ActorProposals(critic, 1.0, 0.0) if follow == "actor" else None

    def check(self, model: TokenModel, score: Score) -> None:
        layout = model.layout
        if layout.has("return"):
            raise ConfigError(
                "the checkpoint's layout begins with 'return', which planner=rollouts cannot imagine; use "
                "planner=sample, or train with layout=tt"
            )
        check_imagined(layout, "rollouts", further=True)
        for option, instead, wanted, found in (
            (f"actor_share={self.actor_share:g}", "actor_share=0", self.actor_share > 0, self.proposals),
            (f"follow={self.follow}", "follow=model", self.follow == "actor", self.policy),
        ):
            if wanted and found is None:
                raise ConfigError(
                    f"planner.{option} lets a critic's policy act in imagined futures, and the run has no critic; "
                    f"train with critic=iql, or use planner.{instead}"
                )
        check_share(self.actor_share, self.candidates)
        if self.outside_cost and not layout.has("difference"):
            raise ConfigError(
                f"planner.outside_cost={self.outside_cost:g} is of imagined states outside of the data's range, and a "
                "model of whole observations imagines none there; use planner.outside_cost=0, or train with "
                "layout=tt_difference"
            )
        if self.outside_cost and not can_tell_outside(model):
            raise ConfigError(
                f"planner.outside_cost={self.outside_cost:g} needs a tokenizer that tells the range of the data, and "
                f"the checkpoint's is {TOKENIZER.name_of(model.tokenizer)}; set it to 0, or train with "
                "tokenizer=uniform (or tokenizer.decode_to=midpoints, of quantile)"
            )
        check_shown(score, layout)
        check_session(model, cache=self.cache, context=self.context)

    def plan(self, model: TokenModel, history: TokenHistory, score: Score, noise: Noise) -> Plan:
        first = model.fields.index("action")
        costly = self.outside_cost > 0
        session = decoding.start(model, history, cache=self.cache, context=self.context)
        beams = Beams(session, model, history, distributions=score.wants_distributions)
        beams.repeat(self.candidates)
        if self.proposals is not None:
            own = self.proposals.exact(self.candidates, self.candidates).to(history.tokens.device)
            beams.record("own", own.expand(len(history), -1))
        for depth in range(self.horizon):
            who, proposed = self.policy if depth else self.proposals, None
            if who is not None:
                states = beams.find_observations()
                proposed = who.propose(model, states, noise, depth=depth, copies=self.candidates)
            for name in model.fields[first:]:
                self._decode(beams, name, noise, depth, proposed if name == "action" else None)
            if costly:
                beams.record("outside", beams.find_outside())
            if depth + 1 < self.horizon or score.wants_next_observation:
                beams.advance()
                for name in model.layout.known:
                    self._decode(beams, name, noise, depth + 1)
            if depth + 1 < self.horizon:
                lost = score.find_lost(beams.trace(score, partial=True))
                if lost is not None and lost.any():
                    beams.select(_replace(lost))
        value = score(beams.trace(score))
        ranked = value
        if costly:
            ranked = ranked - self.outside_cost * beams.columns["outside"].sum(-1)
        if "own" in beams.columns:  # where it was not lost
            ranked = ranked + self.actor_margin * beams.columns["own"][..., 0]
        best = ranked.argmax(1)
        return beams.plan_of(best, value.gather(1, best[:, None])[:, 0], self.horizon)

    def _decode(
        self,
        beams: Beams,
        field: str,
        noise: Noise,
        depth: int,
        proposed: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        top_k, tail_mass = self.filters.get(field, (1, None))
        temperature = self.temperature if field == "action" else 1.0

        def choose(place: int) -> Tensor:
            uniform = noise.uniform(depth * beams.model.tokens_per_step + place, beams=self.candidates)
            return draw(keep_top_k(drop_tail(beams.logits, tail_mass), top_k), uniform, temperature)

        beams.decode(field, choose, proposed=proposed, drawn=top_k != 1)


def _replace(lost: Tensor) -> Tensor:
    """(B, C) bool to (B, C) indices: the others stay, and take the places of the lost ones in turn.

    Where all are lost they all stay: the score tells which lost the least.
    """
    order = lost.to(torch.uint8).argsort(dim=1, stable=True)  # those that are not lost first
    alive = (~lost).sum(1, keepdim=True)
    turn = (lost.cumsum(1) - 1).clamp(min=0) % alive.clamp(min=1)
    here = torch.arange(lost.shape[1], device=lost.device).expand_as(lost)
    return torch.where(lost & (alive > 0), order.gather(1, turn), here)
