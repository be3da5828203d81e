"""Routing policies of the models file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openai_compat.config import environment
from openai_compat.core.errors import ConfigurationError
from openai_compat.core.settings import ModelConfig, RoutePolicy, Settings
from openai_compat.core.timeouts import Timeouts

A, B = {"name": "a", "kind": "echo"}, {"name": "b", "kind": "echo"}


def load(tmp_path: Path, *models: dict[str, Any], **variables: str) -> Settings:
    path = tmp_path / "models.json"
    path.write_text(json.dumps(list(models)))
    return environment.load({"MODELS_FILE": str(path), **variables})


def first(tmp_path: Path, **keys: Any) -> ModelConfig:
    return load(tmp_path, {**A, **keys}, B).entries["a"]


def policy(tmp_path: Path, **keys: Any) -> RoutePolicy:
    found = first(tmp_path, **keys).routing
    assert found is not None
    return found


def test_a_model_without_routing_keys_has_no_policy(tmp_path: Path) -> None:
    assert first(tmp_path).routing is None
    assert first(tmp_path, timeout=30).routing is None


def test_every_routing_key_is_read(tmp_path: Path) -> None:
    found = policy(
        tmp_path,
        fallbacks=["b"],
        retries=2,
        max_retry_wait=5,
        cooldown={"seconds": 30, "failure_threshold": 4},
        context_overflow="always",
        on_stream_break="continue",
    )
    expected = RoutePolicy(
        fallbacks=("b",),
        retries=2,
        max_retry_wait=5.0,
        cooldown=30.0,
        failure_threshold=4,
        context_overflow="always",
        on_stream_break="continue",
    )
    assert found == expected


def test_a_number_is_the_duration_of_the_cooldown(tmp_path: Path) -> None:
    assert policy(tmp_path, cooldown=3).cooldown == 3.0


@pytest.mark.parametrize(
    "targets",
    [["b"], [{"model": "b"}], [{"model": "b", "weight": 1}], {"b": 1.0}],
    ids=["names", "mappings", "weights", "map"],
)
def test_a_model_with_targets_is_an_alias(tmp_path: Path, targets: Any) -> None:
    alias = load(tmp_path, {"name": "smart", "targets": targets, "strategy": "least_latency"}, B).entries["smart"]
    assert alias.is_alias
    assert alias.routing is not None
    assert (alias.routing.targets, alias.routing.strategy) == ({"b": 1.0}, "least_latency")


def test_the_first_token_limit_bounds_streams_only(tmp_path: Path) -> None:
    entry = first(tmp_path, timeout={"first_token": 4})
    assert (entry.timeouts.first_token, entry.timeouts.first_byte) == (4.0, 600.0)
    assert entry.routing is not None
    assert entry.routing.retries == 0
    named = first(tmp_path, timeout={"first_token": 4, "first_byte": 90})
    assert (named.timeouts.first_token, named.timeouts.first_byte) == (4.0, 90.0)


UPSTREAM = {"name": "a", "kind": "openai", "base_url": "http://x"}


def limits(timeouts: Timeouts | None) -> tuple[float, float, float] | None:
    return timeouts and (timeouts.first_byte, timeouts.first_token, timeouts.idle)


@pytest.mark.parametrize(
    ("timeout", "variables", "expected"),
    [
        (None, {}, (90, 60, 60)),
        ({"total": 20}, {}, (90, 60, 60)),
        ({"first_token": 10, "idle": 10}, {}, (90, 10, 10)),
        ({"first_token": 200}, {}, (200, 200, 200)),
        ({"first_byte": 300}, {}, (300, 0, 300)),
        ({"first_byte": 5}, {}, (5, 0, 60)),
        ({"first_byte": 0}, {}, (0, 0, 300)),
        (None, {"UPSTREAM_FIRST_BYTE_TIMEOUT": "400"}, (400, 0, 400)),
        (None, {"UPSTREAM_IDLE_TIMEOUT": "20"}, (90, 60, 20)),
    ],
)
def test_a_model_with_fallbacks_does_not_wait_long_for_a_silent_upstream(
    tmp_path: Path, timeout: Any, variables: dict[str, str], expected: tuple[float, float, float]
) -> None:
    keys = {"timeout": timeout} if timeout else {}
    entry = load(tmp_path, {**UPSTREAM, **keys, "fallbacks": ["b"]}, B, **variables).entries["a"]
    assert limits(entry.timeouts) == expected


def test_only_routes_with_several_models_have_these_defaults(tmp_path: Path) -> None:
    entries = load(
        tmp_path,
        {**UPSTREAM, "retries": 2},
        {**UPSTREAM, "name": "spare"},
        {"name": "local", "kind": "echo", "fallbacks": ["spare"]},
        OPENAI_API_KEY="sk-1",
        OPENAI_BASE_URL="http://y",
    )
    assert limits(entries.entries["a"].timeouts) == (600, 0, 300)
    assert limits(entries.entries["local"].timeouts) == (600, 0, 300)
    spare, upstream = entries.entries["spare"], entries.default_upstream
    assert upstream is not None
    assert limits(spare.timeouts) == limits(upstream.timeouts) == (600, 0, 300)
    assert limits(spare.routed_timeouts) == limits(upstream.routed_timeouts) == (90, 60, 60)


@pytest.mark.parametrize(
    ("value", "prefill"), [(True, "message"), (False, None), ("prefix", "prefix"), ("message", "message")]
)
def test_prefill_and_context_window_are_no_routing_keys(tmp_path: Path, value: Any, prefill: str | None) -> None:
    entry = first(tmp_path, assistant_prefill=value, context_window=8192)
    assert (entry.assistant_prefill, entry.context_window, entry.routing) == (prefill, 8192, None)


def test_a_model_of_the_default_upstream_may_be_a_fallback(tmp_path: Path) -> None:
    settings = load(tmp_path, {**A, "fallbacks": ["gpt-4o-mini"]}, OPENAI_API_KEY="sk-1")
    assert settings.entries["a"].routing is not None


def test_a_model_outside_the_allow_list_can_be_a_target(tmp_path: Path) -> None:
    settings = load(tmp_path, {"name": "smart", "targets": ["a", "b"]}, A, B, MODEL_ALLOW_LIST="smart")
    assert (list(settings.entries), list(settings.hidden_entries)) == (["smart"], ["a", "b"])


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"fallbacks": ["c"]}, "fallbacks names 'c', which is not configured"),
        ({"fallbacks": ["a"]}, "fallbacks names 'a', which is itself"),
        ({"fallbacks": ["b", "b"]}, "fallbacks names a model twice"),
        ({"fallbacks": 3}, "fallbacks must be a list"),
        ({"retries": 4}, "retries must be a whole number from 0 to 3"),
        ({"retries": True}, "retries must be a whole number from 0 to 3"),
        ({"max_retry_wait": -1}, "max_retry_wait must be a number of seconds"),
        ({"max_retry_wait": True}, "max_retry_wait must be a number of seconds"),
        ({"cooldown": "soon"}, "cooldown must be a number of seconds"),
        ({"cooldown": [1]}, "cooldown "),
        ({"cooldown": {"second": 1}}, "cooldown has the unknown key 'second'. Did you mean 'seconds'?"),
        ({"cooldown": {"failure_threshold": 0}}, "cooldown.failure_threshold must be a whole number, 1 or more"),
        ({"context_overflow": "never"}, "context_overflow must be larger or always"),
        ({"on_stream_break": "resume"}, "on_stream_break must be error or continue"),
        ({"context_window": 0}, "context_window must be a number of tokens"),
        ({"assistant_prefill": "yes"}, "assistant_prefill must be message or prefix or continue_final_message"),
        ({"fallback": ["b"]}, "has the unknown key 'fallback'. Did you mean 'fallbacks'?"),
        ({"timeout": {"first_tokens": 1}}, "timeout has the unknown key 'first_tokens'. Did you mean 'first_token'?"),
    ],
)
def test_a_wrong_routing_key_is_reported(tmp_path: Path, keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path, {**A, **keys}, B)
    assert any("model 'a'" in found and problem in found for found in raised.value.problems), raised.value.problems


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (
            {"targets": ["a"], "base_url": "http://x", "kind": "openai"},
            "has targets, so the key 'base_url' belongs to them",
        ),
        ({"targets": ["other"]}, "targets names 'other', which has targets of its own"),
        ({"targets": [{"model": "a", "weight": -1}]}, "targets.0.weight must be a number, 0 or more"),
        ({"targets": [{"model": "a", "weight": 0}]}, "targets must have a weight above 0"),
        ({"targets": [{"name": "a"}]}, "targets.0.model is missing"),
        ({"targets": "a"}, "targets must be a list"),
        ({"targets": ["a"], "fallbacks": ["a"]}, "a stands in targets and in fallbacks"),
        ({"targets": ["a"], "strategy": "fair"}, "strategy must be weighted or least_latency"),
    ],
)
def test_a_wrong_alias_is_reported(tmp_path: Path, keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path, {"name": "smart", **keys}, A, {"name": "other", "targets": ["b"]}, B)
    assert any("model 'smart'" in found and problem in found for found in raised.value.problems), raised.value.problems


@pytest.mark.parametrize("url", ["memory:", "sqlite:/tmp/x", "redis://h:1/0", "rediss://h", "unix:///tmp/x"])
def test_a_store_may_be_memory_sqlite_or_redis(url: str) -> None:
    assert environment.load({"SHARED_STATE_URL": url}).shared_state_url == url


def test_an_unknown_store_is_refused_without_showing_its_url() -> None:
    with pytest.raises(ConfigurationError) as raised:
        environment.load({"SHARED_STATE_URL": "postgres://user:secret@h"})
    assert "SHARED_STATE_URL must be" in raised.value.message
    assert "secret" not in raised.value.message
