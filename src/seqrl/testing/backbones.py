"""Contracts of the slot `backbone`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqrl.backbones import Backbone, KeyValueCache, causal_mask
from seqrl.testing import samples
from seqrl.testing.contract import Component, Contract, close, require, shape

LENGTH = 12  # tokens: all positions that the backbone was made for
_ROWS = 3
_TOLERANCE = 1e-8  # everything is computed in float64


def shapes(component: Component) -> None:
    """(R, n, D) embedded tokens become (R, n, D) features."""
    backbone, x = _backbone(component), _inputs(component)
    out = backbone(x, _positions())
    require(
        out.shape == x.shape and bool(out.isfinite().all()),
        f"(R, n, D) = {tuple(x.shape)} becomes {shape(out)}, or numbers that are not finite; "
        "features have the shape of the embedded tokens",
    )


def causality(component: Component) -> None:
    """No token's features depend on a later token, and they do depend on the token itself."""
    backbone, x = _backbone(component), _inputs(component)
    for mask in (None, causal_mask(LENGTH, x.device)[None, None]):
        before = backbone(x, _positions(), mask)
        for changed in (1, LENGTH // 2, LENGTH - 1):
            after = backbone(_altered(x, changed), _positions(), mask)
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
    before = backbone(x, _positions(), mask[None, None])
    after = backbone(_altered(x, hidden), _positions(), mask[None, None])
    require(
        close(after[:, others], before[:, others], _TOLERANCE),
        "a token that the mask hides as a key still changes the features of other tokens; pass the mask to attention",
    )


def cache_token_by_token(component: Component) -> None:
    """One token at a time against the cache gives what the whole sequence gives."""
    backbone, x = _backbone(component), _inputs(component)
    whole = backbone(x, _positions())
    parts = _in_chunks(backbone, x, _positions(), causal_mask(LENGTH, x.device)[None, None], [1] * LENGTH)
    require(
        close(parts, whole, _TOLERANCE),
        "features computed one token at a time with a cache differ from those of the whole sequence",
    )


def cache_in_chunks_with_padding(component: Component) -> None:
    """Rows with padding on their left, in chunks against the cache, give what each row gives by itself."""
    backbone, x = _backbone(component), _inputs(component)
    padding = torch.tensor([0, 2, 5])
    columns = torch.arange(LENGTH)
    real = columns >= padding[:, None]  # (R, n)
    positions = (columns - padding[:, None]).clamp(min=0)
    mask = causal_mask(LENGTH, x.device) & real[:, None]
    mask = (mask | (torch.eye(LENGTH, dtype=torch.bool) & ~real[:, None]))[:, None]
    for sizes, word in (([LENGTH], "without a cache"), ([5, 4, 1, 1, 1], "in chunks with a cache")):
        out = backbone(x, positions, mask) if len(sizes) == 1 else _in_chunks(backbone, x, positions, mask, sizes)
        for row, pad in enumerate(padding.tolist()):
            alone = backbone(x[row : row + 1, pad:], _positions()[:, : LENGTH - pad])
            require(
                close(out[row : row + 1, pad:], alone, _TOLERANCE),
                f"{word}, a row with {pad} tokens of padding on its left differs from the same row without padding",
            )


def cache_rows_can_be_selected(component: Component) -> None:
    """Repeating and reordering the rows of the cache is repeating and reordering sequences."""
    backbone, x = _backbone(component), _inputs(component)
    rows = torch.tensor([2, 0, 0, 1])
    mask = causal_mask(LENGTH, x.device)[None, None]
    half = LENGTH // 2
    cache = KeyValueCache(LENGTH)
    backbone(x[:, :half], _positions()[:, :half], mask[..., :half, :half], cache)
    cache.select(rows)
    out = backbone(x[rows, half:], _positions()[:, half:], mask[..., half:, :], cache)
    require(
        close(out, backbone(x, _positions())[rows, half:], _TOLERANCE),
        "after rows of the cache were repeated and reordered, features differ; keep all state in the cache",
    )


def batch_invariance(component: Component) -> None:
    """A row's features do not depend on the rows beside it."""
    backbone, x = _backbone(component), _inputs(component)
    together = backbone(x, _positions())
    for row in range(_ROWS):
        require(
            close(backbone(x[row : row + 1], _positions()), together[row : row + 1], _TOLERANCE),
            f"row {row} has other features alone than in a batch; rows must not see each other",
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
        features = backbone(embedding(tokens[:, :-1]), _positions())
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


CONTRACTS: tuple[Contract, ...] = (
    shapes,
    causality,
    mask_is_obeyed,
    cache_token_by_token,
    cache_in_chunks_with_padding,
    cache_rows_can_be_selected,
    batch_invariance,
    overfits_one_batch,
)


def _backbone(component: Component) -> Backbone:
    """In float64 and eval mode, with weights large enough that every part of it matters."""
    backbone: Backbone = component.build(max_length=LENGTH)
    backbone = backbone.double().eval().requires_grad_(False)
    samples.scramble(backbone)
    return backbone


def _inputs(component: Component) -> Tensor:
    dim = component.build(max_length=LENGTH).dim
    return torch.randn(_ROWS, LENGTH, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def _positions() -> Tensor:
    return torch.arange(LENGTH)[None]


def _altered(x: Tensor, place: int) -> Tensor:
    """The tokens with another one at a place; not merely shifted, which a norm would undo."""
    other = x.clone()
    other[:, place] = x[:, place].roll(1, dims=-1)
    return other


def _in_chunks(backbone: Backbone, x: Tensor, positions: Tensor, mask: Tensor, sizes: list[int]) -> Tensor:
    """The features of (R, n, D) tokens that come in pieces, each run against the cache of those before."""
    cache, start, parts = KeyValueCache(LENGTH), 0, []
    for size in sizes:
        stop = start + size
        parts.append(backbone(x[:, start:stop], positions[:, start:stop], mask[..., start:stop, :stop], cache))
        start = stop
    return torch.cat(parts, dim=1)
