"""The dashboard and the alert rules, compared with what a live server shows, by Prometheus' own `promtool`."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from openai_compat.telemetry.families import FAMILIES
from tests.support.accounts_site import AccountsSite, post
from tests.support.live_server import LiveServer
from tests.support.local_models import LOADER
from tests.support.raw_server import RawServer, answer_with
from tests.support.tools import ROOT, require_tool

RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "openai-compat.json"
NAME = re.compile(r"\b(?:openai_compat|gen_ai)_\w+(?=[\[{ )]|$)")
LABELS = frozenset(label for family in FAMILIES for label in family.labels)
PRICE = {"input": 1, "output": 2}
FREE_TEXT = {"text": "text/plain", "openmetrics": "application/openmetrics-text"}
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 60},
    "completion_tokens_details": {"reasoning_tokens": 20},
}
CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
ANSWER = json.dumps(
    {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE], "usage": USAGE}
)
COMPLETION = (
    f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(ANSWER)}\r\n\r\n{ANSWER}".encode()
)


@pytest.fixture(scope="module")
def scrapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield what a server shows in both formats after calls of every kind."""
    folder = tmp_path_factory.mktemp("site")
    with RawServer(answer_with(COMPLETION)) as upstream:
        models = [
            {"name": "echo", "kind": "echo", "price": PRICE},
            {"name": "away", "kind": "openai", "base_url": "http://127.0.0.1:9/v1", "price": PRICE},
            {"name": "routed", "targets": [{"model": "away"}], "fallbacks": ["echo"], "retries": 1},
            {"name": "local", "kind": "huggingface", "hf_repo": "any/model", "price": PRICE},
            {"name": "reasoning", "kind": "openai", "base_url": upstream.url, "price": PRICE},
        ]
        with (
            AccountsSite(folder, models) as site,
            LiveServer({**site.settings, "ADMIN_API_KEY": "admin-key", "LOCAL_MODEL_LOADER": LOADER}) as server,
        ):
            _, key = site.create_key(limits={"requests_per_minute": 1000}, budgets=[{"amount": 5, "every": "month"}])
            _, tight = site.create_key(limits={"requests_per_minute": 1})
            for secret, body in (
                (key, {"model": "echo"}),
                (key, {"model": "echo", "stream": True}),
                (key, {"model": "routed", "stream": True}),
                (key, {"model": "reasoning"}),
                (key, {"model": "local"}),
                (tight, {"model": "echo"}),
                (tight, {"model": "echo"}),
            ):
                post(server.base_url, secret, **body)
            yield {form: scrape(server, kind) for form, kind in FREE_TEXT.items()}


def scrape(server: LiveServer, kind: str) -> str:
    headers = {"Authorization": "Bearer admin-key", "Accept": kind}
    response = requests.get(f"{server.url}/metrics", headers=headers, timeout=20)
    assert response.headers["content-type"].startswith(kind)
    return response.text


def names_in(expressions: list[str]) -> set[str]:
    found = {name for expression in expressions for name in NAME.findall(expression)} - LABELS
    assert len(found) > 5
    return found


def expressions_of_dashboard() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def shown_in(text: str) -> set[str]:
    return set(re.findall(r"^(\w+)[{ ]", text, re.MULTILINE))


def promtool(*arguments: str, input: str | None = None) -> str:
    done = subprocess.run(
        [require_tool("promtool"), *arguments], input=input, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_metric_of_the_dashboard_exists(scrapes: dict[str, str]) -> None:
    assert names_in(expressions_of_dashboard()) - shown_in(scrapes["text"]) == set()


def test_every_metric_of_the_alert_rules_exists(scrapes: dict[str, str]) -> None:
    assert names_in(RULES.read_text().split("expr:")[1:]) - shown_in(scrapes["text"]) == set()


def test_every_metric_of_the_server_is_on_the_dashboard() -> None:
    shown = names_in(expressions_of_dashboard())
    whole = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert {family.name for family in FAMILIES} - whole == {"openai_compat_build_info"}, "which is its variable"


def test_both_formats_are_valid(scrapes: dict[str, str]) -> None:
    promtool("check", "metrics", input=scrapes["text"])
    assert scrapes["openmetrics"].endswith("# EOF\n")
    assert "# TYPE openai_compat_requests counter\n" in scrapes["openmetrics"]


def test_the_alert_rules_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(RULES))


def test_the_expressions_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    rules: list[dict[str, Any]] = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m").replace("$instance", ".*")}
        for number, expression in enumerate(expressions_of_dashboard())
    ]
    file = tmp_path / "panels.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))


def test_what_is_left_of_limits_and_budgets_is_shown_by_key(scrapes: dict[str, str]) -> None:
    text = scrapes["text"]
    assert 'openai_compat_budget_dollars{kind="key",name="test",meter="month:UTC"} 5\n' in text
    assert 'openai_compat_limit_remaining{kind="key",name="test",meter="requests_per_minute"} 0\n' in text
    assert 'openai_compat_requests_rejected_total{reason="rate_limit_exceeded"} 1\n' in text


def test_the_engine_reports_its_local_models(scrapes: dict[str, str]) -> None:
    text = scrapes["text"]
    assert 'openai_compat_local_model_loaded{model="local"} 1\n' in text
    assert 'openai_compat_local_model_calls{model="local"} 0\n' in text
    assert re.search(r'^openai_compat_sidecar_resident_memory_bytes\{sidecar="engine"\} \d{7,}$', text, re.MULTILINE)
