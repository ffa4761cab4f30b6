"""The compiled token step against the backbones' own `forward`, and whom it leaves to tensor operations."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqrl import decoding
from seqrl.attention import Layers
from seqrl.attention.key_value_cache import KeyValueCache
from seqrl.attention.tree import TreeAttention
from seqrl.backbones import Backbone
from seqrl.backbones.gpt import GptBackbone
from seqrl.backbones.llama import LlamaBackbone
from seqrl.compiled.library import load_library
from seqrl.compiled.step import CompiledStep, find_obstacle, pack
from seqrl.decoding.cached import ExactCaching, WindowCaching
from seqrl.decoding.compiling import describe_path, find_step
from seqrl.decoding.noise import Noise
from seqrl.decoding.session import DecodingSession
from seqrl.models.token import TokenModel
from seqrl.registry import PLANNER, SCORE
from seqrl.testing.samples import layout, scramble
from seqrl.types import TokenHistory

pytestmark = pytest.mark.skipif(load_library()[0] is None, reason=load_library()[1])

LENGTH, CLASSES = 11, 7
SIZES: dict[str, dict[str, Any]] = {
    "gpt": {"name": "gpt", "num_heads": 2, "dim": 32},
    "gpt, heads of 5": {"name": "gpt", "num_heads": 3, "dim": 15},
    "gpt, relu, norm of the input": {"name": "gpt", "num_heads": 2, "dim": 8, "activation": "relu", "norm": "input"},
    "gpt, tanh, no norm": {"name": "gpt", "num_heads": 1, "dim": 64, "activation": "gelu_tanh", "norm": "no_output"},
    "llama": {"name": "llama", "num_heads": 4, "dim": 64},
    "llama, one key head": {"name": "llama", "num_heads": 4, "num_kv_heads": 1, "dim": 128},
    "llama, heads of 6": {"name": "llama", "num_heads": 3, "num_kv_heads": 3, "dim": 18, "qk_norm": False},
    "llama, heads of 128": {"name": "llama", "num_heads": 2, "num_kv_heads": 2, "dim": 256},
}  # fmt: skip
KINDS = {"gpt": GptBackbone, "llama": LlamaBackbone}


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def make(size: str, dtype: torch.dtype = torch.float64) -> Backbone:
    options = dict(SIZES[size])
    backbone = KINDS[options.pop("name")](LENGTH, num_layers=2, **options).eval().requires_grad_(False)
    scramble(backbone)
    return backbone.to(dtype)


def make_heads(dim: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(3, CLASSES, dim, generator=torch.Generator().manual_seed(1)).to(dtype)


def make_step(backbone: Backbone) -> tuple[CompiledStep, Tensor]:
    heads = make_heads(backbone.dim, next(backbone.parameters()).dtype)
    program = backbone.declare_program()
    assert program is not None
    assert find_obstacle(backbone, program, heads) is None
    return CompiledStep(program, heads), heads


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
@pytest.mark.parametrize("size", SIZES)
def test_a_step_is_what_forward_does(size: str, dtype: torch.dtype, tolerance: float, threads: int) -> None:
    """Over a history that rows share, survivors and copies; with padding, hidden tokens and dropped ones."""
    backbone = make(size, dtype)
    step, heads = make_step(backbone)
    generator = torch.Generator().manual_seed(2)
    caches = [KeyValueCache(2, capacity=9, room=2) for _ in range(2)]
    selections = {2: [0, 0, 0, 0, 0, 1, 1, 1, 1, 1], 5: [3, 1, 1, 0, 6, 8, 9, 9], 6: [r // 3 for r in range(24)]}
    positions = torch.tensor([[0], [0]])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for token in range(9):
            if token in selections:
                rows = torch.tensor(selections[token])
                positions = positions[rows]
                for cache in caches:
                    cache.select(rows)
            x = torch.randn(len(positions), 1, backbone.dim, generator=generator, dtype=torch.float64).to(dtype)
            stored = token not in (3, 7)
            for cache in caches:
                cache.expect(stored=stored)
            expected = backbone(x, positions, caches[0])[:, 0] @ heads[token % 3].T
            found = step.run(x, positions, caches[1], token % 3, stored=stored)
            torch.testing.assert_close(found, expected, atol=tolerance * float(expected.abs().max()), rtol=0)
            positions = positions + torch.tensor([[1]]) if token else torch.tensor([[1], [0]])
            if token == 7:
                for cache in caches:
                    cache.drop(3)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
@pytest.mark.parametrize("size", SIZES)
def test_a_stretch_is_what_forward_does(size: str, dtype: torch.dtype, tolerance: float, threads: int) -> None:
    """Beginnings that rows share, with padding and a hidden token; logits after the last stretch alone."""
    backbone = make(size, dtype)
    step, heads = make_step(backbone)
    generator = torch.Generator().manual_seed(6)
    columns, padding = torch.arange(9), torch.tensor([0, 2])
    real = columns >= padding[:, None]
    seen = torch.ones(9, 9, dtype=torch.bool).tril() & real[:, None] & (columns != 5)
    mask = (seen | (torch.eye(9, dtype=torch.bool) & ~real[:, None]))[:, None]
    positions = (columns - padding[:, None]).clamp(min=0)
    rows, tree, parents = torch.arange(2), TreeAttention(), None
    layers: Layers = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for start, stop, chosen in ((0, 4, [0, 1]), (4, 5, [0, 0, 1]), (5, 9, [2, 0, 0, 1, 1, 2, 2])):
            if start:
                parents = torch.tensor(chosen)
                rows = rows[parents]
            x = torch.randn(len(rows), stop - start, backbone.dim, generator=generator, dtype=torch.float64).to(dtype)
            of_rows = mask[rows, :, start:stop, :stop]
            tree.grow(of_rows, parents)
            expected = backbone(x, positions[rows, start:stop], tree)[:, -1] @ heads[1].T
            place = 1 if stop == 9 else None
            layers, logits = step.encode(x, positions[rows, start:stop], of_rows, layers, parents, place)
            for found, wanted in zip(layers, tree.layers, strict=True):
                scale = max(float(wanted[0].abs().max()), float(wanted[1].abs().max()))
                torch.testing.assert_close(found, wanted, atol=tolerance * scale, rtol=0)
        assert logits is not None
        torch.testing.assert_close(logits, expected, atol=tolerance * float(expected.abs().max()), rtol=0)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", ["gpt", "llama", "gpt, heads of 5"])
def test_padding_is_not_seen(size: str, dtype: torch.dtype) -> None:
    """Columns that a loaded block hides have no influence, whatever they hold."""
    backbone = make(size, dtype)
    step, _ = make_step(backbone)
    program = backbone.declare_program()
    assert program is not None
    shape = (2, program.kv_heads, 5, program.head_dim)
    generator = torch.Generator().manual_seed(3)
    layers = [(torch.randn(shape, generator=generator).to(dtype), torch.randn(shape).to(dtype)) for _ in range(2)]
    visible = torch.tensor([[True] * 5, [False, False, True, True, True]])
    x = torch.randn(4, 1, backbone.dim, generator=generator).to(dtype)
    outs = []
    for padding in (0.0, 1e3):
        for keys, values in layers:
            keys[1, :, :2] = values[1, :, :2] = padding
        cache = KeyValueCache(4, capacity=9, room=2)
        cache.load(layers, torch.arange(2), torch.arange(5), visible=visible)
        cache.expect(stored=True)
        outs.append(step.run(x, torch.tensor([[5], [5], [3], [3]]), cache, 0, stored=True))
    assert torch.equal(*outs)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("size", ["gpt", "llama", "llama, heads of 6"])
def test_a_row_has_the_same_bits_in_every_batch(size: str, threads: int) -> None:
    backbone = make(size, torch.float32)
    step, _ = make_step(backbone)
    x = torch.randn(5, 23, 1, backbone.dim, generator=torch.Generator().manual_seed(4))

    def follow(chosen: Tensor) -> Tensor:
        cache = KeyValueCache(len(chosen), capacity=9, room=9)
        for token in range(5):
            cache.expect(stored=True)
            out = step.run(x[token][chosen], torch.tensor([[token]]), cache, 0, stored=True)
        return out

    before = torch.get_num_threads()
    alone = torch.cat([follow(torch.tensor([row])) for row in range(23)])
    torch.set_num_threads(threads)
    try:
        assert torch.equal(follow(torch.arange(23)), alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("outputs", "inputs", "panel"), [(7, 3, 4), (8, 5, 4), (1, 1, 16)])
def test_packed_weights_are_panels(outputs: int, inputs: int, panel: int) -> None:
    weight = torch.arange(1.0, 1 + outputs * inputs).view(outputs, inputs)
    packed = pack(weight, panel)
    whole = packed.transpose(1, 2).reshape(-1, inputs)
    assert torch.equal(whole[:outputs], weight)
    assert not whole[outputs:].any()


def make_model(size: str, **options: Any) -> TokenModel:
    torch.manual_seed(0)
    backbone = {**SIZES[size], "num_layers": 2, **options}
    model = TokenModel(layout(), {"name": "uniform", "num_bins": 8}, backbone, context=4)
    scramble(model)
    model.tokenizer.fit(torch.tensor([[-1.0] * layout().size, [1.0] * layout().size]))
    return model.double().eval().requires_grad_(False)


def plan(model: TokenModel, cache: str) -> Tensor:
    steps = model.tokens_per_step
    known = model.places("action").start
    tokens = torch.randint(8, (3, 3 * steps + known), generator=torch.Generator().manual_seed(5))
    history = TokenHistory(tokens, torch.tensor([3, 0, 2]))
    planner = PLANNER.build(
        {"name": "beam", "cache": cache, "beam_width": 5, "n_expand": 3, "horizon": 4, "context": 3}
    )
    found = planner.plan(model, history, SCORE.build({"name": "reward"}, discount=0.9), Noise.of(0, torch.arange(3), 0))
    return found.tokens


@pytest.mark.parametrize(
    ("size", "cache"), [("gpt", "exact"), ("llama", "exact"), ("llama", "window"), ("gpt, heads of 5", "exact")]
)
def test_plans_have_the_same_tokens_on_both_paths(size: str, cache: str) -> None:
    model = make_model(size)
    assert isinstance(find_step(model), CompiledStep)
    compiled = plan(model, cache)
    model.backbone.register_forward_hook(lambda *_: None)
    assert describe_path(model) == "tensor operations (the backbone has hooks)"
    assert torch.equal(plan(model, cache), compiled)


def next_logits(model: TokenModel) -> Tensor:
    tokens = torch.zeros(1, model.places("action").start, dtype=torch.int64)
    session = decoding.start(model, TokenHistory(tokens, torch.zeros(1, dtype=torch.int64)))
    session.append(torch.ones(1, dtype=torch.int64))
    return session.logits


@pytest.mark.parametrize("part", ["backbone", "head"])
def test_changed_weights_are_packed_again(part: str) -> None:
    model = make_model("llama")
    first, step = next_logits(model), find_step(model)
    assert find_step(model) is step
    for parameter in getattr(model, part).parameters():
        parameter.mul_(1.5)
    changed = next_logits(model)
    assert find_step(model) is not step
    assert not torch.equal(changed, first)
    model.backbone.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(changed, next_logits(model), atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(torch.optim.AdamW, {"fused": True}), (torch.optim.SGD, {"fused": True}), (torch.optim.AdamW, {"foreach": True})],
)
def test_weights_that_an_optimizer_moved_are_packed_again(kind: Any, options: dict[str, Any]) -> None:
    """Fused optimizers leave the versions of what they write to as they were."""
    model = make_model("llama")
    first = next_logits(model)
    for parameter in model.requires_grad_(True).parameters():
        parameter.grad = torch.ones_like(parameter)
    kind(model.parameters(), lr=0.1, **options).step()
    changed = next_logits(model)
    assert not torch.equal(changed, first)
    model.backbone.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(changed, next_logits(model), atol=1e-10, rtol=0)


def test_weights_made_in_inference_mode_are_left_to_tensor_operations() -> None:
    """Such tensors have no versions that tell of changes."""
    with torch.inference_mode():
        model = make_model("llama")
        assert find_step(model) == "weights were made in inference mode"
        next_logits(model)


@pytest.mark.parametrize("size", ["gpt", "llama"])
def test_no_rows_give_no_logits(size: str) -> None:
    backbone = make(size)
    step, heads = make_step(backbone)
    x, mask = heads.new_zeros(0, 3, backbone.dim), torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    layers, logits = step.encode(x, torch.arange(3)[None], mask, [], None, 0)
    assert logits is not None
    assert logits.shape == (0, CLASSES)
    cache = KeyValueCache(2, capacity=9, room=2)
    cache.expect(stored=True)
    step.run(heads.new_zeros(2, 1, backbone.dim), torch.zeros(1, 1, dtype=torch.int64), cache, 0, stored=True)
    assert len(layers) == 2


def test_a_copy_of_a_model_has_steps_of_its_own() -> None:
    model = make_model("gpt")
    find_step(model)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.mul_(1.5)
    assert find_step(other) is not find_step(model)
    assert not torch.equal(next_logits(other), next_logits(model))


class _Adapted(nn.Linear):
    """A layer in the place of another, with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class _OtherForward(LlamaBackbone):
    def forward(self, *arguments: Any) -> Tensor:
        return super().forward(*arguments) + 1


def _replace_layer(model: TokenModel) -> None:
    model.backbone.blocks[0].down = _Adapted(model.backbone.blocks[0].down.in_features, model.backbone.dim, bias=False)  # type: ignore[index, union-attr, operator]
    model.double()


def _replace_forward(model: TokenModel) -> None:
    model.backbone.forward = lambda *arguments: arguments[0]  # type: ignore[method-assign]


def _replace_logits(model: TokenModel) -> None:
    model.next_logits = lambda features, place: features[:, :9]  # type: ignore[method-assign]


def _replace_class(model: TokenModel) -> None:
    model.backbone.__class__ = _OtherForward


def _parametrize(model: TokenModel) -> None:
    nn.utils.parametrizations.weight_norm(model.backbone.blocks[1].attention_out)  # type: ignore[index, union-attr, arg-type]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda model: model.backbone.blocks[1].register_forward_pre_hook(lambda *_: None), "hooks"),
        (_replace_forward, "hooks"),
        (_replace_logits, "its own way to logits"),
        (_replace_layer, "_Adapted stands in place of a layer"),
        (_replace_class, "declares no program"),
        (_parametrize, "weights that its program does not read"),
        (lambda model: model.backbone.register_parameter("more", nn.Parameter(torch.ones(1).double())), "not read"),
        (lambda model: model.cast(torch.bfloat16), "bfloat16"),
    ],
)  # fmt: skip
def test_what_is_not_seen_is_left_to_tensor_operations(change: Any, why: str) -> None:
    model = make_model("llama")
    assert isinstance(find_step(model), CompiledStep)
    change(model)
    assert why in str(find_step(model))
    next_logits(model)


@pytest.mark.parametrize("backbone", [{"name": "mingru", "dim": 8}, {"name": "s6", "dim": 8}])
def test_other_backbones_say_why(backbone: dict[str, Any]) -> None:
    model = TokenModel(layout(), {"name": "uniform", "num_bins": 8}, backbone, context=4).eval()
    assert describe_path(model) == "tensor operations (the backbone declares no program)"


@pytest.mark.parametrize(("size", "cache"), [("gpt", "exact"), ("llama", "exact"), ("llama", "window")])
def test_sessions_run_it(size: str, cache: Any) -> None:
    model = make_model(size)
    tokens = torch.zeros(1, model.places("action").start, dtype=torch.int64)
    session = DecodingSession(model, TokenHistory(tokens, torch.zeros(1, dtype=torch.int64)), cache=cache)
    assert isinstance(session.caching, ExactCaching | WindowCaching)
    assert session.caching.steps.compiled is find_step(model)
    assert "one compiled call" in describe_path(model)
