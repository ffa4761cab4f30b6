"""Recurrences against numbers computed one after another, in all that attention is done with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seqrl.attention import Attention, causal_mask
from seqrl.attention.cache import Cache
from seqrl.attention.full import FullAttention
from seqrl.attention.key_value_cache import KeyValueCache
from seqrl.attention.recurrence import scan, scan_in_order
from seqrl.attention.static_cache import StaticKeyValueCache
from seqrl.attention.tree import TreeAttention
from seqrl.errors import ConfigError

C = 3


def by_numpy(decay: Tensor, inputs: Tensor, writes: list[bool] | None = None, state: float = 0.0) -> np.ndarray:
    """(n, C) of one row, number by number."""
    h = np.full(inputs.shape[1:], state)
    found = []
    for token in range(len(inputs)):
        if writes is None or writes[token]:
            h = decay[token].numpy() * h + inputs[token].numpy()
        found.append(h)
    return np.stack(found)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 15, 16, 17, 100])
@pytest.mark.parametrize("scanning", [scan, scan_in_order])
def test_a_scan_is_the_recurrence(count: int, scanning: Callable[..., Tensor]) -> None:
    decay, inputs, state = random(2, count, C, 2).sigmoid(), random(2, count, C, 2, seed=1), torch.tensor(0.7).double()
    states = scanning(decay, inputs, state.expand(2, C, 2))
    for row in range(2):
        np.testing.assert_allclose(states[row], by_numpy(decay[row], inputs[row], state=float(state)), atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 7, 9])
def test_the_gradient_of_a_scan_is_that_of_its_definition(count: int) -> None:
    """By finite differences, and that of the gradient too."""
    decay, inputs, state = random(2, count, C).sigmoid(), random(2, count, C, seed=1), random(2, C, seed=2)
    arguments = tuple(tensor.requires_grad_() for tensor in (decay, inputs, state))
    assert torch.autograd.gradcheck(scan, arguments)
    assert torch.autograd.gradgradcheck(scan, arguments)


@pytest.mark.parametrize("factor", [0.0, 1e-30, 1.0, -1.0])
def test_a_scan_is_stable(factor: float) -> None:
    """Products that vanish in float32, decays of 0, sums without end; nothing becomes infinite on the way."""
    decay, inputs = torch.full((1, 1000, C), factor).requires_grad_(), random(1, 1000, C).float().requires_grad_()
    states = scan(decay, inputs, torch.zeros(1, C))
    exact = scan_in_order(decay.double(), inputs.double(), torch.zeros(1, C).double())
    torch.testing.assert_close(states.double(), exact, atol=1e-4, rtol=1e-5)
    states.sum().backward()
    for tensor in (decay, inputs):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(C,), (1, C), (1, 5, 1), (2, 5, 1), (2, 1, C)])
def test_a_decay_may_have_fewer_dimensions(shape: tuple[int, ...]) -> None:
    decay, inputs = random(*shape).sigmoid(), random(2, 5, C, seed=1)
    found = FullAttention().recur(0, decay, inputs)
    torch.testing.assert_close(found, FullAttention().recur(0, decay.expand(2, 5, C), inputs))


@pytest.mark.parametrize(
    ("decay", "inputs"), [((2, 5, 4), (2, 5, C)), ((2, 5, C, 1), (2, 5, C)), ((3,), (2,)), ((2, 0, 1), (2, 0, 1))]
)
def test_shapes_that_do_not_fit_are_refused(decay: tuple[int, ...], inputs: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="layer 7 of the backbone recurs"):
        FullAttention().recur(7, torch.zeros(decay), torch.zeros(inputs))


def test_half_precision_keeps_its_state_in_float32() -> None:
    """A thousand small steps that bfloat16 would round away."""
    cache = KeyValueCache(1, capacity=4, room=4)
    for _ in range(1000):
        cache.expect(stored=True)
        state = cache.recur(0, torch.ones(1, 1, 1), torch.full((1, 1, 1), 0.01, dtype=torch.bfloat16))
    assert state.dtype == torch.bfloat16
    assert float(state) == pytest.approx(10, rel=0.01)


def recurrence(attention: Attention, decay: Tensor, inputs: Tensor) -> Tensor:
    return attention.recur(0, decay, inputs)


def slowly(attention: Attention, decay: Tensor, inputs: Tensor) -> Tensor:
    """The same by the fallback: of both numbers side by side."""

    def cell(both: Tensor, state: Tensor) -> Tensor:
        return both[:, :C] * state + both[:, C:]

    return attention.recur_slowly(0, cell, torch.cat([decay, inputs], dim=-1), torch.zeros(C, dtype=torch.float64))


KINDS = [recurrence, slowly]


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_that_nothing_may_see_reads_and_does_not_write(kind: Callable[..., Tensor]) -> None:
    """Hidden by its column in the mask, the last one included, and said outright."""
    decay, inputs = random(2, 6, C).sigmoid(), random(2, 6, C, seed=1)
    writes = [True, False, True, True, False, False]
    mask = causal_mask(6, inputs.device) & torch.tensor(writes)
    for attention in (FullAttention(mask[None, None]), FullAttention(None, torch.tensor([writes]))):
        found = kind(attention, decay, inputs)
        for row in range(2):
            np.testing.assert_allclose(found[row], by_numpy(decay[row], inputs[row], writes), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_leaves_the_state_at_its_beginning(kind: Callable[..., Tensor]) -> None:
    """Also where a whole piece is padding, which sees itself."""
    decay, inputs = random(2, 6, C).sigmoid(), random(2, 6, C, seed=1)
    real = torch.tensor([[True] * 6, [False] * 4 + [True] * 2])
    mask = (causal_mask(6, inputs.device) & real[:, None] | torch.eye(6, dtype=torch.bool))[:, None]
    tree = TreeAttention()
    pieces = []
    for start, stop in ((0, 3), (3, 6)):
        parents = torch.arange(2) if start else None
        tree.grow(mask[:, :, start:stop, :stop], parents, real[:, start:stop])
        pieces.append(kind(tree, decay[:, start:stop], inputs[:, start:stop]))
    for found in (kind(FullAttention(mask), decay, inputs), torch.cat(pieces, dim=1)):
        np.testing.assert_allclose(found[1, 4:], by_numpy(decay[1, 4:], inputs[1, 4:]), atol=1e-12)
        np.testing.assert_allclose(found[0], by_numpy(decay[0], inputs[0]), atol=1e-12)
    np.testing.assert_allclose(tree.states[0][1], found[1, 5])


@pytest.mark.parametrize("kind", KINDS)
def test_branches_of_a_tree_continue_their_parents(kind: Callable[..., Tensor]) -> None:
    """What rows have in common is run once: the second pass begins with the state of the first."""
    decay, inputs = random(1, 4, C).sigmoid(), random(1, 4, C, seed=1)
    more_decay, more = random(3, 2, C, seed=2).sigmoid(), random(3, 2, C, seed=3)
    tree = TreeAttention()
    tree.grow(causal_mask(4, inputs.device)[None, None])
    kind(tree, decay, inputs)
    tree.grow(causal_mask(6, inputs.device)[None, None, 4:], torch.tensor([0, 0, 0]))
    found = kind(tree, more_decay, more)
    for row in range(3):
        whole = by_numpy(torch.cat([decay[0], more_decay[row]]), torch.cat([inputs[0], more[row]]))
        np.testing.assert_allclose(found[row], whole[4:], atol=1e-12)


def key_value_cache(rows: int) -> Cache:
    return KeyValueCache(rows, capacity=12, room=3)


def static_cache(rows: int) -> Cache:
    cache = StaticKeyValueCache(30)
    cache.clear(rows, like=[], states={0: torch.zeros(1, C, dtype=torch.float64)})
    return cache


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [key_value_cache, static_cache])
def test_a_cache_steps_every_row_from_its_own_past(make: Callable[[int], Cache], kind: Callable[..., Tensor]) -> None:
    """Loaded, stepped, hidden, repeated, reordered, and never forgotten when tokens are dropped."""
    cache = make(2)
    cache.load([], torch.tensor([0, 1]), torch.arange(5))
    start = random(2, C)
    cache.load_states({0: start})
    past = [start[row].numpy() for row in range(2)]
    script = {1: [0, 0, 0, 1], 3: [3, 1, 0], 4: [2, 2, 1, 0, 0, 1], 7: [5, 0]}
    for step in range(9):
        stored = step not in (2, 5)
        cache.expect(stored=stored)
        decay, inputs = random(cache.rows, 1, C, seed=step).sigmoid(), random(cache.rows, 1, C, seed=100 + step)
        found = kind(cache, decay, inputs)
        if stored:
            past = [decay[row, 0].numpy() * past[row] + inputs[row, 0].numpy() for row in range(cache.rows)]
        np.testing.assert_allclose(found[:, 0], np.stack(past), atol=1e-12)
        if step == 6:
            cache.drop(3)
        if step in script:
            cache.select(torch.tensor(script[step]))
            past = [past[row] for row in script[step]]


def test_a_static_cache_forgets_states_and_takes_back_steps_that_were_tried() -> None:
    cache = StaticKeyValueCache(30)
    cache.clear(2, like=[], states={0: torch.zeros(1, C)})
    cache.load_states({0: torch.ones(2, C)})
    before, buffer = cache.copy_states(), cache.states[0]
    for _ in range(3):
        cache.expect(stored=True)
        cache.recur(0, torch.tensor(0.5), torch.ones(2, 1, C))
    cache.restore(before)
    assert cache.states[0] is buffer
    assert bool((buffer == 1).all())
    cache.clear(1, like=[], states={0: torch.zeros(1, C)})
    assert cache.states[0] is buffer
    assert float(buffer[0].abs().sum()) == 0


def test_any_cell_of_torch_is_a_recurrence() -> None:
    """`nn.GRU` over the whole sequence, against the fallback with its cell in one pass and token by token."""
    torch.manual_seed(0)
    whole, cell = nn.GRU(C, 4, batch_first=True).double(), nn.GRUCell(C, 4).double()
    for name, weight in cell.named_parameters():
        weight.data = whole.get_parameter(f"{name}_l0").data
    x, initial = random(2, 7, C), torch.zeros(4, dtype=torch.float64)
    expected = whole(x)[0]
    torch.testing.assert_close(FullAttention().recur_slowly(0, cell, x, initial), expected)
    cache = key_value_cache(2)
    for token in range(7):
        cache.expect(stored=True)
        found = cache.recur_slowly(0, cell, x[:, token : token + 1], initial)
        torch.testing.assert_close(found, expected[:, token : token + 1])


def test_layers_may_have_any_numbers_where_some_attend_and_some_recur() -> None:
    """Two layers that attend, with others between and one that does both, in every kind of attention."""

    def run(attention: Attention, x: Tensor) -> Tensor:
        heads = x[:, :, None]
        for layer in (1, 4, 6):
            if layer != 4:
                x = x + attention.attend(layer, heads, heads * layer, heads)
            x = x + attention.recur(layer, x.sigmoid(), x)
        return x

    x = random(2, 6, C)
    whole = run(FullAttention(), x)
    tree = TreeAttention()
    tree.grow(causal_mask(4, x.device)[None, None])
    torch.testing.assert_close(run(tree, x[:, :4]), whole[:, :4])
    static = StaticKeyValueCache(30)
    static.clear(2, like=tree.layers, states=tree.states)
    for cache in (key_value_cache(2), static):
        cache.load(tree.layers, torch.arange(2), torch.arange(4))
        cache.load_states(tree.states, tree.order)
        for token in (4, 5):
            cache.expect(stored=True)
            torch.testing.assert_close(run(cache, x[:, token : token + 1]), whole[:, token : token + 1])
