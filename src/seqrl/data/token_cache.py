"""Tokens on disk: made once, mapped into memory by everybody who needs the same, and never a reason to fail."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import nn

from seqrl import paths
from seqrl.console import say
from seqrl.data.episodes import EpisodeStore
from seqrl.data.storage import write_npy
from seqrl.layout import Layout

FORMAT_VERSION = 1
"""Part of every key: raise it whenever the same data, layout and encoder would give other tokens."""

Chunks = Callable[[], Iterator[tuple[int, np.ndarray]]]  # each call yields (first row, (n, K) integers) from the start


def encoder_identity(encoder: nn.Module, options: Mapping[str, Any]) -> str | None:
    """Hash of everything that decides what an encoder makes of a number: its code, options and fitted state.

    The code is that of the files of its classes. None where there is no file, as in a notebook: such tokens cannot be
    told from those of an earlier version, and are not to be cached.
    """
    digest = hashlib.sha256(json.dumps(dict(options), sort_keys=True, default=repr).encode())
    for cls in type(encoder).__mro__:
        if cls.__module__.partition(".")[0] in ("torch", "abc", "builtins"):
            continue
        try:
            source = Path(inspect.getfile(cls)).read_bytes()
        except (TypeError, OSError):
            return None
        digest.update(f"{cls.__module__}.{cls.__qualname__}".encode() + source)
    for name, tensor in encoder.state_dict().items():
        content = tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + content)
    return digest.hexdigest()


def token_key(store: EpisodeStore, layout: Layout, encoder: str) -> str:
    """The name of the tokens that an encoder (see `encoder_identity`) makes of the transitions of a store."""
    transition = [[(f.name, f.size) for f in layout.fields], layout.discount, layout.termination_penalty]
    return hashlib.sha256(json.dumps([FORMAT_VERSION, store.fingerprint(), transition, encoder]).encode()).hexdigest()


def cached_tokens(key: str, rows: int, dtype: np.dtype[Any], chunks: Chunks, folder: Path | None = None) -> np.ndarray:
    """(N, K) tokens of a key, mapped read-only from the cache; made and written there first where it has none.

    Of several processes that ask at once (ranks, jobs of a sweep) one makes the tokens, and the others wait for it. The
    system releases the lock of a process that dies, and the next one starts anew: a file has its name only once
    it is whole. Where the folder cannot be written, tokens are made in memory, and a line says so.

    Args:
        rows: N.
        chunks: makes the tokens.
        folder: `$SEQRL_DATA/tokens` by default. Whatever lies in it can be deleted at any time.
    """
    folder = folder or paths.data_dir() / "tokens"
    path = folder / f"{key[:32]}.npy"
    try:
        found = _read(path, rows, dtype)
        if found is not None:
            return found
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            found = _read(path, rows, dtype)
            if found is not None:
                return found
            temporary = path.with_suffix(".tmp")  # one name: whoever holds the lock may write over a dead one's
            try:
                write_npy(temporary, rows, dtype, chunks())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        found = _read(path, rows, dtype)
        if found is not None:
            return found
        reason = "what was written cannot be read back"
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        reason = getattr(error, "strerror", None) or str(error)
    say(f"tokens stay in memory: {str(folder)!r} cannot be used ({reason}); point SEQRL_DATA to a folder with room")
    return tokens_in_memory(dtype, chunks)


def tokens_in_memory(dtype: np.dtype[Any], chunks: Chunks) -> np.ndarray:
    """(N, K) tokens, not cached."""
    parts = sorted(((first, tokens.astype(dtype)) for first, tokens in chunks()), key=lambda part: part[0])
    return np.concatenate([tokens for _, tokens in parts])


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest unsigned integers that hold tokens 0 to V, the termination token included."""
    return np.min_scalar_type(vocab_size)


def _locked(path: Path) -> Any:
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        say("waiting for another process that makes the same tokens")
        return lock.acquire()


def _read(path: Path, rows: int, dtype: np.dtype[Any]) -> np.ndarray | None:
    """The tokens of a file, mapped; None where there is none, or one that is damaged."""
    try:
        tokens = np.asarray(np.load(path, mmap_mode="r"))
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return tokens if tokens.ndim == 2 and len(tokens) == rows and tokens.dtype == dtype else None
