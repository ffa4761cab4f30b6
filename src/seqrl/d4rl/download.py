"""Fetching one data file over HTTP: resumed where it was cut, whole or not there, by one process at a time."""

from __future__ import annotations

import errno
import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from seqrl.console import say, show_progress
from seqrl.errors import ConfigError, DataError
from seqrl.files import fingerprint_files, flush_file, hold_lock, read_json, refuse_links, write_text

CHUNK = 1 << 20
WORTH_A_RETRY = {408, 425, 429, 500, 502, 503, 504}


class _InterruptedError(Exception):
    """The connection ended before the file did, or the server is busy: worth another try."""


@dataclass(frozen=True)
class Download:
    """One file to fetch, and how patiently.

    Bytes go to `.<name>.part` beside the file, which the next try or the next run resumes if the server's file is
    still the same (its ETag or date). `<name>.sha256` beside the finished file is what `sha256sum -c` reads.

    Attributes:
        url: its address, http or https; proxies are taken from the environment.
        path: where it goes.
        sha256: 64 hexadecimal digits that it must have, or None.
        timeout: seconds without a byte after which a connection is given up.
        tries: tries in a row that may fail without a byte gained.
        pause: seconds before the second of them, doubled each time.
    """

    url: str
    path: Path
    sha256: str | None = None
    timeout: float = 30.0
    tries: int = 5
    pause: float = 1.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"data.url={self.url!r} is no address; give one that starts with http:// or https://")
        check_sha256(self.sha256)

    def fetch(self, check: Callable[[Path], None]) -> None:
        """Download the file unless it is there; nothing but a whole and checked one ever has its name.

        Args:
            check: refuses a file that is not what it should be, by a DataError.

        Raises:
            DataError: no network, no such file, no room, or a file that `check` or its digest refuses.
        """
        waiting = f"another process is downloading {self.path.name}; waiting for it"
        try:
            with hold_lock(self._beside("lock"), waiting):
                if not self.path.is_file():
                    self._fill()
                    self._accept(check)
        except OSError as error:
            raise DataError(self._unwritable(error)) from error

    @property
    def _part(self) -> Path:
        return self._beside("part")

    @property
    def _origin(self) -> Path:
        """Says where the bytes of the part came from."""
        return self._beside("part.json")

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{suffix}")

    def _fill(self) -> None:
        """Try as long as every few tries bring a byte."""
        failures = 0
        while True:
            before = self._part.stat().st_size if self._part.is_file() else 0
            try:
                return self._try_once()
            except _InterruptedError as error:
                gained = self._part.is_file() and self._part.stat().st_size > before
                failures = 1 if gained else failures + 1
                if failures >= self.tries:
                    raise DataError(self._by_hand(f"{error} ({failures} tries)")) from error
                say(f"{self.path.name}: {error}; trying again")
                time.sleep(self.pause * 2 ** (failures - 1))

    def _try_once(self) -> None:
        """One request, for what is missing.

        Raises:
            _InterruptedError: the bytes so far are kept, the rest is worth another try.
            DataError: trying again would not help.
        """
        start, origin = self._resumable()
        headers = {"Accept-Encoding": "identity", "User-Agent": "seqrl"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": origin["validator"]}
        try:
            response = urllib.request.urlopen(urllib.request.Request(self.url, headers=headers), timeout=self.timeout)
        except urllib.error.HTTPError as error:
            error.close()
            answer = f"the server answers {error.code} {error.reason}"
            if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{start}":
                return  # a run that was ended before it gave the file its name had all bytes
            if error.code == 416:  # what we have is longer than the file: it is of another one
                self._forget()
            elif error.code not in WORTH_A_RETRY:
                raise DataError(self._by_hand(answer)) from error
            raise _InterruptedError(answer) from error
        except (OSError, http.client.HTTPException) as error:
            raise _InterruptedError(_network(error)) from error
        with response:
            if response.status != 206:
                start = 0
            elif difference := _find_difference(response.headers, start, origin):
                self._forget()
                raise _InterruptedError(difference)
            announced = response.headers.get("Content-Length", "")
            total = start + int(announced) if announced.isdigit() else None
            if response.status == 206:
                total = int(response.headers["Content-Range"].rpartition("/")[2])
            free = shutil.disk_usage(self.path.parent).free
            if total is not None and total - start > free:
                raise DataError(self._no_room(f"{(total - start) / 1e6:.1f} MB are needed, {free / 1e6:.1f} are free"))
            with open(self._part, "r+b" if start else "wb", opener=refuse_links) as file:
                if not start:
                    self._remember(response, total)
                file.seek(start)
                self._copy(response, file, start, total)
                flush_file(file)

    def _copy(self, response: Any, file: BinaryIO, start: int, total: int | None) -> None:
        """Write what comes, with a bar that shows bytes, speed and the time left."""
        done = start
        with show_progress(f"downloading {self.path.name}", total, done=start, in_bytes=True) as advance:
            while True:
                try:
                    chunk = response.read(CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise _InterruptedError(_network(error)) from error
                if not chunk:
                    break
                file.write(chunk)
                done += len(chunk)
                advance(len(chunk))
        if total is not None and done != total:
            raise _InterruptedError(f"the connection ended after {done} of {total} bytes")

    def _resumable(self) -> tuple[int, dict[str, Any]]:
        """(bytes there already, what is known of the file they are of); 0 where they are of no use."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            origin = read_json(self._origin)
            if origin["url"] == self.url and isinstance(origin["validator"], str) and origin["validator"]:
                return self._part.stat().st_size, origin
        return 0, {}

    def _remember(self, response: Any, total: int | None) -> None:
        tag, date = response.headers.get("ETag", ""), response.headers.get("Last-Modified")
        validator = tag if tag and not tag.startswith("W/") else date
        known = {"url": self.url, "validator": validator, "date": date, "total": total}
        write_text(self._origin, json.dumps(known))

    def _accept(self, check: Callable[[Path], None]) -> None:
        """Give the finished file its name, or remove it."""
        try:
            check(self._part)
            found = fingerprint_files(self._part)
            if self.sha256 is not None and found != self.sha256.lower():
                raise DataError(f"it has the SHA-256 {found} and data.sha256 is {self.sha256}")
        except DataError as error:
            self._forget()
            reason = str(error).replace(self._part.name, "it").partition(";")[0]
            raise DataError(self._by_hand(f"what the server sent is not the file ({reason})")) from error
        write_text(record_of(self.path), f"{found}  {self.path.name}\n")
        self._part.replace(self.path)
        self._forget()

    def _forget(self) -> None:
        self._part.unlink(missing_ok=True)
        self._origin.unlink(missing_ok=True)

    def _by_hand(self, reason: str) -> str:
        return (
            f"{self.path.name} cannot be downloaded: {reason}; fetch {self.url} by hand and put it into "
            f"{str(self.path.parent)!r}, or give another address by data.url"
        )

    def _unwritable(self, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return self._no_room("the disk is full")
        return (
            f"{self.path.name} cannot be written to {str(self.path.parent)!r} ({error.strerror or error}); set "
            "SEQRL_DATA to a folder that you may write to"
        )

    def _no_room(self, reason: str) -> str:
        return (
            f"{self.path.name} does not fit into {str(self.path.parent)!r}: {reason}; make room, or set SEQRL_DATA to "
            "another disk"
        )


def _find_difference(headers: Mapping[str, str], start: int, origin: Mapping[str, Any]) -> str | None:
    """Why a part that a server sends does not go on where bytes of an earlier answer end, or None.

    Servers and proxies are met that do not look at If-Range and send the rest of another file.

    Args:
        headers: of an answer 206.
        start: bytes that are there.
        origin: what was noted of the file that they are of.
    """
    part = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", headers.get("Content-Range", "").strip())
    if part is None or int(part[1]) != start or not start <= int(part[2]) < int(part[3]):
        return "the server sent another part than was asked for"
    length = headers.get("Content-Length", "")
    if length.isdigit() and int(length) != int(part[2]) - start + 1:
        return "the server sent a part of another length than it says"
    if origin.get("total") not in (None, int(part[3])):
        return f"the server's file has {part[3]} bytes by now and had {origin['total']}"
    tag, date, validator = headers.get("ETag"), headers.get("Last-Modified"), origin.get("validator")
    tagged = validator != origin.get("date", validator) or str(validator).startswith('"')
    if (tagged and tag != validator) or (date is not None and date != origin.get("date", date)):
        return "the server's file is another one by now"  # a date may be left out of such an answer, a tag may not
    return None


def verify(path: Path, sha256: str | None = None) -> None:
    """Compare a file with the digest it was downloaded with, and with `sha256` where that is given.

    Raises:
        DataError: it is another file by now.
    """
    check_sha256(sha256)
    record = record_of(path)
    recorded = record.read_text(encoding="ascii", errors="replace").split() if record.is_file() else []
    if sha256 is None and not recorded:
        return
    found = fingerprint_files(path)
    if recorded and found != recorded[0]:
        raise DataError(
            f"{str(path)!r} was damaged or changed: its SHA-256 is not the one it was downloaded with; delete it and "
            f"{record.name}, then run again"
        )
    if sha256 is not None and found != sha256.lower():
        raise DataError(
            f"{path.name} has the SHA-256 {found} and data.sha256 is {sha256}; give the right file or digest"
        )


def record_of(path: Path) -> Path:
    """The file beside `path` that keeps its digest."""
    return path.with_name(f"{path.name}.sha256")


def check_sha256(sha256: str | None) -> None:
    """Refuse what is no SHA-256, before any file is touched.

    Raises:
        ConfigError: not 64 hexadecimal digits.
    """
    if sha256 is not None and (len(sha256) != 64 or set(sha256.lower()) - set("0123456789abcdef")):
        raise ConfigError(f"data.sha256={sha256!r} is no SHA-256; give its 64 hexadecimal digits")


def _network(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return "the server is silent"
    if isinstance(error, urllib.error.URLError):
        return f"the server cannot be reached ({getattr(reason, 'strerror', None) or reason})"
    return f"the connection broke ({getattr(error, 'strerror', None) or error or type(error).__name__})"
