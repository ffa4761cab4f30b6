"""Which weights decay, and by how much."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.optimizers.adamw import split_decay
from seqrl.registry import OPTIMIZER


def test_only_the_weights_of_linear_layers_decay(tiny_layout: Layout) -> None:
    backbone = {"name": "gpt", "num_layers": 2, "num_heads": 2, "dim": 8}
    model = TokenModel(tiny_layout, {"name": "uniform", "num_bins": 5}, backbone, context=3)
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
    config = {"name": "adamw", "learning_rate": 0.1, "betas": [0.9, 0.95], "weight_decay": 0.5, "clip_norm": None}
    optimizer = OPTIMIZER.build(config).build(module)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in module.named_parameters():
        factor = 1 - 0.1 * 0.5 if name == "1.weight" else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.95)}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"betas": [0.9, 1.0]}, r"optimizer\.betas=\[0\.9, 1\.0\] .*a list of 2"),
        ({"betas": [0.9]}, r"optimizer\.betas=\[0\.9\] .*a list of 2"),
        ({"learning_rate": 0}, r"optimizer\.learning_rate=0 is too small; give more than 0"),
        ({"clip_norm": 0}, r"optimizer\.clip_norm=0 is too small; give more than 0, or null"),
        ({"weight_deacy": 0.1}, r"optimizer 'adamw' has no option 'weight_deacy'\. Did you mean 'weight_decay'\?"),
    ],
)
def test_a_wrong_option_is_refused(option: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OPTIMIZER.check({"name": "adamw", **option})
