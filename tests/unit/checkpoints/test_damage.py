"""Damaged checkpoints: no flipped bit loads with other weights, and what declares more than it holds is not read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqrl.archives import is_whole
from seqrl.checkpoints.loading import critic_file, find_checkpoint, load
from seqrl.checkpoints.reading import find_newest, read_checkpoint, read_file
from seqrl.errors import CheckpointError
from seqrl.training.module import SequenceModule


@pytest.fixture
def content(plain_layout_config: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """What a checkpoint of the stage `model` holds."""
    config = {
        "observation_size": 2,
        "action_size": 1,
        "layout": plain_layout_config(),
        "tokenizer": {"name": "quantile", "num_bins": 4},
        "backbone": {"name": "gpt", "num_layers": 1, "num_heads": 1, "dim": 4},
        "objective": {"name": "next_token"},
        "window": {"length": 3},
        "seed": 0,
        "plugins": [],
        "optimizer": {},
        "scheduler": {"name": "constant"},
    }
    module = SequenceModule(config)
    module.fit_tokenizer(np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32))
    found = {
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "global_step": 3,
        "stage": "model",
        "optimizer_states": [{"state": {}, "param_groups": []}],
        "lr_schedulers": [],
        "loops": {},
        "callbacks": {},
    }
    module.on_save_checkpoint(found)
    return found


@pytest.fixture
def whole(tmp_path: Path, content: dict[str, Any]) -> Path:
    torch.save(content, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def flip(path: Path, target: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << (bit % 8)
    target.write_bytes(data)


def count_loaded(whole: Path, target: Path, bits: list[int]) -> int:
    """How many files with one flipped bit load; all of them with the weights that were written."""
    wanted, loaded = read_file(whole), 0
    for bit in bits:
        flip(whole, target, bit)
        try:
            found = read_checkpoint(target, "model")
        except CheckpointError:
            continue
        loaded += 1
        assert str(found) == str(wanted)
        assert all(tensor.equal(found["state_dict"][name]) for name, tensor in wanted["state_dict"].items())
    return loaded


def structure_bits(path: Path) -> list[int]:
    """The bits of what no checksum covers: headers, padding, the archive's list of its members."""
    covered: set[int] = set()
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for member in archive.infolist():
            file.seek(member.header_offset + 26)
            lengths = np.frombuffer(file.read(4), "<u2")
            start = member.header_offset + 30 + int(lengths.sum())
            covered |= set(range(start, start + member.file_size))
    return [bit for bit in range(8 * path.stat().st_size) if bit // 8 not in covered]


def test_a_flipped_bit_never_loads_with_other_weights(whole: Path, tmp_path: Path) -> None:
    size = 8 * whole.stat().st_size
    bits = np.random.default_rng(0).integers(size, size=40).tolist()
    assert count_loaded(whole, tmp_path / "flipped.ckpt", bits) < len(bits)


def test_headers_and_padding_that_no_checksum_covers_change_no_weights(whole: Path, tmp_path: Path) -> None:
    bits = np.random.default_rng(0).choice(structure_bits(whole), size=60, replace=False).tolist()
    with zipfile.ZipFile(whole) as archive:
        members, start = archive.infolist(), archive.start_dir
    entry = start
    for member in members:
        bits.append(8 * (entry + 38) + 4)  # the member is a folder: torch would read zeros
        entry += 46 + len(member.filename)
    loaded = count_loaded(whole, tmp_path / "flipped.ckpt", bits)
    assert 0 < loaded < len(bits)  # a flipped bit of the padding hurts nobody


@pytest.mark.slow
def test_300_flipped_bits_and_1500_of_the_headers(whole: Path, tmp_path: Path) -> None:
    rng, size = np.random.default_rng(1), 8 * whole.stat().st_size
    count_loaded(whole, tmp_path / "flipped.ckpt", rng.integers(size, size=300).tolist())
    count_loaded(whole, tmp_path / "flipped.ckpt", rng.permutation(structure_bits(whole))[:1500].tolist())


@pytest.mark.parametrize("harm", ["empty", "half", "one byte less", "one byte more", "zeros", "other"])
def test_a_file_that_is_not_whole_is_refused_by_name(whole: Path, tmp_path: Path, harm: str) -> None:
    data, path = whole.read_bytes(), tmp_path / "harmed.ckpt"
    path.write_bytes(
        {
            "empty": b"",
            "half": data[: len(data) // 2],
            "one byte less": data[:-1],
            "one byte more": data[: len(data) // 2] + b"x" + data[len(data) // 2 :],
            "zeros": bytes(len(data)),
            "other": b"step,name,value\n",
        }[harm]
    )
    with pytest.raises(
        CheckpointError, match=r"harmed.ckpt' is damaged or no checkpoint.*; give last.ckpt of the same"
    ):
        load(path)
    assert not is_whole(path)
    assert is_whole(whole)


def test_folders_pipes_and_the_old_format_of_torch_are_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "folder.ckpt").mkdir()
    os.mkfifo(tmp_path / "pipe.ckpt")
    (tmp_path / "nowhere.ckpt").symlink_to(tmp_path / "away")
    torch.save(content, tmp_path / "legacy.ckpt", _use_new_zipfile_serialization=False)
    for name, words in (
        ("folder", "no checkpoint at"),
        ("pipe", "no checkpoint at"),
        ("nowhere", "no checkpoint at"),
        ("legacy", "was not loaded"),
    ):
        with pytest.raises(CheckpointError, match=f"{words}|{name}.ckpt") as caught:
            load(tmp_path / f"{name}.ckpt")
        assert words in str(caught.value)


MEASURE = """
import resource, sys
from pathlib import Path
from seqrl.checkpoints.loading import load
from seqrl.errors import CheckpointError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        load(Path(path))
    except CheckpointError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def write_bombs(whole: Path, folder: Path, content: dict[str, Any]) -> list[Path]:
    """Files of less than 2 MB that declare 400 MB and more, each in another place."""
    paths = [folder / f"{name}.ckpt" for name in ("compressed", "overlapping", "width", "length")]
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(paths[0], "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, bytes(400 * 2**20) if name.endswith("data/0") else source.read(name))
    with zipfile.ZipFile(paths[1], "w") as target:  # many members that are one and the same bytes
        target.writestr("x/data.pkl", bytes(2**20))
        (member,) = target.filelist
        for number in range(400):
            copy = zipfile.ZipInfo(f"x/data/{number}")
            copy.header_offset = 0
            copy.file_size, copy.compress_size, copy.CRC = member.file_size, member.compress_size, member.CRC
            target.filelist.append(copy)
    config = content["hyper_parameters"]["config"]
    for path, section, key, value in ((paths[2], "backbone", "dim", 20_000), (paths[3], "window", "length", 10**6)):
        changed = {**config, section: {**config[section], key: value}}
        torch.save({**content, "hyper_parameters": {"config": changed}}, path)
    return paths


def test_a_small_file_takes_no_large_memory(whole: Path, tmp_path: Path, content: dict[str, Any]) -> None:
    paths = write_bombs(whole, tmp_path, content)
    assert all(path.stat().st_size < 2 * 2**20 for path in paths)
    done = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=True)
    *sentences, kilobytes = done.stdout.splitlines()
    for path, sentence, words in zip(
        paths,
        sentences,
        ("is compressed", "it declares 420478976 bytes and has", *["its config asks for"] * 2),
        strict=True,
    ):
        assert path.name in sentence
        assert words in sentence
    assert int(kilobytes) < 100 * 2**10


def test_of_several_checkpoints_the_newest_whole_one_is_taken(tmp_path: Path, content: dict[str, Any]) -> None:
    for step, name in ((30, "last"), (20, "step-20"), (10, "step-10"), (15, "best")):
        torch.save({**content, "global_step": step}, tmp_path / f"{name}.ckpt")
    for damaged, (name, step) in (
        ("", ("last.ckpt", 30)),
        ("last.ckpt", ("step-20.ckpt", 20)),
        ("step-20.ckpt", ("best.ckpt", 15)),
        ("best.ckpt", ("step-10.ckpt", 10)),
    ):
        if damaged:
            place = tmp_path / damaged
            flip(place, place, 8 * place.read_bytes().index(b"num_layers"))
        found = find_newest(tmp_path, "model", to_train=True)
        assert found is not None
        assert (found.path.name, found.step) == (name, step)
        assert bool(found.faults) == bool(damaged)
        assert all("is damaged" in fault for fault in found.faults)


@pytest.mark.parametrize(
    "change", [{"optimizer_states": []}, {"optimizer_states": None}, {"loops": None}, {"callbacks": []}]
)
def test_what_training_cannot_go_on_from_serves_an_evaluation(
    tmp_path: Path, content: dict[str, Any], change: dict[str, Any]
) -> None:
    torch.save({**content, **change}, tmp_path / "last.ckpt")
    assert find_newest(tmp_path, "model") is not None
    with pytest.raises(CheckpointError, match=f"last.ckpt' lacks {next(iter(change))}, without which no training"):
        find_newest(tmp_path, "model", to_train=True)


@pytest.mark.parametrize("change", [{"state_dict": []}, {"state_dict": {"model.x": 3}}, {"global_step": None}])
def test_other_types_than_those_that_are_written_end_in_a_sentence(
    tmp_path: Path, content: dict[str, Any], change: dict[str, Any]
) -> None:
    torch.save({**content, **change}, tmp_path / "last.ckpt")
    if "global_step" in change:
        assert load(tmp_path / "last.ckpt").step == 0
    else:
        with pytest.raises(CheckpointError, match=r"last.ckpt' holds no weights"):
            load(tmp_path / "last.ckpt")


def test_a_run_whose_last_checkpoint_is_damaged_is_evaluated_with_the_one_before(
    tmp_path: Path, content: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("model", "critic"):
        (tmp_path / stage).mkdir()
        torch.save({**content, "stage": stage, "global_step": 2}, tmp_path / stage / "step-2.ckpt")
        (tmp_path / stage / "last.ckpt").write_bytes((tmp_path / stage / "step-2.ckpt").read_bytes()[:-1])
        place = tmp_path / stage if stage == "model" else tmp_path
        found = find_checkpoint(place) if stage == "model" else critic_file(place)
        assert found == tmp_path / stage / "step-2.ckpt"
        said = capsys.readouterr().out
        assert f"{stage}/last.ckpt' is damaged" in said
        assert said.endswith("; step-2.ckpt of step 2 is taken instead\n")
    with pytest.raises(CheckpointError, match=r"last.ckpt' is damaged.*; give step-2.ckpt of the same folder"):
        load(tmp_path / "model" / "last.ckpt")
    assert find_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observation_size": 30_000}, "config"),
        ({"action_size": 60_000}, "config"),
        ({"observation_size": 10**9}, "observation_size"),
        ({"action_size": 65_537}, "action_size"),
        ({"observation_size": 65_536, "action_size": 65_536}, "65,536 is the most"),
        ({"layout": {"stride": 10**9, "chunk": 10**9}}, "65,536 is the most"),
    ],
)
def test_sizes_of_a_small_file_take_no_long_time(
    tmp_path: Path, content: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    """Every size is refused within seconds: what a model of it is made of is walked through once."""
    config = content["hyper_parameters"]["config"]
    if "layout" in change:
        change = {"layout": {**config["layout"], **change["layout"]}}
    content["hyper_parameters"]["config"] = {**config, **change}
    torch.save(content, tmp_path / "last.ckpt")
    start = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "last.ckpt")
    assert words in str(caught.value)
    assert time.process_time() - start < 10
