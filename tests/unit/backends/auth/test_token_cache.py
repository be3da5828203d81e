"""A token is fetched by one call of one worker, before it ends, and by another only when it has to be."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from openai_compat.backends.auth.token_cache import CachedToken, Token
from openai_compat.core.errors import CallCancelledError, UpstreamConnectionError
from openai_compat.core.types import CallContext


class Source:
    """Gives `token-1`, `token-2`, ... that were fetched `age` seconds ago and live for `life`."""

    def __init__(self, *, life: float = 3600.0, age: float = 0.0) -> None:
        self.life, self.age = life, age
        self.fetched = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.fails = False

    def __call__(self) -> Token:
        assert self.may_answer.wait(20)
        if self.fails:
            raise UpstreamConnectionError("The workspace could not be reached for a token.")
        self.fetched += 1
        now = time.time() - self.age
        return Token(f"token-{self.fetched}", now, now + self.life)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shared"


def ask(token: CachedToken) -> str:
    return token.authorization(CallContext("r"))


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("is_shared", [True, False])
def test_twenty_callers_at_once_fetch_one_token(folder: Path, is_shared: bool) -> None:
    """Of one worker, also where it cannot share with others."""
    folder.mkdir()
    folder.chmod(0o700 if is_shared else 0o777)
    source = Source()
    token = CachedToken(source, "me", folder)
    source.may_answer.clear()
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(ask, token) for _ in range(20)]
        source.may_answer.set()
        assert {answer.result() for answer in answers} == {"Bearer token-1"}
    assert source.fetched == 1


def test_workers_share_one(folder: Path) -> None:
    source = Source()
    workers = [CachedToken(source, "me", folder) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, workers)) == {"Bearer token-1"}
    assert ask(CachedToken(source, "another", folder)) == "Bearer token-2"


def test_what_they_share_is_for_this_user_alone(folder: Path) -> None:
    ask(CachedToken(Source(), "me", folder))
    assert {path.stat().st_mode & 0o077 for path in [folder, *folder.iterdir()]} == {0}


def test_a_folder_that_others_can_write_to_is_not_used(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    source = Source()
    for number in (1, 2):
        assert ask(CachedToken(source, "me", folder)) == f"Bearer token-{number}"
    assert list(folder.glob("*.json")) == []


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_without_a_folder_each_worker_fetches_for_itself(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert ask(CachedToken(Source(), "me", tmp_path / "shared")) == "Bearer token-1"


def test_a_broken_file_is_no_token(folder: Path) -> None:
    source = Source()
    ask(CachedToken(source, "me", folder))
    next(folder.glob("*.json")).write_text("{")
    assert ask(CachedToken(source, "me", folder)) == "Bearer token-2"


def test_it_is_renewed_before_it_ends_and_nobody_waits_for_that(folder: Path) -> None:
    source = Source(age=3000)
    token = CachedToken(source, "me", folder)
    ask(token)
    source.may_answer.clear()
    assert [ask(token) for _ in range(5)] == ["Bearer token-1"] * 5
    source.may_answer.set()
    wait_until(lambda: ask(token) == "Bearer token-2")
    assert source.fetched == 2


def test_a_renewal_that_fails_leaves_the_old_one(folder: Path) -> None:
    source = Source(age=3000)
    token = CachedToken(source, "me", folder)
    ask(token)
    source.fails = True
    assert [ask(token) for _ in range(5)] == ["Bearer token-1"] * 5


def test_one_that_has_ended_is_never_sent(folder: Path) -> None:
    source = Source(age=3590)
    token = CachedToken(source, "me", folder)
    ask(token)
    assert ask(token) == "Bearer token-2"
    source.fails = True
    with pytest.raises(UpstreamConnectionError):
        ask(token)
    source.fails, source.age = False, 0.0
    assert ask(token) == "Bearer token-3"


def test_whoever_leaves_does_not_wait(folder: Path) -> None:
    source = Source()
    token = CachedToken(source, "me", folder)
    source.may_answer.clear()
    context = CallContext("r")
    threading.Timer(0.05, context.cancellation.cancel).start()
    with pytest.raises(CallCancelledError):
        token.authorization(context)
    source.may_answer.set()
    assert ask(token) == "Bearer token-1"


def test_a_refused_one_is_replaced_once(folder: Path) -> None:
    source = Source()
    first, second = (CachedToken(source, "me", folder) for _ in range(2))
    assert ask(first) == ask(second) == "Bearer token-1"
    context = CallContext("r")
    assert first.renewed("Bearer token-1", context) == "Bearer token-2"
    assert first.renewed("Bearer token-1", context) == "Bearer token-2"
    assert second.renewed("Bearer token-1", context) == "Bearer token-2"
    assert first.renewed("Bearer token-2", context) is None
    assert source.fetched == 2


def test_many_whose_token_is_refused_at_once_wait_for_the_same_new_one(folder: Path) -> None:
    source = Source()
    token = CachedToken(source, "me", folder)
    ask(token)
    source.may_answer.clear()
    with ThreadPoolExecutor(10) as pool:
        replaced = [pool.submit(token.renewed, "Bearer token-1", CallContext("r")) for _ in range(10)]
        assert wait(replaced, timeout=0.2).done == set()
        source.may_answer.set()
        assert {call.result() for call in replaced} == {"Bearer token-2"}
    assert source.fetched == 2
