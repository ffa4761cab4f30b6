"""`seqrl bench`: what is counted and compared is right. How fast anything is, no test says."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from seqrl.benchmarks import plan
from seqrl.benchmarks.floor import Decoder, Search, floor_seconds
from seqrl.benchmarks.plan import PlanSettings, extrapolate, peak_mb, timed_transitions
from seqrl.benchmarks.timing import Rates, interleaved, measure_rates
from seqrl.benchmarks.training import plain_block
from seqrl.benchmarks.workload import TrainSettings, train_block
from seqrl.cli.bench import run
from seqrl.models.token import TokenModel
from seqrl.testing.samples import layout

MODEL = ["--threads", "1", "--observation", "2", "--action", "1", "--layers", "1", "--heads", "2", "--width", "8"]
SEARCH = ["--bins", "5", "--beam-width", "3", "--horizon", "4", "--context", "3", "--environments", "2"]
TRAINING = ["--batch-size", "4", "--window", "3", "--steps", "2", "--transitions", "60", "--repeats", "1"]
NUMBERS = {"ms_per_plan", "ms_min", "ms_max", "ms_per_token_step", "peak_mb", "speedup", "floor_ms", "floor_ratio"}
NOWHERE = float("inf")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates of small products, and no processes for the memory."""
    monkeypatch.setattr(plan, "measure_rates", lambda device, dtype: measure_rates(device, dtype, size=64))
    monkeypatch.setattr(plan, "measure_peak", lambda settings, backbone, mode: 1.0)


def written(command: str, *words: str, folder: Path) -> dict[str, Any]:
    assert run([command, *MODEL, *words, "--output", str(folder / "numbers.json")]) == 0
    content: dict[str, Any] = json.loads((folder / "numbers.json").read_text())
    return content


# The floor, counted by hand for a transition of one observation, action, reward and hidden value, whose two
# transitions of context give a history of tokens 0 to 4, of which 3 is hidden. 2 beams, 3 copies each, horizon 2.
# Tokens 5 and 6 (action, reward) have 6 rows; 7 (value) and 8 (observation) have 2; 9 and 10 have 6. From token 7 on, 0
# to 3 have left the context.
DECODER = Decoder(linear_weights=10, head_weights=6, layers=2, query_width=4, key_width=2, classes=3, itemsize=4)
SMALL = Search(hidden=(False, False, False, True), observation=1, beam_width=2, n_expand=3, horizon=2, context=2)


def test_the_floor_counts_flops_as_by_hand() -> None:
    history = 2 * (5 * 10 + 6) + 2 * 4 * 4 * (1 + 2 + 3 + 3 + 4)
    dense = [2 * rows * (10 + 6) for rows in (6, 6, 2, 2, 6, 6)]
    keys = [5, 6, 3, 4, 5, 6]  # visible tokens, the new one's own included unless it is the value
    attention = [2 * 4 * 4 * rows * count for rows, count in zip((6, 6, 2, 2, 6, 6), keys, strict=True)]
    assert floor_seconds(DECODER, SMALL, Rates(flops=1.0, bytes=NOWHERE)) == history + sum(dense) + sum(attention)


def test_the_floor_counts_bytes_as_by_hand() -> None:
    weights, logits, entry = 4 * 16, 4 * 3, 2 * 2 * 4
    history = weights + logits + 2 * entry * 4
    entries = [
        4 + 6,  # the history once; 6 rows written
        4 + 6 + 6,  # and what token 5 left in each of the 6
        1 + 2 * 2,  # one token of the history is left; tokens 5 and 6 of 2 survivors; the value is not written
        1 + 2 * 2 + 2,
        1 + 2 * 3 + 6,
        1 + 2 * 3 + 6 + 6,
    ]
    steps = [
        weights + logits * rows + 2 * entry * count for rows, count in zip((6, 6, 2, 2, 6, 6), entries, strict=True)
    ]
    assert floor_seconds(DECODER, SMALL, Rates(flops=NOWHERE, bytes=1.0)) == history + sum(steps)


def test_every_operation_takes_the_longer_of_its_two_times() -> None:
    flops, bytes_ = (floor_seconds(DECODER, SMALL, rates) for rates in (Rates(1.0, NOWHERE), Rates(NOWHERE, 1.0)))
    assert max(flops, bytes_) < floor_seconds(DECODER, SMALL, Rates(1.0, 1.0)) < flops + bytes_


@pytest.mark.parametrize(
    ("backbone", "linear_weights", "key_width"),
    [
        ({"name": "gpt"}, 2 * 12 * 16**2, 16),
        ({"name": "llama", "num_kv_heads": 2}, 2 * (16 * 32 + 16 * 16 + 3 * 16 * 48), 8),  # 4 query heads
    ],
)
def test_what_a_decoder_asks_of_a_machine(backbone: dict[str, Any], linear_weights: int, key_width: int) -> None:
    sizes = {"num_layers": 2, "num_heads": 4, "dim": 16}
    model = TokenModel(layout(), {"name": "uniform", "num_bins": 8}, {**backbone, **sizes}, context=3)
    decoder = Decoder.of(model)
    assert (decoder.layers, decoder.query_width, decoder.key_width) == (2, 16, key_width)
    assert (decoder.head_weights, decoder.classes, decoder.itemsize) == (16 * 9, 9, 4)
    assert decoder.linear_weights == linear_weights


def test_an_affine_time_is_extrapolated_exactly() -> None:
    assert extrapolate(3.0 + 2.0, 3.0 + 2.0 * 4, timed=4, horizon=10) == 3.0 + 2.0 * 10


@pytest.mark.parametrize(("transitions", "timed"), [(2, 3), (1, 2), (3, None), (9, None), (None, None)])
def test_the_reference_runs_in_full_where_that_is_no_longer(transitions: int | None, timed: int | None) -> None:
    assert timed_transitions(PlanSettings(threads=1, horizon=4, reference_transitions=transitions)) == timed


def test_measurements_take_turns() -> None:
    order: list[str] = []
    tasks = {name: lambda repeat, name=name: order.append(f"{name}{repeat}") or float(repeat) for name in "ab"}  # type: ignore[misc]
    assert interleaved(tasks, 2) == {"a": [0.0, 1.0], "b": [0.0, 1.0]}
    assert order == ["a0", "b0", "a1", "b1"]


@pytest.mark.usefixtures("quick")
def test_plan_measures_every_mode_of_every_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = written("plan", *SEARCH, "--repeats", "2", folder=tmp_path)
    for mode in ("reference", "exact", "window"):
        assert set(numbers[mode]) == NUMBERS
        assert all(value > 0 for value in numbers[mode].values())
    assert numbers["reference"]["speedup"] == 1
    assert numbers["exact"]["speedup"] == numbers["reference"]["ms_per_plan"] / numbers["exact"]["ms_per_plan"]
    assert set(numbers["gpt"]["exact"]) == NUMBERS
    assert "relative positions" in numbers["gpt"]["window"]["skipped"]
    assert numbers["tokens_per_plan"] == 4 * (1 + 2) + 3 * 2
    assert "horizon 1 and 3" in numbers["reference_scaling"]
    assert numbers["path"].startswith(("one compiled call", "tensor operations ("))
    assert numbers["batched"]["environments"] == 2
    assert set(numbers["batched"]["window"]) == {"ms_batched", "ms_singles", "ratio"}
    assert numbers["machine"]["threads"] == 1
    assert {"matrix_product_gflops", "copy_gb_per_second", "torch", "device"} <= set(numbers["machine"])
    assert "extrapolated to 4" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_plan_leaves_out_what_it_is_told_to(tmp_path: Path) -> None:
    words = [*SEARCH, "--environments", "1", "--repeats", "1", "--backbone", "gpt", "--reference-transitions", "all"]
    numbers = written("plan", *words, folder=tmp_path)
    assert numbers["backbone"] == "gpt"
    assert "batched" not in numbers
    assert numbers["reference_scaling"] == "run in full"


@pytest.mark.slow
def test_the_memory_of_a_plan_is_that_of_a_process_of_its_own(tmp_path: Path) -> None:
    words = [*SEARCH, "--environments", "1", "--repeats", "1", "--backbone", "gpt"]
    assert written("plan", *words, folder=tmp_path)["exact"]["peak_mb"] >= 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_memory_grows_with_the_rows() -> None:
    """An uncached pass over 600 rows holds 600 x 14 tokens x 32 numbers a few times over, and far less over 2."""
    common: dict[str, Any] = {"threads": 1, "observation": 2, "action": 1, "bins": 5, "layers": 1, "width": 32}
    peaks = []
    for rows in (1, 300):
        settings = PlanSettings(**common, horizon=1, context=3, beam_width=rows)
        with ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn")
        ) as process:  # nothing freed in it yet
            peaks.append(process.submit(peak_mb, settings, "gpt", "reference").result())
    few, many = peaks
    assert few is not None
    assert many is not None
    assert many - few > 600 * 14 * 32 * 4 / 1e6


def test_both_loops_train_the_same_model(tmp_path: Path) -> None:
    settings = TrainSettings(
        threads=1, observation=2, action=1, layers=1, heads=2, width=8, dropout=0.0, window=3, batch_size=4, steps=3,
        transitions=60,
    )  # fmt: skip
    config, data = settings.config(), settings.data()
    _, batches, ours = train_block(config, data, tmp_path / "run")
    _, plain = plain_block(config, settings.sizes(), batches, data.steps_per_epoch)
    start = type(ours)(config, settings.sizes()).state_dict()
    assert len(batches) == 3 + 3 + 1
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
        if name.endswith("head.weight"):
            assert not torch.allclose(start[name], value)


def test_train_compares_tokens_per_second(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = written("train", *TRAINING, folder=tmp_path)
    per_step = 4 * 3 * 5
    for loop in ("seqrl", "fast", "plain"):
        assert numbers[loop]["tokens_per_second"]["median"] == pytest.approx(
            1e3 * per_step / numbers[loop]["ms_per_step"]
        )
    assert numbers["ratio"] == pytest.approx(numbers["plain"]["ms_per_step"] / numbers["seqrl"]["ms_per_step"])
    assert numbers["fast_ratio"] == pytest.approx(numbers["plain"]["ms_per_step"] / numbers["fast"]["ms_per_step"])
    assert "of the plain loop's tokens/s" in capsys.readouterr().out


def test_data_compares_windows_per_second(tmp_path: Path) -> None:
    numbers = written("data", *TRAINING, "--batches", "3", folder=tmp_path)
    loader, training = (numbers[name]["windows_per_second"]["median"] for name in ("loader", "training"))
    assert numbers["ratio"] == pytest.approx(loader / training)
    assert numbers["settings"]["batches"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "--threads", "0"], "'0' is no whole number of 1 or more"),
        (["plan", "--threads", "1", "--context", "1"], "'1' is no whole number of 2 or more"),
        (["plan", "--threads", "1", "--reference-transitions", "some"], "'some' is no whole number"),
        (["plan", "--threads", "1", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["train", "--threads", "1", "--device", "tpu"], "invalid choice: 'tpu'"),
        (["data", "--threads", "1", "--batches", "-1"], "'-1' is no whole number"),
        (["everything"], "invalid choice: 'everything'"),
    ],
)
def test_a_wrong_option_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", *MODEL, "--backbone", "gpd"], "gpd"),
        (["plan", *MODEL, "--width", "9"], "backbone.dim=9"),
        (["plan", *MODEL, "--output", "nowhere/numbers.json"], "there is no folder 'nowhere'"),
        (["train", *MODEL, "--backbone", "gpd"], "gpd"),
        pytest.param(
            ["train", *MODEL, "--device", "cuda"],
            "torch finds no GPU here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    assert message in capsys.readouterr().err
