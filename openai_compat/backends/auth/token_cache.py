"""Cache for OAuth tokens, one for each process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from openai_compat.core.errors import OpenAICompatError
from openai_compat.core.streams import BackgroundStart
from openai_compat.core.types import CallContext

from .base import Credentials

log = logging.getLogger(__name__)

MIN_TTL: Final = 40.0
"""Seconds before its expiry from which a token is not sent. Azure Databricks refuses tokens with 30 or less."""
REFRESH_AHEAD: Final = 1200.0
"""Seconds before its expiry at which a token is refreshed at the earliest. Calls use the old one meanwhile."""
RETRY_INTERVAL: Final = 30.0
"""Seconds between two attempts to refresh a token that is still usable, or to replace a refused one."""
POLL_INTERVAL: Final = 0.02


@dataclass(frozen=True, slots=True)
class Token:
    """An OAuth token, with the Unix times at which it was fetched and at which it expires."""

    value: str
    fetched_at: float
    expires_at: float

    @property
    def refresh_at(self) -> float:
        """The Unix time of the refresh, `REFRESH_AHEAD` before the expiry but not before half of the lifetime."""
        return self.expires_at - min((self.expires_at - self.fetched_at) / 2, REFRESH_AHEAD)

    @property
    def usable_until(self) -> float:
        """The Unix time until which the token is sent, `MIN_TTL` before the expiry or after half of a short life."""
        return self.expires_at - min(MIN_TTL, (self.expires_at - self.fetched_at) / 2)

    @property
    def authorization(self) -> str:
        """The value of the `Authorization` header."""
        return f"Bearer {self.value}"


Fetch = Callable[[], Token]
"""Fetches a token. It must return or raise an error of this package within a time limit of its own."""


class CachedToken(Credentials):
    """A bearer token from `fetch`, refreshed before it expires and replaced when the upstream refuses it.

    One fetch runs at a time, in a thread (under gevent in a greenlet) of its own. Calls without a usable token wait
    for it. A token is refreshed ahead of its expiry without waiting.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._running: BackgroundStart[Token] | None = None
        self._refresh_at = 0.0
        self._replaced_at = -RETRY_INTERVAL

    def authorization(self, context: CallContext) -> str:
        token = self._token
        now = time.time()
        if token is None or now >= token.usable_until:
            token = _wait(self._start_fetch(), context)
        elif now >= self._refresh_at:
            self._refresh_at = now + RETRY_INTERVAL
            self._start_fetch()
        return token.authorization

    def refresh(self, refused: str, context: CallContext) -> str | None:
        """Return the header's value with a newer token than the refused one.

        All calls whose token is refused wait for the same fetch. Return None if the refused token is a replacement that
        was fetched within the last `RETRY_INTERVAL`, since the token is then not the cause.
        """
        with self._lock:
            running = self._running_fetch()
            token = self._token  # read after the running fetch, which sets the token before it ends
            if token is not None and token.authorization != refused:
                return token.authorization
            if running is None:
                now = time.monotonic()
                if now - self._replaced_at < RETRY_INTERVAL:
                    return None
                self._replaced_at = now
                running = self._running = BackgroundStart(self._fetch_token)
        authorization = _wait(running, context).authorization
        return authorization if authorization != refused else None

    def _start_fetch(self) -> BackgroundStart[Token]:
        """Return the running fetch, or start one."""
        with self._lock:
            running = self._running_fetch()
            if running is None:
                running = self._running = BackgroundStart(self._fetch_token)
            return running

    def _running_fetch(self) -> BackgroundStart[Token] | None:
        return None if self._running is None or self._running.is_done else self._running

    def _fetch_token(self) -> Token:
        try:
            token = self._fetch()
        except OpenAICompatError as error:
            log.warning("could not fetch a token: %s", error.message)
            raise
        self._token, self._refresh_at = token, token.refresh_at
        return token


def _wait(fetch: BackgroundStart[Token], context: CallContext) -> Token:
    """Return the token of a fetch. Raise the fetch's error, or the cancellation's if the call is cancelled first.

    It polls, because gevent (26.9) loses some of many waiters whose time limits end just as their event is set.
    """
    while not fetch.is_done:
        context.cancellation.wait(POLL_INTERVAL)
    return fetch.result()


class TokenCache:
    """The tokens of one process by identity, so that all models with the same credential share one token."""

    def __init__(self) -> None:
        self._tokens: dict[Hashable, CachedToken] = {}

    def get(self, identity: Hashable, fetch: Fetch) -> CachedToken:
        """Return the token of `identity`. The first caller's `fetch` is the one that is used."""
        return self._tokens.setdefault(identity, CachedToken(fetch))
