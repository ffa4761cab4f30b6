"""Decoders of `transformers` under seqrl's attention: their own numbers, the contracts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from seqrl import testing
from seqrl.attention import causal_mask
from seqrl.attention.full import FullAttention
from seqrl.backbones import Backbone
from seqrl.errors import ConfigError
from seqrl.registry import BACKBONE

transformers = pytest.importorskip("transformers", reason="the optional package transformers is not installed")
FAMILIES = ["qwen3", "llama", "gpt_neox"]
SMALL: dict[str, Any] = {"name": "hf", "num_layers": 2, "num_heads": 2, "dim": 16}


def build(**options: Any) -> Backbone:
    torch.manual_seed(0)
    found: Backbone = BACKBONE.build({**SMALL, **options}, max_length=24)
    return found.eval()


def features_of(backbone: Backbone, x: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(x.shape[1])[None]
    with torch.no_grad():
        return backbone(x, positions, FullAttention(causal_mask(x.shape[1], x.device)[None, None]))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_kv_heads", [None, 1])
def test_features_are_those_of_the_package(family: str, num_kv_heads: int | None) -> None:
    """Under the package's own eager attention and its own mask."""
    backbone: Any = build(model_type=family, num_kv_heads=num_kv_heads)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    theirs = transformers.AutoModel.from_config(backbone.decoder.config, attn_implementation="eager").eval()
    missing = theirs.load_state_dict(backbone.decoder.state_dict(), strict=False)
    assert all("embed" in name for name in missing.missing_keys)
    x = torch.randn(3, 10, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = theirs(inputs_embeds=x, use_cache=False).last_hidden_state
    torch.testing.assert_close(features_of(backbone, x), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_keeps_the_contracts(family: str) -> None:
    """Causal, masks, positions, all cache modes."""
    found = testing.check("backbone", "hf", model_type=family, num_layers=2, num_heads=2, dim=16)
    assert [(contract, told) for contract, told in found if told is not None] == []


def test_weights_of_a_folder_are_read_and_travel(tmp_path: Path) -> None:
    made: Any = build(model_type="llama", num_kv_heads=1)
    config = made.decoder.config
    saved = transformers.AutoModel.from_config(config)
    saved.load_state_dict(made.decoder.state_dict(), strict=False)
    saved.save_pretrained(tmp_path / "llama")
    x = torch.randn(2, 7, 16)
    read = build(path=str(tmp_path / "llama"), dim=64)
    assert read.dim == 16, "the folder decides"
    torch.testing.assert_close(features_of(read, x), features_of(made, x))
    fresh = build(path=str(tmp_path / "llama"))
    fresh.load_state_dict(read.state_dict())
    torch.testing.assert_close(features_of(fresh, x), features_of(read, x))


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("gemma2", "attends with soft caps"),
        ("gpt_oss", "attends with sinks"),
        ("mamba", r"of which 0 attend by softmax attention \(\['linear_attention'\]\)"),
        ("qwen3_next", "linear, recurrent and other layers cannot be cached"),
        ("bloom", "layers of its own"),
        ("bert", "does not attend causally"),
        ("quen3", r"no decoder that transformers has. Did you mean 'qwen3'"),
        ("t5", "no decoder that transformers has"),
    ],
)
def test_what_attends_otherwise_is_refused_by_name(family: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(model_type=family)


@pytest.mark.parametrize("family", ["mistral", "qwen3", "starcoder2", "phi3"])
def test_sliding_windows_of_a_folder_are_refused(family: str, tmp_path: Path) -> None:
    """New weights have none, whatever the family has by default; a folder decides for itself."""
    assert isinstance(build(model_type=family), Backbone)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    more = {"use_sliding_window": True, "max_window_layers": 0} if family == "qwen3" else {}
    few = {"intermediate_size": 32, "vocab_size": 8, "head_dim": 8, "pad_token_id": None}
    config = transformers.AutoConfig.for_model(family, **sizes, **few, **more, sliding_window=4)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / family)
    with pytest.raises(ConfigError, match=r"attends with sliding windows|sliding_attention"):
        build(path=str(tmp_path / family))


def test_a_folder_that_would_run_code_or_has_no_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"makes no decoder: .*config.json"):
        build(path=str(tmp_path / "nothing"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "auto_map": {"AutoModel": "mine.Model"}}))
    with pytest.raises(ConfigError, match=r"code of its own \(auto_map\), which is never run"):
        build(path=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 16}))
    with pytest.raises(ConfigError, match="makes no decoder"):
        build(path=str(tmp_path))


def test_learnt_positions_are_not_relative() -> None:
    assert build(model_type="qwen3").relative
    assert not build(model_type="gpt2").relative
