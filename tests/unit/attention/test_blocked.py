"""Attention in blocks against torch's own, and its dropout against the definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from seqrl.attention import causal_mask
from seqrl.attention.blocked import BlockedAttention
from seqrl.attention.full import FullAttention


def inputs(length: int, heads: int = 4, kv_heads: int = 4, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(3, length, n, 8, dtype=dtype, requires_grad=True) for n in (heads, kv_heads, kv_heads)]


def with_gradients(attention: FullAttention, tensors: list[Tensor], dropout: float = 0.0) -> list[Tensor]:
    out = attention.attend(0, *tensors, dropout=dropout)
    torch.manual_seed(9)
    return [out, *torch.autograd.grad((out * torch.randn_like(out)).sum(), tensors)]


def hiding(length: int, period: int, prefix: int = 0) -> Tensor:
    """Causal, and every so many-th token is seen by nobody."""
    hidden = (torch.arange(length) - prefix) % period == period - 1
    return causal_mask(length, torch.device("cpu")) & ~(hidden & (torch.arange(length) >= prefix))


MASKS = {
    "causal": (100, None),
    "one block": (7, None),
    "a block and a token": (41, None),
    "hidden": (159, hiding(159, 16)),
    "hidden behind a goal": (90, hiding(90, 4, prefix=3)),
    "a strip": (85, hiding(85, 5) & ~causal_mask(85, torch.device("cpu")).roll(30, 0).tril(-30)),
    "everything": (64, torch.ones(64, 64, dtype=torch.bool)),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_it_is_attention(name: str, kv_heads: int) -> None:
    length, mask = MASKS[name]
    shaped = None if mask is None else mask[None, None]
    tensors = inputs(length, kv_heads=kv_heads)
    expected = with_gradients(FullAttention(shaped), tensors)
    for one, other in zip(with_gradients(BlockedAttention(shaped), tensors), expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "mask",
    [
        torch.stack([hiding(20, 4), hiding(20, 5), hiding(20, 20)])[:, None],  # of each row
        (hiding(20, 4) & (torch.arange(20) > 3))[None, None],  # the first ones see nothing
    ],
)
def test_other_masks_go_to_the_plain_attention(mask: Tensor) -> None:
    tensors = inputs(20)
    expected = FullAttention(mask).attend(0, *tensors)
    assert torch.equal(BlockedAttention(mask).attend(0, *tensors).nan_to_num(), expected.nan_to_num())


def test_half_precision_goes_to_the_plain_attention() -> None:
    tensors = inputs(50, dtype=torch.bfloat16)
    assert torch.equal(BlockedAttention().attend(0, *tensors), FullAttention().attend(0, *tensors))
    tensors = inputs(50, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(BlockedAttention().attend(0, *tensors), FullAttention().attend(0, *tensors))


@pytest.mark.parametrize("dropout", [0.1, 0.5])
@pytest.mark.parametrize(("length", "mask"), [(12, None), (45, hiding(45, 6)[None, None])])
def test_gradients_are_those_of_the_weights_that_were_kept(dropout: float, length: int, mask: Tensor | None) -> None:
    tensors = [each[:1, :, :1, :3].detach().requires_grad_() for each in inputs(length)]

    def attend(*given: Tensor) -> Tensor:
        torch.manual_seed(5)  # the same mask in every call
        return BlockedAttention(mask).attend(0, *given, dropout=dropout)

    assert torch.autograd.gradcheck(attend, tensors, fast_mode=True)


def test_dropout_drops_weights_independently_and_keeps_their_mean() -> None:
    """With equal scores and values that name their key, the output says which weights were kept."""
    rows, length, heads = 64, 60, 2
    query = torch.zeros(rows, length, heads, length)
    value = torch.eye(length)[None, :, None].expand(rows, -1, heads, -1)
    torch.manual_seed(2)
    out = BlockedAttention().attend(0, query, query, value, dropout=0.25)
    weights = out.view(rows, length, heads, length) * torch.arange(1, length + 1)[:, None, None]
    visible = causal_mask(length, torch.device("cpu"))[:, None].expand_as(weights)
    kept = weights[visible]
    assert weights[~visible].abs().max() == 0
    levels = kept.double().round(decimals=4).unique().tolist()
    assert levels == pytest.approx([0, 4 / 3], abs=1e-3)
    share = (kept > 0.5).double()
    assert share.mean().item() == pytest.approx(0.75, abs=5 * (0.25 * 0.75 / len(kept)) ** 0.5)
    by_row = (weights > 0.5).flatten(1).double()
    by_row = by_row[:, visible.reshape(rows, -1)[0]]
    correlation = ((by_row[1:] - 0.75) * (by_row[:-1] - 0.75)).mean().item() / (0.25 * 0.75)
    assert abs(correlation) < 5 / by_row[1:].numel() ** 0.5


def test_a_seed_repeats_it_whatever_was_computed_before() -> None:
    tensors = inputs(70, dtype=torch.float32)
    found = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        found.append(BlockedAttention().attend(0, *tensors, dropout=0.2))
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_torchs_own_dropout_and_this_have_the_same_mean_and_spread() -> None:
    query, key, value = (each[:1, :, :1].detach().expand(4000, -1, -1, -1) for each in inputs(9, dtype=torch.float32))
    torch.manual_seed(3)
    ours = BlockedAttention().attend(0, query, key, value, dropout=0.3)
    theirs = FullAttention().attend(0, query, key, value, dropout=0.3)
    exact = F.scaled_dot_product_attention(*(each.transpose(1, 2) for each in (query, key, value)), is_causal=True)
    error = 5 * theirs.std(0).max().item() / 4000**0.5
    torch.testing.assert_close(ours.mean(0), exact[0, 0], atol=error, rtol=0)
    torch.testing.assert_close(ours.std(0), theirs.std(0), atol=error, rtol=0)
