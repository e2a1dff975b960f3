"""Images from the hosts that the caller named, and from no other one, a few at a time; each within its deadline."""

import contextlib
import hashlib
import itertools
import os
import socket
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urljoin

import requests
import urllib3
from requests.adapters import HTTPAdapter

from elrkit.catalogue.rules import NOT_ALLOWED, FeedRules, Rejected, image_address, may_be_fetched, printable

# What the library raises for an address, or one that it is sent on to, that is none.
_NO_ADDRESS = (ValueError, requests.exceptions.InvalidSchema, urllib3.exceptions.LocationParseError)

TOO_SLOW = "download too slow"


def download_name(url: str) -> str:
    """The name of the file in which a fetched image is kept."""
    return hashlib.sha256(url.encode()).hexdigest()


_this = threading.local()  # .deadline: of the download in this thread


class _Deadline:
    """Hangs up once the seconds of a try are over: at the connection, in the headers or in the body, however they drip.

    A silent host is another matter: the library waits `timeout_s` for each of its addresses and each of its words.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.passed, self.line, self.timer = seconds, False, None, None

    def begin(self) -> None:
        self.timer = threading.Timer(self.seconds, self._hang_up)
        self.timer.daemon = True
        self.timer.start()

    def watch(self, line: socket.socket) -> None:
        """This is the try's connection. The copy stays open when the library closes hers before it has read the body,
        as it does where a host answers "Connection: close"."""
        self._close()
        self.line = socket.socket(fileno=os.dup(line.fileno()))
        if self.passed:
            self._hang_up()

    def end(self) -> None:
        self.timer.cancel()
        self._close()

    def _close(self) -> None:
        if self.line is not None:
            self.line.close()

    def _hang_up(self) -> None:
        self.passed = True
        with contextlib.suppress(OSError, AttributeError):  # it has ended by itself, or not begun
            self.line.shutdown(socket.SHUT_RDWR)


class _PatientRetry(urllib3.Retry):
    """Waits as long as a host asks for, but not the hours that a hostile one may ask for; each try has its deadline."""

    def get_retry_after(self, response) -> float | None:
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, 60.0)

    def sleep(self, response=None) -> None:
        if _this.deadline.passed:
            raise Rejected(TOO_SLOW)
        _this.deadline.end()
        super().sleep(response)
        _this.deadline.begin()


class _Watched:
    """A connection of urllib3 that the deadline of its thread's download watches, new or used again."""

    def _new_conn(self):
        line = super()._new_conn()
        _this.deadline.watch(line)
        return line

    def request(self, *arguments, **options):
        if self.sock is not None:
            _this.deadline.watch(self.sock)
        return super().request(*arguments, **options)


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments, **options) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {
            scheme: type("Pool", (pool,), {"ConnectionCls": type("Connection", (_Watched, pool.ConnectionCls), {})})
            for scheme, pool in self.poolmanager.pool_classes_by_scheme.items()
        }


class Fetcher:
    """Fetches images into a folder; what is there already is not fetched again."""

    def __init__(self, folder: Path, hosts: Iterable[str], rules: FeedRules):
        self.folder, self.hosts, self.rules = folder.resolve(), frozenset(hosts), rules
        self.failures, self.counting = 0, threading.Lock()  # in a row
        self.session = requests.Session()
        self.session.headers["User-Agent"] = "elrkit feed importer"
        self.session.headers["Accept-Encoding"] = "identity"  # bytes are taken as they come, see `read1`
        retry = _PatientRetry(
            total=rules.retries,
            redirect=0,
            backoff_factor=rules.backoff_s,
            backoff_max=30,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=("GET",),
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, _Adapter(pool_maxsize=rules.connections, max_retries=retry))

    def fetch_all(self, root: Path, paths: list[str]) -> list[tuple[Path | None, str]]:
        """(folder, path) of images given as paths or addresses; no folder but a reason where it fails. An address on
        another host than those named stays what it is: the root may have a file of its name."""
        may = [may_be_fetched(path, self.hosts) for path in paths]
        with ThreadPoolExecutor(self.rules.connections) as pool:
            fetched = pool.map(self._fetch_one, itertools.compress(paths, may))
            return [next(fetched) if fetch else (root, path) for path, fetch in zip(paths, may, strict=True)]

    def forget(self, paths: Iterable[str]) -> None:
        """Remove what was fetched from those of these that are addresses: it was no image, and may be one next time."""
        for path in paths:
            if "://" in path:
                (self.folder / download_name(path)).unlink(missing_ok=True)

    def _fetch_one(self, url: str) -> tuple[Path | None, str]:
        name = download_name(url)
        if (self.folder / name).exists():
            return self.folder, name
        if self.failures >= self.rules.max_failures:  # the import is about to stop: ask no more
            return None, "download failed"
        try:
            data = self._fetch(url)
        except Rejected as error:
            self.failures = 0  # the host has answered
            return None, str(error)
        except _NO_ADDRESS:
            return None, "image address not understood"
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError):
            with self.counting:
                self.failures += 1
            if self.failures < self.rules.max_failures:
                return None, "download failed"
            raise ConnectionError(
                f"import_feed: {self.failures} downloads in a row failed, last {printable(url, 200)}; the same command "
                "goes on later"
            ) from None
        self.failures = 0
        self.folder.mkdir(exist_ok=True)
        partial = self.folder / f"{name}.{os.getpid()}-{threading.get_ident()}"
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power cut might leave an empty file of that name
        partial.replace(self.folder / name)
        return self.folder, name

    def _fetch(self, url: str) -> bytes:
        for _ in range(4):
            deadline = _this.deadline = _Deadline(3 * self.rules.timeout_s)
            deadline.begin()
            try:
                found = self._ask(url)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError):
                if not deadline.passed:
                    raise
            finally:
                deadline.end()
            if deadline.passed:
                raise Rejected(TOO_SLOW)
            if isinstance(found, bytes):
                return found
            # Redirects are followed by hand: each hop must be on an allowed host too.
            url = image_address(urljoin(url, found))
            if not may_be_fetched(url, self.hosts):
                raise Rejected(NOT_ALLOWED)
        raise Rejected("too many redirects")

    def _ask(self, url: str) -> bytes | str:
        """The content of an address, or where it says that it is."""
        with self.session.get(url, stream=True, timeout=self.rules.timeout_s, allow_redirects=False) as answer:
            if answer.is_redirect:
                return answer.headers["location"]
            if answer.status_code >= 500 or answer.status_code == 429:
                raise requests.ConnectionError(f"status {answer.status_code}")
            if answer.status_code != 200:
                raise Rejected(f"download refused (status {answer.status_code})")
            if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise Rejected("download in a Content-Encoding that was not asked for")
            data = bytearray()
            # read1 gives what has come; a plain read would wait for a full block, however slowly it drips in.
            while block := answer.raw.read1(1 << 14):
                data += block
                if len(data) > self.rules.max_bytes:
                    raise Rejected("file too large")
            return bytes(data)
