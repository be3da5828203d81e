"""All settings, each with its names, parser and meaning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai_compat.backends.runtime_dir import MAX_FOLDER_BYTES
from openai_compat.core.validators import (
    OneOf,
    WholeNumber,
    check_host,
    check_origins,
    parse_boolean,
    parse_key,
    parse_list,
    parse_seconds,
    parse_state_url,
    parse_text,
    parse_url,
    parse_workspace,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the table in `config.py`. The first of `names` is the setting's own, the others are understood too.

    `parse` turns the text of the environment into the value, or raises ValueError with the rest of a sentence that
    begins with the setting's name ("must be a whole number"). `check` raises it for a value of the right type that will
    not do. The default is the field's in `Settings`.
    """

    names: tuple[str, ...]
    parse: Any
    meaning: str
    is_secret: bool = False
    check: Callable[[Any], None] | None = None

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def field(self) -> str:
        return self.name.lower()

    def read(self, text: str) -> Any:
        """The value that `text` stands for.

        Raises:
            ValueError: as from `parse`.
        """
        value = self.parse(text)
        if self.check is not None:
            self.check(value)
        return value

    def may_show(self, text: str) -> bool:
        """Whether a wrong value may be repeated on the screen: not where it may hold a key or a URL's credentials."""
        return (
            not self.is_secret
            and self.parse not in (parse_url, parse_workspace)
            and "@" not in text
            and "?" not in text
        )


def parse_half_close(text: str) -> bool:
    """Parse a boolean. The words `gone` and `waiting` are those of `HALF_CLOSED_CLIENTS`, the setting's former name."""
    former = {"gone": True, "waiting": False}
    return former[text.lower()] if text.lower() in former else parse_boolean(text)


ERROR_STATUS = WholeNumber(400, 599)


def check_file(path: str) -> None:
    """A file that is there and can be read: found missing later, it would fail every call."""
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ValueError(f"must name a file that can be read ({error.strerror})") from error


def check_dotted_path(path: str) -> None:
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise ValueError("must be package.module:function")


def check_engine_folder(path: str) -> None:
    """A Unix socket's address takes about a hundred bytes."""
    if len(path.encode()) > MAX_FOLDER_BYTES:
        raise ValueError(f"must be a path of at most {MAX_FOLDER_BYTES} characters")


SETTINGS = (
    Setting(("HOST", "API_HOST"), parse_text, "Address to listen on.", check=check_host),
    Setting(("PORT", "API_PORT", "DATABRICKS_APP_PORT"), WholeNumber(0, 65535), "Port to listen on."),
    Setting(("WEB_CONCURRENCY",), WholeNumber(1, 512), "Worker processes; one serves a core."),
    Setting(("WORKER_CONNECTIONS",), WholeNumber(1, 100_000), "Clients served at once by one worker."),
    Setting(
        ("GRACEFUL_TIMEOUT",), WholeNumber(0, 86_400), "Seconds that running streams get to finish at a stop or reload."
    ),
    Setting(
        ("CLIENT_WRITE_TIMEOUT",),
        parse_seconds,
        "Seconds that a client may leave its answer unread before it is dropped; 0 for no limit.",
    ),
    Setting(
        ("HALF_CLOSE_IS_DISCONNECT", "HALF_CLOSED_CLIENTS"),
        parse_half_close,
        "Whether a client that has closed its sending side counts as gone. Some proxies do so and wait for the answer.",
    ),
    Setting(
        ("MAX_CONCURRENT_REQUESTS",),
        WholeNumber(0, 100_000),
        "Calls of the API under way at once in one worker, the rest waits; 0 for no limit.",
    ),
    Setting(
        ("MAX_QUEUED_REQUESTS",),
        WholeNumber(0, 100_000),
        "Calls that may wait for a free place, here or at an upstream; the rest gets a 503.",
    ),
    Setting(
        ("REQUEST_QUEUE_TIMEOUT", "QUEUE_TIMEOUT"),
        parse_seconds,
        "Seconds that each of them may wait, then it gets a 503 too.",
    ),
    Setting(
        ("OPENAI_API_KEY",),
        parse_key,
        "Key of the default upstream, which answers every model that no entry names.",
        True,
    ),
    Setting(("OPENAI_BASE_URL",), parse_url, "Address of the default upstream, up to and with its `/v1`."),
    Setting(("EXTERNAL_CHAT_URL",), parse_url, "A JSON chat API to put behind a model."),
    Setting(("EXTERNAL_CHAT_API_KEY",), parse_key, "Sent to it as a bearer token.", True),
    Setting(("EXTERNAL_CHAT_MODEL",), parse_text, "The model's name."),
    Setting(
        ("EXTERNAL_CHAT_REPLY_PATH",),
        parse_text,
        "Where the text sits in its reply (`data.answer`); found by itself when not set.",
    ),
    Setting(("DATABRICKS_HOST",), parse_workspace, "Workspace that models of kind `databricks` are in."),
    Setting(("DATABRICKS_TOKEN",), parse_key, "Personal access token for it.", True),
    Setting(("DATABRICKS_CLIENT_ID",), parse_key, "Service principal for it, if there is no token."),
    Setting(("DATABRICKS_CLIENT_SECRET",), parse_key, "The service principal's OAuth secret.", True),
    Setting(
        ("DATABRICKS_CREDENTIALS",),
        OneOf("auto", "token", "service-principal", "user"),
        "Whose credential it gets; `user` is that of the signed-in user, in Databricks Apps.",
    ),
    Setting(("DATABRICKS_ENDPOINTS",), parse_list, "Serving endpoints to offer as models, each by its own name."),
    Setting(("MODELS_FILE", "MODEL_REGISTRY_PATH"), parse_text, "The models file, JSON or YAML."),
    Setting(("MODEL_ALLOW_LIST",), parse_list, "If set, only these models are served."),
    Setting(
        ("MODELS_CACHE_TTL", "MODELS_CACHE_SECONDS"),
        parse_seconds,
        "How long the default upstream's list of models is remembered.",
    ),
    Setting(("DEFAULT_MODEL",), parse_text, "Answers requests that name no model, and `/ask`."),
    Setting(("API_KEYS",), parse_list, "If set, callers need one of these keys; if not, any key is accepted.", True),
    Setting(
        ("CORS_ALLOW_ORIGINS",),
        parse_list,
        "Origins of browser pages that may call this server; `*` for all.",
        check=check_origins,
    ),
    Setting(("ASK_STREAM_FORMAT",), OneOf("sse", "text", "ui"), "How `/ask` streams when the caller does not say."),
    Setting(("HOME_PAGE",), parse_boolean, "Show a page at `/`: the models, a chat to try them, programs to paste."),
    Setting(("VALIDATION_ERROR_STATUS",), ERROR_STATUS, "Status of an answer to a malformed request."),
    Setting(
        ("UPSTREAM_ERROR_STATUS",),
        ERROR_STATUS,
        "Status of an answer when the upstream cannot be reached or understood.",
    ),
    Setting(("MAX_REQUEST_BYTES",), WholeNumber(1), "Largest JSON body."),
    Setting(
        ("MAX_UPLOAD_BYTES",), WholeNumber(1), "Largest body of a request that is passed through (files, audio, ...)."
    ),
    Setting(("SSE_KEEPALIVE_SECONDS",), parse_seconds, "A silent stream gets a comment after this time; 0 for never."),
    Setting(("UPSTREAM_CONNECT_TIMEOUT",), parse_seconds, "Seconds to connect to an upstream."),
    Setting(("UPSTREAM_FIRST_BYTE_TIMEOUT",), parse_seconds, "Seconds until its answer begins."),
    Setting(("UPSTREAM_IDLE_TIMEOUT",), parse_seconds, "Seconds of silence within its answer."),
    Setting(
        ("UPSTREAM_TOTAL_TIMEOUT",),
        parse_seconds,
        "Seconds for the whole call; 0 for no limit, as for the three above.",
    ),
    Setting(
        ("UPSTREAM_MAX_CONCURRENT",),
        WholeNumber(0, 100_000),
        "Calls under way at once to one upstream from one worker, the rest waits; 0 for no limit.",
    ),
    Setting(
        ("UPSTREAM_TRUST_ENV",), parse_boolean, "Use the proxies named by `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`."
    ),
    Setting(
        ("UPSTREAM_CA_BUNDLE",),
        parse_text,
        "File of the certificate authorities to trust instead of the usual ones.",
        check=check_file,
    ),
    Setting(
        ("SHARED_STATE_URL", "STATE_URL"),
        parse_state_url,
        "Where workers share what they know of upstreams: `sqlite:PATH`, `redis://…` or `memory:`.",
        True,
    ),
    Setting(("TIKTOKEN_CACHE_DIR",), parse_text, "Where tiktoken's vocabularies are, to count tokens exactly."),
    Setting(
        ("DIAGNOSTICS_ENABLED", "DOCTOR"),
        parse_boolean,
        "Answer `openai-compat doctor`, which examines the way to this server.",
    ),
    Setting(
        ("INCLUDE_DEFAULT_MODELS",),
        parse_boolean,
        "List the seven small Hugging Face models of the preset; by default where the extra `local` is installed.",
    ),
    Setting(("HF_TOKEN",), parse_key, "Token for private models of the Hugging Face hub.", True),
    Setting(("DEFAULT_DEVICE",), OneOf("auto", "cpu", "cuda", "mps"), "Where local models run whose row does not say."),
    Setting(
        ("MAX_CONTEXT_TOKENS",),
        WholeNumber(1),
        "Context window of local models where neither the row nor the model says one.",
    ),
    Setting(
        ("ENABLE_EMBEDDINGS_BACKEND",),
        parse_boolean,
        "Whether local models give embeddings; by default those that are made for it.",
    ),
    Setting(("PRELOAD_MODELS",), parse_list, "Local models that are loaded when the server starts."),
    Setting(
        ("LOCAL_MEMORY_BYTES",),
        WholeNumber(0),
        "Memory for all loaded local models; idle ones make room for others; 0 for no bound.",
    ),
    Setting(
        ("LOCAL_LOAD_TIMEOUT", "LOCAL_LOAD_WAIT"),
        parse_seconds,
        "Seconds that a request waits while a local model is loaded.",
    ),
    Setting(
        ("LOCAL_MAX_QUEUED", "LOCAL_QUEUE_LIMIT"),
        WholeNumber(0),
        "Callers of a local model that wait behind those being answered; more get a 503.",
    ),
    Setting(
        ("LOCAL_RUNTIME_DIR", "LOCAL_ENGINE_DIRECTORY"),
        parse_text,
        "Directory for the sockets of the engine for local models and of the Haystack sidecar; temporary when not set.",
        check=check_engine_folder,
    ),
    Setting(
        ("LOCAL_MODEL_LOADER",),
        parse_text,
        "Function that loads a local model, `package.module:function`, for another library than transformers.",
        check=check_dotted_path,
    ),
    Setting(("LOG_LEVEL",), OneOf("debug", "info", "warning", "error"), "Least severity that is logged."),
    Setting(("LOG_FORMAT",), OneOf("text", "json"), "One line of text or of JSON an event."),
    Setting(("LOG_REQUEST_BODIES",), parse_boolean, "Log request bodies too, with secrets masked."),
)
