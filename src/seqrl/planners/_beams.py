"""Partial plans of a beam search over tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqrl.decoding.evidence import find_goal_evidence
from seqrl.decoding.session import Session
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.scores import Distribution, Score, Trace
from seqrl.types import Plan

SHOWN = frozenset(
    {"transitions", "next_observation", "goals", "distributions", "extras", "evidence"}
)  # in the traces of these searches
ESTIMATED = ("reward", "value")  # fields of which a search wants the expectation


class Beams:
    """B x C partial plans that share a decoding session, C candidates for each environment.

    Attributes:
        columns: (B, C, ...) tensors that grow along their last dimension and follow every selection: `tokens` and
            `log_probs` have one entry per token from the present observation on, fields with estimates one per
            transition, `extra <name>` one per scalar of it, and `<field>_probabilities` V + 1 per transition where
            distributions are kept.

    Args:
        session: at the first token after the present observation.
        observation: (B, O') tokens of the present observation.
        target: (B, G) goals in the data's units, for scores that want them.
        distributions: whether to keep what is believed of rewards and values beside the expectations.
    """

    def __init__(
        self, session: Session, observation: Tensor, target: Tensor | None = None, *, distributions: bool = False
    ) -> None:
        self.session = session
        self.target = target
        self.distributions = distributions
        start = observation[:, None]  # (B, 1, O)
        self.columns = {"tokens": start, "log_probs": start.new_zeros(start.shape, dtype=session.logits.dtype)}

    @property
    def logits(self) -> Tensor:
        """(B, C, V + 1) of the next token of every candidate."""
        return self.session.logits.view(*self.columns["tokens"].shape[:2], -1)

    def select(self, chosen: Tensor) -> None:
        """Keep or repeat candidates: (B, C') indices into the present ones of the same environment."""
        batch, present = self.columns["tokens"].shape[:2]
        offsets = torch.arange(batch, device=chosen.device)[:, None] * present
        self.session.select((offsets + chosen).flatten())
        for name, column in self.columns.items():
            self.columns[name] = column.gather(1, chosen[..., None].expand(-1, -1, column.shape[2]))

    def repeat(self, copies: int) -> None:
        """Put `copies` of every candidate in its place."""
        batch, present = self.columns["tokens"].shape[:2]
        chosen = torch.arange(present, device=self.columns["tokens"].device).repeat_interleave(copies)
        self.select(chosen.expand(batch, -1))

    def take(self, tokens: Tensor) -> None:
        """Choose (B, C) tokens; `advance` then moves the session on to the logits of the next ones."""
        self.record("log_probs", self.logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0])
        self.record("tokens", tokens)

    def advance(self) -> None:
        self.session.append(self.columns["tokens"][..., -1].flatten())

    def decode(
        self,
        model: TokenModel,
        field: str,
        choose: Callable[[int], Tensor],
        *,
        proposed: tuple[Tensor, Tensor] | None = None,
        percentile: float | None = None,
        as_published: bool = False,
    ) -> None:
        """Append one field of one transition to every candidate; where it was proposed, what was proposed.

        The last place of a transition waits for `advance`: only what goes on is worth the re-encoding that a cut of
        the context costs.

        Args:
            choose: a place to the (B, C) tokens there, from the present `logits`.
            proposed: (C,) which candidates take the (B, C, k) tokens beside it.
            percentile, as_published: see `estimate`.
        """
        places = model.places(field)
        for place in range(places.start, places.stop):
            tokens = choose(place)
            if proposed is not None:
                tokens = torch.where(proposed[0], proposed[1][..., place - places.start], tokens)
            if field in ESTIMATED:
                self.estimate(model, field, place, percentile, as_published=as_published)
            elif is_expected(model, field):
                self.expect(model, field, place)
            self.take(tokens)
            if place + 1 < model.tokens_per_step:
                self.advance()

    def record(self, name: str, entry: Tensor) -> None:
        """Append one (B, C) entry, or n of them as (B, C, n), to a column."""
        entry = entry[..., None] if entry.dim() == 2 else entry
        self.columns[name] = torch.cat([self.columns[name], entry], -1) if name in self.columns else entry

    def estimate(
        self, model: TokenModel, field: str, place: int, percentile: float | None = None, *, as_published: bool = False
    ) -> None:
        """Record the expectation, or a percentile, of the scalar whose token comes next."""
        centres = model.tokenizer.bin_centres(place).to(self.logits.dtype)
        beliefs = self.logits.softmax(-1)
        if self.distributions:
            self.record(f"{field}_probabilities", beliefs)
        probabilities = beliefs[..., :-1]
        if percentile is None:
            self.record(field, probabilities @ centres)
        elif as_published:
            low, high = model.tokenizer.outer_edges(place)
            self.record(field, _find_published_percentile(probabilities, centres, (low + high) / 2, percentile))
        else:
            self.record(field, _find_percentile(probabilities, centres, percentile))

    def expect(self, model: TokenModel, extra: str, place: int) -> None:
        """Record the expectation of the scalar of an extra whose token comes next."""
        centres = model.tokenizer.bin_centres(place).to(self.logits.dtype)
        self.record(f"extra {extra}", self.logits.softmax(-1)[..., :-1] @ centres)

    def plan_of(self, model: TokenModel, best: Tensor, value: Tensor, depth: int) -> Plan:
        """The plan whose first `depth` transitions are those of the (B,) best candidates, with their (B,) scores."""
        every, steps = torch.arange(len(best), device=best.device), model.tokens_per_step
        winner = {name: column[every, best] for name, column in self.columns.items()}  # (B, ...)
        tokens = winner["tokens"][:, : depth * steps].unflatten(-1, (depth, steps))
        transitions = model.tokenizer.decode(tokens)
        for name in ESTIMATED:
            if name in winner:
                transitions[..., model.layout.field(name).start] = winner[name].to(transitions)
        for field in model.layout.outcomes:
            if (name := f"extra {field.name}") in winner:
                transitions[..., field.slice] = winner[name].unflatten(-1, (depth, -1)).to(transitions)
        return Plan(transitions[..., model.layout.field("action").slice], value, tokens, transitions)

    def trace(self, model: TokenModel, score: Score, *, partial: bool = False) -> Trace:
        """The complete transitions, as scores see them, and what follows them where it was decoded.

        Args:
            partial: whether nothing is ranked by it yet, so that it holds no evidence.
        """
        steps, action = model.tokens_per_step, model.places("action")
        complete = self.columns["tokens"].shape[-1] // steps * steps
        per_step = self.columns["log_probs"][..., :complete].unflatten(-1, (-1, steps))
        trace = Trace(
            per_step[..., action].sum(-1), per_step.sum(-1), self.columns.get("reward"), self.columns.get("value")
        )
        if score.wants_distributions:
            trace = replace(
                trace,
                reward_distributions=self._find_distributions(model, "reward"),
                value_distributions=self._find_distributions(model, "value"),
            )
        if score.wants_goals:
            assert self.target is not None
            trace = replace(trace, target=self.target[:, None].expand(-1, per_step.shape[1], -1))
        if score.evidence_steps and not partial:
            trace = replace(trace, goal_evidence=self._find_evidence(model, complete, score.evidence_steps))
        if not (score.wants_transitions or score.wants_extras):
            return trace
        observation, action = (model.layout.field(name).slice for name in ("observation", "action"))
        tokens = self.columns["tokens"]
        # The present observation is real; where a later one holds termination tokens, the episode is over.
        seen = pad(tokens == model.termination_token, (0, -tokens.shape[-1] % steps))
        ends = seen.unflatten(-1, (-1, steps))[..., model.places("observation")].any(-1)
        ends = pad(ends, (0, complete // steps + 1 - ends.shape[-1]))
        over = ends.cumsum(-1) > 0
        values = model.tokenizer.decode(tokens[..., :complete].unflatten(-1, (-1, steps)))
        following = None
        if score.wants_next_observation:
            begun = tokens[..., complete:]
            following = model.tokenizer.decode(pad(begun, (0, steps - begun.shape[-1])))[..., observation]
        return replace(
            trace,
            observations=values[..., observation],
            actions=values[..., action],
            next_observation=following,
            over=over,
            extras={name: self._find_extra(model, name, values) for name in score.wants_extras},
        )

    def _find_extra(self, model: TokenModel, extra: str, values: Tensor) -> Tensor:
        """(B, C, h, n) of the complete transitions, whose tokens decode to (B, C, h, S) values."""
        field = model.layout.field(extra)
        column = self.columns.get(f"extra {extra}")
        return values[..., field.slice] if column is None else column.unflatten(-1, (-1, field.size))

    def _find_distributions(self, model: TokenModel, field: str) -> Distribution | None:
        """Of each transition's scalar; a termination token stands for 0, as it does in the expectation."""
        beliefs = self.columns.get(f"{field}_probabilities")
        if beliefs is None:
            return None
        values = pad(model.tokenizer.bin_centres(model.places(field).start).to(beliefs), (0, 1))
        return Distribution(beliefs.unflatten(-1, (-1, len(values))), values)

    def _find_evidence(self, model: TokenModel, complete: int, steps: int) -> Tensor:
        """(B, C, n) nats, see `Trace.goal_evidence`."""
        assert self.target is not None
        tokens = self.columns["tokens"][..., :complete]
        batch, candidates = tokens.shape[:2]
        goal = model.encode_goals(self.target, batch)
        assert goal is not None
        sequences = tokens.reshape(batch * candidates, -1, model.tokens_per_step)
        found = find_goal_evidence(model, sequences, goal.repeat_interleave(candidates, 0), steps=steps)
        return found.view(batch, candidates, -1)


def is_expected(model: TokenModel, field: str) -> bool:
    """Whether a search wants the expectation of a field: of outcomes that are amounts, a token for each number."""
    own = [outcome for outcome in model.layout.outcomes if outcome.name == field]
    if not own or field in model.layout.categories:
        return False
    ordered = model.ordered[model.places(field)]
    return len(ordered) == own[0].size and all(ordered)


def check_shown(score: Score, layout: Layout) -> None:
    """Refuse a score that asks a search over tokens for what this layout's model cannot tell.

    Raises:
        ConfigError: says what is missing and the override that adds it.
    """
    score.check(layout)
    for name in score.wants_extras:
        layout.field(name)
    if score.evidence_steps and (layout.goal is None or layout.goal.dropout == 0):
        raise ConfigError(
            "the score compares actions toward a goal with those toward none, and this checkpoint was not trained with "
            "both; train with layout=tt_goal layout.goal.dropout=0.5"
        )


def _find_percentile(probabilities: Tensor, centres: Tensor, percentile: float) -> Tensor:
    """(...,) percentile of (..., V) probabilities of bins, whose values are (V,)."""
    ordered, order = centres.sort()  # bins of a plugin need not rise
    cumulative = probabilities[..., order].cumsum(-1)
    passed = cumulative > percentile * cumulative[..., -1:]
    return ordered[passed.to(torch.uint8).argmax(-1)]


def _find_published_percentile(probabilities: Tensor, centres: Tensor, middle: Tensor, percentile: float) -> Tensor:
    """(...,) values of the bin below the one at which the probability is passed.

    Below the first bin, and where the probability is not reached, stands the () middle of the whole range: the
    published code takes the edges `inds - 1` and `inds` of bin `inds`, and counts from the end where that is -1.
    """
    ordered, order = centres.sort()
    passed = probabilities[..., order].cumsum(-1) > percentile
    below = torch.cat([middle.to(ordered)[None], ordered[:-1]])
    return below[passed.to(torch.uint8).argmax(-1)]
