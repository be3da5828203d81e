"""Settings from the environment and `.env`. No other module of the package reads them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from openai_compat.core.errors import ConfigurationError
from openai_compat.core.settings import METRICS_SLOT_VARIABLE, SERVER_ID_VARIABLE, Settings

from .accounts_file import read_accounts
from .models_file import build_models
from .settings_table import SETTINGS, Setting

_COLON_LINE = re.compile(r"\s*(?:export\s+)?(\w+)[ \t]*:(?!//)")
READ_BY_LIBRARIES = frozenset({"TIKTOKEN_CACHE_DIR", "HF_TOKEN", "HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT"})
"""Variables that tiktoken and the Hugging Face libraries read from the process environment, but not from `.env`."""


def read_environment() -> dict[str, str]:
    """Return the process environment, over the `.env` file of the working directory if there is one.

    Raises:
        ConfigurationError: the file cannot be read, or has lines `NAME: value`.
    """
    try:
        text = Path(".env").read_text(encoding="utf-8-sig")  # without the byte order mark of editors on Windows
    except (FileNotFoundError, IsADirectoryError):
        text = ""
    except UnicodeDecodeError as error:
        raise ConfigurationError([".env cannot be read: it is not UTF-8"]) from error
    except OSError as error:
        raise ConfigurationError([f".env cannot be read: {error.strerror}"]) from error
    problems = list(_find_colon_lines(text))
    if problems:
        raise ConfigurationError(problems)
    from_file = dotenv_values(stream=StringIO(text))
    return {**{name: value for name, value in from_file.items() if value is not None}, **os.environ}


def _find_colon_lines(text: str) -> Iterator[str]:
    """Yield a message for each line of `.env` that has a colon in place of the equals sign.

    Lines whose variable is set in the environment are ignored.
    """
    for binding in parse_stream(StringIO(text)):
        found = _COLON_LINE.match(binding.original.string)
        if found and (binding.error or ":" in (binding.key or "")) and found[1] not in os.environ:
            line = binding.original.line + binding.original.string.count("\n", 0, found.start(1))
            yield f".env has `{found[1]}:` in line {line}. Write {found[1]}=, then the value"


def load(
    environ: Mapping[str, str] | None = None, *, with_models: bool = True, renamed: list[str] | None = None
) -> Settings:
    """Return the settings of `environ`, or of the process and its `.env` if None.

    `with_models=False` leaves the models out, for a process that only needs the server's settings. `renamed` receives a
    sentence for each former name of a setting or a key of the models file that is in use.

    Raises:
        ConfigurationError: with every problem at once.
    """
    if environ is None:
        environ = read_environment()
        for name in READ_BY_LIBRARIES & environ.keys():
            os.environ.setdefault(name, environ[name])
        quiet_haystack(environ)
    renamed = [] if renamed is None else renamed
    given = {"server_id": SERVER_ID_VARIABLE, "metrics_slot": METRICS_SLOT_VARIABLE}
    values: dict[str, Any] = {name: environ[variable] for name, variable in given.items() if variable in environ}
    problems: list[str] = []
    for setting in SETTINGS:
        _read(setting, environ, values, problems)
        renamed += [f"{name} is now {setting.name}" for name in setting.former_names if environ.get(name, "").strip()]
    settings = Settings(**values)
    _check_connections(settings, problems)
    _check_identity_provider(settings, problems)
    if settings.metrics_port is not None and settings.metrics_port == settings.port:
        problems.append("METRICS_PORT must not be the PORT, which would then serve nothing else")
    if settings.admin_api_key in settings.api_keys:
        problems.append("ADMIN_API_KEY must not be one of API_KEYS, as callers could change limits and budgets with it")
    if with_models:
        settings = build_models(settings, environ, problems, renamed)
        if settings.accounts_file and settings.accounts != "off":
            declared = read_accounts(settings.accounts_file, environ, problems)
            settings = replace(settings, declared_accounts=declared)
    if problems:
        raise ConfigurationError(problems)
    return settings


def _check_connections(settings: Settings, problems: list[str]) -> None:
    """Check that running and queued requests leave a connection for health checks."""
    total = settings.max_concurrent_requests + settings.max_queued_requests
    if settings.max_concurrent_requests and total >= settings.worker_connections:
        problems.append(
            f"WORKER_CONNECTIONS must be larger than MAX_CONCURRENT_REQUESTS and MAX_QUEUED_REQUESTS together ({total})"
        )


def _check_identity_provider(settings: Settings, problems: list[str]) -> None:
    """Check that tokens are accepted from one issuer and for this server only."""
    values = {name: getattr(settings, name.lower()) for name in ("JWT_JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE")}
    missing = [name for name, value in values.items() if value is None]
    if 0 < len(missing) < len(values):
        problems.append(f"{', '.join(sorted(values.keys() - set(missing)))} needs {' and '.join(missing)}")


def quiet_haystack(environ: Mapping[str, str] = os.environ) -> None:
    """Turn off Haystack's telemetry, unless the environment turns it on. It has to be off before the import."""
    os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", environ.get("HAYSTACK_TELEMETRY_ENABLED", "False"))


def _read(setting: Setting, environ: Mapping[str, str], values: dict[str, Any], problems: list[str]) -> None:
    """Add the setting's value to `values`, or a sentence to `problems`. An empty value counts as absent."""
    for name in (*setting.names, *setting.former_names):
        text = environ.get(name, "").strip()
        if text:
            try:
                values[setting.field] = setting.read(text)
            except ValueError as error:
                shown = f", not {text!r}" if setting.may_show(text) else ""
                problems.append(f"{name} {error}{shown}")
            return


def load_settings(*, with_models: bool = True, renamed: list[str] | None = None, **overrides: str) -> Settings:
    """Return the settings of this process as `load` does, with the settings of `overrides` in their place.

    Raises:
        ConfigurationError: with every problem at once.
    """
    environ = {**read_environment(), **overrides} if overrides else None
    return load(environ, with_models=with_models, renamed=renamed)
