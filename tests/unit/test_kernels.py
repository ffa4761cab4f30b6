"""Compiled pieces of decoding against formulas written out, and how they come to be."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from seqrl.backbones import causal_mask, kernels
from seqrl.backbones.attention import FullAttention
from seqrl.backbones.kernels import Stretch
from seqrl.backbones.llama import LlamaBackbone

TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}
DTYPES = list(TOLERANCE)

needs_compiler = pytest.mark.skipif(kernels._load()[0] is None, reason=kernels.status())


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """As in a new process of a user with an empty cache: the folder where the library will be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SEQRL_KERNELS", raising=False)
    kernels._load.cache_clear()
    yield tmp_path / "seqrl" / "kernels"
    kernels._load.cache_clear()


def close(found: Tensor, expected: Tensor) -> None:
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found.double(), expected, atol=TOLERANCE[found.dtype] * scale, rtol=0)


def attended(query: Tensor, stretches: list[Stretch]) -> Tensor:
    """(R, heads * head_dim) in float64, head by head and row by row."""
    rows, _, heads, dim = query.shape
    out = torch.zeros(rows, heads, dim, dtype=torch.float64)
    for row in range(rows):
        for head in range(heads):
            keys, values = [], []
            for stretch in stretches:
                kv_heads, of = stretch.keys.shape[0], row // (rows // stretch.keys.shape[1])
                for column in range(stretch.start, stretch.stop):
                    if stretch.visible is None or stretch.visible[of, column]:
                        keys.append(stretch.keys[head // (heads // kv_heads), of, column].double())
                        values.append(stretch.values[head // (heads // kv_heads), of, column].double())
            scores = torch.stack(keys) @ query[row, 0, head].double() / dim**0.5
            out[row, head] = scores.softmax(0) @ torch.stack(values)
    return out.view(rows, 1, -1)


def stretch(kv_heads: int, rows: int, columns: int, dim: int, start: int, stop: int, **options: Any) -> Stretch:
    """Random numbers in the columns in use, and what is no number beside them."""
    dtype = options["dtype"]
    keys, values = torch.full((2, kv_heads, rows, columns, dim), torch.nan, dtype=dtype)
    for tensor in (keys, values):
        tensor[:, :, start:stop] = torch.randn(kv_heads, rows, stop - start, dim).to(dtype)
    visible = None
    if options["hidden"]:
        visible = torch.rand(rows, stop) < 0.6
        visible[:, start] = True
    return Stretch(keys, values, visible, start, stop)


def written(stretch: Stretch, key: Tensor, value: Tensor) -> Stretch:
    """A copy with the (R, 1, kv_heads, head_dim) key and value of every row in its last column."""
    keys, values = stretch.keys.clone(), stretch.values.clone()
    keys[:, :, stretch.stop - 1], values[:, :, stretch.stop - 1] = (
        key[:, 0].transpose(0, 1),
        value[:, 0].transpose(0, 1),
    )
    return stretch._replace(keys=keys, values=values)


@needs_compiler
@given(
    dim=st.sampled_from([8, 16, 32, 64, 128]),
    dtype=st.sampled_from(DTYPES),
    heads=st.sampled_from([(1, 1), (2, 1), (3, 3), (4, 2), (12, 1)]),
    branching=st.lists(st.sampled_from([1, 2, 3, 4, 5]), min_size=1, max_size=4),
    widths=st.lists(st.sampled_from([1, 2, 7, 16, 33]), min_size=4, max_size=4),
    hidden=st.booleans(),
    stored=st.booleans(),
    threads=st.sampled_from([1, 3]),
)
@example(
    dim=8,
    dtype=torch.float64,
    heads=(1, 1),
    branching=[1, 5, 3],
    widths=[33, 1, 2, 1],
    hidden=False,
    stored=True,
    threads=1,
)
@example(
    dim=16,
    dtype=torch.float32,
    heads=(2, 2),
    branching=[2, 3, 2],
    widths=[16, 2, 7, 1],
    hidden=True,
    stored=False,
    threads=1,
)
def test_attention_is_what_the_formula_says(
    dim: int,
    dtype: torch.dtype,
    heads: tuple[int, int],
    branching: list[int],
    widths: list[int],
    hidden: bool,
    stored: bool,
    threads: int,
) -> None:
    """Over stretches that more and more rows have to themselves; a token may be stored first."""
    torch.manual_seed(0)
    query_heads, kv_heads = heads
    stretches, rows = [], 1
    for factor, width in zip(branching, widths, strict=False):
        rows *= factor
        stretches.append(stretch(kv_heads, rows, width + 5, dim, 2, width + 2, dtype=dtype, hidden=hidden))
    together = torch.randn(rows, 1, query_heads + 2 * kv_heads, dim).to(dtype)
    query, key, value = together.split((query_heads, kv_heads, kv_heads), dim=2)
    if not kernels.serve_attention(query):
        assert (dim, dtype) == (8, torch.float32)
        return
    wanted = [*stretches[:-1], written(stretches[-1], key, value)] if stored else stretches
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = kernels.attend(query, key, value, stretches, stored=stored)
    finally:
        torch.set_num_threads(before)
    close(found, attended(query, wanted))
    for ours, expected in zip(stretches, wanted, strict=True):
        torch.testing.assert_close(ours.keys, expected.keys, atol=0, rtol=0, equal_nan=True)
        torch.testing.assert_close(ours.values, expected.values, atol=0, rtol=0, equal_nan=True)


@needs_compiler
@pytest.mark.parametrize(
    "order", ["heads first", "three a head", "three a number", "one for all heads", "one for all rows"]
)
def test_queries_keys_and_values_may_lie_anyhow(order: str) -> None:
    """As backbones of plugins may hand them over."""
    torch.manual_seed(0)
    rows, heads, dim = 6, 4, 16
    x = torch.randn(rows, 1, heads * dim * 3)
    if order == "heads first":
        query, key, value = x.view(rows, heads, 1, 3 * dim).transpose(1, 2).chunk(3, dim=3)
    elif order == "three a head":
        query, key, value = x.view(rows, 1, heads, 3, dim).unbind(3)
    elif order == "three a number":
        query, key, value = x.view(rows, 1, heads, dim, 3).unbind(4)
    else:
        query = x[..., : heads * dim].view(rows, 1, heads, dim)
        shared = x[..., -2 * dim :].view(rows, 1, 2, dim)
        shared = shared if order == "one for all heads" else shared[:1].expand(rows, 1, 2, dim)
        key, value = (each.expand(rows, 1, heads, dim) for each in shared.split(1, dim=2))
    stretches = [stretch(heads, rows, 9, dim, 0, 5, dtype=x.dtype, hidden=False)]
    expected = attended(query, [written(stretches[0], key, value)])
    close(kernels.attend(query, key, value, stretches, stored=True), expected)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_may_be_far_apart(dtype: torch.dtype) -> None:
    """From equal to hundreds below the largest, where single precision has no exponential."""
    keys = torch.linspace(0, 1, 40, dtype=dtype)[:, None].expand(40, 16).contiguous().view(1, 1, 40, 16)
    values = torch.randn(1, 1, 40, 16, dtype=torch.float64).to(dtype)
    for size in (0.0, 0.3, 5.0, 80.0, 1e4):
        query = torch.full((1, 1, 1, 16), size, dtype=dtype)
        stretches = [Stretch(keys, values, None, 0, 40)]
        found = kernels.attend(query, query, query, stretches, stored=False)
        # Rounding of a score is multiplied by its size.
        expected = attended(query, stretches)
        assert float((found.double() - expected).abs().max()) < TOLERANCE[dtype] * (1 + size)


@needs_compiler
def test_what_is_no_number_stays_none() -> None:
    query = torch.full((2, 1, 1, 16), 1.0)
    query[1] = torch.nan
    keys = torch.randn(1, 1, 3, 16)
    found = kernels.attend(query, query, query, [Stretch(keys, keys, None, 0, 3)], stored=False)
    assert found[0].isfinite().all()
    assert found[1].isnan().all()
    for payload in (0, 1, 0x3FFFFF):
        bits = torch.full((2, 1, 1, 20), 0x7FC00000 + payload, dtype=torch.int32)
        assert kernels.gate(*bits.view(torch.float32)).isnan().all()
        odd = torch.full((1, 1, 1, 16), 1.0)
        values = bits[:1, :, :, :16].view(torch.float32)
        assert kernels.attend(values, odd, odd, [Stretch(keys, keys, None, 0, 3)], stored=False).isnan().all()


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 16), (300, 1, 128), (2, 75, 40), (3, 2, 5)])
def test_norms_and_gates(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Of any width, and of pieces of a larger tensor."""
    torch.manual_seed(0)
    x = (torch.randn(*shape[:-1], 2 * shape[-1], dtype=torch.float64) * 6).to(dtype)
    whole = x.double()
    part, gain = x[..., : shape[-1]], torch.randn(shape[-1], dtype=torch.float64).to(dtype)
    mean_square = whole[..., : shape[-1]].square().mean(-1, keepdim=True)
    close(kernels.rms_norm(part, gain, 1e-5), whole[..., : shape[-1]] / (mean_square + 1e-5).sqrt() * gain.double())
    gates, up = whole.chunk(2, dim=-1)
    expected = gates / (1 + (-gates).exp()) * up
    close(kernels.gate(*x.chunk(2, dim=-1)), expected)
    apart = [half.transpose(0, 2).contiguous().transpose(0, 2) for half in x.chunk(2, dim=-1)]
    close(kernels.gate(*apart), expected)
    far = torch.tensor([[[-1e3, -90.0, 90.0, 1e3] * 4]], dtype=dtype)
    close(kernels.gate(far, torch.ones_like(far))[0, 0, :4], torch.tensor([0.0, 0.0, 90.0, 1e3]).double())


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize(("rows", "count", "angles"), [(1, 9, 1), (5, 1, 1), (5, 1, 5), (3, 4, 1), (3, 4, 3)])
@pytest.mark.parametrize("dim", [2, 6, 32])
def test_rotations_are_products_of_complex_numbers(
    dim: int, rows: int, count: int, angles: int, normed: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    x = torch.randn(rows, count, 5, dim, dtype=torch.float64).to(dtype)
    angle = torch.rand(angles, count, 1, dim // 2, dtype=torch.float64) * 7
    gains = torch.randn(3, dim, dtype=torch.float64).to(dtype) if normed else None
    before, rest = x[:, :, :3].double(), x[:, :, 3:].clone()
    if gains is not None:
        before = before / (before.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gains.double()
    turned = torch.complex(*before.chunk(2, dim=-1)) * torch.polar(torch.ones_like(angle), angle)
    cos, sin = angle.cos().repeat(1, 1, 1, 2).to(dtype), torch.cat([-angle.sin(), angle.sin()], dim=-1).to(dtype)
    kernels.norm_and_rotate_(x[:, :, :3], gains, cos, sin, 1e-5)
    close(x[:, :, :3], torch.cat([turned.real, turned.imag], dim=-1))
    assert x[:, :, 3:].equal(rest)


@needs_compiler
@pytest.mark.parametrize("options", [{}, {"qk_norm": False, "num_kv_heads": 4}])
def test_a_backbone_computes_the_same_with_them(options: dict[str, Any]) -> None:
    """Its input stays as it was; in training mode there is dropout, with gradients or without."""
    torch.manual_seed(0)
    with torch.enable_grad():
        backbone = LlamaBackbone(12, num_layers=2, num_heads=4, dim=64, residual_dropout=0.5, **options).double()
    x, positions = torch.randn(3, 7, 64, dtype=torch.float64), torch.arange(7)[None]
    before, attention = x.clone(), FullAttention(causal_mask(7, x.device)[None, None])
    backbone.eval()
    found = backbone(x, positions, attention)
    assert x.equal(before)
    with torch.enable_grad():
        torch.testing.assert_close(found, backbone(x, positions, attention).detach(), atol=1e-12, rtol=0)
    backbone.train()
    assert not torch.allclose(backbone(x, positions, attention), backbone(x, positions, attention))


@needs_compiler
def test_modules_of_a_backbone_are_called() -> None:
    """So that hooks run, and a layer may be wrapped or replaced."""
    backbone = LlamaBackbone(12, num_layers=1, num_heads=2, dim=32).eval()
    x, attention = torch.randn(2, 3, 32), FullAttention(causal_mask(3, torch.device("cpu"))[None, None])
    calls: list[str] = []
    for name, module in backbone.named_modules():
        module.register_forward_hook(lambda module, given, out, name=name: calls.append(name))
    before = backbone(x, torch.arange(3)[None], attention)
    assert {name for name, module in backbone.named_modules() if not isinstance(module, nn.ModuleList)} == set(calls)
    block = backbone.blocks[0]
    assert isinstance(block, nn.Module)
    block.down = nn.Sequential(block.down, nn.Identity())
    torch.testing.assert_close(backbone(x, torch.arange(3)[None], attention), before)


@needs_compiler
def test_they_serve_what_they_can() -> None:
    x = torch.zeros(2, 1, 4, 16)
    assert kernels.serve(x)
    assert not kernels.serve(x.bfloat16())
    assert not kernels.serve(x.to("meta"))
    assert not kernels.serve(x, x.double())
    with FakeTensorMode() as mode:
        assert not kernels.serve(mode.from_tensor(x))
    with torch.autocast("cpu"):
        assert not kernels.serve(x)
    assert kernels.serve_attention(x)
    assert not kernels.serve_attention(x[..., :12])
    with torch.enable_grad():
        assert not kernels.serve(x)


@needs_compiler
def test_they_are_compiled_once(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And kept for this user alone."""
    assert kernels._load()[0] is not None
    (library,) = fresh.iterdir()
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    run = kernels._run
    commands: list[Sequence[str]] = []
    monkeypatch.setattr(kernels, "_run", lambda command: (commands.append(command), run(command))[1])
    kernels._load.cache_clear()
    assert kernels._load()[0] is not None
    assert [command[1:] for command in commands] == [["--version"]]
    # Another processor, and a library that a full disk left behind.
    monkeypatch.setattr(kernels, "_processor", lambda: "another one")
    other = kernels._target(commands[0][:-1], kernels.status())
    other.write_bytes(b"half of a library")
    kernels._load.cache_clear()
    assert kernels._load()[0] is not None
    assert set(fresh.iterdir()) == {library, other}
    assert other.stat().st_size > 1000


def test_without_them_there_is_a_reason(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def reason() -> str:
        kernels._load.cache_clear()
        assert not kernels.serve(torch.zeros(1))
        return kernels.status()

    for word in ("0", "off", "False"):
        with monkeypatch.context() as patch:
            patch.setenv("SEQRL_KERNELS", word)
            assert reason() == "switched off by SEQRL_KERNELS"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.setenv("CXX", "")
        assert reason().startswith("no C++ compiler; install g++")
        patch.setenv("CXX", "clang++-99 -O1")
        assert reason().startswith("CXX=clang++-99 -O1 is not there; install g++")
    compiler = tmp_path / "cxx"
    lines = [
        "#!/bin/sh",
        '[ "$2" = --version ] && printf "mine \\351\\n" && exit',
        'printf "no such \\351 flag\\n" >&2',
        "exit 1",
    ]
    compiler.write_text("\n".join(lines))
    compiler.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("CXX", f"{compiler} --mine")
        assert reason() == f"{compiler} could not compile them: no such \ufffd flag"
        assert not list(fresh.iterdir())
        fresh.chmod(0o777)
        assert reason().endswith("may be written by others; chmod it to 700")
    assert os.environ.get("SEQRL_KERNELS") is None
