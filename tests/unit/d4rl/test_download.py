"""Downloads from a local server that cuts, stalls, lies and changes its mind."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seqrl.d4rl import download
from seqrl.d4rl.download import Download, record_of, verify
from seqrl.errors import ConfigError, DataError

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(250_000)


class Server:
    """Serves one file. Every answer can be bent: `faults` are taken from the front, one for each request.

    Faults: a status (500, 404); `("cut", n)` closes after n bytes of the answer; `("short", n)` announces n bytes more
    than there are; `("stall", n)` is silent after n bytes; `"no_range"` ignores Range; `"wrong_range"` sends another
    part than asked for; `"no_length"` announces none and closes; a mapping sends the part that was asked for, whatever
    If-Range says, with these headers (None leaves one out).
    """

    def __init__(self) -> None:
        self.content = CONTENT
        self.tag: str | None = '"one"'
        self.date: str | None = None
        self.faults: list[Any] = []
        self.ranges: list[str | None] = []  # the Range header of every request
        self.asked, self.asleep = threading.Event(), threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=lambda: self.http.serve_forever(poll_interval=0.01), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/offline_rl/file.hdf5"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        self.asked.set()
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, int):
            request.send_error(fault)
            return
        start = 0
        bent = fault if isinstance(fault, dict) else {}
        unchanged = request.headers.get("If-Range") in (self.tag, self.date) or isinstance(fault, dict)
        if asked and unchanged and fault != "no_range":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.content):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(self.content)}")
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
            request.send_response(206)
            first = start + 1 if fault == "wrong_range" else start
            named = f"bytes {first}-{len(self.content) - 1}/{len(self.content)}"
            self.send(request, "Content-Range", named, bent)
        else:
            request.send_response(200)
        body = self.content[start:]
        self.send(request, "ETag", self.tag, bent)
        self.send(request, "Last-Modified", self.date, bent)
        kind, count = fault if isinstance(fault, tuple) else ("", 0)
        if fault != "no_length":
            request.send_header("Content-Length", str(len(body) + (count if kind == "short" else 0)))
        request.end_headers()
        request.wfile.write(body[:count] if kind in ("cut", "stall") else body)
        if kind == "stall":
            self.asleep.wait(20)
        request.close_connection = True

    @staticmethod
    def send(request: BaseHTTPRequestHandler, name: str, value: str | None, bent: dict[str, str | None]) -> None:
        value = bent.get(name, value)
        if value is not None:
            request.send_header(name, value)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.asleep.set()
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.hdf5"


def accept(_: Path) -> None:
    pass


def fetch(server: Server, path: Path, check: Callable[[Path], None] = accept, **options: object) -> None:
    Download(server.url, path, **{"timeout": 5.0, "pause": 0.0, **options}).fetch(check)  # type: ignore[arg-type]


def left(path: Path) -> set[str]:
    """Files beside the download, the empty lock aside."""
    return {p.name for p in path.parent.iterdir()} - {f".{path.name}.lock"} if path.parent.exists() else set()


def test_a_file_is_fetched_once_and_then_needs_no_network(server: Server, path: Path) -> None:
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert left(path) == {"file.hdf5", "file.hdf5.sha256"}
    server.http.shutdown()
    server.http.server_close()
    fetch(server, path)  # nobody is asked
    assert server.ranges == [None]


def test_the_record_is_what_sha256sum_reads(server: Server, path: Path) -> None:
    fetch(server, path)
    assert record_of(path).read_text() == f"{hashlib.sha256(CONTENT).hexdigest()}  file.hdf5\n"
    verify(path)
    subprocess.run(["sha256sum", "-c", "--quiet", "file.hdf5.sha256"], cwd=path.parent, check=True)


def test_cut_connections_are_resumed_where_they_broke(server: Server, path: Path) -> None:
    server.faults = [("cut", 100_000), ("cut", 50_000)]
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_progress_buys_new_tries(server: Server, path: Path) -> None:
    server.faults = [("cut", 20_000)] * 14
    fetch(server, path, tries=2)
    assert path.read_bytes() == CONTENT
    assert len(server.ranges) == 15


def test_another_run_resumes_what_the_first_left(server: Server, path: Path) -> None:
    server.faults = [("cut", 120_000), 503, 503]
    with pytest.raises(DataError, match=r"the server answers 503 .* by hand"):
        fetch(server, path, tries=3)
    assert not path.exists()
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=120000-"


def test_a_file_that_changed_between_tries_is_fetched_anew(server: Server, path: Path) -> None:
    server.faults = [("cut", 100_000), 503]
    with pytest.raises(DataError):
        fetch(server, path, tries=2)
    server.content, server.tag = OTHER, '"two"'
    fetch(server, path)
    assert path.read_bytes() == OTHER


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_what_cannot_be_recognised_is_not_resumed(server: Server, path: Path, tag: str | None) -> None:
    server.tag = tag
    server.faults = [("cut", 100_000)]
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, None]


def test_bytes_of_another_address_are_not_resumed(server: Server, path: Path) -> None:
    server.faults = [("cut", 100_000), 503]
    with pytest.raises(DataError):
        fetch(server, path, tries=2)
    Download(f"{server.url}?mirror", path, pause=0.0).fetch(accept)
    assert server.ranges[-1] is None


@pytest.mark.parametrize("fault", ["no_range", "wrong_range"])
def test_servers_that_mishandle_ranges_do_no_harm(server: Server, path: Path, fault: str) -> None:
    server.faults = [("cut", 100_000), fault]
    fetch(server, path)
    assert path.read_bytes() == CONTENT


MONDAY, TUESDAY = "Mon, 01 Jun 2026 10:00:00 GMT", "Tue, 02 Jun 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("tag", "date", "bent"),
    [
        ('"one"', None, {"ETag": '"two"'}),
        ('"one"', None, {"ETag": 'W/"one"'}),
        ('"one"', None, {"ETag": None}),
        ('"one"', MONDAY, {"ETag": '"two"', "Last-Modified": MONDAY}),
        ('"one"', MONDAY, {"Last-Modified": TUESDAY}),
        (None, MONDAY, {"Last-Modified": TUESDAY}),
        ('W/"one"', MONDAY, {"Last-Modified": TUESDAY}),
        ('"one"', None, {"Content-Range": "bytes 100000-249999/250001"}),
        ('"one"', None, {"Content-Range": "bytes 100000-299999/*"}),
        ('"one"', None, {"Content-Range": "bytes 100000-"}),
        ('"one"', None, {"Content-Range": "items 100000-299999/300000"}),
        ('"one"', None, {"Content-Range": "bytes 100000-200000/300000"}),
        ('"one"', None, {"Content-Range": None}),
    ],
)
def test_a_part_of_another_file_is_not_joined(
    server: Server, path: Path, tag: str | None, date: str | None, bent: dict[str, str | None]
) -> None:
    """Servers that send the rest of another file, whatever If-Range says; it may have the same size."""
    server.tag, server.date, server.faults = tag, date, [("cut", 100_000), 503]
    with pytest.raises(DataError):
        fetch(server, path, tries=2)
    other = np.random.default_rng(2).bytes(300_000)
    server.content, server.faults = other, [bent]
    fetch(server, path)
    assert path.read_bytes() == other
    assert server.ranges[-2:] == ["bytes=100000-", None]


def test_a_date_may_be_left_out_of_a_part(server: Server, path: Path) -> None:
    server.tag, server.date, server.faults = None, MONDAY, [("cut", 100_000), {"Last-Modified": None}]
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


def test_a_part_that_is_cut_in_two_is_joined(server: Server, path: Path) -> None:
    """What was noted of the file is that of its first answer."""
    server.faults = [("cut", 100_000), ("cut", 100_000)]
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-"]


def test_a_damaged_note_means_a_new_start(server: Server, path: Path) -> None:
    for note in ("", "[]", '{"url": 3}', '{"validator": 7}', "null"):
        server.faults = [("cut", 100_000), 503]
        with pytest.raises(DataError):
            fetch(server, path, tries=2)
        (path.parent / f".{path.name}.part.json").write_text(note)
    fetch(server, path)
    assert path.read_bytes() == CONTENT


def test_a_part_that_was_whole_is_not_fetched_again(server: Server, path: Path) -> None:
    """As after a kill between the last byte and the final name."""

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server, path, killed)
    assert not path.exists()
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT)}-"]


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, path: Path) -> None:
    server.faults = [("cut", 280_000), 503]
    with pytest.raises(DataError):
        fetch(server, path, tries=2)
    server.content = OTHER  # shorter, under the same tag
    fetch(server, path)
    assert path.read_bytes() == OTHER


def test_a_wrong_length_is_noticed(server: Server, path: Path) -> None:
    server.tag = None  # or the server would be asked for the rest, and say that there is none
    server.faults = [("short", 10)] * 3
    with pytest.raises(DataError, match="ended after 300000 of 300010 bytes"):
        fetch(server, path, tries=3)
    assert not path.exists()


def test_without_an_announced_length_the_check_decides(server: Server, path: Path) -> None:
    def whole(part: Path) -> None:
        if part.stat().st_size < len(CONTENT):
            raise DataError(f"{part.name} is truncated; fetch it again")

    server.faults = ["no_length"]
    fetch(server, path, whole)
    assert path.read_bytes() == CONTENT
    path.unlink()
    server.faults = ["no_length"]
    server.content = CONTENT[:1000]
    with pytest.raises(DataError, match=r"what the server sent is not the file \(it is truncated\)"):
        fetch(server, path, whole)
    assert left(path) == {"file.hdf5.sha256"}  # of the file that this test removed


def test_a_silent_server_is_given_up(server: Server, path: Path) -> None:
    server.faults = [("stall", 1000), ("stall", 1000)]
    with pytest.raises(DataError, match=r"\(timed out\)|silent"):
        fetch(server, path, timeout=0.2, tries=1)


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_missing_file_is_not_asked_for_twice(server: Server, path: Path, status: int) -> None:
    server.faults = [status]
    with pytest.raises(
        DataError, match=rf"answers {status} .*fetch http://127.* by hand and put it into .*cache.*data\.url"
    ):
        fetch(server, path)
    assert len(server.ranges) == 1
    assert left(path) == set()


def test_errors_of_the_server_are_waited_out(server: Server, path: Path) -> None:
    server.faults = [500, 503, 429]
    fetch(server, path)
    assert path.read_bytes() == CONTENT


def test_pauses_between_tries_double(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    server.faults = [500, 500, 500, ("cut", 1000), 500]
    fetch(server, path, pause=1.0)
    assert pauses == [1.0, 2.0, 4.0, 1.0, 2.0]  # a byte gained starts the count anew


def test_no_network_says_what_to_fetch_and_where_to_put_it(path: Path) -> None:
    with pytest.raises(
        DataError, match=r"cannot be reached .*fetch http://127\.0\.0\.1:9/x by hand and put it into '.*cache'"
    ):
        Download("http://127.0.0.1:9/x", path, tries=2, pause=0.0).fetch(accept)


def test_a_refused_file_leaves_nothing(server: Server, path: Path) -> None:
    def refuse(part: Path) -> None:
        raise DataError(f"{part.name} is not an HDF5 file; give another")

    with pytest.raises(DataError, match=r"not the file \(it is not an HDF5 file\); fetch"):
        fetch(server, path, refuse)
    assert left(path) == set()


def test_a_given_digest_must_be_met(server: Server, path: Path) -> None:
    with pytest.raises(DataError, match="has the SHA-256"):
        fetch(server, path, sha256="0" * 64)
    assert left(path) == set()
    fetch(server, path, sha256=hashlib.sha256(CONTENT).hexdigest().upper())
    assert path.exists()


def test_later_damage_is_found(server: Server, path: Path) -> None:
    fetch(server, path)
    damaged = bytearray(CONTENT)
    damaged[1234] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"damaged or changed.*delete it and file\.hdf5\.sha256"):
        verify(path)


def test_a_file_put_there_by_hand_is_taken(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(OTHER)
    fetch(server, path)
    verify(path)
    assert server.ranges == []
    verify(path, hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(DataError, match=r"data\.sha256 is 0000"):
        verify(path, "0" * 64)


def test_a_disk_without_room_is_told_before_and_while_writing(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(DataError, match=r"0\.3 MB are needed, 0\.0 are free; make room, or set SEQRL_DATA"):
            fetch(server, path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match=r"does not fit .* the disk is full"):
            fetch(server, path)
    assert not path.exists()
    fetch(server, path)
    assert path.read_bytes() == CONTENT


def test_a_folder_that_cannot_be_made_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be written to .*cache.*SEQRL_DATA"):
        fetch(server, tmp_path / "cache" / "file.hdf5")


def test_addresses_and_digests_are_checked_before_anything_happens(path: Path) -> None:
    for url in ("file:///etc/passwd", "ftp://host/file", "hopper.hdf5"):
        with pytest.raises(ConfigError, match=r"data\.url=.* is no address"):
            Download(url, path)
    with pytest.raises(ConfigError, match="64 hexadecimal"):
        Download("http://host/file", path, sha256="abc")
    assert not path.parent.exists()


def test_other_processes_wait_for_the_first(server: Server, path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from seqrl.d4rl.download import Download\n"
        "Download(sys.argv[1], Path(sys.argv[2])).fetch(lambda path: None)"
    )
    command = [sys.executable, "-c", code, server.url, str(path)]
    server.faults = [("stall", 1000)]
    first = subprocess.Popen(command)
    assert server.asked.wait(60)
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == "another process is downloading file.hdf5; waiting for it\n"
    server.asleep.set()  # the first connection ends too early, the rest is fetched
    assert first.wait(60) == 0
    for other in others:
        output, _ = other.communicate(timeout=60)
        assert (other.returncode, output) == (0, "")
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"]


def test_a_killed_download_is_resumed(server: Server, path: Path) -> None:
    """SIGKILL in the middle: nothing has the file's name, the lock is free, and the bytes that came are kept."""
    code = (
        "import os, sys; from pathlib import Path; from seqrl.d4rl import download\n"
        "download.CHUNK = 1000; count = 0\n"
        "def advance(bar, *_):\n"
        "    global count; count += 1\n"
        "    if count == 150: sys.stdout.flush(); os.kill(os.getpid(), 9)\n"
        "import rich.progress; rich.progress.Progress.advance = advance\n"
        "download.Download(sys.argv[1], Path(sys.argv[2])).fetch(lambda path: None)"
    )
    assert subprocess.run([sys.executable, "-c", code, server.url, str(path)], check=False).returncode == -9
    assert not path.exists()
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    start = int(str(server.ranges[-1]).removeprefix("bytes=").removesuffix("-"))
    assert 0 < start < len(CONTENT)
