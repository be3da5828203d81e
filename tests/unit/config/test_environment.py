"""Settings from the environment and the models file, and the problems in them, which are all reported at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask_cors.core import probably_regex

from openai_compat import create_app
from openai_compat.config import environment, settings_table
from openai_compat.core.errors import ConfigurationError
from openai_compat.core.settings import Settings
from openai_compat.core.timeouts import Timeouts


def load(**environ: str) -> Settings:
    return environment.load(environ)


def problems(**environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load(**environ)
    return caught.value.problems


def models_file(folder: Path, content: Any, name: str = "models.json") -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_without_settings_the_echo_model_is_served() -> None:
    settings = load()
    assert (settings.host, settings.port, settings.default_model) == ("0.0.0.0", 8000, "mock-gpt-model")  # noqa: S104
    assert [(entry.name, entry.kind) for entry in settings.entries.values()] == [("mock-gpt-model", "echo")]


def test_every_setting_has_a_field_and_every_field_a_setting() -> None:
    derived = {"declared_accounts", "entries", "hidden_entries", "default_upstream", "server_id", "metrics_slot"}
    assert {setting.field for setting in settings_table.SETTINGS} == set(Settings.__dataclass_fields__) - derived


def test_further_names_of_a_setting_are_read_and_its_own_wins() -> None:
    assert load(API_HOST="::1", API_PORT="8001").port == 8001
    assert load(DATABRICKS_APP_PORT="8002").port == 8002
    assert load(PORT="1", API_PORT="2", DATABRICKS_APP_PORT="3").port == 1


def test_an_empty_value_counts_as_absent() -> None:
    assert load(PORT=" ", OPENAI_API_KEY="", API_KEYS="").port == 8000


def test_all_problems_are_reported_at_once_without_secrets(tmp_path: Path) -> None:
    path = models_file(
        tmp_path, [{"name": "a", "kind": "nope"}, {"kind": "echo"}, {"name": "b", "kind": "echo", "x": 1}]
    )
    found = problems(
        PORT="eighty",
        ASK_STREAM_FORMAT="xml",
        LOG_REQUEST_BODIES="perhaps",
        MODELS_FILE=path,
        DEFAULT_MODEL="c",
    )
    text = "\n".join(found)
    for word in (
        "PORT",
        "ASK_STREAM_FORMAT",
        "LOG_REQUEST_BODIES",
        "'nope'",
        "entry 2",
        "the unknown key 'x'",
        "DEFAULT_MODEL",
    ):
        assert word in text
    assert len(found) == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "-1"),
        ("WEB_CONCURRENCY", "0"),
        ("OPENAI_BASE_URL", "api.openai.com"),
        ("SSE_KEEPALIVE_SECONDS", "nan"),
        ("UPSTREAM_IDLE_TIMEOUT", "-3"),
        ("VALIDATION_ERROR_STATUS", "200"),
        ("LOG_FORMAT", "xml"),
        ("API_KEYS", ","),
        ("MODEL_ALLOW_LIST", " , "),
        ("CORS_ALLOW_ORIGINS", ","),
        ("ALLOWED_HOSTS", "https://api.example.com"),
        ("ALLOWED_HOSTS", "api.example.com:443"),
        ("HOST", "[::]"),
        ("HOST", "localhost:8000"),
        ("HOST", "http://localhost"),
        ("OPENAI_BASE_URL", "http://"),
        ("OPENAI_BASE_URL", "http://:8000/v1"),
        ("OPENAI_BASE_URL", "http://host:99999/v1"),
        ("OPENAI_BASE_URL", "http://host:0/v1"),
        ("OPENAI_BASE_URL", "http://host:port/v1"),
        ("OPENAI_BASE_URL", "http://[::1/v1"),
        ("OPENAI_BASE_URL", "http://[bad]/v1"),
        ("OPENAI_BASE_URL", "http://ho st/v1"),
        ("OPENAI_BASE_URL", "http://ho\tst/v1"),
        ("OPENAI_BASE_URL", "http://host/é"),
        ("OPENAI_BASE_URL", "http://host..test/v1"),
    ],
)
def test_a_wrong_value_is_reported_with_the_name_of_the_setting(name: str, value: str) -> None:
    (problem,) = problems(**{name: value})
    assert problem.startswith(name)


def test_an_unreadable_file_is_reported_at_start(tmp_path: Path) -> None:
    """Without the check, every call to an upstream would fail."""
    path = tmp_path / "authorities.pem"
    assert problems(UPSTREAM_CA_BUNDLE=str(path), PORT="x")[1] == (
        f"UPSTREAM_CA_BUNDLE must name a file that can be read (No such file or directory), not '{path}'"
    )
    assert "UPSTREAM_CA_BUNDLE" in problems(UPSTREAM_CA_BUNDLE=str(tmp_path))[0]
    path.write_text("a certificate")
    assert load(UPSTREAM_CA_BUNDLE=str(path)).upstream_ca_bundle == str(path)


def test_a_key_that_cannot_be_sent_in_a_header_is_reported_but_not_shown(tmp_path: Path) -> None:
    """An example is a key copied from a page that shortens it with an ellipsis."""
    entry = {"name": "m", "kind": "openai", "base_url": "https://gpu.test/v1"}
    entries = [{**entry, "api_key_env": "GPU_KEY"}, {**entry, "name": "n", "headers": {"X-Team": "a\nb"}}]
    found = problems(
        OPENAI_API_KEY="sk-abc…",
        EXTERNAL_CHAT_API_KEY="clé",
        GPU_KEY="gpu\x7f",
        MODELS_FILE=models_file(tmp_path, entries),
    )
    names = ("OPENAI_API_KEY", "EXTERNAL_CHAT_API_KEY", "model 'm': api_key_env", "model 'n': header X-Team")
    assert [name for name, problem in zip(names, found, strict=True) if problem.startswith(name)] == list(names)
    assert not [problem for problem in found if "sk-abc" in problem or "clé" in problem or "gpu" in problem]


@pytest.mark.parametrize(
    "url", ["http://gpu.test/v1", "https://u:p@gpu.test:8443/v1?key=k", "http://[::1]:8000/v1", "http://10.0.0.1/v1"]
)
def test_a_usable_url_is_not_changed(url: str) -> None:
    assert load(OPENAI_BASE_URL=url).openai_base_url == url


@pytest.mark.parametrize("url", ["ftp://u:sekret@h", "http://u:sekret@[h", "http://h:99999/v1?key=sekret"])
def test_no_part_of_a_wrong_url_is_shown(url: str, tmp_path: Path) -> None:
    path = models_file(tmp_path, [{"name": "m", "kind": "openai", "base_url": url}])
    found = problems(OPENAI_BASE_URL=url, EXTERNAL_CHAT_URL=url, CORS_ALLOW_ORIGINS=url, MODELS_FILE=path)
    assert len(found) == 4
    assert "sekret" not in "\n".join(found)


@pytest.mark.parametrize(
    "origin",
    [
        "http://*.example.com",
        "https://app.example.com/",
        "https://app.example.com/chat",
        "https://app example.com",
        "app.example.com",
        "https://",
        "https://app.example.com:port",
        "https://(app|www).example.com",
        "http://[::1:3000",
        "http://[a-z]:3000",
        "null",
    ],
)
def test_an_origin_that_no_browser_sends_is_reported(origin: str) -> None:
    (problem,) = problems(CORS_ALLOW_ORIGINS=f"https://good.example.com,{origin}")
    assert problem.startswith("CORS_ALLOW_ORIGINS must be *, or origins such as")


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "https://my-app.example.com", "http://10.0.0.1:80", "capacitor://localhost"]
)
def test_flask_cors_does_not_take_an_origin_for_a_pattern(origin: str) -> None:
    """In a pattern, a dot matches any character, and the end of the origin is not compared."""
    assert load(CORS_ALLOW_ORIGINS=origin).cors_allow_origins == (origin,)
    assert not probably_regex(origin)


def test_an_origin_is_compared_in_full() -> None:
    client = create_app(load(CORS_ALLOW_ORIGINS="https://app.example.com")).test_client()
    allowed = {
        origin: "access-control-allow-origin" in client.get("/healthz", headers={"Origin": origin}).headers
        for origin in ("https://app.example.com", "https://appxexample.com", "https://app.example.com.evil.net")
    }
    assert list(allowed.values()) == [True, False, False]


def test_an_ipv6_origin_is_compared_in_full() -> None:
    client = create_app(load(CORS_ALLOW_ORIGINS="http://[::1]:3000")).test_client()
    allowed = {
        origin: "access-control-allow-origin" in client.get("/healthz", headers={"Origin": origin}).headers
        for origin in ("http://[::1]:3000", "http://:", "http://[::1]:30001")
    }
    assert list(allowed.values()) == [True, False, False]


@pytest.mark.parametrize(
    ("text", "prefixes"),
    [
        ("all", ("all",)),
        ("None", ()),
        ("files, /audio/", ("files", "audio")),
        ("v1/fine_tuning/jobs", ("fine_tuning/jobs",)),
    ],
)
def test_the_passthrough_is_limited_to_prefixes(text: str, prefixes: tuple[str, ...]) -> None:
    assert load(PASSTHROUGH=text).passthrough == prefixes


@pytest.mark.parametrize("text", [",", "files, all", "files, ../admin", "files?x", "/"])
def test_a_prefix_that_is_no_path_is_reported(text: str) -> None:
    (problem,) = problems(PASSTHROUGH=text)
    assert problem.startswith("PASSTHROUGH must")


def test_an_openai_key_alone_selects_openai() -> None:
    settings = load(OPENAI_API_KEY="sk-1")
    assert settings.default_upstream is not None
    assert settings.default_upstream.base_url == "https://api.openai.com/v1"
    assert (settings.entries, settings.default_model) == ({}, "gpt-4o-mini")
    assert "sk-1" not in repr(settings)


def test_an_external_url_adds_a_model() -> None:
    settings = load(EXTERNAL_CHAT_URL="https://test.com/chatting", EXTERNAL_CHAT_MODEL="mock-gpt-model")
    assert [(entry.name, entry.kind) for entry in settings.entries.values()] == [("mock-gpt-model", "external")]
    assert load(EXTERNAL_CHAT_URL="https://test.com/chatting").default_model == "external-chat"


ENTRY = {
    "name": "mine",
    "kind": "openai",
    "base_url": "https://gpu.test/v1/",
    "upstream_model": "org/real",
    "api_key_env": "GPU_KEY",
    "headers": {"X-Team": "${TEAM}"},
    "timeout": {"connect": 1, "total": 0},
    "owned_by": "us",
    "metadata": {"size": "7b"},
}


@pytest.mark.parametrize("shape", ["list", "mapping", "yaml"])
def test_a_model_of_the_models_file(tmp_path: Path, shape: str) -> None:
    content: Any = [ENTRY] if shape == "list" else {"models": [ENTRY]}
    path = models_file(tmp_path, content, "models.yaml" if shape == "yaml" else "models.json")
    settings = load(MODELS_FILE=path, GPU_KEY="k", TEAM="blue")
    entry = settings.entries["mine"]
    assert (entry.base_url, entry.upstream_model, entry.api_key) == ("https://gpu.test/v1", "org/real", "k")
    assert (entry.headers, entry.owned_by, entry.metadata) == ({"X-Team": "blue"}, "us", {"size": "7b"})
    assert entry.timeouts == Timeouts(connect=1, first_byte=600, idle=300, total=0)
    assert settings.default_model == "mine"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"name": "a"}, "needs a `kind`"),
        ({"name": "a", "kind": "openai"}, "needs a `base_url`"),
        ({"name": "a", "kind": "external", "base_url": "x"}, "base_url must begin with http"),
        ({"name": "a", "kind": "echo", "api_key_env": "NOT_SET"}, "NOT_SET, which is not set"),
        ({"name": "a", "kind": "echo", "headers": {"x": "${NOT_SET}"}}, "NOT_SET, which is not set"),
        ({"name": "a", "kind": "echo", "headers": {"X Team": "x"}}, "'X Team' cannot be the name of a header"),
        ({"name": "a", "kind": "echo", "headers": {"X-Team\n": "x"}}, "'X-Team\\n' cannot be the name of a header"),
        ({"name": "a", "kind": "echo", "headers": {"": "x"}}, "'' cannot be the name of a header"),
        ({"name": "a", "kind": "openai", "base_url": "http://u:p@[bad"}, "its host cannot be read"),
        ({"name": "a", "kind": "echo", "timeout": "long"}, "timeout"),
        ({"name": "a", "kind": "echo", "timeout": {"forever": 1}}, "timeout"),
        ({"name": "a", "kind": "echo", "delay": "slow"}, "delay"),
        ({"name": "a", "kind": "echo", "metadata": []}, None),
        ({"name": "a", "kind": "echo", "metadata": "x"}, "metadata must be a mapping"),
        ({"name": "a", "kind": "echo", "base_urll": "x"}, "Did you mean 'base_url'?"),
        ({"name": "a", "kind": "nowhere.module:Class"}, "cannot be loaded"),
        ({"name": "a", "kind": "json:JSONDecoder"}, "not a subclass"),
        ({"name": "a", "hf_repo": "org/model"}, None),
        (7, "needs a `name`"),
    ],
)
def test_a_wrong_model_is_reported_with_its_name(tmp_path: Path, entry: Any, words: str | None) -> None:
    path = models_file(tmp_path, [entry])
    if words is None:
        assert load(MODELS_FILE=path).entries
    else:
        assert words in "\n".join(problems(MODELS_FILE=path))


@pytest.mark.parametrize(
    "content", ["{", "[]", "3", '{"modells": []}', '[{"name": "a", "kind": "echo"}, {"name": "a", "kind": "echo"}]']
)
def test_a_wrong_file_is_reported(tmp_path: Path, content: str) -> None:
    assert problems(MODELS_FILE=models_file(tmp_path, content))


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/name:os.system", "!!python/module:os"])
def test_the_models_file_runs_no_code(tmp_path: Path, tag: str) -> None:
    mark, path = tmp_path / "ran", tmp_path / "models.yaml"
    path.write_text(f"- name: x\n  kind: echo\n  metadata: {tag} ['touch {mark}']\n")
    assert problems(MODELS_FILE=str(path))
    assert not mark.exists()


def test_a_missing_file_is_reported() -> None:
    assert "cannot be read" in problems(MODELS_FILE="/nowhere/models.json")[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("models.yaml", "- name: a\n  kind: echo\n  delay: 1\n  delay: 2\n"),
        ("models.yaml", "models:\n- {name: a, kind: echo, metadata: {delay: 1, 'delay': 2}}\n"),
        ("models.json", '[{"name": "a", "kind": "echo", "delay": 1, "delay": 2}]'),
    ],
)
def test_a_duplicate_key_is_reported(tmp_path: Path, name: str, content: str) -> None:
    (problem,) = problems(MODELS_FILE=models_file(tmp_path, content, name))
    assert "the key 'delay' stands twice" in problem


def test_a_key_may_replace_a_merged_one(tmp_path: Path) -> None:
    content = """
    - &base {name: a, kind: echo, delay: 1}
    - &other {<<: *base, name: b, delay: 2}
    - {<<: *other, name: c, delay: 3}
    """
    entries = load(MODELS_FILE=models_file(tmp_path, content, "models.yaml")).entries
    assert [entry.options["delay"] for entry in entries.values()] == [1, 2, 3]


def test_a_yaml_error_is_reported_without_quoting_the_file(tmp_path: Path) -> None:
    content = "- name: a\n  base_url: [https://u:sekret@host/v1\n  kind: openai\n"
    (problem,) = problems(MODELS_FILE=models_file(tmp_path, content, "models.yaml"))
    assert "line 3" in problem
    assert "sekret" not in problem


def test_the_options_of_a_model_from_settings_are_checked() -> None:
    (problem,) = problems(EXTERNAL_CHAT_URL="https://test.com/chatting", EXTERNAL_CHAT_REPLY_PATH="..a[")
    assert problem.startswith("EXTERNAL_CHAT_REPLY_PATH: reply_path must be names and numbers")


def test_a_default_model_outside_the_allow_list_is_reported() -> None:
    (problem,) = problems(MODEL_ALLOW_LIST="a,b", DEFAULT_MODEL="c", OPENAI_API_KEY="k")
    assert problem == "DEFAULT_MODEL names 'c', which MODEL_ALLOW_LIST leaves out"
    assert load(MODEL_ALLOW_LIST="a,b", DEFAULT_MODEL="b", OPENAI_API_KEY="k").default_model == "b"


def test_the_allow_list_restricts_the_models() -> None:
    (problem,) = problems(MODEL_ALLOW_LIST="a, b")
    assert "a, b" in problem
    assert load(MODEL_ALLOW_LIST="a,b", OPENAI_API_KEY="k").default_model == "a"


def test_a_dot_env_file_is_read_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PORT=9000\nHOST=127.0.0.1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOST", "127.0.0.2")
    settings = environment.load()
    assert (settings.port, settings.host) == (9000, "127.0.0.2")


def test_a_dot_env_file_that_is_not_utf8_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_bytes("DEFAULT_MODEL=modèle\n".encode("latin-1"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"\.env cannot be read: it is not UTF-8"):
        environment.load()


def test_running_and_queued_requests_leave_a_connection_for_health_checks() -> None:
    limits = {"WORKER_CONNECTIONS": "100", "MAX_CONCURRENT_REQUESTS": "60", "MAX_QUEUED_REQUESTS": "40"}
    with pytest.raises(ConfigurationError, match=r"WORKER_CONNECTIONS must be larger than .* together \(100\)"):
        environment.load(limits)
    assert environment.load({**limits, "MAX_QUEUED_REQUESTS": "39"}).max_queued_requests == 39
    assert environment.load({**limits, "MAX_CONCURRENT_REQUESTS": "0"}).max_concurrent_requests == 0


def test_the_limit_of_calls_is_the_models_own_or_that_of_the_settings(tmp_path: Path) -> None:
    url = "base_url: http://localhost:1/v1"
    path = tmp_path / "models.yaml"
    path.write_text(f"- {{name: a, kind: openai, {url}, max_concurrent: 3}}\n- {{name: b, kind: openai, {url}}}\n")
    settings = environment.load({"MODELS_FILE": str(path), "UPSTREAM_MAX_CONCURRENT": "7"})
    assert {name: entry.max_concurrent for name, entry in settings.entries.items()} == {"a": 3, "b": 7}
    databricks = {"DATABRICKS_HOST": "https://x.databricks.com", "DATABRICKS_TOKEN": "t", "DATABRICKS_ENDPOINTS": "c"}
    assert environment.load({**databricks, "UPSTREAM_MAX_CONCURRENT": "7"}).entries["c"].max_concurrent == 7
    path.write_text("- {name: a, kind: echo, max_concurrent: 3}")
    with pytest.raises(ConfigurationError, match="max_concurrent counts the calls to a `base_url`"):
        environment.load({"MODELS_FILE": str(path)})
    path.write_text(f"- {{name: a, kind: openai, {url}, max_concurrent: many}}")
    with pytest.raises(ConfigurationError, match="max_concurrent must be a number of calls"):
        environment.load({"MODELS_FILE": str(path)})


def test_the_administration_key_is_no_key_of_callers() -> None:
    with pytest.raises(ConfigurationError, match="ADMIN_API_KEY must not be one of API_KEYS"):
        environment.load({"API_KEYS": "a-key-for-anna,the-admin-key", "ADMIN_API_KEY": "the-admin-key"})


def test_the_metrics_cannot_share_the_port_of_the_api() -> None:
    with pytest.raises(ConfigurationError, match="METRICS_PORT must not be the PORT"):
        environment.load({"PORT": "9000", "METRICS_PORT": "9000"})
