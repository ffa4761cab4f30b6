"""What is said of windows that no memory holds."""

from __future__ import annotations

import pytest

from seqrl.testing import samples
from seqrl.training.memory import estimate_memory, warn_of_memory

BACKBONE = {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 16}


def test_the_estimate_grows_with_windows_and_faster_than_tokens() -> None:
    small, large = samples.model(samples.layout()), samples.model(samples.layout(), window=12)
    one = estimate_memory(small, BACKBONE, 1)
    tokens, classes = 6 * 7, 9
    assert one == 4 * tokens * (3 * classes + 16 * 16 + 2 * tokens)
    assert estimate_memory(small, BACKBONE, 64) == 64 * one
    assert estimate_memory(large, BACKBONE, 1) > 2 * one
    assert estimate_memory(samples.vector_model(samples.layout()), BACKBONE, 1) == 0


def test_a_line_says_what_a_step_needs_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    model = samples.model(samples.layout())
    warn_of_memory(model, BACKBONE, 256, free=2**40)
    assert capsys.readouterr().out == ""
    warn_of_memory(model, BACKBONE, 256, free=1000)
    told = " ".join(capsys.readouterr().out.split())
    assert "42 tokens (6 transitions of 7)" in told
    assert "smaller training.batch_size" in told
    assert "tokenizer=continuous" in told
