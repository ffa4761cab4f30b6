"""Files of strangers: what is read of them, and that nothing they name is imported or called."""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqrl.errors import DataError
from seqrl.importing.reading import read_json, read_record, read_tensors, read_weights

FOLDER = Path(__file__).parents[2] / "fixtures" / "published" / "tt_checkpoint"


def pickled(module: str, name: str, *arguments: str) -> bytes:
    """A pickle, protocol 0, that calls something with texts."""
    given = "".join(f"V{each}\n" for each in arguments)
    return f"c{module}\n{name}\n({given}tR.".encode()


class Touch:
    """A pickle of this makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_the_configurations_of_a_published_training_are_read() -> None:
    before = set(sys.modules)
    assert read_record(FOLDER / "model_config.pkl")["observation_dim"] == 3
    assert read_record(FOLDER / "data_config.pkl")["env"] == "hopper-medium-v2"
    assert not [name for name in set(sys.modules) - before if name.startswith("trajectory")]


@pytest.mark.parametrize(
    "content",
    [
        pickled("os", "system", "touch ran"),
        pickled("builtins", "eval", "open('ran', 'w')"),
        pickled("trajectory.utils.config", "os.system", "touch ran"),
        pickled("trajectory.utils.config", "Config.__init__.__globals__", "touch ran"),
        pickled("trajectory.utils", "os", "touch ran"),
        pickled("seqrl.files", "write_text", "ran", "x"),
        b"P0\n.",
        b"\x80\x02\x82\x01.",
    ],
    ids=["call", "builtin", "beneath a known module", "dotted", "unknown name", "ours", "persistent", "extension"],
)
def test_a_pickle_that_names_anything_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.pkl' (names .* and was not loaded|is no readable pickle)"):
        read_record(tmp_path / "a.pkl")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("depth", [0, 1])
def test_a_call_inside_a_known_record_is_refused(tmp_path: Path, depth: int) -> None:
    value: Any = Touch(tmp_path / "ran")
    for _ in range(depth):
        value = {"_dict": value}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"_dict": value}))
    with pytest.raises(DataError, match=r"names (posix|os|nt)\.system"):
        read_record(tmp_path / "a.pkl")
    torch.save({"weight": torch.zeros(1), "more": value}, tmp_path / "a.pt")
    with pytest.raises(DataError, match="more than tensors and plain values"):
        read_tensors(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


def test_what_a_record_does_to_its_class_stays_with_it(tmp_path: Path) -> None:
    """BUILD on a class sets attributes of it: they are gone with the reading."""
    state = b"(N}Vmark\nI1\nst"  # (None, {"mark": 1})
    (tmp_path / "a.pkl").write_bytes(b"ctrajectory.utils.config\nConfig\n" + state + b"b.")
    with pytest.raises(DataError):
        read_record(tmp_path / "a.pkl")
    assert "mark" not in read_record(FOLDER / "model_config.pkl")


def test_only_plain_values_are_taken(tmp_path: Path) -> None:
    nested: Any = ["x"]
    for _ in range(40):
        nested = [nested, nested]  # 2^40 when it is walked
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"n_head": 2, "nested": nested, 3: 4}))
    assert read_record(tmp_path / "a.pkl") == {"n_head": 2}


@pytest.mark.parametrize("read", [read_record, read_json, read_tensors])
@pytest.mark.parametrize("content", [b"", b"\x00" * 20, b"[1, 2]", b"PK\x03\x04 cut"])
def test_damaged_files_are_refused(tmp_path: Path, read: Any, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=r"/a'"):
        read(tmp_path / "a")


@pytest.mark.parametrize("read", [read_record, read_json])
def test_configurations_are_small(tmp_path: Path, read: Any) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="larger than any configuration"):
        read(tmp_path / "a")


def safetensors(header: dict[str, Any], content: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def test_safetensors_are_read(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype=np.float32)
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "I64", "shape": [], "data_offsets": [24, 32]},
        "c": {"dtype": "BF16", "shape": [0, 2], "data_offsets": [32, 32]},
    }
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(header, numbers.tobytes() + np.int64(7).tobytes()))
    found = read_weights(path)
    assert torch.equal(found["a"], torch.from_numpy(numbers).view(2, 3))
    assert found["b"] == 7
    assert found["c"].shape == (0, 2)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 28]},
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [4, 28]},
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [-1, -6], "data_offsets": [0, 24]},
        {"dtype": "F31", "shape": [6], "data_offsets": [0, 24]},
        {"shape": [6]},
        "text",
    ],
)
def test_safetensors_whose_parts_do_not_fit_are_refused(tmp_path: Path, entry: Any) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors({"a": entry}, b"\x00" * 24))
    with pytest.raises(DataError, match="is damaged or no file of safetensors"):
        read_tensors(path)
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(DataError, match=r"is damaged or no file of safetensors .*header"):
        read_tensors(path)


@pytest.mark.parametrize("content", [{}, {"a": 1}, {"a": torch.tensor(float("nan"))}])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"no state dict|holds NaN"):
        read_weights(tmp_path / "a.pt")
