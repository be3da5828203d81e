"""Frozen values of the configuration.

`openai_compat.config` reads them from the environment and the models file. This module reads neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from secrets import token_hex
from typing import Any, Final, Literal

from .hooks import Hooks
from .prices import Price
from .profiles import Profile
from .redaction import header_secrets, url_secrets
from .timeouts import Timeouts

ECHO_MODEL = "mock-gpt-model"
OPENAI_URL = "https://api.openai.com/v1"
SERVER_ID_VARIABLE = "OPENAI_COMPAT_SERVER_ID"
"""Environment variable that gunicorn's configuration sets for its workers at each start and reload."""
METRICS_SLOT_VARIABLE = "OPENAI_COMPAT_METRICS_SLOT"
"""Environment variable by which gunicorn's configuration gives each worker its part of the memory for metrics."""
METRICS_PATH: Final = "/metrics"
MONITORING_PATHS: Final = frozenset({"/healthz", "/health", "/readyz", "/api/v1/healthcheck", METRICS_PATH})
"""Paths of the health checks and of the metrics, which are answered while all connections are in use."""
VARIABLE: Final = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
"""Reference to an environment variable in the models file, `${NAME}` or `${NAME:-default}`."""


@dataclass(frozen=True, slots=True)
class DeclaredAccount:
    """An organization, a project or a key of the accounts file.

    Attributes:
        project: Name of the project of a key.
        policy: What it may do, as it is written and checked.
        digest: SHA-256 of a key's secret.
        hint: The part of the secret that is shown.
    """

    kind: str
    name: str
    project: str | None = None
    policy: Mapping[str, Any] = field(default_factory=dict)
    expires_at: int | None = None
    is_enabled: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    digest: str | None = field(default=None, repr=False)
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """Routing policy of one model config.

    Attributes:
        fallbacks: Models to try in this order once the model or all its targets failed.
        targets: Weight by model name. They make the model an alias that balances its calls among them.
        strategy: How an alias selects a target, either by weight or by latency.
        retries: Further attempts at an upstream after the first one failed.
        max_retry_wait: Longest delay before a retry, in seconds.
        cooldown: Seconds for which the circuit of a failing upstream stays open.
        failure_threshold: Consecutive failed calls that open the circuit.
        context_overflow: Which targets to try after a prompt exceeded the context window. "larger" means only those
            with a larger window.
        on_stream_break: Whether a stream that breaks off ends with an error or continues at another target.
    """

    fallbacks: tuple[str, ...] = ()
    targets: Mapping[str, float] = field(default_factory=dict)
    strategy: Literal["weighted", "least_latency"] = "weighted"
    retries: int = 1
    max_retry_wait: float = 2.0
    cooldown: float = 10.0
    failure_threshold: int = 2
    context_overflow: Literal["larger", "always"] = "larger"
    on_stream_break: Literal["error", "continue"] = "error"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Configuration of one model, from an entry of the models file or from settings.

    Attributes:
        base_url: Root of the API for kind `openai`, the chat URL for kind `external`.
        created: Unix time in seconds.
        metadata: Values that `GET /v1/models/{id}` adds to the model.
        max_concurrent: Limit on concurrent calls. 0 means no limit.
        routed_timeouts: Timeouts of calls by a route with several models. None stands for `timeouts`.
        options: Keys that only this kind of backend has.
        routing: None if a call gets a single attempt at a single backend.
        context_window: Limit on prompt and completion, in tokens.
        max_output_tokens: Limit on the completion, in tokens, to which calls of the Messages API are lowered.
        assistant_prefill: How the model is asked to continue a partial answer. "message" sends it as the last
            assistant message, "prefix" also marks that message, "continue_final_message" sets vLLM's parameter. None
            means that the model cannot continue.
        tools: What becomes of the tools of a call. "prompt" emulates them, "drop" leaves them out, and None leaves them
            to the model if it supports tools, and else drops them.
        response_format: "prompt" emulates structured output. None leaves it to the model.
        price: What calls cost, or None if it is not configured.
        profile: Parameters that the upstream handles differently from OpenAI.
        hooks: Functions of the user that see requests and responses.
        variables: Values of the environment variables that `options` and `base_url` refer to.
    """

    name: str
    kind: str
    base_url: str | None = None
    upstream_model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    routed_timeouts: Timeouts | None = None
    owned_by: str = "openai-compat"
    created: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    max_concurrent: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    routing: RoutePolicy | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    assistant_prefill: str | None = None
    tools: Literal["drop", "prompt"] | None = None
    response_format: Literal["prompt"] | None = None
    price: Price | None = None
    profile: Profile | None = None
    hooks: Hooks | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def changes_chats(self) -> bool:
        """True if tools or structured output are not left to the model, so that chats are never passed through."""
        return self.tools is not None or self.response_format is not None

    @property
    def is_alias(self) -> bool:
        """True if the model routes its calls to other entries."""
        return self.routing is not None and bool(self.routing.targets)

    def expand(self, text: str | None) -> str | None:
        """Return `text` with each `${NAME}` replaced by its value in `variables`, or else by its default if any."""
        return text and VARIABLE.sub(self._value_of, text)

    def _value_of(self, reference: re.Match[str]) -> str:
        without_value = reference[0] if reference[2] is None else reference[2]
        return self.variables.get(reference[1]) or without_value

    def secrets(self) -> list[str]:
        """Return the values that must not be shown.

        They are the API key, the values of headers, those of `variables`, and the credentials in the base URL.
        """
        secrets = (self.api_key, *header_secrets(self.headers), *self.variables.values())
        return [*filter(None, secrets), *url_secrets(self.base_url or "")]


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting under its name in lower case, and the models that they configure.

    `config.SETTINGS` describes each setting.

    Attributes:
        entries: Model configs by name.
        hidden_entries: Model configs that `MODEL_ALLOW_LIST` hides from clients, and that routes still use.
        default_upstream: Upstream of every model without an entry.
    """

    host: str = "0.0.0.0"  # noqa: S104 - a server accepts connections from other machines by default
    port: int = 8000
    allowed_hosts: tuple[str, ...] = ()
    web_concurrency: int = 1
    worker_connections: int = 2000
    graceful_timeout: int = 300
    client_write_timeout: float = 60.0
    request_head_timeout: float = 20.0
    request_body_timeout: float = 30.0
    request_body_min_rate: int = 4096
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
    model_aliases: Mapping[str, str] = field(default_factory=dict)
    models_cache_ttl: float = 300.0
    passthrough: tuple[str, ...] = ("all",)
    default_model: str | None = None
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    accounts: Literal["auto", "off"] = "auto"
    accounts_file: str | None = None
    declared_accounts: tuple[DeclaredAccount, ...] = ()
    admin_api_key: str | None = field(default=None, repr=False)
    jwt_jwks_url: str | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_project_claim: str = "project"
    jwt_tags_claim: str = "tags"
    key_grace_seconds: float = 600.0
    limits_without_store: Literal["local", "refuse"] = "local"
    budgets_without_store: Literal["refuse", "allow"] = "refuse"
    unknown_price: Literal["refuse", "allow"] = "refuse"
    assumed_output_tokens: int = 4096
    usage_ttl: float = 90 * 86_400.0
    secret_key: str | None = field(default=None, repr=False)
    cors_allow_origins: tuple[str, ...] = ("http://localhost:3000",)
    ask_stream_format: Literal["sse", "text", "ui"] = "sse"
    home_page: bool = True
    admin_page: bool = True
    call_log_size: int = 10_000
    call_log_bodies: bool = False
    validation_error_status: int = 400
    upstream_error_status: int = 502
    max_request_bytes: int = 32 * 1024 * 1024
    max_unfinished_body_bytes: int = 128 * 1024 * 1024
    max_upload_bytes: int = 512 * 1024 * 1024
    max_reply_bytes: int = 64 * 1024 * 1024
    sse_keepalive_seconds: float = 15.0
    upstream_connect_timeout: float = 10.0
    upstream_first_byte_timeout: float = 600.0
    upstream_idle_timeout: float = 300.0
    upstream_total_timeout: float = 3600.0
    upstream_max_concurrent: int = 0
    upstream_trust_env: bool = False
    upstream_ca_bundle: str | None = None
    shared_state_url: str | None = field(default=None, repr=False)
    data_dir: str = "data"
    database_url: str | None = field(default=None, repr=False)
    store_ttl: float = 30 * 86_400.0
    store_max_bytes: int = 4 * 1024**3
    tiktoken_cache_dir: str | None = None
    diagnostics_enabled: bool = False
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
    metrics_host: str | None = None
    metrics_port: int | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    log_request_bodies: bool = False
    otel_exporter_otlp_endpoint: str | None = field(default=None, repr=False)
    otel_exporter_otlp_traces_endpoint: str | None = field(default=None, repr=False)
    otel_traces_sampler: str = "parentbased_always_on"
    otel_traces_sampler_arg: float = 1.0
    otel_instrumentation_genai_capture_message_content: bool = False
    entries: Mapping[str, ModelConfig] = field(default_factory=dict)
    hidden_entries: Mapping[str, ModelConfig] = field(default_factory=dict)
    default_upstream: ModelConfig | None = None
    server_id: str = field(default_factory=lambda: token_hex(8), compare=False)
    """Id of one start or reload, equal in all its workers, which find their shared sidecar process by it."""
    metrics_slot: str | None = field(default=None, compare=False)
    """The worker's part of the memory for metrics, as gunicorn's configuration names it."""

    @property
    def has_admin_page(self) -> bool:
        """True if the admin page is served and calls are logged for it."""
        return self.admin_page and self.admin_api_key is not None

    @property
    def timeouts(self) -> Timeouts:
        """Default timeouts of upstreams."""
        return Timeouts(
            self.upstream_connect_timeout,
            self.upstream_first_byte_timeout,
            self.upstream_idle_timeout,
            self.upstream_total_timeout,
        )

    @property
    def routed_timeouts(self) -> Timeouts:
        """Default timeouts of upstreams for routes with several models."""
        return self.timeouts.for_route(self.named_timeouts)

    @property
    def named_timeouts(self) -> frozenset[str]:
        """Names of the timeouts that settings set to another value than the default."""
        timeouts, defaults = self.timeouts, Timeouts()
        names = (limit.name for limit in fields(Timeouts))
        return frozenset(name for name in names if getattr(timeouts, name) != getattr(defaults, name))
