"""The cache of static shapes against the other one and the uncached pass, and that its steps can be recorded.

What a CUDA graph does is done here by a tape of the operators that a step called: replaying it runs no Python, on the
same memory. So all is tested but the capture itself, for which see `test_cuda.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seqrl import decoding
from seqrl.attention import engine
from seqrl.decoding.noise import Noise
from seqrl.decoding.session import DecodingSession
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.registry import PLANNER, SCORE
from seqrl.types import TokenHistory

OBS, ACT, V, CONTEXT = 3, 2, 7, 4
K = OBS + ACT + 2
LLAMA = {"name": "llama", "num_heads": 4, "num_kv_heads": 2, "dim": 16}
BACKBONES = {
    "gpt": {"name": "gpt", "num_heads": 2, "dim": 8},
    "llama": LLAMA,
    "llama-qk-norm": {**LLAMA, "qk_norm": True, "num_kv_heads": 1},
    "mingru": {"name": "mingru", "dim": 8},
    "mingru-attention": {"name": "mingru", "dim": 8, "num_heads": 2, "pattern": ["attention", "recurrence"]},
    "s6-attention": {"name": "s6", "dim": 8, "state_size": 3, "num_heads": 2, "pattern": ["recurrence", "attention"]},
}


def make(backbone: str = "llama", *, goal: bool = False, hidden: bool = True) -> TokenModel:
    """A tiny float64 model with large random weights, so that every token matters."""
    torch.manual_seed(0)
    fields = {"observation": {}, "action": {}, "reward": {}, "value": {"hidden": hidden}}
    layout = Layout.from_config({"fields": fields, "goal": {"dims": [0, 2]} if goal else None}, OBS, ACT)
    options = {**BACKBONES[backbone], "num_layers": 2}
    model = TokenModel(layout, {"name": "uniform", "num_bins": V}, options, context=5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.tokenizer.fit(torch.tensor([[-1.0] * K, [1.0] * K]))
    return model.double().eval().requires_grad_(False)


def history(lengths: list[int], *, goal: bool = False) -> TokenHistory:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, V, (len(lengths), max(lengths) * K + OBS), generator=generator)
    prefix = torch.randint(0, V + 1, (len(lengths), 2), generator=generator) if goal else None
    return TokenHistory(tokens, torch.tensor(lengths), prefix)


def engine_of(session: DecodingSession) -> engine.StepEngine | None:
    found: engine.StepEngine | None = session.caching.steps.engine
    return found


class _Tape(TorchDispatchMode):
    """The operators that ran under it, to be run again on the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        for function, args, kwargs, out in self.calls:
            for before, after in zip(tree_leaves(out), tree_leaves(function(*args, **kwargs)), strict=True):
                if before.untyped_storage().data_ptr() != after.untyped_storage().data_ptr():
                    before.copy_(after)


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[_Tape]:
    """Every step recorded since the test began; steps run from tapes, as they run from CUDA graphs on a GPU."""
    made: list[_Tape] = []

    def record(step: Callable[[], Tensor], device: torch.device, other: Any) -> tuple[_Tape, Tensor]:
        step()
        with _Tape() as tape:
            out = step()
        made.append(tape)
        return tape, out

    monkeypatch.setattr(engine, "can_capture", lambda device: True)
    monkeypatch.setattr(engine, "capture", record)
    return made


SCRIPTS: dict[str, dict[int, list[int]]] = {
    "no selection": {},
    # Beams: every environment's rows are repeated, pruned in their environment, repeated again, ...
    "beams": {
        3: [0, 0, 1, 1, 2, 2],
        4: [1, 0, 3, 2, 4, 4],
        11: [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5],
        14: [3, 0, 4, 5, 8, 8],
        20: [r // 2 for r in range(12)],
        25: [0, 1, 6, 5, 11, 10],
    },
    # Anything: environments change their order, are dropped, and come back as several rows.
    "any rows": {2: [2, 0, 0, 1], 7: [3, 1, 1, 0], 8: [2, 2, 2], 16: [0, 1, 2, 2, 1, 0], 23: [5, 1]},
}


def check_against(
    reference: DecodingSession, session: DecodingSession, script: dict[int, list[int]], rows: int, steps: int = 6 * K
) -> None:
    """Both sessions take the same tokens and selections, and have the same logits all along."""
    generator = torch.Generator().manual_seed(4)
    for step in range(steps):
        torch.testing.assert_close(session.logits, reference.logits, atol=1e-9, rtol=0)
        if step in script:
            rows = len(script[step])
            reference.select(torch.tensor(script[step]))
            session.select(torch.tensor(script[step]))
        tokens = torch.randint(0, V + 1, (rows,), generator=generator)
        reference.append(tokens)
        session.append(tokens)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("goal", [False, True])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_exact_equals_the_uncached_pass(backbone: str, goal: bool, script: str, tapes: list[_Tape]) -> None:
    """Across cuts, selections, goals and histories of different lengths; recorded steps all of them."""
    model, start = make(backbone, goal=goal), history([2, 0, 1], goal=goal)
    reference = decoding.start(model, start, cache="none", context=CONTEXT)
    check_against(reference, decoding.start(model, start, context=CONTEXT, static=True), SCRIPTS[script], rows=3)
    assert tapes


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("goal", [False, True])
@pytest.mark.parametrize("backbone", ["llama", "mingru", "s6-attention"])
def test_window_equals_the_other_cache(
    backbone: str, goal: bool, script: str, hidden: bool, tapes: list[_Tape]
) -> None:
    """Long enough for the ring to begin anew."""
    model, start = make(backbone, goal=goal, hidden=hidden), history([2, 0, 1], goal=goal)
    reference, session = (
        decoding.start(model, start, cache="window", context=CONTEXT, static=static) for static in (False, True)
    )
    columns = engine_of(session).cache.columns
    check_against(reference, session, SCRIPTS[script], rows=3, steps=columns + 2 * K)
    assert tapes


def test_without_recording_a_session_is_the_same() -> None:
    """On devices without graphs, and where they failed."""
    model, start = make(), history([2, 0, 1])
    reference = decoding.start(model, start, cache="window", context=CONTEXT, static=False)
    check_against(
        reference, decoding.start(model, start, cache="window", context=CONTEXT, static=True), SCRIPTS["beams"], rows=3
    )


def test_a_cpu_session_has_no_engine_unless_told() -> None:
    model = make()
    assert engine_of(decoding.start(model, history([1]))) is None


@pytest.mark.parametrize("mode", ["exact", "window"])
@pytest.mark.parametrize("ragged", [False, True])
def test_a_search_replays_its_steps(
    mode: str, ragged: bool, tapes: list[_Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same plans with both caches, and one recording for each number of rows, however many plans are made."""
    model, start = make(), history([3, 0, 2] if ragged else [2, 2, 2])
    options = {"beam_width": 5, "n_expand": 3, "horizon": 4, "context": CONTEXT, "cdf_act": 0.2, "cache": mode}
    planner, score = PLANNER.build({"name": "beam", **options}), SCORE.build({"name": "reward"}, discount=0.9)
    noises = [Noise.of(seed, torch.arange(3), 0) for seed in range(3)]
    expected = [planner.plan(model, start, score, noise) for noise in noises]
    assert not tapes
    begin = decoding.start
    monkeypatch.setattr(decoding, "start", lambda *args, **options: begin(*args, **options, static=True))
    for noise, plan in zip(noises, expected, strict=True):
        found = planner.plan(model, start, score, noise)
        assert torch.equal(found.tokens, plan.tokens)
        torch.testing.assert_close(found.value, plan.value, atol=1e-9, rtol=0)
    assert len(tapes) == 2  # 45 candidates, 15 survivors


def test_a_recorded_step_asks_the_device_for_nothing(tapes: list[_Tape]) -> None:
    """No operator that makes the host wait for a number."""
    model = make()
    session = decoding.start(model, history([2, 0, 1]), cache="window", context=CONTEXT, static=True)
    session.append(torch.tensor([0, 1, 2]))
    names = {str(function) for function, *_ in tapes[0].calls}
    assert any("index_copy" in name for name in names)
    assert not [name for name in names if any(word in name for word in ("local_scalar", "nonzero", "unique", "item"))]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_step_compiles_once_for_each_number_of_rows(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one graph of constant shapes, over hidden tokens, cuts, selections and the ring's end."""
    torch._dynamo.reset()
    model = make(backbone)
    counter = CompileCounter()
    compiled = torch.compile(model.backbone, backend=counter, fullgraph=True, dynamic=False)
    monkeypatch.setattr(engine.StepEngine, "step", lambda self, _, x, positions: compiled(x, positions, self.cache))
    mode = "window" if model.backbone.relative else "exact"
    session = decoding.start(model, history([2, 0]), cache=mode, context=CONTEXT, static=True)
    for step in range(engine_of(session).cache.columns + 2 * K):
        if step % K == 0:
            rows = 6 if step % (2 * K) == 0 else 4
            session.select(torch.arange(rows) % len(session.logits))
        session.append(session.logits.argmax(-1))
    assert counter.frame_count == 2
    torch._dynamo.reset()


def test_sessions_at_once_have_memory_of_their_own() -> None:
    """Also where there is some to be had from a session before them."""
    model, start = make(), history([2, 1])
    decoding.start(model, start, context=CONTEXT, static=True)
    first, second = (decoding.start(model, start, context=CONTEXT, static=True) for _ in range(2))
    assert engine_of(first) is not engine_of(second)
    expected = decoding.start(model, start, context=CONTEXT, static=False)
    second.append(torch.tensor([1, 1]))
    for session in (first, expected):
        session.append(torch.tensor([0, 2]))
    torch.testing.assert_close(first.logits, expected.logits, atol=1e-9, rtol=0)


def test_memory_passes_to_the_next_session_and_what_it_held_does_not() -> None:
    model, start = make(), history([2, 1])
    session = decoding.start(model, start, context=CONTEXT, static=True)
    session.select(torch.tensor([0, 0, 1, 1]))
    used = engine_of(session)
    for keys, values in used.cache.layers:
        keys.fill_(torch.nan)
        values.fill_(torch.nan)
    del session
    later = decoding.start(model, start, context=CONTEXT, static=True)
    assert engine_of(later) is used
    check_against(decoding.start(model, start, cache="none", context=CONTEXT), later, {2: [1, 0, 0, 0, 1]}, rows=2)


def test_histories_of_one_length_and_of_several_may_follow_one_another(tapes: list[_Tape]) -> None:
    """Rows then have their positions in common, or each its own."""
    model = make()
    for lengths in ([1, 1], [2, 1]):
        start = history(lengths)
        reference = decoding.start(model, start, cache="none", context=CONTEXT)
        check_against(reference, decoding.start(model, start, context=CONTEXT, static=True), {}, rows=2)
    assert len(tapes) == 2


def test_the_larger_memory_is_kept() -> None:
    model = make()
    small, large = (decoding.start(model, history([1] * rows), context=CONTEXT, static=True) for rows in (1, 3))
    kept = engine_of(large)
    del large, small
    assert engine_of(decoding.start(model, history([1]), context=CONTEXT, static=True)) is kept


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.float(),
        lambda model: setattr(model.backbone.norm, "weight", torch.nn.Parameter(model.backbone.norm.weight.clone())),
    ],
    ids=["another dtype", "another weight"],
)
def test_recorded_steps_are_not_used_with_weights_that_lie_elsewhere(change: Callable[[TokenModel], Any]) -> None:
    model = make()
    used = engine_of(decoding.start(model, history([1]), context=CONTEXT, static=True))
    old = [parameter.data for parameter in model.parameters()]  # or the new ones may take their place
    change(model)
    assert engine_of(decoding.start(model, history([1]), context=CONTEXT, static=True)) is not used
    del old


def test_another_context_needs_other_memory() -> None:
    model = make()
    used = engine_of(decoding.start(model, history([1]), context=CONTEXT, static=True))
    assert engine_of(decoding.start(model, history([1]), context=2, static=True)) is not used


def test_weights_that_were_trained_on_are_seen(tapes: list[_Tape]) -> None:
    """Optimizers change weights in place, where recorded steps read them."""
    model, start = make(), history([1])
    decoding.start(model, start, context=CONTEXT, static=True).append(torch.tensor([1]))
    for parameter in model.parameters():
        parameter.mul_(0.9)
    session = decoding.start(model, start, context=CONTEXT, static=True)
    reference = decoding.start(model, start, cache="none", context=CONTEXT)
    check_against(reference, session, {}, rows=1, steps=K)
    assert len(tapes) == 1


def test_memory_made_in_inference_mode_serves_outside_of_it(tapes: list[_Tape]) -> None:
    model, start = make(), history([2, 1])
    with torch.inference_mode():
        session = decoding.start(model, start, context=CONTEXT, static=True)
        session.append(torch.tensor([0, 1]))
    used = engine_of(session)
    del session
    session = decoding.start(model, start, context=CONTEXT, static=True)
    assert engine_of(session) is used
    check_against(decoding.start(model, start, cache="none", context=CONTEXT), session, SCRIPTS["no selection"], rows=2)


def test_sessions_under_autocast_and_without_it_may_follow_one_another() -> None:
    """Keys then have another dtype, with the same weights."""
    model, start = make().float(), history([2, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        decoding.start(model, start, context=CONTEXT, static=True).append(torch.tensor([0, 1]))
    session, reference = (decoding.start(model, start, context=CONTEXT, static=static) for static in (True, False))
    for each in (session, reference):
        each.append(torch.tensor([0, 1]))
    torch.testing.assert_close(session.logits, reference.logits)


def test_a_model_that_was_used_can_be_copied() -> None:
    model = make()
    used = engine_of(decoding.start(model, history([1]), context=CONTEXT, static=True))
    other = copy.deepcopy(model)
    assert engine_of(decoding.start(other, history([1]), context=CONTEXT, static=True)) is not used


def test_where_recording_fails_decoding_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one warning, and no second attempt."""
    attempts = []

    def fail(*args: Any) -> Any:
        attempts.append(args)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(engine, "can_capture", lambda device: True)
    monkeypatch.setattr(engine, "capture", fail)
    model, start = make(), history([2, 1])
    reference = decoding.start(model, start, cache="none", context=CONTEXT)
    session = decoding.start(model, start, context=CONTEXT, static=True)
    with pytest.warns(UserWarning, match="without CUDA graphs, which failed: operation not permitted") as warned:
        check_against(reference, session, {2: [0, 0, 1, 1]}, rows=2)
    assert len(warned) == len(attempts) == 1
