"""The search among codes against a loop that computes everything anew, one environment and one candidate at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from benchmarks.latent import LatentSettings, bench_latent
from torch import Tensor

from seqrl.acting.policy import Policy
from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.code import CodeModel
from seqrl.planners.latent_beam import LatentBeamPlanner
from seqrl.registry import PLANNER, SCORE
from seqrl.scores.critic import CriticScore
from seqrl.testing.samples import scramble
from seqrl.tokenizers.vq import VqTokenizer
from seqrl.types import CodeHistory, Plan

OBSERVATION, ACTION, STEPS, CODES = 3, 2, 3, 12
DISCOUNT = 0.9


def make_model(backbone: str = "gpt") -> CodeModel:
    fields = {"observation": {}, "action": {}, "reward": {}, "value": {"hidden": True}}
    layout = Layout.from_config({"fields": fields, "discount": DISCOUNT}, OBSERVATION, ACTION)
    sizes = {"name": backbone, "num_layers": 1, "num_heads": 2, "dim": 16}
    tokenizer = {"name": "vq", "num_codes": CODES, "code_dim": 8, "steps_per_code": STEPS}
    model = CodeModel(layout, tokenizer, sizes, context=12).double().eval()
    scramble(model)
    tokenizer_of(model).fit(
        torch.randn(500, layout.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )
    vectors = torch.randn(CODES, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    tokenizer_of(model).codebook.vectors.copy_(vectors)
    return model


def tokenizer_of(model: CodeModel) -> VqTokenizer:
    assert isinstance(model.tokenizer, VqTokenizer)
    return model.tokenizer


def make_history(model: CodeModel, rows: int = 3) -> CodeHistory:
    present = torch.randn(rows, model.layout.size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return model.history(torch.zeros(rows, 0, model.layout.size), present)


def make_noise(rows: list[int]) -> Noise:
    return Noise.of(7, torch.tensor(rows), time=4)


def reward_score() -> Any:
    return SCORE.build({"name": "reward"}, discount=DISCOUNT)


def plan(model: CodeModel, history: CodeHistory, rows: list[int] | None = None, **options: Any) -> Plan:
    settings = {"beam_width": 4, "n_expand": 3, "horizon": 9, **options}
    noise = make_noise(rows or list(range(len(history))))
    planner: LatentBeamPlanner = PLANNER.build({"name": "latent_beam", **settings})
    return planner.plan(model, history, reward_score(), noise)


def reference(
    model: CodeModel,
    state: Tensor,
    noise: Noise,
    *,
    width: int,
    expand: int,
    codes: int,
    threshold: float,
    weight: float,
) -> tuple[list[int], Tensor, float]:
    """The best codes, their transitions (H, S) and their value, from (1, O) states."""
    beams: list[list[int]] = [[]]
    for depth in range(codes):
        copies = expand * (width if depth == 0 else 1)
        uniform = noise.uniform(depth, beams=copies * len(beams))[0]
        candidates = []
        for number in range(copies * len(beams)):
            parent = beams[number // copies]
            probabilities = prior(model, parent, state)
            code = int((probabilities.cumsum(0) <= uniform[number]).sum())
            sequence = [*parent, code]
            likelihood = sum(
                math.log(float(prior(model, sequence[:place], state)[c])) for place, c in enumerate(sequence)
            )
            transitions = tokenizer_of(model).decode_codes(torch.tensor([sequence]), state)[0]
            value = sum(DISCOUNT**t * float(row[5]) for t, row in enumerate(transitions))
            value += DISCOUNT ** len(transitions) * float(transitions[-1, 6])
            shortfall = likelihood - codes * math.log(threshold)
            candidates.append((value + weight * min(0.0, shortfall), sequence, transitions))
        candidates.sort(key=lambda candidate: -candidate[0])  # stable
        beams = [sequence for _, sequence, _ in candidates[:width]]
    best = candidates[0]
    return best[1], best[2], best[0]


def prior(model: CodeModel, codes: list[int], state: Tensor) -> Tensor:
    """(V,) probabilities of the next code."""
    padded = torch.tensor([[*codes, 0]])
    logits: Tensor = model(padded, state)[0, len(codes), :CODES]
    return logits.softmax(-1)


@pytest.mark.parametrize(("threshold", "weight"), [(0.05, 500.0), (0.2, 0.5), (0.999, 0.1)])
@torch.no_grad()
def test_plans_are_those_of_a_plain_loop(threshold: float, weight: float) -> None:
    model = make_model()
    history = make_history(model)
    found = plan(model, history, prob_threshold=threshold, prob_weight=weight)
    assert found.actions.shape == (3, 9, ACTION)
    for row in range(3):
        _, transitions, value = reference(
            model, history.state[row : row + 1], make_noise([row]),
            width=4, expand=3, codes=3, threshold=threshold, weight=weight,
        )  # fmt: skip
        assert torch.allclose(found.actions[row], transitions[:, 3:5], rtol=0, atol=1e-9)
        assert float(found.value[row]) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("backbone", ["gpt", "llama"])
def test_cache_modes_give_the_same_plans(backbone: str) -> None:
    model = make_model(backbone)
    history = make_history(model)
    modes = ["none", "exact", *(["window"] if backbone == "llama" else [])]
    plans = [plan(model, history, cache=mode, horizon=12) for mode in modes]
    for other in plans[1:]:
        assert torch.allclose(other.actions, plans[0].actions, rtol=0, atol=1e-9)
        assert torch.allclose(other.value, plans[0].value, rtol=0, atol=1e-9)


def test_rows_do_not_see_each_other() -> None:
    model = make_model()
    history = make_history(model)
    together = plan(model, history)
    for row in range(3):
        rows = slice(row, row + 1)
        alone = plan(model, CodeHistory(history.state[rows]), rows=[row])
        assert torch.allclose(alone.actions[0], together.actions[row], rtol=0, atol=1e-9)


def test_greedy_takes_the_likeliest_codes() -> None:
    model = make_model()
    history = make_history(model, rows=2)
    found = plan(model, history, beam_width=1, n_expand=1, temperature=0.0, horizon=6)
    for row in range(2):
        state, codes = history.state[row : row + 1], list[int]()
        for _ in range(2):
            codes.append(int(prior(model, codes, state).argmax()))
        wanted = tokenizer_of(model).decode_codes(torch.tensor([codes]), state)[0, :, 3:5]
        assert torch.allclose(found.actions[row], wanted, rtol=0, atol=1e-9)


@torch.no_grad()
def test_unlikely_plans_lose_their_rank_only_under_the_threshold() -> None:
    model = make_model()
    history = make_history(model, rows=1)
    free = plan(model, history, prob_threshold=0.0, beam_width=32, n_expand=4)
    bound = plan(model, history, prob_threshold=0.5, prob_weight=1e4, beam_width=32, n_expand=4)
    assert float(free.value) == pytest.approx(
        float(plan(model, history, prob_weight=0.0, beam_width=32, n_expand=4).value)
    )
    assert float(bound.value) < float(free.value)
    assert not torch.allclose(bound.actions, free.actions)


def test_policy_acts_by_it_and_other_planners_refuse() -> None:
    model = make_model().float()
    policy = Policy(
        model,
        planner={"name": "latent_beam", "beam_width": 2, "n_expand": 2, "horizon": 6},
        score={"name": "reward"},
        plan_every=6,
    )
    policy.reset(2)
    for step in range(3):
        actions = policy.act(torch.randn(2, OBSERVATION).numpy(), None if step == 0 else torch.zeros(2).numpy())
        assert actions.shape == (2, ACTION)
    with pytest.raises(ConfigError, match="strategy=latent"):
        Policy(model, planner={"name": "beam"}, score={"name": "reward"})


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"beam_width": 0}, "beam_width"),
        ({"n_expand": 0}, "n_expand"),
        ({"horizon": 0}, "horizon"),
        ({"temperature": -1.0}, "temperature"),
        ({"prob_threshold": 1.0}, "prob_threshold"),
        ({"prob_weight": -1.0}, "prob_weight"),
        ({"cache": "some"}, "cache"),
        ({"horizon": 7}, "multiple of 3"),
        ({"horizon": 15}, "12"),
    ],
)
def test_refusals(options: dict[str, Any], word: str) -> None:
    model = make_model()
    with pytest.raises(ConfigError, match=word):
        plan(model, make_history(model), **options)


@pytest.mark.slow
def test_benchmark_puts_both_methods_side_by_side() -> None:
    settings = LatentSettings(
        threads=1, layers=1, heads=2, width=8, bins=4, beam_width=2, horizon=3, context=2,
        latent_width=8, codes=4, latent_beam_width=2, window=6, repeats=1,
    )  # fmt: skip
    (row,) = bench_latent(settings, [(2, 1)])["sizes"]
    assert (row["observation"], row["action"]) == (2, 1)
    for mode in ("reference", "exact", "window"):
        assert row[mode]["times"] == pytest.approx(row[mode]["ms"] / row["latent"]["median"])


def test_scores_that_look_past_the_plan_are_refused() -> None:
    score = CriticScore(0.9, critic=object(), use="v")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"looks at next observation .* planner=latent_beam does not show"):
        LatentBeamPlanner(horizon=6).check_score(score)
    LatentBeamPlanner(horizon=6).check_score(CriticScore(0.9, critic=object(), use="q"))  # type: ignore[arg-type]
