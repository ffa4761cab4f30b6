"""Weight decay groups and learning-rate schedules."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import SequenceModel
from seqrl.training.optim import adamw, schedule, split_decay


def test_only_the_weights_of_linear_layers_decay(tiny_layout: Layout) -> None:
    backbone = {"name": "gpt", "num_layers": 2, "num_heads": 2, "dim": 8}
    model = SequenceModel(tiny_layout, {"name": "uniform", "num_bins": 5}, backbone, context=3)
    decayed, plain = split_decay(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in decayed} == {
        "head.weight",
        *(
            f"backbone.blocks.{block}.{layer}.weight"
            for block in range(2)
            for layer in ("query_key_value", "attention_out", "feed_forward.0", "feed_forward.2")
        ),
    }
    assert sorted(names[id(p)] for p in [*decayed, *plain]) == sorted(names.values())


def test_decay_reaches_the_weights_it_should_and_no_others() -> None:
    module = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = adamw(module, learning_rate=0.1, betas=[0.9, 0.95], weight_decay=0.5)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in module.named_parameters():
        factor = 1 - 0.1 * 0.5 if name == "1.weight" else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.95)}


def test_cosine_climbs_falls_and_stays_at_its_floor() -> None:
    multiplier = schedule(
        {"name": "cosine", "warmup_fraction": 0.1, "final_ratio": 0.2}, max_steps=1000, steps_per_epoch=7
    )
    assert multiplier(0) == pytest.approx(1 / 100)
    assert multiplier(49) == pytest.approx(0.5)
    assert multiplier(99) == multiplier(100) == pytest.approx(1.0)
    assert multiplier(550) == pytest.approx(0.6)  # half-way between 1 and 0.2
    assert multiplier(999) == pytest.approx(0.2, abs=1e-5)
    assert multiplier(1000) == multiplier(5000) == pytest.approx(0.2)
    assert all(b > a for a, b in pairwise(map(multiplier, range(100))))
    assert all(b < a for a, b in pairwise(map(multiplier, range(100, 1000))))


def test_cosine_without_warm_up_begins_at_the_top() -> None:
    multiplier = schedule(
        {"name": "cosine", "warmup_fraction": 0.0, "final_ratio": 0.0}, max_steps=10, steps_per_epoch=1
    )
    assert multiplier(0) == 1.0
    assert multiplier(10) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(0.5, 0.5), (1, 1.0), (10.5, 0.5), (20, 0.10), (29.5, 0.5), (39, 1.0), (50, 0.377), (58, 0.10)],
)
def test_the_published_schedule_is_cyclic(epoch: float, factor: float) -> None:
    config = {"name": "tt_reference", "warmup_epochs": 1, "cosine_epochs": 20, "final_ratio": 0.1}
    multiplier = schedule(config, max_steps=58_000, steps_per_epoch=1000)
    assert multiplier(round(1000 * epoch) - 1) == pytest.approx(factor, abs=2e-3)
    # The rule itself, in tokens seen: linear, then a cosine of 19 epochs that nothing stops.
    if epoch >= 1:
        assert factor == pytest.approx(max(0.1, 0.5 + 0.5 * math.cos(math.pi * (epoch - 1) / 19)), abs=1e-3)


def test_constant_is_constant() -> None:
    multiplier = schedule({"name": "constant"}, max_steps=5, steps_per_epoch=1)
    assert {multiplier(step) for step in (0, 3, 100)} == {1.0}


def test_schedules_that_do_not_exist_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"no scheduler named 'cosin'\. Did you mean 'cosine'\? Available: constant, co"
    ):
        schedule({"name": "cosin"}, max_steps=5, steps_per_epoch=1)
    with pytest.raises(ConfigError, match=r"scheduler 'cosine': .*'warmup'; see conf/scheduler/cosine\.yaml"):
        schedule({"name": "cosine", "warmup": 3, "final_ratio": 0.1}, max_steps=5, steps_per_epoch=1)
    with pytest.raises(ConfigError, match=r"scheduler 'cosine': .*final_ratio"):
        schedule({"name": "cosine", "warmup_fraction": 0.1}, max_steps=5, steps_per_epoch=1)
