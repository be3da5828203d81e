"""All settings, each with its names, parser and meaning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openai_compat.backends.runtime_dir import MAX_FOLDER_BYTES, is_own
from openai_compat.core.validators import (
    OneOf,
    WholeNumber,
    check_host,
    check_host_names,
    check_origins,
    parse_api_root,
    parse_boolean,
    parse_database_url,
    parse_key,
    parse_list,
    parse_pairs,
    parse_path_prefixes,
    parse_seconds,
    parse_share,
    parse_state_url,
    parse_text,
    parse_url,
    parse_workspace,
)

SAMPLERS: Final = tuple(
    f"{parent}{name}" for parent in ("", "parentbased_") for name in ("always_on", "always_off", "traceidratio")
)
"""OpenTelemetry's samplers."""
ERROR_STATUS: Final = WholeNumber(400, 599)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. The first of `names` is its own, and the others are those of platforms and earlier servers.

    `parse` converts the text of the environment. `check` refuses a converted value. Both raise ValueError with the rest
    of a sentence that begins with the setting's name ("must be a whole number"). `former_names` are still read, and
    `check-config` reports their use. The default is that of the field in `Settings`.
    """

    names: tuple[str, ...]
    parse: Any
    meaning: str
    is_secret: bool = False
    check: Callable[[Any], None] | None = None
    former_names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The setting's own name."""
        return self.names[0]

    @property
    def field(self) -> str:
        """The field of `Settings`."""
        return self.name.lower()

    def read(self, text: str) -> Any:
        """Return the value of `text`.

        Raises:
            ValueError: as from `parse` and `check`.
        """
        value = self.parse(text)
        if self.check is not None:
            self.check(value)
        return value

    def may_show(self, text: str) -> bool:
        """Return True if `text` cannot contain a key or the credentials of a URL, so that errors may repeat it."""
        return (
            not self.is_secret
            and self.parse not in (parse_url, parse_api_root, parse_workspace)
            and "@" not in text
            and "?" not in text
        )


def parse_half_close(text: str) -> bool:
    """Parse a boolean. `gone` and `waiting` are the words of `HALF_CLOSED_CLIENTS`, the setting's former name."""
    former = {"gone": True, "waiting": False}
    return former[text.lower()] if text.lower() in former else parse_boolean(text)


def parse_content_capture(text: str) -> bool:
    """Parse a boolean, or one of the words of OpenTelemetry's instrumentations that put content on spans or nowhere."""
    words = {"span_only": True, "span_and_event": True, "no_content": False}
    return words[text.lower()] if text.lower() in words else parse_boolean(text)


def check_file(path: str) -> None:
    """Raise ValueError if the file cannot be read, because every call would fail on it later."""
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ValueError(f"must name a file that can be read ({error.strerror})") from error


def check_dotted_path(path: str) -> None:
    """Raise ValueError if the path lacks a module, a colon or a function."""
    if not all(path.partition(":")):
        raise ValueError("must be package.module:function")


def check_runtime_dir(path: str) -> None:
    """Raise ValueError if the directory belongs to another user, or if its path is too long.

    The address of a Unix socket takes about a hundred bytes.
    """
    if len(path.encode()) > MAX_FOLDER_BYTES:
        raise ValueError(f"must be a path of at most {MAX_FOLDER_BYTES} characters")
    if Path(path).exists() and not is_own(Path(path)):
        raise ValueError("must be a directory of the user that runs the server")


SETTINGS: Final = (
    Setting(("HOST", "API_HOST"), parse_text, "Address to listen on.", check=check_host),
    Setting(("PORT", "API_PORT", "DATABRICKS_APP_PORT"), WholeNumber(0, 65535), "Port to listen on."),
    Setting(
        ("ALLOWED_HOSTS",),
        parse_list,
        "Names under which clients may call this server, without ports. `*` allows all. When not set, a server on a "
        "loopback address allows `localhost` and loopback addresses only, and any other server allows all names.",
        check=check_host_names,
    ),
    Setting(("WEB_CONCURRENCY",), WholeNumber(1, 512), "Worker processes. One worker uses one core."),
    Setting(
        ("WORKER_CONNECTIONS",),
        WholeNumber(1, 100_000),
        "Client connections per worker. Beyond it idle ones are closed.",
    ),
    Setting(
        ("GRACEFUL_TIMEOUT",),
        WholeNumber(0, 86_400),
        "Seconds that running streams get to finish at shutdown or reload.",
    ),
    Setting(
        ("CLIENT_WRITE_TIMEOUT",),
        parse_seconds,
        "Seconds that a client may leave its response unread before it is disconnected. 0 means no limit.",
    ),
    Setting(
        ("REQUEST_HEAD_TIMEOUT",),
        parse_seconds,
        "Seconds that a client may take to send the request line and the headers, from their first byte on. Then it "
        "gets a 408. 0 means no limit.",
    ),
    Setting(
        ("REQUEST_BODY_TIMEOUT",),
        parse_seconds,
        "Seconds that the server waits for a request body. Each `REQUEST_BODY_MIN_RATE` bytes that arrive add one "
        "second. Then the client gets a 408. 0 means no limit.",
    ),
    Setting(
        ("REQUEST_BODY_MIN_RATE",),
        WholeNumber(1),
        "Bytes a second at which a client may send its request body for as long as it needs.",
    ),
    Setting(
        ("HALF_CLOSE_IS_DISCONNECT",),
        parse_half_close,
        "Treat a client that closes its sending side as disconnected. Set to false behind a proxy that does so and "
        "still waits for the response.",
        former_names=("HALF_CLOSED_CLIENTS",),
    ),
    Setting(
        ("MAX_CONCURRENT_REQUESTS",),
        WholeNumber(0, 100_000),
        "API requests processed at once per worker. Further requests are queued. 0 means no limit.",
    ),
    Setting(
        ("MAX_QUEUED_REQUESTS",),
        WholeNumber(0, 100_000),
        "Length of the queue for requests, and of the queue for each upstream. Further requests get a 503.",
    ),
    Setting(
        ("REQUEST_QUEUE_TIMEOUT",),
        parse_seconds,
        "Seconds that a request may be queued before it gets a 503.",
        former_names=("QUEUE_TIMEOUT",),
    ),
    Setting(
        ("OPENAI_API_KEY",),
        parse_key,
        "API key of the default upstream, which serves every model that is not configured.",
        True,
    ),
    Setting(("OPENAI_BASE_URL",), parse_api_root, "Base URL of the default upstream, including `/v1`."),
    Setting(("EXTERNAL_CHAT_URL",), parse_url, "URL of a JSON chat API to serve as a model."),
    Setting(("EXTERNAL_CHAT_API_KEY",), parse_key, "Bearer token for that API.", True),
    Setting(("EXTERNAL_CHAT_MODEL",), parse_text, "Name of that model."),
    Setting(
        ("EXTERNAL_CHAT_REPLY_PATH",),
        parse_text,
        "Path of the text in that API's response (`data.answer`). Detected when not set.",
    ),
    Setting(("DATABRICKS_HOST",), parse_workspace, "Workspace of the models of kind `databricks`."),
    Setting(("DATABRICKS_TOKEN",), parse_key, "Personal access token for the workspace.", True),
    Setting(("DATABRICKS_CLIENT_ID",), parse_key, "Service principal for the workspace, instead of a token."),
    Setting(("DATABRICKS_CLIENT_SECRET",), parse_key, "OAuth secret of the service principal.", True),
    Setting(
        ("DATABRICKS_CREDENTIALS",),
        OneOf("auto", "token", "service-principal", "user"),
        "Credential for the workspace. `user` is that of the signed-in user in Databricks Apps.",
    ),
    Setting(("DATABRICKS_ENDPOINTS",), parse_list, "Serving endpoints to serve as models under their own names."),
    Setting(
        ("MODELS_FILE",), parse_text, "Path of the models file, JSON or YAML.", former_names=("MODEL_REGISTRY_PATH",)
    ),
    Setting(("MODEL_ALLOW_LIST",), parse_list, "Names of the only models to serve."),
    Setting(
        ("MODEL_ALIASES",),
        parse_pairs,
        "Further names of models (`claude-*=my-model, gpt-4o=my-model`). A `*` stands for any text. They are added to "
        "`model_aliases` of the models file.",
    ),
    Setting(
        ("MODELS_CACHE_TTL",),
        parse_seconds,
        "Seconds for which the default upstream's list of models is cached.",
        former_names=("MODELS_CACHE_SECONDS",),
    ),
    Setting(
        ("PASSTHROUGH",),
        parse_path_prefixes,
        "Other paths of OpenAI's API that are forwarded to upstreams. `all`, `none`, or a list of prefixes "
        "(`files, audio`).",
    ),
    Setting(("DEFAULT_MODEL",), parse_text, "Model for requests without a `model`, and for `/ask`."),
    Setting(
        ("API_KEYS",),
        parse_list,
        "API keys that clients must use. Any key is accepted when it is not set and no key was created.",
        True,
    ),
    Setting(
        ("SECRET_KEY",),
        parse_key,
        "Secret from which this server derives the key that seals reasoning for clients of `/v1/responses` "
        "(`reasoning.encrypted_content`), and the key that signs sessions of the admin page. Use the same long random "
        "text on all machines. A random one for each start when not set, so that clients lose sealed reasoning and "
        "administrators sign in again after a restart.",
        True,
    ),
    Setting(
        ("CORS_ALLOW_ORIGINS",),
        parse_list,
        "Origins of browser pages that may call this server. `*` allows all.",
        check=check_origins,
    ),
    Setting(
        ("ASK_STREAM_FORMAT",),
        OneOf("sse", "text", "ui"),
        "Stream format of `/ask` when the request does not name one.",
    ),
    Setting(("HOME_PAGE",), parse_boolean, "Serve a page at `/` with the models, a chat and example programs."),
    Setting(("VALIDATION_ERROR_STATUS",), ERROR_STATUS, "HTTP status for invalid requests."),
    Setting(
        ("UPSTREAM_ERROR_STATUS",),
        ERROR_STATUS,
        "HTTP status when an upstream cannot be reached or its response cannot be parsed.",
    ),
    Setting(("MAX_REQUEST_BYTES",), WholeNumber(1), "Maximum size of a JSON body."),
    Setting(
        ("MAX_UNFINISHED_BODY_BYTES",),
        WholeNumber(0),
        "Memory in bytes for all request bodies that a worker has received in part or has not parsed. Further ones get "
        "a 503. 0 means no limit.",
    ),
    Setting(("MAX_UPLOAD_BYTES",), WholeNumber(1), "Maximum size of a body that is passed through (files, audio)."),
    Setting(
        ("MAX_REPLY_BYTES",),
        WholeNumber(1),
        "Maximum size of an upstream's answer that is held in memory. Streams and downloads are not limited.",
    ),
    Setting(
        ("SSE_KEEPALIVE_SECONDS",),
        parse_seconds,
        "Seconds without an event after which a stream gets a keep-alive comment. 0 turns comments off.",
    ),
    Setting(("UPSTREAM_CONNECT_TIMEOUT",), parse_seconds, "Seconds to connect to an upstream. 0 means no limit."),
    Setting(
        ("UPSTREAM_FIRST_BYTE_TIMEOUT",),
        parse_seconds,
        "Seconds until the headers of an upstream's response are complete. 0 means no limit.",
    ),
    Setting(
        ("UPSTREAM_IDLE_TIMEOUT",),
        parse_seconds,
        "Seconds without data within an upstream's response. 0 means no limit.",
    ),
    Setting(("UPSTREAM_TOTAL_TIMEOUT",), parse_seconds, "Seconds for a complete upstream call. 0 means no limit."),
    Setting(
        ("UPSTREAM_MAX_CONCURRENT",),
        WholeNumber(0, 100_000),
        "Calls to one upstream at once per worker. Further calls are queued. 0 means no limit.",
    ),
    Setting(
        ("UPSTREAM_TRUST_ENV",),
        parse_boolean,
        "Use the proxies named by `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.",
    ),
    Setting(
        ("UPSTREAM_CA_BUNDLE",),
        parse_text,
        "File with the certificate authorities to trust instead of the default ones.",
        check=check_file,
    ),
    Setting(
        ("SHARED_STATE_URL",),
        parse_state_url,
        "Store for the circuit breakers that workers share: `sqlite:PATH`, `redis://…` or `memory:`. A Redis also "
        "counts what keys with limits and budgets use.",
        True,
        former_names=("STATE_URL",),
    ),
    Setting(
        ("DATA_DIR",),
        parse_text,
        "Directory of the SQLite file with stored objects (responses, conversations, chat completions). It is created "
        "when the first object is stored. Without write access the server stores nothing.",
    ),
    Setting(
        ("DATABASE_URL",),
        parse_database_url,
        "Database of stored objects, `sqlite:PATH` or `postgresql://…`. A file in `DATA_DIR` when not set.",
        True,
    ),
    Setting(
        ("STORE_TTL",),
        parse_seconds,
        "Seconds after its last change until a stored object is deleted. 0 means never.",
    ),
    Setting(
        ("STORE_MAX_BYTES",),
        WholeNumber(0),
        "Size of all stored objects beyond which those that have not changed for the longest time are deleted. 0 means "
        "no limit.",
    ),
    Setting(
        ("ACCOUNTS",),
        OneOf("auto", "off"),
        "Keys with limits and budgets. With `auto` every call needs a key once one was created.",
    ),
    Setting(
        ("ACCOUNTS_FILE",),
        parse_text,
        "YAML or JSON file with projects, keys, limits and budgets, which is applied at each start and reload.",
        check=check_file,
    ),
    Setting(
        ("ADMIN_API_KEY",),
        parse_key,
        "Key for the endpoints below `/v1/organization`, for `/metrics` and for the admin page.",
        True,
    ),
    Setting(
        ("ADMIN_PAGE",),
        parse_boolean,
        "Serve the admin page at `/admin` and keep a log of calls for it, if `ADMIN_API_KEY` is set.",
    ),
    Setting(
        ("CALL_LOG_SIZE",),
        WholeNumber(100, 1_000_000),
        "Number of the latest calls that the admin page shows. Older ones are deleted.",
    ),
    Setting(
        ("CALL_LOG_BODIES",),
        parse_boolean,
        "Keep the first 16 kB of requests and answers in that log, with secrets masked. They contain what your users "
        "write.",
    ),
    Setting(
        ("JWT_JWKS_URL",),
        parse_url,
        "URL of the public keys of an identity provider, whose tokens callers may send in place of a key. Needs "
        "`JWT_ISSUER` and `JWT_AUDIENCE`.",
    ),
    Setting(("JWT_ISSUER",), parse_text, "Issuer (`iss`) that tokens must have."),
    Setting(("JWT_AUDIENCE",), parse_text, "Audience (`aud`) that tokens must have, the name of this server there."),
    Setting(
        ("JWT_PROJECT_CLAIM",),
        parse_text,
        "Claim with the id of the project that a token's calls belong to. Without it they belong to the default one.",
    ),
    Setting(("JWT_TAGS_CLAIM",), parse_text, "Claim with the tags of a token's calls."),
    Setting(
        ("KEY_GRACE_SECONDS",),
        parse_seconds,
        "Seconds for which a key that was used before stays valid while the database is away.",
    ),
    Setting(
        ("LIMITS_WITHOUT_STORE",),
        OneOf("local", "refuse"),
        "What becomes of limits while the store that workers share is away: each worker counts by itself, or calls of "
        "keys with limits are refused.",
    ),
    Setting(
        ("BUDGETS_WITHOUT_STORE",),
        OneOf("refuse", "allow"),
        "Whether keys with a budget may make calls while the store that workers share is away.",
    ),
    Setting(
        ("UNKNOWN_PRICE",), OneOf("refuse", "allow"), "Whether keys with a budget may use models without a known price."
    ),
    Setting(
        ("ASSUMED_OUTPUT_TOKENS",),
        WholeNumber(0),
        "Output tokens that limits and budgets reserve for a call without `max_tokens`.",
    ),
    Setting(("USAGE_TTL",), parse_seconds, "Seconds for which the usage of each call is kept. 0 means for ever."),
    Setting(("TIKTOKEN_CACHE_DIR",), parse_text, "Folder with tiktoken's vocabularies, for exact token counts."),
    Setting(
        ("DIAGNOSTICS_ENABLED",),
        parse_boolean,
        "Serve the diagnostic model of `python -m openai_compat doctor`, which checks the network path to this server. "
        "Switch it on for the check and off afterwards.",
        former_names=("DOCTOR",),
    ),
    Setting(
        ("INCLUDE_DEFAULT_MODELS",),
        parse_boolean,
        "Serve the seven preset Hugging Face models. Defaults to whether the extra `local` is installed.",
    ),
    Setting(("HF_TOKEN",), parse_key, "Token for private models of the Hugging Face Hub.", True),
    Setting(("DEFAULT_DEVICE",), OneOf("auto", "cpu", "cuda", "mps"), "Device of local models without a `device`."),
    Setting(
        ("MAX_CONTEXT_TOKENS",),
        WholeNumber(1),
        "Context window of local models when neither the models file nor the model names one.",
    ),
    Setting(
        ("ENABLE_EMBEDDINGS_BACKEND",),
        parse_boolean,
        "Serve embeddings from local embedding models. `false` turns them off.",
    ),
    Setting(("PRELOAD_MODELS",), parse_list, "Local models to load at start."),
    Setting(
        ("LOCAL_MEMORY_BYTES",),
        WholeNumber(0),
        "Memory for loaded local models. Idle models are unloaded to make space. 0 means no limit.",
    ),
    Setting(
        ("LOCAL_LOAD_TIMEOUT",),
        parse_seconds,
        "Seconds that a request waits for a local model to load.",
        former_names=("LOCAL_LOAD_WAIT",),
    ),
    Setting(
        ("LOCAL_MAX_QUEUED",),
        WholeNumber(0),
        "Length of the queue for each local model. Further requests get a 503.",
        former_names=("LOCAL_QUEUE_LIMIT",),
    ),
    Setting(
        ("LOCAL_RUNTIME_DIR",),
        parse_text,
        "Directory for the sockets and locks of both sidecars. A temporary directory when not set.",
        check=check_runtime_dir,
        former_names=("LOCAL_ENGINE_DIRECTORY",),
    ),
    Setting(
        ("LOCAL_MODEL_LOADER",),
        parse_text,
        "Function that loads a local model, as `package.module:function`, to use a library other than transformers.",
        check=check_dotted_path,
    ),
    Setting(
        ("METRICS_PORT",),
        WholeNumber(1, 65535),
        "Port for `/metrics` alone, which needs no key there. When not set, `/metrics` is on `PORT` and needs "
        "`ADMIN_API_KEY`.",
    ),
    Setting(
        ("METRICS_HOST",),
        parse_text,
        "Address to listen on for `METRICS_PORT`. The address of `HOST` when not set.",
        check=check_host,
    ),
    Setting(("LOG_LEVEL",), OneOf("debug", "info", "warning", "error"), "Minimum severity of log lines."),
    Setting(("LOG_FORMAT",), OneOf("text", "json"), "Format of log lines."),
    Setting(("LOG_REQUEST_BODIES",), parse_boolean, "Log request bodies, with secrets redacted."),
    Setting(
        ("OTEL_EXPORTER_OTLP_ENDPOINT",),
        parse_url,
        "Base URL of an OTLP collector (`http://localhost:4318`), which gets a trace of each sampled call. Needs the "
        "extra `otel`. The exporter's other settings are OpenTelemetry's own, such as `OTEL_EXPORTER_OTLP_HEADERS`.",
        True,
    ),
    Setting(
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",),
        parse_url,
        "Complete URL for traces, in place of the base URL with `/v1/traces`.",
        True,
    ),
    Setting(
        ("OTEL_TRACES_SAMPLER",),
        OneOf(*SAMPLERS),
        "Which traces are exported. Those of clients that have decided it follow them with `parentbased_…`.",
    ),
    Setting(
        ("OTEL_TRACES_SAMPLER_ARG",), parse_share, "Share of the traces that are exported, with a sampler of a ratio."
    ),
    Setting(
        ("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",),
        parse_content_capture,
        "Whether spans have the messages and the answer of a call.",
    ),
)
