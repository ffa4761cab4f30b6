"""Decoding sessions against the training-time pass and against attention written out; what is computed, and how often.

The reference is always the whole forward pass of the model over the tokens that fit the context, one row at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from seqrl import decoding
from seqrl.attention.blocks import Buffers
from seqrl.attention.full import FullAttention
from seqrl.attention.key_value_cache import KeyValueCache
from seqrl.backbones.gpt import GptBackbone
from seqrl.decoding.noise import Noise
from seqrl.decoding.session import DecodingSession, check_session
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.registry import BACKBONE, PLANNER, SCORE
from seqrl.testing import samples
from seqrl.types import TokenHistory

OBS, ACT, V, CONTEXT = 3, 2, 7, 4
K = OBS + ACT + 2
LIMIT = CONTEXT * K - 1
LLAMA = {"name": "llama", "num_heads": 4, "num_kv_heads": 2, "dim": 16, "qk_norm": False}
BACKBONES = {
    "gpt": {"name": "gpt", "num_heads": 2, "dim": 8},
    "llama": LLAMA,
    "llama-qk-norm": {**LLAMA, "qk_norm": True, "num_kv_heads": 1},
    "mingru": {"name": "mingru", "dim": 8},
    "mingru-attention": {"name": "mingru", "dim": 8, "num_heads": 2, "pattern": ["attention", "recurrence"]},
    "s6-attention": {"name": "s6", "dim": 8, "state_size": 3, "num_heads": 2, "pattern": ["recurrence", "attention"]},
    # Heads of a size for which attention is compiled.
    "gpt-compiled": {"name": "gpt", "num_heads": 2, "dim": 32},
    "llama-compiled": {**LLAMA, "dim": 64, "qk_norm": True},
}


def make(backbone: str = "llama", *, goal: bool = False, hidden: bool = True, num_layers: int = 2) -> TokenModel:
    """A tiny float64 model with large random weights, so that every token matters."""
    torch.manual_seed(0)
    fields = {"observation": {}, "action": {}, "reward": {}, "value": {"hidden": hidden}}
    layout = Layout.from_config({"fields": fields, "goal": {"dims": [0, 2]} if goal else None}, OBS, ACT)
    options = {**BACKBONES[backbone], "num_layers": num_layers}
    model = TokenModel(layout, {"name": "uniform", "num_bins": V}, options, context=5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.tokenizer.fit(torch.tensor([[-1.0] * K, [1.0] * K]))
    return model.double().eval().requires_grad_(False)


def one_history(rows: int = 1, transitions: int = 1) -> TokenHistory:
    tokens = torch.randint(0, V, (rows, transitions * K + OBS), generator=torch.Generator().manual_seed(2))
    return TokenHistory(tokens, torch.full((rows,), transitions))


def next_logits(model: TokenModel, tokens: Tensor, prefix: Tensor | None) -> Tensor:
    """(V + 1,) by the training-time forward pass over the newest tokens of one row that fit the context."""
    excess = max(0, len(tokens) - LIMIT)
    kept = tokens[-(-excess // K) * K :]
    padded = torch.cat([kept, torch.zeros(-(len(kept) + 1) % K + 1, dtype=torch.int64)])
    return model(padded.view(1, -1, K), prefix)[0, len(kept) - 1]


def sliding_logits(model: TokenModel, tokens: Tensor) -> Tensor:
    """(V + 1,) by one pass over all tokens ever, each of which saw what the context held when it came.

    When token i comes, the newest transitions that fit the limit remain, token i included.
    """
    count = len(tokens)
    mask = torch.zeros(count, count, dtype=torch.bool)
    for i in range(count):
        oldest = -(-max(0, i + 1 - LIMIT) // K) * K
        for j in range(oldest, i + 1):
            mask[i, j] = not (j % K == K - 1 and bool(model.hidden[K - 1]))
    x = model.embed(tokens[None])
    written = ~model.hidden[torch.arange(count) % K]  # what recurrences know does not go with a cut
    features = model.backbone(x, torch.arange(count)[None], FullAttention(mask[None, None], written[None]))
    return model.next_logits(features[0, -1:], count % K)[0]


class Rows:
    """A session, and beside it the tokens of every row, held as plain lists."""

    def __init__(self, model: TokenModel, mode: str, *, past: int = 2, guidance: float = 1.0) -> None:
        self.generator = torch.Generator().manual_seed(3)
        lengths = torch.tensor([past, 0, past - 1])
        history = torch.randint(0, V, (3, past * K + OBS), generator=self.generator)
        history[1] = history[0]  # equal tokens under other goals and lengths have nothing in common
        prefix = None
        if model.layout.prefix_size:
            prefix = torch.randint(0, V + 1, (3, 2), generator=self.generator)
        self.tokens = [history[r, (past - int(lengths[r])) * K :] for r in range(3)]
        self.prefixes = [None if prefix is None else prefix[r : r + 1] for r in range(3)]
        start = TokenHistory(history, lengths, prefix, guidance=guidance)
        self.session = decoding.start(model, start, cache=mode, context=CONTEXT)

    def select(self, rows: list[int]) -> None:
        self.session.select(torch.tensor(rows))
        self.tokens, self.prefixes = [self.tokens[i] for i in rows], [self.prefixes[i] for i in rows]

    def append(self) -> None:
        tokens = torch.randint(0, V + 1, (len(self.tokens),), generator=self.generator)
        if len(tokens) > 1:
            tokens[1] = tokens[0]  # rows with the same past stay the same now and then
        self.session.append(tokens)
        self.tokens = [torch.cat([row, tokens[r : r + 1]]) for r, row in enumerate(self.tokens)]

    def follow(
        self, script: dict[int, list[int]], expected: Callable[[Tensor, Tensor | None], Tensor], steps: int
    ) -> None:
        """Selections as the script says and random tokens; before each, the logits that each row's own past gives."""
        for step in range(steps):
            logits = [expected(row, prefix) for row, prefix in zip(self.tokens, self.prefixes, strict=True)]
            torch.testing.assert_close(self.session.logits, torch.stack(logits), atol=1e-9, rtol=0)
            if step in script:
                self.select(script[step])
            self.append()


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
    "any rows": {
        0: [0, 1, 2, 0, 1, 2],
        2: [2, 0, 0, 1],
        7: [3, 1, 1, 0],
        8: [2, 2, 0, 3],
        16: [0, 1, 2, 2, 1, 0],
        23: [5, 1],
    },
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("goal", [False, True])
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("mode", ["none", "exact"])
def test_a_session_equals_the_training_pass(mode: str, backbone: str, goal: bool, script: str) -> None:
    """Across cuts, selections, goals and histories of different lengths."""
    model = make(backbone, goal=goal)
    Rows(model, mode).follow(SCRIPTS[script], lambda row, prefix: next_logits(model, row, prefix), 4 * K)


def probabilities_by_the_formula(model: TokenModel, row: Tensor, prefix: Tensor | None, guidance: float) -> Tensor:
    """(V + 1,) p(x) (p(x | g) / p(x))^w, up to a factor."""
    toward = next_logits(model, row, prefix).softmax(-1)
    without = next_logits(model, row, torch.full((1, 2), V)).softmax(-1)
    return without * (toward / without) ** guidance


@pytest.mark.parametrize("guidance", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("mode", ["none", "exact", "window"])
def test_guidance_weighs_what_the_goal_changes_about_actions(mode: str, script: str, guidance: float) -> None:
    """Across cuts and selections of both halves; with one layer, window is exact."""
    model = make(goal=True, num_layers=1)

    def expected(row: Tensor, prefix: Tensor | None) -> Tensor:
        if OBS <= len(row) % K < OBS + ACT:
            return probabilities_by_the_formula(model, row, prefix, guidance).log()
        return next_logits(model, row, prefix).log_softmax(-1)

    Rows(model, mode, guidance=guidance).follow(SCRIPTS[script], expected, 4 * K)


@pytest.mark.parametrize("backbone", ["llama", "llama-compiled", "mingru", "mingru-attention", "s6-attention"])
@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("script", SCRIPTS)
def test_window_keeps_what_was_computed_before_a_cut(script: str, hidden: bool, backbone: str) -> None:
    model = make(backbone, hidden=hidden)
    Rows(model, "window").follow(SCRIPTS[script], lambda row, prefix: sliding_logits(model, row), 5 * K)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("goal", [False, True])
def test_window_with_one_layer_is_exact(goal: bool, script: str) -> None:
    """Keys of the first layer know nothing of the past: forgetting a transition is never having seen it.

    With a goal this holds only if the prefix moves along with the cuts.
    """
    model = make(goal=goal, num_layers=1)
    Rows(model, "window").follow(SCRIPTS[script], lambda row, prefix: next_logits(model, row, prefix), 5 * K)


@pytest.mark.parametrize("mode", ["none", "exact", "window"])
def test_a_history_longer_than_the_context_counts_from_its_cut(mode: str) -> None:
    """What was cut before the start was never seen: the goal stands right before what is left."""
    model = make(goal=True, num_layers=1)
    rows = Rows(model, mode, past=CONTEXT + 2)
    for _ in range(2 * K):
        expected = [next_logits(model, row, p) for row, p in zip(rows.tokens, rows.prefixes, strict=True)]
        torch.testing.assert_close(rows.session.logits, torch.stack(expected), atol=1e-9, rtol=0)
        rows.append()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_float32_stays_within_1e_4(backbone: str) -> None:
    model = make(backbone).float()
    exact, none = (decoding.start(model, one_history(8, 2), cache=mode, context=CONTEXT) for mode in ("exact", "none"))
    for step in range(3 * K):
        if step % K == 3:
            chosen = torch.arange(8).repeat_interleave(2)[torch.randperm(16)[:8].sort().values]
            exact.select(chosen)
            none.select(chosen)
        tokens = none.logits.argmax(-1)
        exact.append(tokens)
        none.append(tokens)
        assert float((exact.logits - none.logits).abs().max()) < 1e-4 * float(none.logits.abs().max())


def cache_of(session: DecodingSession) -> KeyValueCache:
    cache = session.caching.steps.cache
    assert isinstance(cache, KeyValueCache)
    return cache


class _Counter:
    """Notes the (rows, tokens) of every pass of a backbone."""

    def __init__(self, model: TokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passes: list[tuple[int, int]] = []
        forward = model.backbone.forward

        def counted(x: Tensor, *rest: Any) -> Tensor:
            self.passes.append((x.shape[0], x.shape[1]))
            return forward(x, *rest)

        monkeypatch.setattr(model.backbone, "forward", counted)


@pytest.mark.parametrize(
    ("mode", "backbone"), [("exact", "gpt"), ("window", "llama"), ("exact", "mingru"), ("window", "s6-attention")]
)
def test_a_context_is_encoded_at_cuts_only(mode: str, backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In between the backbone sees one new token at a time; in mode `window`, always."""
    model = make(backbone)
    counter = _Counter(model, monkeypatch)
    session = decoding.start(model, one_history(), cache=mode, context=3)
    for _ in range(3 * K - OBS):
        session.append(torch.zeros(1, dtype=torch.int64))
    assert counter.passes[0] == (1, K + OBS)
    assert [tokens for _, tokens in counter.passes[1:] if tokens > 1] == ([2 * K, 2 * K] if mode == "exact" else [])
    assert len(counter.passes) == 1 + 3 * K - OBS


@pytest.mark.parametrize("backbone", ["gpt", "mingru", "s6-attention"])
def test_beginnings_in_common_are_encoded_once(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a cut of 2 environments x 4 rows: the shared history once an environment, then what differs, once each."""
    model = make(backbone)
    session = decoding.start(model, one_history(2, 3), cache="exact", context=5)
    session.select(torch.arange(2).repeat_interleave(4))
    for step in range(2 * K - OBS - 1):
        first = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])  # two kinds of first transition in each environment
        second = torch.tensor([0, 1, 2, 2, 0, 0, 0, 0])  # then three kinds in the first one, still two in the other
        session.append(first if step < K - OBS else second)
    counter = _Counter(model, monkeypatch)
    session.append(torch.zeros(8, dtype=torch.int64))
    # After the cut: two transitions of history in one pass, as nothing branches between them, then two imagined ones.
    assert counter.passes == [(2, 2 * K), (4, K), (5, K)]
    assert [block.rows for block in cache_of(session).blocks] == [2, 8]


def test_a_repeated_row_is_computed_from_the_shared_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beams that share a history read the same memory: repeating allocates and copies nothing of it."""
    model = make()
    session = decoding.start(model, one_history(2, 3), cache="exact", context=CONTEXT)
    before = [keys.data_ptr() for keys, _ in cache_of(session).blocks[0].layers]
    session.select(torch.arange(2).repeat_interleave(6))
    session.append(torch.zeros(12, dtype=torch.int64))
    session.select(torch.tensor([3, 2, 2, 0, 11, 8, 8, 6]))
    session.append(torch.zeros(8, dtype=torch.int64))
    assert [keys.data_ptr() for keys, _ in cache_of(session).blocks[0].layers] == before
    assert [block.rows for block in cache_of(session).blocks] == [2, 8]


def test_a_long_session_needs_no_more_memory_than_a_short_one() -> None:
    """Positions go on; what was cut is given back."""
    model = make()
    session = decoding.start(model, one_history(1, 3), cache="window", context=CONTEXT)
    session.select(torch.zeros(4, dtype=torch.int64))
    sizes = []
    for _ in range(4 * CONTEXT):
        for _ in range(K):
            session.append(torch.zeros(len(session.logits), dtype=torch.int64))
        session.select(torch.tensor([2, 0, 0, 3]))
        buffers = [tensor for block in cache_of(session).blocks for pair in block.layers for tensor in pair]
        sizes.append(sum(tensor.nbytes for tensor in buffers) + cache_of(session).buffers.spare_bytes)
        assert all(block.width for block in cache_of(session).blocks)
    assert sizes[-1] == sizes[CONTEXT]


@pytest.mark.parametrize("backbone", ["llama", "llama-compiled"])
def test_memory_that_nobody_wrote_to_is_not_read(monkeypatch: pytest.MonkeyPatch, backbone: str) -> None:
    """A weight of zero does not help against what is no number."""
    take = Buffers.take
    monkeypatch.setattr(Buffers, "take", lambda *arguments: take(*arguments).fill_(torch.nan))
    model = make(backbone)
    Rows(model, "window").follow(SCRIPTS["beams"], lambda row, prefix: sliding_logits(model, row), 5 * K)


def test_what_a_cut_takes_is_gone_before_the_next_selection() -> None:
    """Survivors are gathered without the transition that the next token would push out."""
    session = decoding.start(make(), one_history(1, CONTEXT - 1), cache="window", context=CONTEXT)
    session.select(torch.zeros(4, dtype=torch.int64))
    for _ in range(K - OBS - 1):
        session.append(torch.zeros(4, dtype=torch.int64))
    session.select(torch.tensor([2, 0]))
    assert sum(block.width for block in cache_of(session).blocks) == (CONTEXT - 1) * (K - 1)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_search_finds_the_same_plan_with_and_without_cache(backbone: str, cut: bool) -> None:
    """Sampled actions, ragged histories, a beam that prunes: the same tokens in float64."""
    model = make(backbone)
    tokens = torch.randint(0, V, (3, 3 * K + OBS), generator=torch.Generator().manual_seed(5))
    history = TokenHistory(tokens, torch.tensor([3, 0, 2]))
    plans = []
    for mode in ("none", "exact"):
        options = {"beam_width": 5, "n_expand": 3, "horizon": 4, "context": 4 if cut else 5, "cdf_act": 0.2}
        planner = PLANNER.build({"name": "beam", "cache": mode, **options})
        plans.append(
            planner.plan(model, history, SCORE.build({"name": "reward"}, discount=0.9), Noise.of(0, torch.arange(3), 0))
        )
    assert torch.equal(plans[0].tokens, plans[1].tokens)
    torch.testing.assert_close(plans[0].value, plans[1].value, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"cache": "exakt"}, "Did you mean 'exact'"),
        ({"cache": "window"}, "needs a backbone with relative positions"),
        ({"context": 1}, r"outside \[2, 5\]"),
        ({"context": 6}, r"outside \[2, 5\]"),
    ],
)
def test_a_session_refuses_what_it_cannot_do(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make("gpt").start(one_history(), **arguments)


@pytest.mark.usefixtures("clean_plugins")
@pytest.mark.parametrize("name", ["MyGpt", "Other"])
def test_a_backbone_of_ones_own_is_told_how_it_says_that_it_goes_on(name: str) -> None:
    BACKBONE.register("mine")(type(name, (GptBackbone,), {"__module__": __name__}))
    own = samples.model(samples.layout(), backbone={"name": "mine", "num_layers": 1, "num_heads": 2, "dim": 16})
    with pytest.raises(ConfigError, match=f"planner.cache=exact, .*; relative = True in the class {name} says that"):
        check_session(own, cache="window")
    with pytest.raises(ConfigError, match=r"train with backbone=llama$"):
        check_session(make("gpt"), cache="window")
    BACKBONE.get("mine").relative = True  # type: ignore[attr-defined]
    check_session(own, cache="window")


def test_a_goal_model_refuses_a_history_without_one() -> None:
    with pytest.raises(ConfigError, match="the history's goal does not fit the layout"):
        make(goal=True).start(one_history())


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"call model\.eval"):
        make().train().start(one_history())


def test_a_context_of_none_is_the_trained_window_and_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"context=0 is outside"):
        decoding.start(make(), one_history(), context=0)
