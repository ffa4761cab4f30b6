"""Contracts of the slot `backbone`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqrl.attention import causal_mask
from seqrl.attention.full import FullAttention
from seqrl.attention.key_value_cache import KeyValueCache
from seqrl.attention.recurrence import Run
from seqrl.attention.tree import TreeAttention
from seqrl.backbones import Backbone
from seqrl.compiled.step import CompiledStep, find_obstacle
from seqrl.testing import samples
from seqrl.testing.contract import Component, Contract, close, require, shape
from seqrl.testing.sessions import cache_modes_agree

LENGTH = 12  # tokens: all positions that the backbone was made for
_ROWS = 3
_TOLERANCE = 1e-8  # everything is computed in float64


def shapes(component: Component) -> None:
    """(R, n, D) embedded tokens become (R, n, D) features."""
    backbone, x = _backbone(component), _inputs(component)
    out = backbone(x, _positions(), FullAttention())
    require(
        out.shape == x.shape and bool(out.isfinite().all()),
        f"(R, n, D) = {tuple(x.shape)} becomes {shape(out)}, or numbers that are not finite; "
        "features have the shape of the embedded tokens",
    )


def causality(component: Component) -> None:
    """No token's features depend on a later token, and they do depend on the token itself."""
    backbone, x = _backbone(component), _inputs(component)
    for mask in (None, causal_mask(LENGTH, x.device)[None, None]):
        before = backbone(x, _positions(), FullAttention(mask))
        for changed in (1, LENGTH // 2, LENGTH - 1):
            after = backbone(_altered(x, changed), _positions(), FullAttention(mask))
            word = "without a mask" if mask is None else "with a causal mask"
            require(
                close(after[:, :changed], before[:, :changed], _TOLERANCE),
                f"{word}, a change of token {changed} changes features of tokens before it; attention must be causal",
            )
            require(
                not close(after[:, changed], before[:, changed], _TOLERANCE),
                f"{word}, a change of token {changed} does not change its own features",
            )


def mask_is_obeyed(component: Component) -> None:
    """A key that the mask hides from all queries has no influence but on its own position."""
    backbone, x = _backbone(component), _inputs(component)
    hidden = LENGTH // 2
    mask = causal_mask(LENGTH, x.device)
    mask[:, hidden] = False
    others = torch.arange(LENGTH) != hidden
    before = backbone(x, _positions(), FullAttention(mask[None, None]))
    after = backbone(_altered(x, hidden), _positions(), FullAttention(mask[None, None]))
    require(
        close(after[:, others], before[:, others], _TOLERANCE),
        "a token that the mask hides as a key still changes the features of other tokens; let tokens meet nowhere but "
        "in attention.attend and attention.recur",
    )


class _Watched(FullAttention):
    """Notes whether a backbone recurs."""

    recurs = False

    def advance(self, layer: int, run: Run) -> Tensor:
        self.recurs = True
        return super().advance(layer, run)


def positions_matter(component: Component) -> None:
    """The order of the past matters; with `relative`, where it stands as a whole does not."""
    backbone, x = _backbone(component), _inputs(component)
    order, watched = [1, 0, *range(2, LENGTH)], _Watched()
    before = backbone(x, _positions(), watched)
    swapped = backbone(x, _positions()[:, order], FullAttention())
    if watched.recurs and close(swapped, before, _TOLERANCE):  # a recurrence knows the order without positions
        swapped = backbone(x[:, order], _positions(), FullAttention())
    require(
        not close(swapped[:, -1], before[:, -1], _TOLERANCE),
        "the first two tokens may change places without a trace in the last one's features; use the positions",
    )
    if backbone.relative:
        moved = backbone(x, _positions() + 1000, FullAttention())
        require(
            close(moved, before, _TOLERANCE),
            "the backbone calls itself relative, and features change when all positions move by 1000; "
            "use differences of positions alone, or set relative = False",
        )


def cache_token_by_token(component: Component) -> None:
    """One token at a time against the cache gives what the whole sequence gives."""
    backbone, x = _backbone(component), _inputs(component)
    whole = backbone(x, _positions(), FullAttention())
    cache = KeyValueCache(_ROWS, capacity=LENGTH, room=LENGTH)
    parts = torch.cat([_step(backbone, x, cache, token) for token in range(LENGTH)], dim=1)
    require(
        close(parts, whole, _TOLERANCE),
        "features computed one token at a time with a cache differ from those of the whole sequence; let tokens meet "
        "nowhere but in attention.attend and attention.recur",
    )


def cache_without_a_hidden_token(component: Component) -> None:
    """A token that nothing may see gets its features and leaves nothing in the cache."""
    backbone, x = _backbone(component), _inputs(component)
    hidden = LENGTH // 2
    mask = causal_mask(LENGTH, x.device)
    mask[:, hidden] = False
    whole = backbone(x, _positions(), FullAttention(mask[None, None]))
    cache = KeyValueCache(_ROWS, capacity=LENGTH, room=LENGTH)
    parts = [_step(backbone, x, cache, token, stored=token != hidden) for token in range(LENGTH)]
    require(
        close(torch.cat(parts, dim=1), whole, _TOLERANCE),
        "with a token hidden as a key, features computed against a cache differ from those of the whole sequence",
    )


def pieces_with_padding(component: Component) -> None:
    """Rows with padding on their left, whole or in pieces, give what each row gives by itself."""
    backbone, x = _backbone(component), _inputs(component)
    padding = torch.tensor([0, 2, 5])
    columns = torch.arange(LENGTH)
    real = columns >= padding[:, None]  # (R, n)
    positions = (columns - padding[:, None]).clamp(min=0)
    mask = causal_mask(LENGTH, x.device) & real[:, None]
    mask = (mask | (torch.eye(LENGTH, dtype=torch.bool) & ~real[:, None]))[:, None]
    whole = backbone(x, positions, FullAttention(mask, real))
    tree = TreeAttention()
    pieces = []
    for start, stop in ((0, 5), (5, 9), (9, LENGTH)):
        tree.grow(mask[:, :, start:stop, :stop], torch.arange(_ROWS) if start else None, real[:, start:stop])
        pieces.append(backbone(x[:, start:stop], positions[:, start:stop], tree))
    for out, word in ((whole, "in one piece"), (torch.cat(pieces, dim=1), "in three pieces")):
        for row, pad in enumerate(padding.tolist()):
            alone = backbone(x[row : row + 1, pad:], _positions()[:, : LENGTH - pad], FullAttention())
            require(
                close(out[row : row + 1, pad:], alone, _TOLERANCE),
                f"{word}, a row with {pad} tokens of padding on its left differs from the same row without padding",
            )


def rows_that_branch(component: Component) -> None:
    """Repeated, dropped and reordered rows give what each one's own sequence gives."""
    backbone, x = _backbone(component), _inputs(component)
    cache = KeyValueCache(_ROWS, capacity=LENGTH, room=3)
    history = x
    selections = {4: [0, 0, 1, 1, 2, 2], 6: [5, 0, 2, 2], 9: [3, 1, 0, 0, 2, 2, 2, 1]}
    for token in range(LENGTH):
        if token in selections:
            rows = torch.tensor(selections[token])
            cache.select(rows)
            history = history[rows]
            history[:, token:] = _inputs(component, rows=len(rows), seed=token)[:, token:]
        out = _step(backbone, history, cache, token)
        expected = backbone(history[:, : token + 1], _positions()[:, : token + 1], FullAttention())[:, -1:]
        require(
            close(out, expected, _TOLERANCE),
            "after rows of the cache were repeated, dropped and reordered, features differ; keep nothing of a "
            "sequence outside attention.attend and attention.recur",
        )


@torch.no_grad()
def program_is_forward(component: Component) -> None:
    """What a backbone declares for compiled steps does to a token what `forward` does; asks for a C++ compiler."""
    backbone, x = _backbone(component), _inputs(component)
    program, identity = backbone.declare_program(), torch.eye(backbone.dim, dtype=torch.float64)
    if program is None or find_obstacle(backbone, program, identity) is not None:
        return
    step = CompiledStep(program, identity[None])
    plain, compiled = (KeyValueCache(_ROWS, capacity=LENGTH, room=3) for _ in range(2))
    for token in range(LENGTH):
        if token == LENGTH // 2:
            x = x[rows := torch.tensor([0, 0, 1, 2, 2])]
            plain.select(rows)
            compiled.select(rows)
        stored = token != LENGTH // 3
        expected = _step(backbone, x, plain, token, stored=stored)
        compiled.expect(stored=stored)
        found = step.run(x[:, token : token + 1], _positions()[:, token : token + 1], compiled, 0, stored=stored)
        require(
            close(found, expected[:, 0], _TOLERANCE),
            "the declared program gives other features than forward; declare what that does in evaluation, or None",
        )


def batch_invariance(component: Component) -> None:
    """A row's features do not depend on the rows beside it."""
    backbone, x = _backbone(component), _inputs(component)
    together = backbone(x, _positions(), FullAttention())
    for row in range(_ROWS):
        require(
            close(backbone(x[row : row + 1], _positions(), FullAttention()), together[row : row + 1], _TOLERANCE),
            f"row {row} has other features alone than in a batch; rows must not see each other",
        )


def gradients_arrive(component: Component) -> None:
    """The features carry gradients to the embedded tokens of the past, and to weights."""
    backbone, x = _backbone(component).requires_grad_(True), _inputs(component).requires_grad_()
    features = backbone(x, _positions(), FullAttention())
    moved = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    gradients: tuple[Tensor | None, ...] = ()
    if features.requires_grad:
        loss = (features[:, -1] * torch.arange(1.0, 1 + backbone.dim, dtype=features.dtype)).sum()
        gradients = torch.autograd.grad(loss, [x, *moved], allow_unused=True)
    arrived = [gradient is not None and bool(gradient.any()) for gradient in gradients]
    first = gradients[0] if gradients else None
    past = first is not None and bool(first[:, : LENGTH - 1].any())
    require(
        any(arrived[1:]) and past,
        "the features of the last token carry no gradient to the tokens before it and to the weights, so that nothing "
        "would be learnt of the past; let nothing be detached",
    )


def overfits_one_batch(component: Component) -> None:
    """A few steps of training learn four short sequences by heart."""
    torch.manual_seed(0)
    backbone: Backbone = component.build(max_length=LENGTH)
    vocab, steps = 6, 150
    tokens = torch.randint(vocab, (4, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = torch.arange(4)  # so that everything after the first token can be known
    embedding, head = nn.Embedding(vocab, backbone.dim), nn.Linear(backbone.dim, vocab)
    network = nn.ModuleList([embedding, backbone, head]).eval()  # without dropout
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(steps):
        features = backbone(embedding(tokens[:, :-1]), _positions(), FullAttention())
        loss = nn.functional.cross_entropy(head(features).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    require(
        losses[-1] < 0.2 * losses[0],
        f"{steps} steps on one batch bring the loss from {losses[0]:.2f} to {losses[-1]:.2f} nats; "
        "it must fall under a fifth",
    )


_ALWAYS: tuple[Contract, ...] = (shapes, causality, mask_is_obeyed, batch_invariance)
_OF_SEQUENCES: tuple[Contract, ...] = (
    positions_matter,
    cache_token_by_token,
    cache_without_a_hidden_token,
    pieces_with_padding,
    rows_that_branch,
    program_is_forward,
    cache_modes_agree,
    gradients_arrive,
    overfits_one_batch,
)


def contracts_of(cls: type[Backbone]) -> tuple[Contract, ...]:
    """What a backbone promises; one that sees no other position makes fewer promises."""
    return _ALWAYS + (_OF_SEQUENCES if cls.sees_context else ())


def _backbone(component: Component) -> Backbone:
    """In float64 and eval mode, with weights large enough that every part of it matters."""
    backbone: Backbone = component.build(max_length=LENGTH)
    backbone = backbone.double().eval().requires_grad_(False)
    samples.scramble(backbone)
    return backbone


def _inputs(component: Component, rows: int = _ROWS, seed: int = 4) -> Tensor:
    dim = component.build(max_length=LENGTH).dim
    return torch.randn(rows, LENGTH, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _positions() -> Tensor:
    return torch.arange(LENGTH)[None]


def _altered(x: Tensor, place: int) -> Tensor:
    """The tokens with another one at a place; not merely shifted, which a norm would undo."""
    other = x.clone()
    other[:, place] = x[:, place].roll(1, dims=-1)
    return other


@torch.no_grad()
def _step(backbone: Backbone, x: Tensor, cache: KeyValueCache, token: int, *, stored: bool = True) -> Tensor:
    """(R, 1, D) features of one token of (R, n, D), those before it having been run against the cache."""
    cache.expect(stored=stored)
    out: Tensor = backbone(x[:, token : token + 1], _positions()[:, token : token + 1], cache)
    return out
