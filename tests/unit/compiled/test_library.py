"""How the compiled library comes to be, and what is said where it does not."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from seqrl.compiled.library import load_library

BUILT = Path(load_library()[0]._name) if load_library()[0] is not None else None  # type: ignore[union-attr]
needs_library = pytest.mark.skipif(BUILT is None, reason=load_library()[1])


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """As in a new process of a user with an empty cache: the folder where the library will be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SEQRL_KERNELS", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    load_library.cache_clear()
    yield tmp_path / "cache" / "seqrl" / "token_step"
    load_library.cache_clear()


def make_compiler(folder: Path, *lines: str) -> str:
    """A program that takes a compiler's words, and gives the library of this session for what it would compile."""
    path = folder / "compiler"
    copy = f'while [ "$1" != -o ]; do shift; done; cp "{BUILT}" "$2"; echo once >> "{folder}/log"'
    path.write_text("\n".join(["#!/bin/sh", 'test "$1" = --version && echo "compiler 1" && exit 0', *lines, copy, ""]))
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("word", ["0", "off", "FALSE"])
def test_it_is_switched_off(cache: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("SEQRL_KERNELS", word)
    assert load_library() == (None, "switched off by SEQRL_KERNELS")
    assert not cache.exists()


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        ("no-such-compiler", "CXX=no-such-compiler is not there"),
        ("false", "status 1"),
        ("g++ '-O2", "CXX=g++ '-O2 is no command: No closing quotation"),
    ],
)
def test_without_a_compiler_it_says_so(cache: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, said: str) -> None:
    monkeypatch.setenv("CXX", compiler)
    library, why = load_library()
    assert library is None
    assert said in why


def test_what_a_compiler_says_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", make_compiler(tmp_path, "echo 'unknown option' >&2; exit 4"))
    library, why = load_library()
    assert library is None
    assert why.endswith("could not compile it: unknown option")
    assert not list(cache.iterdir())


@needs_library
def test_it_is_compiled_once_for_a_machine(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", make_compiler(tmp_path))
    for _ in range(2):
        library, version = load_library()
        assert library is not None
        assert version == "compiler 1"
        load_library.cache_clear()
    assert (tmp_path / "log").read_text().split() == ["once", "once"]  # a part, and the whole
    (built,) = cache.iterdir()
    assert built.suffix == ".so"
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


@needs_library
@pytest.mark.parametrize("content", [b"", b"no library", b"\x7fELF and no more"])
def test_a_damaged_library_is_made_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    monkeypatch.setenv("CXX", make_compiler(tmp_path))
    load_library()
    (built,) = cache.iterdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))  # what is loaded is not read again under its name
    damaged = tmp_path / "other" / "seqrl" / "token_step" / built.name
    damaged.parent.mkdir(parents=True, mode=0o700)
    damaged.write_bytes(content)
    load_library.cache_clear()
    assert load_library()[0] is not None
    assert damaged.read_bytes() == built.read_bytes()


@needs_library
def test_nothing_is_loaded_from_where_others_can_write(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", make_compiler(tmp_path))
    cache.mkdir(parents=True)
    cache.parent.chmod(0o777)
    assert load_library()[0] is not None
    assert not list(cache.iterdir())
