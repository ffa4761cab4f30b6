"""What a file holds is told by its content, and read once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from seqrl.data.contents import hash_content
from seqrl.errors import DataError
from seqrl.files import fingerprint_files


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "contents"


def old(path: Path, text: str, seconds: int = 1_000_000_000) -> Path:
    """A file that was changed in 2001; the time of its last change of status is the present all the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (seconds, seconds))
    return path


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an hour pass."""
    import time

    now = time.time_ns()
    monkeypatch.setattr("time.time_ns", lambda: now + 3600 * 10**9)


def test_it_is_the_sha256_wherever_the_file_lies(tmp_path: Path) -> None:
    one, other = old(tmp_path / "a" / "x.npz", "content"), old(tmp_path / "b" / "y.npz", "content", 1)
    assert hash_content(one) == hash_content(other) == hashlib.sha256(b"content").hexdigest()
    assert hash_content(tmp_path / "nowhere") is None


def test_a_file_of_the_same_size_and_time_and_other_content_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    path = old(tmp_path / "x", "aaaa")
    before = hash_content(path)
    old(path, "bbbb")  # its status changed all the same
    assert hash_content(path) != before
    path.unlink()
    assert hash_content(old(path, "bbbb")) == hashlib.sha256(b"bbbb").hexdigest()


def test_it_is_read_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old(tmp_path / "x", "content")
    first = hash_content(path)
    assert not cache.exists(), "it may be written again within the same tick of the clock"
    settle(monkeypatch)
    assert hash_content(path) == first
    monkeypatch.setattr("seqrl.data.contents.fingerprint_files", lambda path: pytest.fail("read again"))
    assert hash_content(path) == first
    (record,) = cache.iterdir()
    assert record.read_text() == first


def test_without_a_cache_it_is_told_all_the_same(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    cache.parent.write_text("in the way")
    assert hash_content(old(tmp_path / "x", "content")) == hashlib.sha256(b"content").hexdigest()


def test_of_a_folder_every_name_and_content_counts(tmp_path: Path) -> None:
    found = set()
    for number, files in enumerate(
        [{"a": "1", "b/c": "2"}, {"a": "1", "b/d": "2"}, {"a": "1", "b/c": "3"}, {"a": "1"}]
    ):
        for name, text in files.items():
            old(tmp_path / str(number) / name, text)
        found.add(hash_content(tmp_path / str(number)))
    assert len(found) == 4
    old(tmp_path / "again" / "b" / "c", "2")
    old(tmp_path / "again" / "a", "1")
    assert hash_content(tmp_path / "again") == hash_content(tmp_path / "0")


def test_a_file_that_is_being_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old(tmp_path / "x", "content")

    def read(file: Path) -> str:
        file.write_text("longer content")
        return fingerprint_files(file)

    monkeypatch.setattr("seqrl.data.contents.fingerprint_files", read)
    with pytest.raises(DataError, match="changes while it is read; wait"):
        hash_content(path)
