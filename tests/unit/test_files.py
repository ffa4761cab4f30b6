"""Whole or not at all, fingerprints, and locks."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqrl.files import (
    copy_file,
    fingerprint,
    fingerprint_bytes,
    fingerprint_files,
    hold_lock,
    is_locked,
    read_json,
    refuse_links,
    remove_leftovers,
    write_file,
    write_folder,
    write_text,
)
from seqrl.runs.console_log import keep_console
from seqrl.runs.metrics import append_metrics


@pytest.mark.parametrize("moment", ["writing", "replacing"])
def test_an_interrupted_write_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    target = tmp_path / "status.json"
    write_text(target, "old")

    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    if moment == "writing":
        monkeypatch.setattr(os, "fsync", interrupt)  # everything is written, nothing is on the disk
    else:
        monkeypatch.setattr(Path, "replace", interrupt)
        monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(target, "new")
    monkeypatch.undo()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]  # and no part of the new one
    write_text(target, "new")
    assert target.read_text() == "new"


def test_what_takes_a_place_is_on_the_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda number: calls.append("fsync"))
    for name in ("replace", "rename"):
        move = getattr(Path, name)

        def moved(self: Path, target: Path, move: Callable[..., Path] = move) -> Path:
            calls.append("rename")
            return move(self, target)

        monkeypatch.setattr(Path, name, moved)
    write_text(tmp_path / "file", "content")
    assert calls == ["fsync", "rename"]
    calls.clear()
    with write_folder(tmp_path / "folder") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a").touch()
        (folder / "b").touch()
    assert calls == ["fsync", "fsync", "rename"]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with write_file(target) as first, write_file(target) as second:
        first.write(b"long content")
        second.write(b"short")
    assert target.read_bytes() == b"long content"  # of the block that ended last
    assert list(tmp_path.iterdir()) == [target]


def test_a_library_may_fill_the_new_file_by_its_name(tmp_path: Path) -> None:
    with write_file(tmp_path / "file") as file:
        Path(file.name).write_bytes(b"by name")
        assert not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_bytes() == b"by name"


def test_a_copy_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 5000)
    copy_file(source, target)
    assert target.read_bytes() == source.read_bytes()
    target.write_bytes(b"old")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        copy_file(source, target)
    assert target.read_bytes() == b"old"


def test_a_link_that_somebody_left_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("file", "lock", "part"):
        (tmp_path / name).symlink_to(victim)
    write_text(tmp_path / "file", "new")  # takes the place of the link
    with pytest.raises(OSError, match="symbolic link"), hold_lock(tmp_path / "lock", ""):
        pass
    with pytest.raises(OSError, match="symbolic link"), open(tmp_path / "part", "wb", opener=refuse_links):
        pass
    assert victim.read_text() == "precious"
    assert (tmp_path / "file").read_text() == "new"


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    with pytest.raises(FileNotFoundError), write_folder(target) as folder:
        shutil.copyfile(tmp_path / "nowhere", folder / "a")
    assert list(target.parent.iterdir()) == []
    with write_folder(target) as folder:
        (folder / "a").write_text("first")
    with pytest.raises(OSError, match="not empty"), write_folder(target) as folder:
        (folder / "a").write_text("second")
    assert (target / "a").read_text() == "first"
    with write_folder(target, overwrite=True) as folder:
        (folder / "b").write_text("second")
    assert [path.name for path in target.iterdir()] == ["b"]
    assert list(target.parent.iterdir()) == [target]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from seqrl.files import write_file, write_folder\n"
        "kind, path = sys.argv[1:]\n"
        "with (write_file if kind == 'file' else write_folder)(Path(path)): os.kill(os.getpid(), 9)\n"
    )
    for kind in ("file", "folder"):
        subprocess.run([sys.executable, "-c", code, kind, str(tmp_path / f"[{kind}]*")], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    kept = {"[file]*", ".[file]*.lock", ".f.0a1b2c3d.tmp", "[file]*.tmp"}
    for name in kept:
        (tmp_path / name).touch()
    for kind in ("file", "folder"):
        remove_leftovers(tmp_path / f"[{kind}]*")
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_fingerprints_are_those_that_names_on_disk_were_made_of(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, True, "ä"], "a": {"y": (1,), "x": tmp_path}}
    plain = json.dumps(json.loads(json.dumps(value, default=str)), sort_keys=True)
    assert fingerprint(value) == hashlib.sha256(plain.encode()).hexdigest()
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert len({fingerprint(each) for each in (1, 1.0, "1", [1], None, True, {"1": 1})}) == 7


def test_a_fingerprint_of_bytes_does_not_tell_how_they_came(tmp_path: Path) -> None:
    array = np.arange(300_000, dtype=np.float64).reshape(-1, 3)
    whole = hashlib.sha256(array.tobytes()).hexdigest()
    assert fingerprint_bytes([array.data]) == whole
    assert fingerprint_bytes(array[first : first + 777].data for first in range(0, len(array), 777)) == whole
    for name, half in zip("ab", (array[:50_000], array[50_000:]), strict=True):
        (tmp_path / name).write_bytes(half.tobytes())
    assert fingerprint_files(tmp_path / "a", tmp_path / "b") == whole
    assert fingerprint_files(tmp_path / "a") == hashlib.sha256(array[:50_000].tobytes()).hexdigest()


def test_of_two_one_waits_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, order = tmp_path / "deep" / ".lock", []
    code = (
        "import sys; from pathlib import Path; from seqrl.files import hold_lock\n"
        "with hold_lock(Path(sys.argv[1]), 'I wait'): print('mine', flush=True); sys.stdin.readline()"
    )
    assert not is_locked(path)
    with hold_lock(path, ""):
        assert is_locked(path)
        assert is_locked(path)  # asking takes nothing away
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        assert other.stdout.readline() == "I wait\n"
        order.append("first")
    assert other.stdout.readline() == "mine\n"
    assert is_locked(path)
    other.kill()  # the system releases the lock
    other.wait()
    other.communicate()
    assert not is_locked(path)
    with hold_lock(path, "nobody is there"):
        pass
    assert capsys.readouterr().out == ""


def test_a_lock_whose_folder_went_away_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, waiting, entered = tmp_path / "run" / ".lock", threading.Event(), threading.Event()
    monkeypatch.setattr("seqrl.files.say", lambda text: waiting.set())

    def second() -> None:
        with hold_lock(path, "waiting"):
            if path.exists() and is_locked(path):
                entered.set()

    thread = threading.Thread(target=second)
    with hold_lock(path, ""):
        thread.start()
        assert waiting.wait(10)
        path.unlink()
        path.parent.rmdir()
    thread.join(10)
    assert entered.is_set()


def test_without_locks_the_work_is_done_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(file: io.IOBase, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with hold_lock(tmp_path / ".lock", "waiting") as one, hold_lock(tmp_path / ".lock", "waiting") as other:
        assert not is_locked(tmp_path / ".lock")
    assert (one, other) == (False, False)
    monkeypatch.undo()
    with hold_lock(tmp_path / ".lock", "waiting") as locked:
        assert locked


def test_files_that_are_added_to_follow_no_link_and_wait_at_no_pipe(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("metrics.csv", "console.log", ".lock"):
        (folder / name).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        append_metrics(folder / "metrics.csv", [])
    with pytest.raises(OSError, match="symbolic link"), hold_lock(folder / ".lock", ""):
        pass
    with keep_console(folder):  # it ends the log, and not the run
        print("told")
    assert victim.read_text() == "precious"
    for name in ("metrics.csv", ".lock", "status.json"):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
    with pytest.raises(OSError, match="No such device"):
        append_metrics(folder / "metrics.csv", [])
    with pytest.raises(OSError, match="No such device"), hold_lock(folder / ".lock", ""):
        pass
    with pytest.raises(OSError, match="it is no file"):
        read_json(folder / "status.json")
    assert not is_locked(folder / ".lock")


def test_new_files_have_names_that_nobody_foresees(tmp_path: Path) -> None:
    names = set()
    for _ in range(20):
        with write_file(tmp_path / "file") as file:
            names.add(Path(file.name).name)
            assert re.fullmatch(r"\.file\.[0-9a-f]{8}\.tmp", Path(file.name).name)
    assert len(names) == 20
