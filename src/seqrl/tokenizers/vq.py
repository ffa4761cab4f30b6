"""Codes for stretches of a trajectory, learnt by an autoencoder that knows the state they begin in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Interval, Lt
from torch import Tensor, nn
from torch.nn import functional as F

from seqrl.attention import causal_mask
from seqrl.attention.full import FullAttention
from seqrl.attention.tree import TreeAttention
from seqrl.backbones import Backbone
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.registry import BACKBONE, Slot, register_tokenizer
from seqrl.tokenizers import Imagination, TrajectoryAutoencoder
from seqrl.tokenizers._codebook import Codebook

_OBSERVED = ("observation", "action")  # fields that have no value past the end of an episode; all others are 0 there


Part = Literal[
    "padding",
    "positions",
    "encoder_norm",
    "decoder_dropout",
    "codebook_timing",
    "past_end",
    "hidden_step",
    "range",
    "state",
]
"""Parts of the autoencoder and of its prior that can be as published; see `VqTokenizer`."""


@register_tokenizer("vq")
class VqTokenizer(TrajectoryAutoencoder):
    """Vector-quantised autoencoder of trajectories: one code of V for every `steps_per_code` transitions.

    A causal network reads the transitions, each a vector of S normalised scalars and a mark of being past the end;
    the largest of the features of `steps_per_code` transitions, in each dimension, become one vector, which is
    replaced by the nearest of V. A second causal network turns codes and the state before the first of them into
    transitions. Code i thus depends on transitions before `steps_per_code * (i + 1)` alone, and a decoded transition
    on the codes up to its own.

    It has a training stage of its own (`tokenizer`); afterwards the sequence model is a prior over its codes.

    Args:
        size, layout, window, model_backbone: S, what a transition is made of, the transitions of a training window, and
            the config of the prior's backbone (known from the run). The layout's loss weights are those of the
            reconstruction.
        num_codes: V.
        steps_per_code: transitions that a code stands for.
        code_dim: C, of the codebook's vectors.
        decay: of the codebook's moving averages.
        commitment_weight: of the loss that keeps features near their codes.
        revive_after: training steps after which a code that nothing chose is placed anew; None for never.
        backbone: of encoder and decoder, a config as in the slot `backbone`; None for one like the prior's.
        published: which parts are as in the published code, where that does otherwise. `padding`: past the end, the
            encoder reads zeros of the data's units, and not their means. `positions`: encoder and decoder share a table
            of them (gpt). `encoder_norm`: none behind the last block (gpt). `decoder_dropout`: none of its inputs.
            `codebook_timing`: a step decodes the vectors of before the average moves them. `past_end`: reward and
            value are not learnt there, and ends also past the longest episode. `hidden_step`: nothing attends to
            every S-th step, a mask left over from another model. `range`: decoded values may leave the data's.
            `state`: the prior adds the state to every code, and not only before the first.

    Raises:
        ConfigError: an option outside its range, discrete fields, or a window that is no multiple of the steps.

    Reference: Jiang et al. 2022, "Efficient Planning in a Compact Latent Action Space", section 3.1, and their code.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    weights: Tensor
    ended: Tensor

    def __init__(
        self,
        size: int,
        layout: Layout,
        window: int,
        model_backbone: Mapping[str, Any] | None = None,
        *,
        num_codes: Annotated[int, Interval(ge=2, le=65_536)] = 512,
        steps_per_code: Annotated[int, Interval(ge=1, le=10_000)] = 3,
        code_dim: Annotated[int, Interval(ge=1, le=65_536)] = 512,
        decay: Annotated[float, Ge(0), Lt(1)] = 0.99,
        commitment_weight: Annotated[float, Ge(0)] = 1.0,
        revive_after: Annotated[int, Ge(1)] | None = 100,
        backbone: Annotated[Mapping[str, Any], Slot("backbone")] | None = None,
        published: tuple[Part, ...] | None = None,
    ) -> None:
        super().__init__()
        if layout.categories:
            raise ConfigError(f"tokenizer=vq is for continuous values; {', '.join(layout.categories)} is discrete here")
        if window % steps_per_code:
            raise ConfigError(
                f"window.length={window} is no multiple of tokenizer.steps_per_code={steps_per_code}; give one that is"
            )
        self.vocab_size = num_codes
        self.steps_per_code = steps_per_code
        self.commitment_weight = commitment_weight
        self.fields = {field.name: field.slice for field in layout.fields}
        self._published = frozenset(published or ())
        self.state_everywhere = "state" in self._published
        self._build_networks(backbone or model_backbone or {"name": "gpt"}, window)
        observation = layout.field("observation").size
        self.embed = nn.Linear(size + 1, self.encoder.dim)
        self.to_code = nn.Linear(self.encoder.dim, code_dim)
        late = "codebook_timing" in self._published
        self.codebook = Codebook(num_codes, code_dim, decay=decay, revive_after=revive_after, late=late)
        self.mix = nn.Linear(observation + code_dim, self.decoder.dim)
        self.head = nn.Linear(self.decoder.dim, size + 1)
        for linear in (self.embed, self.to_code, self.mix, self.head):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("low", torch.zeros(size))
        self.register_buffer("high", torch.zeros(size))
        self.register_buffer("weights", torch.tensor(layout.loss_weights), persistent=False)
        known = [field.name not in _OBSERVED for field in layout.fields for _ in range(field.size)]
        self.register_buffer("ended", torch.tensor(known), persistent=False)  # (S,) scalars that are 0 past the end

    def _build_networks(self, options: Mapping[str, Any], window: int) -> None:
        """Encoder and decoder, of one config but for what is as published."""
        encoder, decoder = dict(options), dict(options)
        if "encoder_norm" in self._published:
            encoder["norm"] = "no_output"
        if "decoder_dropout" in self._published:
            decoder["embedding_dropout"] = 0.0
        self.encoder: Backbone = BACKBONE.build(encoder, max_length=window)
        self.decoder: Backbone = BACKBONE.build(decoder, max_length=window)
        if "positions" in self._published:
            if not hasattr(self.encoder, "positions"):
                raise ConfigError("tokenizer.published=[positions] shares learned positions; use backbone=gpt")
            self.decoder.positions = self.encoder.positions

    def fit(self, values: Tensor) -> None:
        values = values.double()
        std = values.std(0, correction=0)
        self.mean.copy_(values.mean(0))
        self.std.copy_(torch.where(std > 0, std, 1.0))
        self.low.copy_(values.amin(0))
        self.high.copy_(values.amax(0))

    def normalise(self, values: Tensor) -> Tensor:
        normalised: Tensor = (values.to(self.mean) - self.mean) / self.std
        return normalised

    def denormalise(self, values: Tensor) -> Tensor:
        """(..., S) normalised to (..., S) in the data's units and within their range."""
        found: Tensor = values * self.std + self.mean
        return found if "range" in self._published else found.clamp(self.low, self.high)

    def action_range(self, layout: Layout) -> tuple[Tensor, Tensor]:
        action = self.fields["action"]
        return self.low[action], self.high[action]

    def state(self, observations: Tensor) -> Tensor:
        observed = self.fields["observation"]
        normalised: Tensor = (observations.to(self.mean) - self.mean[observed]) / self.std[observed]
        return normalised

    @torch.no_grad()
    def encode_windows(self, values: Tensor) -> Tensor:
        """(B, T, S) normalised windows, NaN past the end of the episode, to (B, T // steps_per_code) codes."""
        training = self.training
        self.eval()
        codes: Tensor = self.codebook.nearest(self._features(*self._split(values)))
        self.train(training)
        return codes

    def imagine(self, state: Tensor) -> Imagination:
        return _VqImagination(self, state)

    def loss(self, values: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Weighted squared errors, the cross-entropy of being past the end, the distance of features to their codes.

        Past the end of an episode everything but observation and action is 0, where the mask says that the end is to
        be learnt. In training mode the codebook follows the features.

        Returns:
            `loss` and its parts `reconstruction`, `termination` and `commitment`; for every field the mean squared
            error `<field>_error` in units of the data's variance; `perplexity` of the codes; and `used_codes`, the
            share of the codebook that was chosen lately.
        """
        inputs, over = self._split(values)
        quantised = self.codebook(self._features(inputs, over))
        state = inputs[:, 0, self.fields["observation"]]
        decoded, termination = self._transitions(quantised.vectors, state)
        mask = mask[:, : decoded.shape[1]]
        targets = torch.where(over[..., None] & self.ended, -self.mean / self.std, inputs)
        unlearnt = "past_end" in self._published
        learnt = mask[..., None] & (~over[..., None] | (self.ended & (not unlearnt)))  # (B, T, S)
        squares = (decoded - targets).square() * learnt
        # Means over everything, as published: each real step then weighs the same, whatever stands beside it.
        reconstruction = (squares * self.weights).mean()
        ends = F.binary_cross_entropy_with_logits(termination, over.to(termination), reduction="none")
        ends = ends.mean() if unlearnt else (ends * mask).mean()
        result = {
            "loss": reconstruction + ends + self.commitment_weight * quantised.commitment,
            "reconstruction": reconstruction,
            "termination": ends,
            "commitment": quantised.commitment,
            "perplexity": quantised.perplexity,
            "used_codes": self.codebook.used_share,
        }
        for name, place in self.fields.items():
            result[f"{name}_error"] = squares[..., place].sum() / learnt[..., place].sum().clamp(min=1)
        return result

    def _features(self, values: Tensor, over: Tensor) -> Tensor:
        """(B, T, S) windows and (B, T) marks of being past the end to (B, n, C)."""
        x = self.embed(torch.cat([values, over[..., None].to(values)], -1))
        positions = torch.arange(x.shape[1], device=x.device)[None]
        features = self.encoder(x, positions, FullAttention(self._visible(x.shape[1], x.device)))
        pooled: Tensor = self.to_code(features.unflatten(1, (-1, self.steps_per_code)).amax(2))
        return pooled

    def _inputs(self, vectors: Tensor, state: Tensor) -> Tensor:
        """(R, n, C) codes and (R, O) states to the decoder's (R, n * steps_per_code, D)."""
        mixed = self.mix(torch.cat([state[:, None].expand(-1, vectors.shape[1], -1), vectors], -1))
        return mixed.repeat_interleave(self.steps_per_code, 1)

    def _outputs(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(R, m, D) to (R, m, S) normalised transitions and (R, m) logits of being past the end."""
        out = self.head(features)
        values, termination = out[..., :-1], out[..., -1]
        offset = torch.zeros_like(values[:, :1])
        offset[..., self.fields["observation"]] = state[:, None]  # observations are told as differences from the first
        return values + offset, termination

    def _transitions(self, vectors: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x = self._inputs(vectors, state)
        positions = torch.arange(x.shape[1], device=x.device)[None]
        attention = FullAttention(self._visible(x.shape[1], x.device))
        return self._outputs(self.decoder(x, positions, attention), state)

    def _visible(self, length: int, device: torch.device) -> Tensor | None:
        """(1, 1, length, length) bool, who may see whom; None for everything that came before."""
        return self.visibility(length, device)[None, None] if "hidden_step" in self._published else None

    def visibility(self, length: int, device: torch.device) -> Tensor:
        """(length, length) bool, True where a step may see another."""
        mask = causal_mask(length, device)
        if "hidden_step" in self._published:
            size = len(self.mean)
            mask = mask & (torch.arange(length, device=device) % size != size - 1)
        return mask

    def _split(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, S) windows with something for NaN, and (B, T) bool, where they are past the end of the episode."""
        over = windows[..., 0].isnan()
        zeros = -self.mean / self.std if "padding" in self._published else torch.zeros_like(self.mean)
        return torch.where(over[..., None], zeros.to(windows), windows), over


class _VqImagination(Imagination):
    """The decoder, run on new codes alone: what it remembers of earlier ones is kept for those who continue them."""

    def __init__(self, tokenizer: VqTokenizer, state: Tensor) -> None:
        self._tokenizer = tokenizer
        self._state = state
        self._tree = TreeAttention()
        self._length = 0

    @torch.no_grad()
    def grow(self, codes: Tensor, parents: Tensor) -> tuple[Tensor, Tensor]:
        tokenizer = self._tokenizer
        assert not tokenizer.training, "dropout is random; call eval() before decoding"
        self._state = self._state[parents]
        vectors = tokenizer.codebook.vectors[codes]
        x = tokenizer._inputs(vectors, self._state)
        first, self._length = self._length, self._length + x.shape[1]
        mask = tokenizer.visibility(self._length, x.device)[first:]
        self._tree.grow(mask[None, None], parents if first else None)
        positions = torch.arange(first, self._length, device=x.device)[None]
        values, termination = tokenizer._outputs(tokenizer.decoder(x, positions, self._tree), self._state)
        return tokenizer.denormalise(values), termination > 0
