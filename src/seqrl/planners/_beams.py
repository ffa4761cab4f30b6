"""Partial plans of a beam search over tokens."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqrl.decoding.session import Session
from seqrl.models.token import TokenModel
from seqrl.scores import Score, Trace


class Beams:
    """B x C partial plans that share a decoding session, C candidates for each environment.

    Attributes:
        columns: (B, C, ...) tensors that grow along their last dimension and follow every selection: `tokens` and
            `log_probs` have one entry per token from the present observation on, fields with estimates one per
            transition.
    """

    def __init__(self, session: Session, observation: Tensor) -> None:
        self.session = session
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

    def record(self, name: str, entry: Tensor) -> None:
        """Append one (B, C) entry to a column."""
        entry = entry[..., None]
        self.columns[name] = torch.cat([self.columns[name], entry], -1) if name in self.columns else entry

    def trace(self, model: TokenModel, score: Score) -> Trace:
        """The complete transitions, as scores see them, and what follows them where it was decoded."""
        steps, action = model.tokens_per_step, model.places("action")
        complete = self.columns["tokens"].shape[-1] // steps * steps
        per_step = self.columns["log_probs"][..., :complete].unflatten(-1, (-1, steps))
        trace = Trace(
            per_step[..., action].sum(-1), per_step.sum(-1), self.columns.get("reward"), self.columns.get("value")
        )
        if not score.wants_transitions:
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
        )
