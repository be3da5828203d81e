"""Tokens of an identity provider, which is a web server of this test."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from openai_compat.accounts import identity_tokens
from openai_compat.accounts.identity_tokens import KEYS_SECONDS, TokenSettings, TokenVerifier
from openai_compat.accounts.manager import AccountManager, NewAccount
from openai_compat.accounts.policy import parse_policy
from openai_compat.accounts.service import Accounts, open_accounts
from openai_compat.core.errors import AccountsUnavailableError, AuthenticationError
from openai_compat.core.settings import Settings
from openai_compat.storage import open_storage

ISSUER, AUDIENCE = "https://id.example.com", "gateway"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Provider:
    """A web server with one public key, which can be away."""

    def __init__(self) -> None:
        self.is_away = False
        self.fetches = 0
        self.delay = 0.0
        self.body: bytes | None = None
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
        body = json.dumps({"keys": [{**public, "kid": "one", "use": "sig", "alg": "RS256"}]}).encode()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.fetches += 1
                time.sleep(provider.delay)
                content = body if provider.body is None else provider.body
                self.send_response(503 if provider.is_away else 200)
                self.send_header("content-length", str(len(content)))
                with suppress(OSError):  # the verifier did not wait
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/jwks"


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.server.shutdown()
    provider.server.server_close()


def token_for(key: Any = KEY, algorithm: str = "RS256", kid: str = "one", **claims: Any) -> str:
    values = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": int(time.time()) + 600} | claims
    payload = {name: value for name, value in values.items() if value is not None}
    return jwt.encode(payload, key, algorithm, headers={"kid": kid})


def verifier_of(provider: Provider, clock: Callable[[], float] = time.time) -> TokenVerifier:
    return TokenVerifier(TokenSettings(provider.url, ISSUER, AUDIENCE, "project", "tags"), clock)


def test_a_token_tells_who_calls(provider: Provider) -> None:
    verifier = verifier_of(provider)
    identity = verifier.verify(token_for(project="proj_1", tags=["a", "b"]))
    assert (identity.subject, identity.project_id, identity.tags) == ("ann", "proj_1", ("a", "b"))
    assert identity.id == verifier.verify(token_for()).id
    assert identity.id != verifier.verify(token_for(sub="bob")).id
    assert provider.fetches == 1


@pytest.mark.parametrize(
    "token",
    [
        token_for(iss="https://evil.example.com"),
        token_for(aud="another service"),
        token_for(aud=None),
        token_for(exp=int(time.time()) - 3600),
        token_for(exp=None),
        token_for(sub=None),
        token_for(nbf=int(time.time()) + 3600),
        token_for(OTHER_KEY),
        token_for(kid="unknown"),
        token_for("a secret that everybody may know, as it is public", "HS256"),
        token_for(None, "none"),
        token_for(project=["proj_1"]),
        "eyJhbGciOiJub25lIn0.e30.",
        "ey.ey.ey",
        "ey\xff.a.b",
        "ey\udcff.a.b",
    ],
)
def test_any_other_token_is_refused(provider: Provider, token: str) -> None:
    with pytest.raises(AuthenticationError) as error:
        verifier_of(provider).verify(token)
    assert error.value.status == 401


def test_known_keys_serve_while_the_provider_is_away(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    provider.is_away = True
    with pytest.raises(AccountsUnavailableError):
        verifier_of(provider).verify(token_for())
    provider.is_away = False
    verifier = verifier_of(provider)
    verifier.verify(token_for())
    provider.is_away = True
    later = time.monotonic() + KEYS_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert verifier.verify(token_for(sub="bob")).subject == "bob"


@pytest.mark.parametrize("body", [b"<html>", b'{"keys": []}', b'{"keys": [{"kty": "XX"}]}', b"[]", b"null"])
def test_known_keys_serve_while_the_provider_sends_none(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    verifier = verifier_of(provider)
    verifier.verify(token_for())
    provider.body = body
    with pytest.raises(AccountsUnavailableError):
        verifier_of(provider).verify(token_for())
    later = time.monotonic() + KEYS_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert verifier.verify(token_for(sub="bob")).subject == "bob"


def test_a_provider_that_hangs_delays_one_call_only(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_tokens, "FETCH_TIMEOUT", 0.2)
    monkeypatch.setattr(identity_tokens, "KEYS_SECONDS", 0.001)
    verifier = verifier_of(provider)
    verifier.verify(token_for())
    time.sleep(0.01)  # until the keys are fetched again
    provider.delay = 0.5
    start = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        names = [f"user {number}" for number in range(8)]
        found = list(pool.map(lambda name: verifier.verify(token_for(sub=name)).subject, names))
    assert found == names
    assert time.monotonic() - start < 1.0, "8 calls in a row would take 1.6 s"
    assert provider.fetches == 2


def test_a_provider_that_was_away_is_asked_again(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    provider.is_away = True
    verifier = verifier_of(provider)
    for _ in range(3):
        with pytest.raises(AccountsUnavailableError):
            verifier.verify(token_for())
    assert provider.fetches == 1
    provider.is_away = False
    now[0] += identity_tokens.FIRST_PAUSE
    assert verifier.verify(token_for()).subject == "ann"


def test_a_token_that_was_verified_ends_with_its_time(provider: Provider) -> None:
    now = [time.time()]
    verifier = verifier_of(provider, lambda: now[0])
    token = token_for(exp=int(now[0]) - 20)  # within the leeway of 30 seconds
    verifier.verify(token)
    now[0] += 11
    assert verifier._verified[next(iter(verifier._verified))][1] < now[0]


@pytest.fixture
def accounts(provider: Provider, tmp_path: Path) -> Iterator[Accounts]:
    settings = Settings(data_dir=str(tmp_path), jwt_jwks_url=provider.url, jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
    storage = open_storage(None, str(tmp_path), 0, 0)
    accounts = open_accounts(settings, storage)
    assert accounts is not None
    accounts.storage = storage  # type: ignore[attr-defined]
    yield accounts
    accounts.close()
    storage.close()


def test_callers_with_a_token_have_a_project(accounts: Accounts) -> None:
    assert accounts.is_active()
    caller = accounts.find_caller(token_for())
    assert caller is not None
    assert (caller.project.id, caller.key.name) == ("proj_default", "ann")
    manager = AccountManager(accounts.storage, accounts.ledger)  # type: ignore[attr-defined]
    policy = parse_policy({"models": ["gpt-*"]})
    project = manager.create("project", NewAccount("Research", policy=policy))
    found = accounts.find_caller(token_for(project=project.id))
    assert found is not None
    assert found.project.policy.models == ("gpt-*",)
    with pytest.raises(AuthenticationError, match="does not exist"):
        accounts.find_caller(token_for(project="proj_missing"))
    with pytest.raises(AuthenticationError):
        accounts.find_caller(token_for(OTHER_KEY))
