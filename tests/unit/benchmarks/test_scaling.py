"""Sizes and costs at scale: against counting by hand, and failures against what renewal theory says."""

from __future__ import annotations

import math

import pytest

from seqrl.benchmarks.scaling import Rates, Shape, checkpointing, data, lost_share, scaling, training
from seqrl.cli.bench import run

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
    assert large["permutation_gb"] == pytest.approx(80.0)
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


def test_the_command_prints_and_writes_all_of_it(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(
            [
                "scaling",
                "--models",
                "2,2,8",
                "--gpus",
                "1",
                "4",
                "--transitions",
                "1e6",
                "--output",
                f"{tmp_path}/s.json",
            ]
        )
        == 0
    )
    assert "computed, not measured, from tflops 300" in capsys.readouterr().out
    found = scaling([Shape(2, 2, 8)], [1, 4], [1e6], Rates())
    assert len(found["training"]) == 2
    assert run(["scaling", "--tflops", "0"]) == 2
