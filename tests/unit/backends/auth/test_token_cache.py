"""Fetching, refreshing and replacing OAuth tokens, with one fetch at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from openai_compat.backends.auth.token_cache import CachedToken, Token, TokenCache
from openai_compat.core.errors import CallCancelledError, UpstreamConnectionError
from openai_compat.core.types import CallContext
from tests.support.waiting import wait_until


class Issuer:
    """Issues `token-1`, `token-2`, ... with a lifetime of `lifetime` seconds, `age` seconds of which have passed."""

    def __init__(self, *, lifetime: float = 3600.0, age: float = 0.0) -> None:
        self.lifetime, self.age = lifetime, age
        self.fetches = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.fails = False

    def __call__(self) -> Token:
        assert self.may_answer.wait(20)
        if self.fails:
            raise UpstreamConnectionError("The workspace could not be reached for a token.")
        self.fetches += 1
        now = time.time() - self.age
        return Token(f"token-{self.fetches}", now, now + self.lifetime)


def authorize(token: CachedToken) -> str:
    return token.authorization(CallContext("r"))


def test_concurrent_calls_share_one_fetch() -> None:
    issuer = Issuer()
    token = CachedToken(issuer)
    issuer.may_answer.clear()
    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(authorize, token) for _ in range(20)]
        issuer.may_answer.set()
        assert {call.result() for call in calls} == {"Bearer token-1"}
    assert issuer.fetches == 1


def test_models_with_the_same_identity_share_one_token() -> None:
    issuer = Issuer()
    cache = TokenCache()
    assert authorize(cache.get(("host", "id", "secret"), issuer)) == "Bearer token-1"
    assert authorize(cache.get(("host", "id", "secret"), issuer)) == "Bearer token-1"
    assert authorize(cache.get(("host", "id", "another secret"), issuer)) == "Bearer token-2"
    assert authorize(TokenCache().get(("host", "id", "secret"), issuer)) == "Bearer token-3"


def test_a_usable_token_is_refreshed_ahead_of_its_expiry_without_waiting() -> None:
    issuer = Issuer(age=3000)
    token = CachedToken(issuer)
    authorize(token)
    issuer.may_answer.clear()
    assert [authorize(token) for _ in range(5)] == ["Bearer token-1"] * 5
    issuer.may_answer.set()
    wait_until(lambda: authorize(token) == "Bearer token-2")
    assert issuer.fetches == 2


def test_a_failed_refresh_keeps_the_usable_token() -> None:
    issuer = Issuer(age=3000)
    token = CachedToken(issuer)
    authorize(token)
    issuer.fails = True
    assert [authorize(token) for _ in range(5)] == ["Bearer token-1"] * 5


def test_an_expired_token_is_not_sent() -> None:
    issuer = Issuer(age=3590)
    token = CachedToken(issuer)
    authorize(token)
    assert authorize(token) == "Bearer token-2"
    issuer.fails = True
    with pytest.raises(UpstreamConnectionError):
        authorize(token)
    issuer.fails, issuer.age = False, 0.0
    assert authorize(token) == "Bearer token-3"


def test_all_waiting_calls_receive_the_fetch_error_and_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    issuer = Issuer()
    token = CachedToken(issuer)
    issuer.fails = True
    issuer.may_answer.clear()
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(authorize, token) for _ in range(5)]
        assert wait(calls, timeout=0.2).done == set()
        issuer.may_answer.set()
        errors = [call.exception() for call in calls]
    assert {type(error) for error in errors} == {UpstreamConnectionError}
    assert caplog.messages == ["could not fetch a token: The workspace could not be reached for a token."]


def test_a_cancelled_call_does_not_wait_for_the_token() -> None:
    issuer = Issuer()
    token = CachedToken(issuer)
    issuer.may_answer.clear()
    context = CallContext("r")
    threading.Timer(0.05, context.cancellation.cancel).start()
    with pytest.raises(CallCancelledError):
        token.authorization(context)
    issuer.may_answer.set()
    assert authorize(token) == "Bearer token-1"
    assert issuer.fetches == 1


def test_a_refused_token_is_replaced_once() -> None:
    issuer = Issuer()
    token = CachedToken(issuer)
    context = CallContext("r")
    assert authorize(token) == "Bearer token-1"
    assert token.refresh("Bearer token-1", context) == "Bearer token-2"
    assert token.refresh("Bearer token-1", context) == "Bearer token-2"
    assert token.refresh("Bearer token-2", context) is None
    assert issuer.fetches == 2


def test_calls_with_the_same_refused_token_wait_for_one_replacement() -> None:
    issuer = Issuer()
    token = CachedToken(issuer)
    authorize(token)
    issuer.may_answer.clear()
    with ThreadPoolExecutor(10) as pool:
        calls = [pool.submit(token.refresh, "Bearer token-1", CallContext("r")) for _ in range(10)]
        assert wait(calls, timeout=0.2).done == set()
        issuer.may_answer.set()
        assert {call.result() for call in calls} == {"Bearer token-2"}
    assert issuer.fetches == 2


def test_a_refused_token_is_not_replaced_while_a_refresh_is_running() -> None:
    issuer = Issuer(age=3000)
    token = CachedToken(issuer)
    authorize(token)
    issuer.may_answer.clear()
    authorize(token)  # starts the refresh
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(token.refresh, "Bearer token-1", CallContext("r"))
        issuer.may_answer.set()
        assert call.result() == "Bearer token-2"
    assert issuer.fetches == 2


def test_the_same_under_gevent() -> None:
    """Run this module with patched locks and threads, as in a worker."""
    code = "from gevent import monkey; monkey.patch_all(); import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    selected = ["-k", "not under_gevent", "-p", "no:cacheprovider", "-q"]
    ran = subprocess.run([sys.executable, "-c", code, *selected, __file__], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
