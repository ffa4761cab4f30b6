"""Tokens on disk: made once, mapped into memory by everybody who needs the same, and never a reason to fail."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from seqrl import paths
from seqrl.console import say
from seqrl.data.array_folder import UNREADABLE_NPY, write_npy
from seqrl.data.cache import read_or_make
from seqrl.data.contents import is_sealed, seal_file
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import DataError
from seqrl.files import fingerprint, fingerprint_bytes, write_file
from seqrl.layout import Layout

FORMAT_VERSION = 1
"""Part of every key: raise it whenever the same data, layout and encoder would give other tokens."""

Chunks = Callable[[], Iterator[tuple[int, np.ndarray]]]  # each call yields (first row, (n, K) integers) from the start


def encoder_identity(encoder: nn.Module, options: Mapping[str, Any]) -> str | None:
    """Hash of everything that decides what an encoder makes of a number: its code, options and fitted state.

    The code is that of the files of its classes, and of those of its parts. None where there is no file, as in a
    notebook: such tokens cannot be told from those of an earlier version, and are not to be cached.
    """
    parts = [fingerprint(dict(options)).encode()]
    for cls in sorted({each for part in encoder.modules() for each in type(part).__mro__}, key=str):
        if cls.__module__.partition(".")[0] in ("torch", "abc", "builtins"):
            continue
        try:
            source = Path(inspect.getfile(cls)).read_bytes()
        except (TypeError, OSError):
            return None
        parts.append(f"{cls.__module__}.{cls.__qualname__}".encode() + source)
    for name, tensor in encoder.state_dict().items():
        content = tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()
        parts.append(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + content)
    return fingerprint_bytes(parts)


def token_key(store: EpisodeStore, layout: Layout, encoder: str) -> str:
    """The name of the tokens that an encoder (see `encoder_identity`) makes of the transitions of a store."""
    transition = [[(f.name, f.size) for f in layout.fields], layout.discount, layout.termination_penalty, layout.stride]
    extras = [field.name for field in (*layout.contexts, *layout.outcomes)]
    return fingerprint([FORMAT_VERSION, store.fingerprint(extras), transition, encoder])


def cached_tokens(key: str, rows: int, dtype: np.dtype[Any], chunks: Chunks, folder: Path | None = None) -> np.ndarray:
    """(N, K) tokens of a key, mapped read-only from the cache; made and written there first where it has none.

    A file has its name only once it is whole, and is sealed by a hash: one that was changed since is made again, which
    a line says. See `read_or_make` for who makes it, and for what becomes of a cache that cannot be written.

    Args:
        rows: N.
        chunks: makes the tokens.
        folder: `$SEQRL_DATA/tokens` by default. Whatever lies in it can be deleted at any time.
    """
    path = (folder or paths.data_dir() / "tokens") / f"{key[:32]}.npy"

    def make(path: Path) -> None:
        if path.exists():
            say(f"tokens are made again: {str(path)!r} is not as it was written, or of an older seqrl")
        with write_file(path) as file:
            write_npy(file, rows, dtype, chunks())
            seal_file(file)

    return read_or_make(
        path, lambda path: _read(path, rows, dtype), make, lambda: tokens_in_memory(dtype, chunks), what="tokens"
    )


def tokens_in_memory(dtype: np.dtype[Any], chunks: Chunks) -> np.ndarray:
    """(N, K) tokens, not cached."""
    parts = sorted(((first, tokens.astype(dtype)) for first, tokens in chunks()), key=lambda part: part[0])
    return np.concatenate([tokens for _, tokens in parts])


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest unsigned integers that hold tokens 0 to V, the termination token included."""
    return np.min_scalar_type(vocab_size)


def _read(path: Path, rows: int, dtype: np.dtype[Any]) -> np.ndarray | None:
    """The tokens of a file, mapped; None where there is none, or one that is damaged."""
    try:
        tokens = np.asarray(np.lib.format.open_memmap(path, mode="r")) if is_sealed(path) else None
    except (FileNotFoundError, DataError, *UNREADABLE_NPY):
        return None
    fits = tokens is not None and tokens.ndim == 2 and len(tokens) == rows and tokens.dtype == dtype
    return tokens if fits else None
