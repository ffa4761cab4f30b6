"""Beam search over codes that stand for several transitions each."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Interval, Lt
from torch import Tensor
from torch.nn import functional as F

from seqrl import decoding
from seqrl.decoding.noise import Noise, draw
from seqrl.decoding.session import CacheMode, check_session
from seqrl.models.code import CodeModel
from seqrl.planners import Planner
from seqrl.registry import register_planner
from seqrl.scores import Score, Trace
from seqrl.types import CodeHistory, Plan


@register_planner("latent_beam")
class LatentBeamPlanner(Planner):
    """Draw codes from the prior, decode what they stand for, keep the best partial plans; code by code.

    The first code is drawn `beam_width * n_expand` times, every later one `n_expand` times for each survivor. With M
    codes in a plan, a candidate with log-probability `l` is ranked by

        score + prob_weight * min(0, l - M log prob_threshold)

    at every depth, with the same M: plans less likely than `prob_threshold` to the power of M, which the decoder knows
    little about, lose their rank. Ties go to the lower index. Work grows with codes, not with dimensions: a code is one
    token whatever the size of observation and action.

    Args:
        beam_width: W, survivors of each code, 1 or more.
        n_expand: draws per survivor, 1 or more.
        horizon: H, transitions of a plan; a multiple of the tokenizer's `steps_per_code`, at most the trained window.
        temperature: divides the prior's logits, 0 or more; 0 takes the likeliest code.
        prob_threshold: per code, in [0, 1); 0 never penalises.
        prob_weight: score per nat under the threshold, 0 or more.
        cache: `none`, `exact` or `window` of the prior; see
            `seqrl.decoding.session.DecodingSession`. Plans are the same.

    Reference: Jiang et al. 2022, section 3.3; defaults and the constant M of their code.
    """

    serves = CodeModel
    shows = frozenset({"transitions", "extras"})

    def __init__(
        self,
        *,
        beam_width: Annotated[int, Interval(ge=1, le=1_000_000)] = 64,
        n_expand: Annotated[int, Interval(ge=1, le=10_000)] = 4,
        horizon: Annotated[int, Interval(ge=1, le=10_000)] = 15,
        temperature: Annotated[float, Ge(0)] = 1.0,
        prob_threshold: Annotated[float, Ge(0), Lt(1)] = 0.05,
        prob_weight: Annotated[float, Ge(0)] = 500.0,
        cache: CacheMode = "exact",
    ) -> None:
        self.beam_width = beam_width
        self.n_expand = n_expand
        self.horizon = horizon
        self.temperature = temperature
        self.prob_threshold = prob_threshold
        self.prob_weight = prob_weight
        self.cache = cache

    def check(self, model: CodeModel, score: Score) -> None:
        model.tokenizer.codes_of_plan(self.horizon, model.context)
        check_session(model, cache=self.cache)
        score.check(model.layout)

    def plan(self, model: CodeModel, history: CodeHistory, score: Score, noise: Noise) -> Plan:
        depths = model.tokenizer.codes_of_plan(self.horizon, model.context)  # M
        vocab = model.tokenizer.vocab_size
        session = decoding.start(model, history, cache=self.cache)
        imagination = model.tokenizer.imagine(history.state)
        batch, device = len(history.state), history.state.device
        environment = torch.arange(batch, device=device)[:, None]
        nodes = environment  # (B, W) which of the imagined sequences each beam is
        log_probs = session.logits.new_zeros(batch, 1, 0)
        transitions = history.state.new_zeros(batch, 1, 0, model.layout.size)
        over = torch.zeros(batch, 1, 0, dtype=torch.bool, device=device)
        for depth in range(depths):
            present = nodes.shape[1]
            copies = self.n_expand * (self.beam_width if depth == 0 else 1)
            parents = torch.arange(present, device=device).repeat_interleave(copies)  # (C,)
            logits = session.logits.view(batch, present, -1)[:, parents, :vocab]
            codes = draw(logits, noise.uniform(depth, beams=len(parents)), self.temperature)
            # Equal sequences are decoded once.
            distinct, inverse = torch.unique(nodes[:, parents] * vocab + codes, return_inverse=True)
            imagined, ended = imagination.grow((distinct % vocab)[:, None], distinct // vocab)
            nodes = inverse
            new = logits.log_softmax(-1).gather(-1, codes[..., None])
            log_probs = torch.cat([log_probs[:, parents], new], 2)
            transitions = torch.cat([transitions[:, parents], imagined[nodes]], 2)
            over = torch.cat([over[:, parents], ended[nodes]], 2)
            value = score(_trace(model, log_probs, transitions, over, score)) + self._penalty(log_probs, depths)
            best, order = value.sort(dim=1, descending=True, stable=True)
            kept = order[:, : 1 if depth + 1 == depths else self.beam_width]
            transitions, log_probs, over = (each[environment, kept] for each in (transitions, log_probs, over))
            if depth + 1 < depths:
                nodes = nodes[environment, kept]
                session.select((environment * present + parents[kept]).flatten())
                session.append(codes[environment, kept].flatten())
        winner = transitions[:, 0]
        return Plan(winner[..., model.layout.field("action").slice], best[:, 0], transitions=winner)

    def _penalty(self, log_probs: Tensor, depths: int) -> Tensor:
        """(B, C) what partial plans lose for being unlikely, 0 or less."""
        if not self.prob_threshold:
            return torch.zeros_like(log_probs[..., 0])
        return self.prob_weight * (log_probs.sum(-1) - depths * math.log(self.prob_threshold)).clamp(max=0.0)


def _trace(model: CodeModel, log_probs: Tensor, transitions: Tensor, over: Tensor, score: Score) -> Trace:
    """(B, C, n) log-likelihoods of codes, (B, C, h, S) transitions and (B, C, h) which are past an end, for scores.

    A code's likelihood is filed under its first transition: it is of no single token.
    """
    layout, steps = model.layout, model.tokenizer.steps_per_code
    spread = F.pad(log_probs[..., None], (0, steps - 1)).flatten(2)
    wanted = score.wants_transitions
    return Trace(
        spread,
        spread,
        transitions[..., layout.field("reward").start] if layout.has("reward") else None,
        transitions[..., layout.field("value").start] if layout.has("value") else None,
        observations=transitions[..., layout.field("observation").slice] if wanted else None,
        actions=transitions[..., layout.field("action").slice] if wanted else None,
        over=F.pad(over.cumsum(-1) > 0, (0, 1)) if wanted else None,
        extras={name: transitions[..., layout.field(name).slice] for name in score.wants_extras},
    )
