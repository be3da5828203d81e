"""The accounts file: what it describes is served, and what vanishes from it is refused."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from openai_compat import create_app
from openai_compat.config import environment
from openai_compat.core.errors import ConfigurationError
from openai_compat.storage.accounts import AccountStore
from tests.support.waiting import wait_until

FIRST, SECOND = "sk-first-0123456789", "sk-second-0123456789"
ADMIN = {"Authorization": "Bearer admin-key-1"}
FILE = f"""
organization:
  name: Acme
  policy: {{limits: {{requests_per_day: 100}}}}
projects:
  - name: search
    tags: [web]
    policy: {{budgets: [{{amount: 20, every: month}}]}}
    keys:
      - {{name: ci, key_env: CI_KEY, policy: {{limits: {{requests_per_day: 2}}}}}}
      - {{name: app, key_sha256: {sha256(SECOND.encode()).hexdigest()}, expires_at: 2099-12-31}}
"""


def start(folder: Path, text: str, **settings: str) -> FlaskClient:
    """Start a server on the folder, and wait until it has applied the file."""
    (folder / "accounts.yaml").write_text(text)
    environ = {
        "DATA_DIR": str(folder),
        "ACCOUNTS_FILE": str(folder / "accounts.yaml"),
        "CI_KEY": FIRST,
        "ADMIN_API_KEY": "admin-key-1",
        "UNKNOWN_PRICE": "allow",
        **settings,
    }
    client = create_app(environment.load(environ)).test_client()
    wait_until(lambda: chat(client, "sk-unknown") == 401, "the file is applied")
    return client


def stop(client: FlaskClient) -> None:
    client.application.extensions["openai_compat"].close()


def chat(client: FlaskClient, key: str) -> int:
    body = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 5}
    return client.post("/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}).status_code


def get(client: FlaskClient, path: str = "") -> Any:
    return client.get(f"/v1/organization{path}", headers=ADMIN).json


def test_what_the_file_describes_is_served(tmp_path: Path) -> None:
    client = start(tmp_path, FILE)
    assert [chat(client, FIRST) for _ in range(3)] == [200, 200, 429]
    assert chat(client, SECOND) == 200
    organization = get(client)
    assert (organization["name"], organization["source"]) == ("Acme", "file")
    (project,) = (one for one in get(client, "/projects")["data"] if one["name"] == "search")
    assert (project["source"], project["tags"], project["policy"]["budgets"][0]["amount"]) == ("file", ["web"], 20)
    ci, app = get(client, f"/projects/{project['id']}/api_keys")["data"]
    assert FIRST not in str(ci)
    assert app["redacted_value"].startswith("sha256:")
    assert app["expires_at"] == 4_102_358_400
    stop(client)


def test_objects_of_the_file_are_changed_there_only(tmp_path: Path) -> None:
    client = start(tmp_path, FILE)
    (project,) = (one for one in get(client, "/projects")["data"] if one["source"] == "file")
    path = f"/v1/organization/projects/{project['id']}"
    key = get(client, f"/projects/{project['id']}/api_keys")["data"][0]
    for method, below, body in (
        ("POST", "", {"name": "x"}),
        ("POST", "/archive", None),
        ("DELETE", f"/api_keys/{key['id']}", None),
        ("POST", f"/api_keys/{key['id']}/rotate", {}),
    ):
        refused = client.open(f"{path}{below}", method=method, json=body, headers=ADMIN)
        assert (refused.status_code, refused.json["error"]["code"]) == (400, "managed_by_file")
    assert client.post("/v1/organization", json={"name": "x"}, headers=ADMIN).status_code == 400
    assert chat(client, FIRST) == 200
    stop(client)


def test_a_changed_file_changes_the_accounts_and_keeps_what_was_used(tmp_path: Path) -> None:
    client = start(tmp_path, FILE)
    assert chat(client, FIRST) == 200
    stop(client)
    changed = FILE.replace("requests_per_day: 2}", "requests_per_day: 3}").partition("      - {name: app")[0]
    client = start(tmp_path, changed)
    assert chat(client, SECOND) == 401, "it vanished from the file"
    assert [chat(client, FIRST) for _ in range(3)] == [200, 200, 429]
    stop(client)
    client = start(tmp_path, FILE, CI_KEY="sk-another-0123456789")
    assert (chat(client, FIRST), chat(client, SECOND)) == (401, 200)
    assert chat(client, "sk-another-0123456789") == 429
    stop(client)


def test_a_second_application_changes_nothing(tmp_path: Path) -> None:
    client = start(tmp_path, FILE)
    version = client.application.extensions["openai_compat"].accounts.ledger.version()
    stop(client)
    client = start(tmp_path, FILE)
    assert client.application.extensions["openai_compat"].accounts.ledger.version() == version
    stop(client)


def test_until_the_file_is_applied_an_unknown_key_is_a_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 401 would tell a client with a valid key to give up."""
    monkeypatch.setattr("openai_compat.accounts.accounts_file.AccountsFile.start", lambda _file: None)
    (tmp_path / "accounts.yaml").write_text(FILE)
    environ = {"DATA_DIR": str(tmp_path), "ACCOUNTS_FILE": str(tmp_path / "accounts.yaml"), "CI_KEY": FIRST}
    client = create_app(environment.load(environ)).test_client()
    assert chat(client, FIRST) == 503
    assert client.get("/v1/models").status_code == 401
    stop(client)


def test_the_lookup_of_digests_is_the_only_place_of_secrets(tmp_path: Path) -> None:
    stop(start(tmp_path, FILE))
    content = b"".join(path.read_bytes() for path in tmp_path.glob("*.db*"))
    assert FIRST.encode() not in content
    assert sha256(FIRST.encode()).hexdigest().encode() in content


def test_every_problem_of_the_file_is_reported_at_once(tmp_path: Path) -> None:
    text = """
organisation: {}
projects:
  - name: a
    policy: {limits: {rpm: 5}}
    keys:
      - {name: one}
      - {name: two, key_sha256: abc}
  - {name: b, expires_at: soon}
"""
    (tmp_path / "accounts.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        environment.load({"ACCOUNTS_FILE": str(tmp_path / "accounts.yaml"), "PORT": "x"})
    problems = "\n".join(raised.value.problems)
    for part in (
        "PORT",
        "unknown key 'organisation'. Did you mean 'organization'?",
        "projects.0.policy is wrong: 'limits.rpm' is unknown",
        "projects.0.keys.0 must have either key_env or key_sha256",
        "projects.0.keys.1.key_sha256 must have 64 hexadecimal digits",
        "projects.1.expires_at must be a day such as 2027-01-31 or a Unix time",
    ):
        assert part in problems


@pytest.mark.parametrize(
    ("key", "problem"),
    [("", "CI_KEY, which key 'ci' names, is not set"), ("short", "has fewer than 16 characters")],
)
def test_a_secret_that_is_missing_or_short_is_reported(tmp_path: Path, key: str, problem: str) -> None:
    (tmp_path / "accounts.yaml").write_text(FILE)
    with pytest.raises(ConfigurationError, match=problem):
        environment.load({"ACCOUNTS_FILE": str(tmp_path / "accounts.yaml"), "CI_KEY": key})


def test_names_and_secrets_that_stand_twice_are_reported(tmp_path: Path) -> None:
    text = "projects: [{name: a}, {name: a, keys: [{name: x, key_env: CI_KEY}, {name: y, key_env: CI_KEY}]}]"
    (tmp_path / "accounts.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        environment.load({"ACCOUNTS_FILE": str(tmp_path / "accounts.yaml"), "CI_KEY": FIRST})
    assert len(raised.value.problems) == 2
    assert FIRST not in str(raised.value)


def test_a_database_that_is_away_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openai_compat.core.errors import StorageUnavailableError

    work = AccountStore.all_of_source
    failures = iter([StorageUnavailableError(), StorageUnavailableError()])

    def fail_twice(store: AccountStore, source: str) -> Any:
        for error in failures:
            raise error
        return work(store, source)

    monkeypatch.setattr(AccountStore, "all_of_source", fail_twice)
    client = start(tmp_path, FILE)
    assert chat(client, FIRST) == 200
    stop(client)


def test_a_key_may_have_any_letters(tmp_path: Path) -> None:
    secret = "sk-schlüssel-0123456789"
    client = start(tmp_path, FILE, CI_KEY=secret)
    assert chat(client, secret.encode().decode("latin-1")) == 200  # as WSGI decodes headers
    stop(client)
