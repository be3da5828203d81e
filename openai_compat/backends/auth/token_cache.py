"""A token that expires, shared by all calls of all workers of a machine, and fetched anew by one of them."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from openai_compat.core.errors import OpenAICompatError, UpstreamTimeoutError
from openai_compat.core.streams import BackgroundStart
from openai_compat.core.types import CallContext

from .base import Credentials

log = logging.getLogger(__name__)

MIN_TTL: Final = 40.0
"""Seconds of life below which a token is not sent: Azure Databricks refuses one with 30 or less."""
REFRESH_AHEAD: Final = 1200.0
"""Seconds before its end at which a token is renewed at the earliest, while calls go on with the old one."""
RETRY_AFTER: Final = 30.0
"""Seconds until a renewal that failed is tried again, while the old token is still good."""
FETCH_TIMEOUT: Final = 60.0
POLL_INTERVAL: Final = 0.02


@dataclass(frozen=True, slots=True)
class Token:
    """`value`, and the Unix times at which it was fetched and at which it ends."""

    value: str
    fetched_at: float
    expires_at: float

    @property
    def renew_at(self) -> float:
        """Half of its life before the end, but not more than `REFRESH_AHEAD`."""
        return self.expires_at - min((self.expires_at - self.fetched_at) / 2, REFRESH_AHEAD)

    @property
    def usable_until(self) -> float:
        """A token that lives for no longer than `MIN_TTL` is used for half of that."""
        return self.expires_at - min(MIN_TTL, (self.expires_at - self.fetched_at) / 2)


Fetch = Callable[[], Token]


class CachedToken(Credentials):
    """`Authorization: Bearer …` with a token that `fetch` brings.

    One call of one worker fetches; the others wait for it, or go on with the old token while that is good. `name` says
    whose token it is; nothing of it can be read from the file that the workers share.
    """

    def __init__(self, fetch: Fetch, name: str, folder: Path | None = None) -> None:
        self._fetch = fetch
        self._file = _TokenFile(sha256(name.encode()).hexdigest()[:32], folder)
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._authorization = ""
        self._pending: BackgroundStart[Token] | None = None
        self._begun_at = self._renew_at = 0.0
        self._replaced_at = -RETRY_AFTER

    def authorization(self, context: CallContext) -> str:
        now = time.time()
        token = self._token
        if token is None or now >= token.usable_until:
            self._wait(self._begin(), context)
        elif now >= self._renew_at:
            self._renew_at = now + RETRY_AFTER
            self._begin()
        return self._authorization

    def renewed(self, refused: str, context: CallContext) -> str | None:
        """One that has taken the refused one's place already, or a new one; but where the new ones are refused too, it
        is not the token that is wrong.
        """
        token = self._token
        if self._authorization == refused and token is not None:
            replacement = self._replace(token)
            if replacement is None:
                return None
            self._wait(replacement, context)
        return self._authorization if self._authorization != refused else None

    def _replace(self, token: Token) -> BackgroundStart[Token] | None:
        """The fetch of another in its place: of the many calls whose token is refused at once, all wait for one. None
        where that was done a moment ago.
        """
        with self._lock:
            pending = self._pending
            if pending is not None and not pending.is_done:
                return pending
            if time.monotonic() - self._replaced_at < RETRY_AFTER:
                return None
            self._replaced_at = time.monotonic()
        return self._begin(instead_of=token.value)

    def _begin(self, instead_of: str | None = None) -> BackgroundStart[Token]:
        """The fetch that is under way, or a new one. One that never ends is given up for."""
        with self._lock:
            pending = self._pending
            if pending is None or pending.is_done or time.monotonic() - self._begun_at > FETCH_TIMEOUT:
                pending = self._pending = BackgroundStart(lambda: self._obtain(instead_of))
                self._begun_at = time.monotonic()
            return pending

    def _wait(self, pending: BackgroundStart[Token], context: CallContext) -> None:
        """Looks now and then. gevent (26.9) loses those of many waiters for one event whose time limits end just as the
        event is set.
        """
        deadline = time.monotonic() + FETCH_TIMEOUT
        while not pending.is_done:
            context.cancellation.wait(POLL_INTERVAL)
            if time.monotonic() > deadline:
                raise UpstreamTimeoutError("The upstream's token could not be had within the time limit.")
        pending.result()

    def _obtain(self, instead_of: str | None) -> Token:
        """Another worker's token, where it has fetched one meanwhile; else one that is fetched here."""
        try:
            with self._file.locked():
                token = self._file.read()
                if token is None or token.value == instead_of or time.time() >= token.renew_at:
                    token = self._fetch()
                    self._file.write(token)
        except OpenAICompatError as error:
            log.warning("no new token: %s", error.message)
            raise
        self._token, self._renew_at = token, token.renew_at
        self._authorization = f"Bearer {token.value}"
        return token


class _TokenFile:
    """Where the workers of a machine leave a token for each other: in memory, if the system has a place for that.

    Only this user can read it. Whatever is wrong with it, a call is not hurt: its worker fetches for itself.
    """

    def __init__(self, name: str, folder: Path | None) -> None:
        self._folder = folder or _shared_folder()
        self._path = self._folder / f"{name}.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One worker at a time, waiting without blocking the others of its own calls."""
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.warning("workers cannot share their token in %s: %s", self._folder, error.strerror)
            yield
            return
        try:
            _wait_for(lock)
            yield
        finally:
            os.close(lock)

    def read(self) -> Token | None:
        try:
            if not self._is_private():
                return None
            return Token(**json.loads(self._path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, token: Token) -> None:
        try:
            if not self._is_private():
                return
            handle, name = tempfile.mkstemp(dir=self._folder)  # readable by this user alone
            with os.fdopen(handle, "w") as file:
                json.dump(asdict(token), file)
            Path(name).replace(self._path)
        except OSError as error:
            log.warning("workers cannot share their token in %s: %s", self._folder, error.strerror)

    def _is_private(self) -> bool:
        """Whoever else may write there could leave a token of their own, and see what is asked with it."""
        found = self._folder.lstat()
        return found.st_uid == os.getuid() and not found.st_mode & 0o077


def _wait_for(lock: int) -> None:
    deadline = time.monotonic() + FETCH_TIMEOUT
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(POLL_INTERVAL)


def _shared_folder() -> Path:
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it, and checked
    root = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    return root / f"openai-compat-{os.getuid()}"
