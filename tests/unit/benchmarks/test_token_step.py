"""One-token steps by Inductor are those of the plain session."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from benchmarks.token_step import CompiledSteps, main

from seqrl.attention.full import FullAttention
from seqrl.backbones.llama import LlamaBackbone

SMALL = ["--observation", "2", "--action", "1", "--layers", "1", "--heads", "2", "--width", "8", "--bins", "5"]


def test_only_steps_on_a_static_cache_are_compiled() -> None:
    torch.manual_seed(0)
    backbone = LlamaBackbone(max_length=8, num_layers=1, num_heads=2, dim=8).eval()
    x, positions = torch.randn(2, 5, 8), torch.arange(5)[None]
    wrapped = CompiledSteps(backbone, {})
    assert (wrapped.dim, wrapped.relative) == (backbone.dim, backbone.relative)
    assert torch.equal(wrapped(x, positions, FullAttention()), backbone(x, positions, FullAttention()))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, about itself
def test_all_kinds_of_steps_have_the_same_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    words = [
        "--rows",
        "4",
        "--steps",
        "2",
        "--context",
        "4",
        "--repeats",
        "1",
        "--output",
        str(tmp_path / "steps.json"),
    ]
    assert main([*SMALL, *words]) == 0
    content = json.loads((tmp_path / "steps.json").read_text())
    assert set(content["ms"]) == {"today", "operations", "static", "inductor"}
    assert content["difference"] < 1e-5
