"""Decoding in bfloat16: rounded weights, but neither rounded bins nor rounded logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqrl import decoding
from seqrl.decoding.noise import Noise
from seqrl.evaluation.placement import placed
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.registry import PLANNER, SCORE
from seqrl.types import TokenHistory

OBS, ACT, V = 3, 2, 7
K = OBS + ACT + 2
BACKBONES = ({"name": "gpt", "dim": 32}, {"name": "llama", "dim": 32, "qk_norm": True})


def make(backbone: dict[str, Any], tokenizer: str = "uniform") -> TokenModel:
    torch.manual_seed(0)
    fields = {"observation": {}, "action": {}, "reward": {}, "value": {"hidden": True}}
    layout = Layout.from_config({"fields": fields, "goal": None}, OBS, ACT)
    model = TokenModel(layout, {"name": tokenizer, "num_bins": V}, backbone, context=4)
    for parameter in (*model.embedding.parameters(), *model.head.parameters()):
        torch.nn.init.normal_(parameter, std=0.5)
    model.tokenizer.fit(torch.rand(200, K) + 1.0 / 3.0)
    return model.eval().requires_grad_(False)


def history(rows: int = 4) -> TokenHistory:
    return TokenHistory(torch.randint(0, V, (rows, K + OBS)), torch.ones(rows, dtype=torch.int64))


@pytest.mark.parametrize("tokenizer", ["uniform", "quantile"])
def test_the_tokenizer_is_not_rounded(tokenizer: str) -> None:
    model = make(BACKBONES[0], tokenizer)
    before = {name: tensor.clone() for name, tensor in model.tokenizer.state_dict().items()}
    assert model.cast(torch.bfloat16) is model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    after = model.tokenizer.state_dict()
    assert before
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("mode", ["none", "exact", "window"])
@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda backbone: backbone["name"])
def test_bfloat16_logits_are_near_those_of_float32(backbone: dict[str, Any], mode: str, static: bool) -> None:
    """A weight or feature keeps 8 bits: relative errors of 1/256, a few of which add up."""
    if mode == "window" and backbone["name"] == "gpt":
        pytest.skip("absolute positions")
    start = history()
    fine = make(backbone).start(start, cache=mode, context=3)
    rounded = make(backbone).cast(torch.bfloat16).start(start, cache=mode, context=3, static=static)
    errors, sizes = [], []
    for step in range(3 * K):
        assert rounded.logits.dtype == torch.float32
        errors.append((rounded.logits - fine.logits).square().mean())
        sizes.append(fine.logits.square().mean())
        if step == 3:
            chosen = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
            fine.select(chosen)
            rounded.select(chosen)
        tokens = fine.logits.argmax(-1)
        fine.append(tokens)
        rounded.append(tokens)
    relative = float((torch.stack(errors).mean() / torch.stack(sizes).mean()).sqrt())
    assert 0 < relative < 0.02


def test_a_search_in_bfloat16_scores_in_float32() -> None:
    model = make(BACKBONES[1]).cast(torch.bfloat16)
    planner = PLANNER.build({"name": "beam", "beam_width": 4, "horizon": 3, "context": 3})
    found = planner.plan(
        model, history(), SCORE.build({"name": "reward"}, discount=0.9), Noise.of(0, torch.arange(4), 0)
    )
    assert found.value.dtype == torch.float32
    assert bool(found.value.isfinite().all())


def test_float64_logits_stay_in_float64() -> None:
    assert decoding.start(make(BACKBONES[0]).double(), history()).logits.dtype == torch.float64


def test_a_rounded_model_is_a_copy() -> None:
    """Other rows of a table decode with the weights as they were trained."""
    model = make(BACKBONES[0])
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    rounded = placed(model, device="cpu", precision="bfloat16")
    assert rounded.head.weight.dtype == torch.bfloat16
    assert placed(model, device="cpu", precision="float32") is model
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
