"""Sizes and costs at scale: against counting by hand, and failures against what renewal theory says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from benchmarks import latent, ranks
from benchmarks.scaling import Rates, Shape, checkpointing, data, lost_share, main, scaling, training

from seqrl.cli import bench

SMALL = Shape(layers=2, heads=2, width=8, observation=3, action=2, window=4, batch=5)


def test_parameters_and_operations_are_those_of_the_model() -> None:
    rates = Rates(tflops=1e-6)  # a million operations a second
    found = training(SMALL, 1, rates)
    k, v, d = 3 + 2 + 2, 101, 8
    block = 3 * d * d + 3 * d + d * d + d + 2 * (4 * d * d) + 5 * d + 4 * d
    assert found["parameters"] == 2 * k * v * d + 4 * k * d + 2 * block + 2 * d
    length = 4 * k
    per_token = 2 * (2 * block + 2 * d + length * d + v * d)  # learned positions count here, though they are looked up
    attention = 2 * 2 * length * d
    assert found["compute_ms"] == pytest.approx(1000 * 3 * 5 * length * (per_token + attention) / 1e6, rel=0.01)
    assert found["reduce_mb"] == 0.0
    assert found["efficiency"] == 1.0


def test_a_ring_sends_twice_the_gradients_and_fsdp_shares_the_state() -> None:
    one, many = training(SMALL, 1, Rates()), training(SMALL, 4, Rates())
    assert many["reduce_mb"] == pytest.approx(2 * 0.75 * 4 * one["parameters"] / 1e6)
    assert many["state_fsdp_gib"] == pytest.approx(one["state_gib"] / 4)
    assert many["efficiency"] == pytest.approx(many["compute_ms"] / (many["compute_ms"] + many["reduce_ms"]))


def test_data_grow_and_the_order_does_not() -> None:
    small, large = data(SMALL, 1e6), data(SMALL, 1e10)
    assert small["episodes_gb"] == pytest.approx(6 * 4 * 1e6 / 1e9)
    assert small["tokens_gb"] == pytest.approx(7e6 / 1e9)  # one byte holds 100 bins and the termination token
    assert small["order_gb"] == small["permutation_gb"] > 0
    assert large["permutation_gb"] == pytest.approx(40.0)
    assert large["order_gb"] == 0.0


def test_time_lost_to_failures_is_what_renewals_cost() -> None:
    """Expected wall time per saved interval, with failures of rate 1/M: (M + restart) (e^((I + w)/M) - 1)."""
    work, interval, write, between, restart = 4e6, 300.0, 20.0, 2000.0, 60.0
    found = sum(lost_share(work, interval, write, between, restart, seed) for seed in range(8)) / 8
    wall = (between + restart) * (math.exp((interval + write) / between) - 1)
    assert found == pytest.approx(1 - interval / wall, abs=0.01)
    assert lost_share(work, interval, write, 1e15, restart, 0) == pytest.approx(
        1 - interval / (interval + write), abs=0.001
    )


def test_saves_come_as_often_as_young_says() -> None:
    found = checkpointing(1e9, 100, Rates(disk_gb=3.0, mtbf_gpu_hours=1000.0))
    assert found["write_s"] == pytest.approx(4.0)
    assert found["interval_min"] == pytest.approx(math.sqrt(2 * 4.0 * 36000.0) / 60)


def test_the_command_prints_and_writes_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--models", "2,2,8", "--gpus", "1", "4", "--transitions", "1e6", "--output", str(tmp_path / "s.json")]
    assert main(words) == 0
    assert "computed, not measured, from tflops 300" in capsys.readouterr().out
    found = scaling([Shape(2, 2, 8)], [1, 4], [1e6], Rates())
    assert len(found["training"]) == 2
    assert json.loads((tmp_path / "s.json").read_text())["training"] == found["training"]
    assert main(["--tflops", "0"]) == 2


@pytest.mark.parametrize("name", ["latent", "scaling"])
def test_the_command_of_before_says_where_it_went(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run([name, "--threads", "1"]) == 2
    assert f"python -m benchmarks.{name}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "words", "message"),
    [
        (latent, ["--sizes", "11"], "'11' is not observation,action; give numbers as in 11,3"),
        (latent, ["--codes", "1"], "'1' is no whole number of 2 or more"),
        (ranks, ["--ranks", "0"], "'0' is no whole number of 1 or more"),
    ],
)
def test_a_wrong_option_is_refused(
    module: Any, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        module.main(words)
    assert message in capsys.readouterr().err


def test_measurements_of_codes_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    small = {"layers": 1, "heads": 2, "width": 8, "latent-width": 8, "codes": 4, "horizon": 3, "context": 2}
    small |= {"beam-width": 2, "latent-beam-width": 2, "latent-n-expand": 2, "repeats": 1, "threads": 1}
    assert latent.main(["--sizes", "2,1", *(word for name, n in small.items() for word in (f"--{name}", str(n)))]) == 0
    assert "codes, ms/plan" in capsys.readouterr().out
