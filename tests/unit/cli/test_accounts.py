"""The commands about keys, projects, usage and budgets, on the files of a server."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openai_compat import create_app
from openai_compat.cli import main
from openai_compat.config import environment
from tests.support.tools import ROOT
from tests.support.waiting import wait_until

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command in an empty folder, and returns its exit code and its output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the migration, which runs in a process of its own

    def run(*words: str) -> tuple[int, str, str]:
        try:
            code = main(words)
        except SystemExit as error:  # argparse refuses the words
            code = int(str(error.code))
        return code, *capsys.readouterr()

    return run


def as_json(run: Run, *words: str) -> Any:
    code, output, errors = run(*words, "--json")
    assert code == 0, errors
    return json.loads(output)


def test_a_key_with_a_budget_is_created_used_and_shown(run: Run, tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("- {name: priced, kind: echo, price: {input: 1000, output: 1000}}")
    as_json(run, "projects", "create", "search", "--rpm", "5")
    words = ("--budget", "5/month", "--budget", "1/1d", "--rpm", "60", "--models", "pri*", "--project", "search")
    code, secret, explanation = run("keys", "create", "app", *words, "--expires", "30d")
    assert (code, secret[:6], len(secret.split())) == (0, "sk-oc-", 1)
    assert secret.strip() not in explanation
    app = create_app(environment.load({"MODELS_FILE": "models.yaml"}))
    body = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 10}
    reply = app.test_client().post(
        "/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {secret.strip()}"}
    )
    assert reply.status_code == 200, reply.text
    cost = reply.json["usage"]["total_tokens"] / 1000
    wait_until(lambda: as_json(run, "usage"), "the call is stored")
    app.extensions["openai_compat"].close()
    (key,) = as_json(run, "keys", "list")
    assert abs(key["expires_at"] - time.time() - 30 * 86_400) < 60
    assert key["policy"]["limits"] == {"requests_per_minute": 60}
    meters = {meter["name"]: meter for meter in as_json(run, "budgets", key["id"])}
    assert (meters["budget:month:UTC"]["limit"], meters["budget:month:UTC"]["used"]) == (5, cost)
    assert f"${cost:.2f}" in run("budgets")[1]
    (usage,) = as_json(run, "usage", "--by", "key")
    assert (usage["api_key_id"], usage["calls"], usage["cost"]) == (key["id"], 1, cost)
    assert f"${cost:.2f}" in run("usage", "--by", "project", "model")[1]
    assert run("usage", "--export", "csv")[0] == 0


def test_a_key_is_rotated_and_revoked(run: Run) -> None:
    first = run("keys", "create", "app")[1]
    (key,) = as_json(run, "keys", "list")
    second = run("keys", "rotate", key["id"], "--overlap", "1h")[1]
    assert first != second
    code, text, _ = run("keys", "show", key["id"])
    assert (code, second.strip()[-4:] in text, second.strip() in text) == (0, True, False)
    assert run("keys", "revoke", key["id"])[0] == 0
    assert run("keys", "list")[1] == "There are no keys.\n"


def test_a_time_before_the_first_call_is_no_work(run: Run) -> None:
    run("keys", "create", "app")
    for last in ("99999d", "999999999d"):
        assert run("usage", "--last", last)[:2] == (0, "There were no calls.\n")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("keys", "show", "key_1"), 1, "There is no key with the id 'key_1'.\n"),
        (
            ("keys", "create", "a", "--budget", "5/fortnight"),
            2,
            "the policy is wrong: 'budgets[0].every' must be one of",
        ),
        (("keys", "create", "a", "--budget", "x"), 2, "'budgets[0].amount' must be an amount in dollars"),
        (("keys", "create", "a", "--endpoints", "chats"), 2, "has the unknown 'chats'"),
        (("keys", "create", "a", "--expires", "soon"), 2, "must be a number with s, m, h or d"),
        (("keys", "create", "a", "--project", "b"), 1, "There is no project 'b'."),
        (("budgets", "key_1"), 1, "There is no key, project or organization with the id 'key_1'.\n"),
        (("keys", "create", ""), 1, "'name' must be a text of 1 to 200 printable characters.\n"),
    ],
)
def test_mistakes_are_sentences(run: Run, words: tuple[str, ...], code: int, message: str) -> None:
    ended, output, errors = run(*words)
    assert (ended, output) == (code, "")
    assert message in errors
    assert "Traceback" not in errors


def test_a_damaged_ledger_is_a_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ledger.db").write_text("no database " * 1000)
    code, _, errors = run("keys", "create", "a")
    assert (code, errors.startswith("the ledger cannot be used")) == (1, True)


def test_the_files_are_readable_by_their_user_only(run: Run, tmp_path: Path) -> None:
    run("keys", "create", "a")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").iterdir()}
    assert modes.keys() >= {"ledger.db", "openai-compat.db"}
    assert set(modes.values()) == {0o600}
