"""What only a GPU can show: steps captured as CUDA graphs, and ranks that do not wait for their device.

Run `pytest tests/unit/test_cuda.py` on a machine with one. All but the capture itself is tested without one, in
`test_static_cache.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed import HashStore  # type: ignore[attr-defined]

from seqrl import decoding
from seqrl.attention import Attention, engine
from seqrl.backbones.gpt import GptBackbone
from seqrl.decoding.noise import Noise
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.registry import PLANNER, SCORE
from seqrl.types import Plan, TokenHistory

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

OBS, ACT, V, CONTEXT = 3, 2, 7, 4
K = OBS + ACT + 2
BACKBONES = {
    "gpt": {"name": "gpt", "num_heads": 2, "dim": 32, "num_layers": 2},
    "llama": {"name": "llama", "num_heads": 4, "num_kv_heads": 2, "dim": 64, "num_layers": 2},
}


def make(backbone: str = "llama", *, goal: bool = False) -> TokenModel:
    """A tiny float64 model on the CPU with large random weights, so that every token matters."""
    torch.manual_seed(0)
    fields = {"observation": {}, "action": {}, "reward": {}, "value": {"hidden": True}}
    layout = Layout.from_config({"fields": fields, "goal": {"dims": [0, 2]} if goal else None}, OBS, ACT)
    model = TokenModel(layout, {"name": "uniform", "num_bins": V}, BACKBONES[backbone], context=5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.tokenizer.fit(torch.tensor([[-1.0] * K, [1.0] * K]))
    return model.double().eval().requires_grad_(False)


def history(device: str, *, goal: bool = False, rows: int = 3) -> TokenHistory:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, V, (rows, 2 * K + OBS), generator=generator)
    prefix = torch.randint(0, V + 1, (rows, 2), generator=generator) if goal else None
    lengths = torch.arange(rows) % 3
    return TokenHistory(tokens.to(device), lengths.to(device), None if prefix is None else prefix.to(device))


def plan(model: TokenModel, start: TokenHistory, mode: str, seed: int = 0) -> Plan:
    options = {"beam_width": 8, "n_expand": 2, "horizon": 5, "context": CONTEXT, "cdf_act": 0.2, "cache": mode}
    keys = torch.arange(len(start.tokens), device=start.tokens.device)
    score = SCORE.build({"name": "reward"}, discount=0.9)
    return PLANNER.build({"name": "beam", **options}).plan(model, start, score, Noise.of(seed, keys, 0))


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[torch.cuda.CUDAGraph]:
    """All graphs that were captured since the test began."""
    graphs: list[torch.cuda.CUDAGraph] = []
    capture = engine.capture

    def noted(*args: Any) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph, out = capture(*args)
        graphs.append(graph)
        return graph, out

    monkeypatch.setattr(engine, "capture", noted)
    return graphs


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("goal", [False, True])
@pytest.mark.parametrize(
    ("backbone", "mode"), [("gpt", "none"), ("gpt", "exact"), ("llama", "exact"), ("llama", "window")]
)
def test_plans_equal_those_of_the_cpu(
    backbone: str,
    mode: str,
    goal: bool,
    graphs: bool,
    captures: list[torch.cuda.CUDAGraph],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Token by token in float64, over three plans, of which only the first one captures."""
    if not graphs:
        monkeypatch.setattr(engine, "can_capture", lambda device: False)
    model = make(backbone, goal=goal)
    expected = [plan(model, history("cpu", goal=goal), mode, seed) for seed in range(3)]
    model.cuda()
    for seed, wanted in enumerate(expected):
        found = plan(model, history("cuda", goal=goal), mode, seed)
        assert torch.equal(found.tokens.cpu(), wanted.tokens)
        torch.testing.assert_close(found.value.cpu(), wanted.value, atol=1e-9, rtol=0)
        assert len(captures) == (2 if graphs and mode != "none" else 0)  # 48 candidates, 24 survivors


def test_more_rows_than_ever_before(captures: list[torch.cuda.CUDAGraph]) -> None:
    """The buffers move, and what was captured on the old ones is not replayed."""
    expected, session = (
        decoding.start(make(), history("cpu", rows=2)),
        decoding.start(make().cuda(), history("cuda", rows=2)),
    )
    generator = torch.Generator().manual_seed(1)
    for step, rows in enumerate([2, 2, 5, 5, 9, 9, 2, 5, 9, 9, 2, 2] * 3):
        chosen = (torch.arange(rows) * 7 + step) % len(expected.logits)
        tokens = torch.randint(0, V, (rows,), generator=generator)
        expected.select(chosen)
        expected.append(tokens)
        session.select(chosen.cuda())
        session.append(tokens.cuda())
        torch.testing.assert_close(session.logits.cpu(), expected.logits, atol=1e-9, rtol=0)
    assert captures


def test_two_sessions_at_once(captures: list[torch.cuda.CUDAGraph]) -> None:
    model = make().cuda()
    generator = torch.Generator().manual_seed(1)
    first, second, alone = (decoding.start(model, history("cuda"), context=CONTEXT) for _ in range(3))
    tokens = torch.randint(0, V, (3 * K, 2, 3), generator=generator).cuda()
    for one, other in tokens:
        first.append(one)
        second.append(other)
    for one, _ in tokens:
        alone.append(one)
    torch.testing.assert_close(first.logits, alone.logits, atol=1e-9, rtol=0)
    assert len(captures) == 3


def test_float32_and_bfloat16_run_from_graphs(captures: list[torch.cuda.CUDAGraph]) -> None:
    fine, rounded = make().float().cuda(), make().float().cast(torch.bfloat16).cuda()
    sessions = [decoding.start(model, history("cuda"), context=CONTEXT) for model in (fine, rounded)]
    none = decoding.start(fine, history("cuda"), cache="none", context=CONTEXT)
    for _ in range(3 * K):
        tokens = none.logits.argmax(-1)
        for session in (none, *sessions):
            session.append(tokens)
        size = float(none.logits.abs().max())
        assert float((sessions[0].logits - none.logits).abs().max()) < 1e-3 * size  # TF32 off, as is PyTorch's default
        assert float((sessions[1].logits - none.logits).abs().max()) < 0.2 * size
    assert len(captures) == 2
    assert bool(plan(rounded, history("cuda"), "exact").value.isfinite().all())


class _Waiting(GptBackbone):
    """Waits for a number from the device in one-token steps, which no capture survives."""

    def forward(self, x: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        if x.shape[1] == 1 and float(x.sum()) == torch.inf:
            raise AssertionError
        return super().forward(x, positions, attention)


def test_where_a_capture_fails_decoding_goes_on() -> None:
    """On the stream that was current before, with one warning; and other models are captured still."""
    model = make("gpt").cuda()
    model.backbone.__class__ = _Waiting
    stream = torch.cuda.current_stream()
    session, none = (decoding.start(model, history("cuda"), cache=mode, context=CONTEXT) for mode in ("exact", "none"))

    def decode() -> None:
        for _ in range(2 * K):
            tokens = none.logits.argmax(-1)
            none.append(tokens)
            session.append(tokens)
            torch.testing.assert_close(session.logits, none.logits, atol=1e-9, rtol=0)

    with pytest.warns(UserWarning, match="without CUDA graphs") as warned:
        decode()
    assert len(warned) == 1
    assert torch.cuda.current_stream() == stream


def test_graphs_after_a_failed_capture(captures: list[torch.cuda.CUDAGraph]) -> None:
    test_where_a_capture_fails_decoding_goes_on()
    plan(make().cuda(), history("cuda"), "exact")
    assert len(captures) == 2


def test_ranks_agree_on_a_signal_without_waiting_for_the_device() -> None:
    from seqrl.training.callbacks import StopAtInterrupt

    device = torch.device("cuda", 0)
    torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl", store=HashStore(), rank=0, world_size=1)
    try:
        interrupt = StopAtInterrupt()
        assert interrupt.agree(device) is None  # the first exchange sets NCCL up
        torch.cuda.set_sync_debug_mode("error")
        interrupt.number = 10
        assert interrupt.agree(device) is None  # the step before had no signal
        assert interrupt.agree(device) == 10
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.distributed.destroy_process_group()
