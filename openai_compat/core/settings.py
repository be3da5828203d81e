"""What the server is configured to do, as frozen values. `config.py` makes them; nothing here reads the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, Final, Literal

from .hooks import Hooks
from .profiles import Profile

ECHO_MODEL = "mock-gpt-model"
OPENAI_URL = "https://api.openai.com/v1"
SERVER_ID_VARIABLE = "OPENAI_COMPAT_SERVER_ID"
"""Set by `gunicorn.conf.py` for its workers, anew at each start and reload; nobody else's to set."""
VARIABLE: Final = re.compile(r"\$\{(\w+)\}")
"""A variable of the environment in the models file."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits on one call to an upstream, in seconds; 0 means no limit.

    `connect` covers TCP, TLS and a proxy's handshake; `first_byte` the wait from the request's last byte to the
    reply's first; `idle` each pause after that; `total` the call from beginning to end. `first_token` is the wait for
    the first piece of a stream that says something; routing keeps it, whatever kind of backend answers.
    """

    connect: float = 10.0
    first_byte: float = 600.0
    idle: float = 300.0
    total: float = 3600.0
    first_token: float = 0.0


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """What is to happen when an upstream fails, as a row of the models file says it. Times are in seconds.

    `targets` (name -> weight) makes the model an alias: `strategy` says how its calls are shared. `fallbacks` are asked
    in their order when all before them have failed. An upstream gets `retries` more tries, with waits of
    `max_retry_wait` at most, and is left alone for `cooldown` seconds once `failure_threshold` calls in a row gave it
    up.
    """

    fallbacks: tuple[str, ...] = ()
    targets: Mapping[str, float] = field(default_factory=dict)
    strategy: Literal["weight", "latency"] = "weight"
    retries: int = 1
    max_retry_wait: float = 2.0
    cooldown: float = 10.0
    failure_threshold: int = 2
    context_overflow: Literal["larger", "always"] = "larger"
    on_stream_break: Literal["error", "continue"] = "error"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model that this server answers for: a row of the models file, or what a setting stands for.

    `base_url` is the API's root for kind `openai`, the chat URL itself for kind `external`. `max_concurrent` bounds the
    calls under way to it, 0 does not. `options` has the keys that belong to the kind, `metadata` whatever its owner
    wants `GET /v1/models/{id}` to show. `profile` says what the peer does not take as OpenAI does; `hooks` are a user's
    own functions, `variables` the environment's values that `options` and `base_url` name. Times are in Unix seconds.

    `routing` is None where a call gets one try at one backend. `context_window` is in tokens. `assistant_prefill` says
    how the model is asked to go on from the beginning of an answer: "message" (an assistant's message comes last),
    "prefix" (the same, marked so), "continue_final_message" (vLLM's switch); None where it cannot.
    """

    name: str
    kind: str
    base_url: str | None = None
    upstream_model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    owned_by: str = "openai-compat"
    created: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    max_concurrent: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    routing: RoutePolicy | None = None
    context_window: int | None = None
    assistant_prefill: str | None = None
    profile: Profile | None = None
    hooks: Hooks | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_alias(self) -> bool:
        """Whether other entries answer for this one."""
        return self.routing is not None and bool(self.routing.targets)

    def expand(self, text: str | None) -> str | None:
        """`text` with the environment's values for `${NAME}`, as far as `variables` has them."""
        return text and VARIABLE.sub(lambda found: self.variables.get(found[1], found[0]), text)

    def secrets(self) -> list[str]:
        """What must not be shown, the longest first: the key, what headers hold, what comes from the environment."""
        headers = {value for whole in self.headers.values() for value in (whole, whole.rpartition(" ")[2])}
        found = {self.api_key, *headers, *self.variables.values()}
        return sorted(filter(None, found), key=len, reverse=True)


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting under its own name in lower case (`config.SETTINGS` says what each means), and what they add up to:
    `entries`, the models by name, and `default_upstream`, which answers for every model that no entry names.
    `hidden_entries` are those that `MODEL_ALLOW_LIST` keeps from clients, while a route still leads to them.
    """

    host: str = "0.0.0.0"  # noqa: S104 - a server listens to the outside unless told otherwise
    port: int = 8000
    web_concurrency: int = 1
    worker_connections: int = 2000
    graceful_timeout: int = 300
    client_write_timeout: float = 60.0
    half_close_is_disconnect: bool = True
    max_concurrent_requests: int = 0
    max_queued_requests: int = 100
    request_queue_timeout: float = 10.0
    openai_api_key: str | None = field(default=None, repr=False)
    openai_base_url: str | None = None
    external_chat_url: str | None = None
    external_chat_api_key: str | None = field(default=None, repr=False)
    external_chat_model: str = "external-chat"
    external_chat_reply_path: str | None = None
    databricks_host: str | None = None
    databricks_token: str | None = field(default=None, repr=False)
    databricks_client_id: str | None = None
    databricks_client_secret: str | None = field(default=None, repr=False)
    databricks_credentials: Literal["auto", "token", "service-principal", "user"] = "auto"
    databricks_endpoints: tuple[str, ...] = ()
    models_file: str | None = None
    model_allow_list: tuple[str, ...] = ()
    models_cache_ttl: float = 300.0
    default_model: str | None = None
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    cors_allow_origins: tuple[str, ...] = ("http://localhost:3000",)
    ask_stream_format: Literal["sse", "text", "ui"] = "sse"
    home_page: bool = True
    validation_error_status: int = 400
    upstream_error_status: int = 502
    max_request_bytes: int = 32 * 1024 * 1024
    max_upload_bytes: int = 512 * 1024 * 1024
    sse_keepalive_seconds: float = 15.0
    upstream_connect_timeout: float = 10.0
    upstream_first_byte_timeout: float = 600.0
    upstream_idle_timeout: float = 300.0
    upstream_total_timeout: float = 3600.0
    upstream_max_concurrent: int = 0
    upstream_trust_env: bool = False
    upstream_ca_bundle: str | None = None
    shared_state_url: str | None = field(default=None, repr=False)
    tiktoken_cache_dir: str | None = None
    diagnostics_enabled: bool = True
    include_default_models: bool | None = None
    hf_token: str | None = field(default=None, repr=False)
    default_device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    max_context_tokens: int = 2048
    enable_embeddings_backend: bool | None = None
    preload_models: tuple[str, ...] = ()
    local_memory_bytes: int = 0
    local_load_timeout: float = 300.0
    local_max_queued: int = 64
    local_runtime_dir: str | None = None
    local_model_loader: str = "openai_compat.sidecars.huggingface.models.loading:load_model"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    log_request_bodies: bool = False
    entries: Mapping[str, ModelConfig] = field(default_factory=dict)
    hidden_entries: Mapping[str, ModelConfig] = field(default_factory=dict)
    default_upstream: ModelConfig | None = None
    server_id: str = field(default_factory=lambda: token_hex(8), compare=False)
    """The same in all workers that were started or reloaded together: they share what bears it."""

    @property
    def timeouts(self) -> Timeouts:
        """The limits of an upstream whose entry sets none."""
        return Timeouts(
            self.upstream_connect_timeout,
            self.upstream_first_byte_timeout,
            self.upstream_idle_timeout,
            self.upstream_total_timeout,
        )
