"""The token cache: same tokens as without it, one maker among many processes, and never a reason to fail."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seqrl.config import WindowConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.data.token_cache import cached_tokens, encoder_identity, token_dtype, token_key
from seqrl.layout import Goal, Layout
from seqrl.tokenizers import Tokenizer
from seqrl.tokenizers.uniform import UniformTokenizer
from seqrl.training.datamodule import EpisodeDataModule
from seqrl.training.module import SequenceModule

KEY = "k" * 64
TOKENS = np.arange(60).reshape(20, 3)

# A process that makes the tokens of KEY in two chunks; `between` is run after the first. It appends to made.txt first.
MAKER = """
import sys
from pathlib import Path
import numpy as np
from seqrl.data.token_cache import cached_tokens
folder = Path(sys.argv[1])
tokens = np.arange(60).reshape(20, 3)

def chunks():
    with (folder / "made.txt").open("a") as file:
        file.write("once\\n")
    yield 10, tokens[10:]
    {between}
    yield 0, tokens[:10]

found = cached_tokens("k" * 64, 20, np.dtype(np.uint8), chunks, folder / "tokens")
print("sum", found.sum(), found.dtype, flush=True)
"""
BLOCK = 'print("half", flush=True); sys.stdin.read()'


def chunks() -> Iterator[tuple[int, np.ndarray]]:
    yield 10, TOKENS[10:]
    yield 0, TOKENS[:10]


def never() -> Iterator[tuple[int, np.ndarray]]:
    raise AssertionError("the tokens were made again")
    yield 0, TOKENS


def maker(folder: Path, between: str = "pass") -> subprocess.Popen[str]:
    code = textwrap.dedent(MAKER).format(between=between)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def files(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()} - {".lock"}


def test_tokens_are_made_once_and_mapped(tmp_path: Path) -> None:
    first = cached_tokens(KEY, 20, np.dtype(np.uint8), chunks, tmp_path)
    again = cached_tokens(KEY, 20, np.dtype(np.uint8), never, tmp_path)
    for tokens in (first, again):
        np.testing.assert_array_equal(tokens, TOKENS)
        assert tokens.dtype == np.uint8
        assert isinstance(tokens.base, np.memmap)
        assert not tokens.flags.writeable
    assert files(tmp_path) == {".npy"}


@pytest.mark.parametrize(("vocab_size", "dtype"), [(2, "uint8"), (255, "uint8"), (256, "uint16"), (65_536, "uint32")])
def test_integers_hold_the_termination_token_as_well(vocab_size: int, dtype: str) -> None:
    assert token_dtype(vocab_size) == dtype
    assert np.iinfo(token_dtype(vocab_size)).max >= vocab_size


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    cached_tokens(KEY, 20, np.dtype(np.uint8), chunks, tmp_path)
    (path,) = tmp_path.glob("*.npy")
    for content in (path.read_bytes()[:-1], b"", b"something else"):
        path.write_bytes(content)
        np.testing.assert_array_equal(cached_tokens(KEY, 20, np.dtype(np.uint8), chunks, tmp_path), TOKENS)
    np.save(path, TOKENS[:5].astype(np.uint8))
    np.testing.assert_array_equal(cached_tokens(KEY, 20, np.dtype(np.uint8), chunks, tmp_path), TOKENS)


def test_of_processes_that_start_at_once_one_makes_the_tokens(tmp_path: Path) -> None:
    first = maker(tmp_path, BLOCK)
    assert line(first) == "half\n"
    others = [maker(tmp_path) for _ in range(2)]
    assert {line(other) for other in others} == {"waiting for another process that makes the same tokens\n"}
    first.communicate("")  # goes on
    assert {other.communicate()[0] for other in others} == {"sum 1770 uint8\n"}
    assert (tmp_path / "made.txt").read_text() == "once\n"


def test_a_killed_maker_leaves_the_work_to_the_next_one(tmp_path: Path) -> None:
    first = maker(tmp_path, BLOCK)
    assert line(first) == "half\n"
    waiting = maker(tmp_path)
    assert line(waiting).startswith("waiting")
    assert files(tmp_path / "tokens") == {".tmp"}  # nothing that a reader would take for tokens
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert waiting.communicate()[0] == "sum 1770 uint8\n"
    assert files(tmp_path / "tokens") == {".npy"}
    np.testing.assert_array_equal(cached_tokens(KEY, 20, np.dtype(np.uint8), never, tmp_path / "tokens"), TOKENS)


def test_a_folder_that_cannot_be_written_means_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    tokens = cached_tokens(KEY, 20, np.dtype(np.uint8), chunks, tmp_path / "file" / "tokens")
    np.testing.assert_array_equal(tokens, TOKENS)
    assert tokens.dtype == np.uint8
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("tokens stay in memory: ")
    assert said.endswith("cannot be used (Not a directory); point SEQRL_DATA to a folder with room")


def test_a_full_disk_means_memory(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the second write of a real process fails."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    process = maker(tmp_path, limit)
    said, result = process.communicate()[0].splitlines()
    assert said.startswith("tokens stay in memory: ")
    assert "(File too large)" in said
    assert result == "sum 1770 uint8"
    assert files(tmp_path / "tokens") == set()


@pytest.fixture
def tokenizer() -> Tokenizer:
    return UniformTokenizer(7, num_bins=10)


def test_the_key_tells_whatever_changes_tokens(tiny_store: EpisodeStore, tiny_layout: Layout) -> None:
    observations = np.asarray(tiny_store.observations).copy()
    observations[-1, -1] += 1
    keys = [
        token_key(tiny_store, tiny_layout, "encoder"),
        token_key(tiny_store, tiny_layout, "another"),
        token_key(replace(tiny_store, observations=observations), tiny_layout, "encoder"),
        token_key(replace(tiny_store, terminated=~tiny_store.terminated), tiny_layout, "encoder"),
        token_key(replace(tiny_store, offsets=np.array([0, 7, 15, 16, 21, 25])), tiny_layout, "encoder"),
        token_key(tiny_store, replace(tiny_layout, discount=0.98), "encoder"),
        token_key(tiny_store, replace(tiny_layout, termination_penalty=None), "encoder"),
        token_key(tiny_store, replace(tiny_layout, fields=tiny_layout.fields[:-1]), "encoder"),
        token_key(tiny_store, replace(tiny_layout, fields=tiny_layout.fields[::-1]), "encoder"),
    ]
    assert len(set(keys)) == len(keys)
    same = replace(tiny_layout, goal=Goal((0,), 0.1, "last", 0.9))  # which tokens a window gets, not what they are
    assert token_key(replace(tiny_store, attributes={}), same, "encoder") == keys[0]


def test_an_encoder_is_its_options_and_state(tokenizer: Tokenizer) -> None:
    options = {"name": "uniform", "num_bins": 10}
    first = encoder_identity(tokenizer, options)
    assert first == encoder_identity(tokenizer, dict(reversed(options.items())))
    assert first != encoder_identity(tokenizer, {**options, "num_bins": 11})
    with torch.no_grad():
        dict(tokenizer.named_buffers())["low"][3] += 1e-12
    assert first != encoder_identity(tokenizer, options)


def test_an_edited_plugin_makes_new_tokens(tmp_path: Path) -> None:
    """What somebody does who writes a tokenizer: edit the file, start again."""
    plugin = tmp_path / "mine.py"
    code = """
from seqrl import register_tokenizer
from seqrl.tokenizers.uniform import UniformTokenizer

@register_tokenizer("mine")
class MineTokenizer(UniformTokenizer):
    def encode(self, values):
        return super().encode(values) {change}
"""
    ask = f"""
from seqrl.plugins import load_plugins
load_plugins({str(plugin)!r})
from seqrl.data.token_cache import encoder_identity
from seqrl.registry import TOKENIZER
print(encoder_identity(TOKENIZER.build({{"name": "mine"}}, size=3), {{"name": "mine"}}))
"""
    found = []
    for change in ("", "", "// 2"):
        plugin.write_text(code.format(change=change))
        found.append(subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout)
    assert found[0] == found[1] != found[2]
    assert len(found[0].strip()) == 64


def test_an_encoder_without_a_file_has_no_identity() -> None:
    space: dict[str, object] = {"UniformTokenizer": UniformTokenizer, "__name__": "notebook"}
    exec("class Own(UniformTokenizer):\n    pass", space)
    assert encoder_identity(space["Own"](7), {}) is None  # type: ignore[operator]


def test_the_data_module_uses_the_cache(
    tiny_store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path))
    module = SequenceModule.for_store(tiny_store, backbone={"num_layers": 1, "dim": 8, "num_heads": 2}, window=3)
    first = EpisodeDataModule.for_module(module, tiny_store, batch_size=4)
    assert len(list((tmp_path / "tokens").glob("*.npy"))) == 1
    alone = EpisodeDataModule(tiny_store, module.model.layout, window=WindowConfig(3), batch_size=4)
    alone.encode(module.model.tokenizer.encode, module.model.tokenizer.vocab_size)  # no identity: in memory

    monkeypatch.setattr(type(module.model.tokenizer), "encode", None)  # no more to be asked
    again = EpisodeDataModule.for_module(module, tiny_store, batch_size=4)
    batches = [
        data.train_windows.batch(np.arange(len(data.train_windows)), np.random.default_rng(0))
        for data in (first, alone, again)
    ]
    for batch in batches[1:]:
        assert torch.equal(batch.tokens, batches[0].tokens)
