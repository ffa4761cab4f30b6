"""Partial plans of a search over tokens, which every such search keeps in the same way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqrl.decoding.evidence import find_goal_evidence
from seqrl.decoding.session import Session
from seqrl.models.token import TokenModel
from seqrl.planners._outside import distance_outside, has_token_each
from seqrl.planners._percentiles import find_percentile, find_published_percentile
from seqrl.scores import Distribution, Score, Trace
from seqrl.types import Plan, TokenHistory

ESTIMATED = ("reward", "value")  # fields of which a search wants the expectation


class Beams:
    """B x C partial plans that share a decoding session, C candidates for each environment.

    Where the layout has differences the observations of a plan are computed from them, and never chosen: each is the
    one before it plus the difference, in the data's units, however coarse the bins of observations are.

    Attributes:
        columns: (B, C, ...) tensors that grow along their last dimension and follow every selection: `tokens` and
            `log_probs` have one entry per token from the present observation on, fields with estimates one per
            transition, `expected <field>` one per scalar of it, `<field>_probabilities` V + 1 per transition where
            distributions are kept, and `observations` one per dimension of each where they are computed.

    Args:
        session: at the first token after the present observation.
        model: whose plans they are.
        history: what it knows; its targets are for scores that want them.
        distributions: whether to keep what is believed of rewards and values beside the expectations.
    """

    def __init__(
        self, session: Session, model: TokenModel, history: TokenHistory, *, distributions: bool = False
    ) -> None:
        self.session, self.model = session, model
        self.target, self.observation = history.target, history.observation
        self.distributions = distributions
        start = history.tokens[:, None, -model.places("action").start :]  # (B, 1, O')
        self.columns = {"tokens": start, "log_probs": start.new_zeros(start.shape, dtype=session.logits.dtype)}
        if model.layout.has("difference"):
            self.columns["observations"] = self.find_observations()

    @property
    def logits(self) -> Tensor:
        """(B, C, V + 1) of the next token of every candidate."""
        return self.session.logits.view(*self.columns["tokens"].shape[:2], -1)

    def find_observations(self) -> Tensor:
        """(B, C, O) the newest observation of every plan, in the data's units."""
        model, observation = self.model, self.model.layout.field("observation")
        if "observations" in self.columns:
            return self.columns["observations"][..., -observation.size :]
        tokens, steps = self.columns["tokens"], model.tokens_per_step
        whole = tokens.shape[-1] // steps * steps
        if whole == 0 and self.observation is not None:
            return self.observation[:, None].expand(-1, tokens.shape[1], -1)
        begun = tokens[..., whole:]
        return model.tokenizer.decode(pad(begun, (0, steps - begun.shape[-1])))[..., observation.slice]

    def find_outside(self) -> Tensor:
        """(B, C) `distance_outside` of the observation that the last whole transition of every plan leads to; 0 where a
        difference of the plan said that the episode is over."""
        model, tokens, steps = self.model, self.columns["tokens"], self.model.tokens_per_step
        transitions = tokens[..., : tokens.shape[-1] // steps * steps].unflatten(-1, (-1, steps))
        over = (transitions[..., model.places("difference")] == model.termination_token).flatten(-2).any(-1)
        return distance_outside(model, self.find_observations()).masked_fill(over, 0.0)

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
        field: str,
        choose: Callable[[int], Tensor],
        *,
        proposed: tuple[Tensor, Tensor] | None = None,
        percentile: float | None = None,
        as_published: bool = False,
        drawn: bool = False,
    ) -> None:
        """Append one field of one transition to every candidate; where it was proposed, what was proposed.

        The last place of a transition waits for `advance`: only what goes on is worth the re-encoding that a cut of
        the context costs.

        Args:
            choose: a place to the (B, C) tokens there, from the present `logits`.
            proposed: (C,) which candidates take the (B, C, k) tokens beside it.
            percentile, as_published: see `estimate`.
            drawn: whether the tokens of a difference were drawn and stand for what they decode to; else it is the
                expectation, where each of its numbers has a token.
        """
        model, places = self.model, self.model.places(field)
        if field == "observation" and "observations" in self.columns:
            self._compute_observation(places)
            return
        for place in range(places.start, places.stop):
            tokens = choose(place)
            if proposed is not None:
                tokens = torch.where(proposed[0], proposed[1][..., place - places.start], tokens)
            if field in ESTIMATED:
                self.estimate(field, place, percentile, as_published=as_published)
            elif _is_expected(model, field):
                self.expect(field, place)
            self.take(tokens)
            if place + 1 < model.tokens_per_step:
                self.advance()
        if field == "difference":
            self._change_observation(places, drawn=drawn)

    def _change_observation(self, places: slice, *, drawn: bool) -> None:
        """Add the difference that was just decoded to the newest observation."""
        model, before = self.model, self.find_observations()
        expected = self.columns.get("expected difference")
        if expected is None or drawn:
            chosen = self.columns["tokens"][..., places.start - places.stop :]
            tokens = chosen.new_zeros(*before.shape[:2], model.tokens_per_step)
            tokens[..., places] = chosen
            change = model.tokenizer.decode(tokens)[..., model.layout.field("difference").slice]
            ended = (chosen == model.termination_token).any(-1, keepdim=True)
            change = change.masked_fill(ended, 0.0)  # there is no next observation: the last one stays
        else:
            change = expected[..., -before.shape[-1] :]
        self.record("observations", before + change.to(before))

    def _compute_observation(self, places: slice) -> None:
        """Append the tokens of the newest observation, or termination tokens where the difference said that it is
        over."""
        model = self.model
        observation, steps = self.find_observations(), model.tokens_per_step
        scalars = observation.new_zeros(*observation.shape[:2], model.layout.size)
        scalars[..., model.layout.field("observation").slice] = observation
        computed = model.tokenizer.encode(scalars)[..., places]
        tokens = self.columns["tokens"]
        last = tokens[..., tokens.shape[-1] // steps * steps - steps :][..., model.places("difference")]
        over = (last == model.termination_token).any(-1, keepdim=True)
        computed = computed.masked_fill(over, model.termination_token)
        for number, place in enumerate(range(places.start, places.stop)):
            self.record("tokens", computed[..., number])
            self.record("log_probs", torch.zeros_like(self.columns["log_probs"][..., 0]))
            if place + 1 < steps:
                self.advance()

    def record(self, name: str, entry: Tensor) -> None:
        """Append one (B, C) entry, or n of them as (B, C, n), to a column."""
        entry = entry[..., None] if entry.dim() == 2 else entry
        self.columns[name] = torch.cat([self.columns[name], entry], -1) if name in self.columns else entry

    def estimate(self, field: str, place: int, percentile: float | None = None, *, as_published: bool = False) -> None:
        """Record the expectation, or a percentile, of the scalar whose token comes next."""
        model = self.model
        centres = model.tokenizer.bin_centres(place).to(self.logits.dtype)
        beliefs = self.logits.softmax(-1)
        if self.distributions:
            self.record(f"{field}_probabilities", beliefs)
        probabilities = beliefs[..., :-1]
        if percentile is None:
            self.record(field, probabilities @ centres)
        elif as_published:
            low, high = model.tokenizer.outer_edges(place)
            self.record(field, find_published_percentile(probabilities, centres, (low + high) / 2, percentile))
        else:
            self.record(field, find_percentile(probabilities, centres, percentile))

    def expect(self, field: str, place: int) -> None:
        """Record the expectation of the scalar whose token comes next; of a difference, if the episode goes on."""
        centres = self.model.tokenizer.bin_centres(place).to(self.logits.dtype)
        logits = self.logits
        beliefs = logits[..., :-1].softmax(-1) if field == "difference" else logits.softmax(-1)[..., :-1]
        self.record(f"expected {field}", beliefs @ centres)

    def plan_of(self, best: Tensor, value: Tensor, depth: int) -> Plan:
        """The plan whose first `depth` transitions are those of the (B,) best candidates, with their (B,) scores."""
        model = self.model
        every, steps = torch.arange(len(best), device=best.device), model.tokens_per_step
        winner = {name: column[every, best] for name, column in self.columns.items()}  # (B, ...)
        tokens = winner["tokens"][:, : depth * steps].unflatten(-1, (depth, steps))
        transitions = model.tokenizer.decode(tokens)
        for name in ESTIMATED:
            if name in winner:
                transitions[..., model.layout.field(name).start] = winner[name].to(transitions)
        for field in model.layout.outcomes:
            if (name := f"expected {field.name}") in winner:
                transitions[..., field.slice] = winner[name].unflatten(-1, (depth, -1)).to(transitions)
        if "observations" in winner:
            observation, difference = (model.layout.field(name) for name in ("observation", "difference"))
            seen = winner["observations"].unflatten(-1, (-1, observation.size))[:, : depth + 1].to(transitions)
            transitions[..., observation.slice] = seen[:, :depth]
            transitions[..., difference.slice] = seen.diff(dim=1)
        return Plan(transitions[..., model.layout.field("action").slice], value, tokens, transitions)

    def trace(self, score: Score, *, partial: bool = False) -> Trace:
        """The complete transitions, as scores see them, and what follows them where it was decoded.

        Args:
            partial: whether nothing is ranked by it yet, so that it holds no evidence.
        """
        model = self.model
        steps, action = model.tokens_per_step, model.places("action")
        complete = self.columns["tokens"].shape[-1] // steps * steps
        per_step = self.columns["log_probs"][..., :complete].unflatten(-1, (-1, steps))
        trace = Trace(
            per_step[..., action].sum(-1), per_step.sum(-1), self.columns.get("reward"), self.columns.get("value")
        )
        if score.wants_distributions:
            trace = replace(
                trace,
                reward_distributions=self._find_distributions("reward"),
                value_distributions=self._find_distributions("value"),
            )
        if score.wants_goals:
            assert self.target is not None
            trace = replace(trace, target=self.target[:, None].expand(-1, per_step.shape[1], -1))
        if score.evidence_steps and not partial:
            trace = replace(trace, goal_evidence=self._find_evidence(complete, score.evidence_steps))
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
        observations = values[..., observation]
        if "observations" in self.columns:
            every = self.columns["observations"].unflatten(-1, (-1, observations.shape[-1]))
            observations = every[..., : observations.shape[-2], :]
        return replace(
            trace,
            observations=observations,
            actions=values[..., action],
            next_observation=self.find_observations() if score.wants_next_observation else None,
            over=over,
            extras={name: self._find_extra(name, values) for name in score.wants_extras},
        )

    def _find_extra(self, extra: str, values: Tensor) -> Tensor:
        """(B, C, h, n) of the complete transitions, whose tokens decode to (B, C, h, S) values."""
        field = self.model.layout.field(extra)
        column = self.columns.get(f"expected {extra}")
        return values[..., field.slice] if column is None else column.unflatten(-1, (-1, field.size))

    def _find_distributions(self, field: str) -> Distribution | None:
        """Of each transition's scalar; a termination token stands for 0, as it does in the expectation."""
        beliefs = self.columns.get(f"{field}_probabilities")
        if beliefs is None:
            return None
        values = pad(self.model.tokenizer.bin_centres(self.model.places(field).start).to(beliefs), (0, 1))
        return Distribution(beliefs.unflatten(-1, (-1, len(values))), values)

    def _find_evidence(self, complete: int, steps: int) -> Tensor:
        """(B, C, n) nats, see `Trace.goal_evidence`."""
        assert self.target is not None
        model, tokens = self.model, self.columns["tokens"][..., :complete]
        batch, candidates = tokens.shape[:2]
        goal = model.encode_goals(self.target, batch)
        assert goal is not None
        sequences = tokens.reshape(batch * candidates, -1, model.tokens_per_step)
        found = find_goal_evidence(model, sequences, goal.repeat_interleave(candidates, 0), steps=steps)
        return found.view(batch, candidates, -1)


def _is_expected(model: TokenModel, field: str) -> bool:
    """Whether a search wants the expectation of a field: of differences, and of outcomes that are amounts, where each
    number has a token."""
    own = [each for each in model.layout.fields if each.name == field]
    if field != "difference" and not set(own) & set(model.layout.outcomes):
        return False
    return bool(own) and has_token_each(model, field)
