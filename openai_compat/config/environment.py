"""The one place where configuration enters: the only reader of the environment and of `.env`.

`SETTINGS` is the whole of it; `docs/reference/configuration.md` and `.env.example` are held to it by a test.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dotenv import dotenv_values

from openai_compat.core.errors import ConfigurationError
from openai_compat.core.settings import SERVER_ID_VARIABLE, Settings

from .models_file import build_models
from .settings_table import SETTINGS, Setting

READ_BY_LIBRARIES = frozenset({"TIKTOKEN_CACHE_DIR", "HF_TOKEN", "HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT"})
"""What tiktoken and the Hugging Face libraries read for themselves: they do not know `.env`."""


def read_environment() -> dict[str, str]:
    """The process environment, over the `.env` file of the working directory where there is one.

    Raises:
        ConfigurationError: that file cannot be read.
    """
    try:
        from_file = dotenv_values(".env")
    except UnicodeDecodeError as error:
        raise ConfigurationError([".env cannot be read: it is not UTF-8"]) from error
    except OSError as error:
        raise ConfigurationError([f".env cannot be read: {error.strerror}"]) from error
    return {**{name: value for name, value in from_file.items() if value is not None}, **os.environ}


def load(environ: Mapping[str, str] | None = None, *, with_models: bool = True) -> Settings:
    """The settings of `environ` (of the process and its `.env`, when None).

    `with_models=False` leaves the models out: for a process that needs an address to listen on and no more.

    Raises:
        ConfigurationError: with every problem at once.
    """
    if environ is None:
        environ = read_environment()
        for name in READ_BY_LIBRARIES & environ.keys():
            os.environ.setdefault(name, environ[name])
        quiet_haystack(environ)
    values: dict[str, Any] = {}
    if SERVER_ID_VARIABLE in environ:
        values["server_id"] = environ[SERVER_ID_VARIABLE]
    problems: list[str] = []
    for setting in SETTINGS:
        _read(setting, environ, values, problems)
    settings = Settings(**values)
    _check_room(settings, problems)
    if with_models:
        settings = build_models(settings, environ, problems)
    if problems:
        raise ConfigurationError(problems)
    return settings


def _check_room(settings: Settings, problems: list[str]) -> None:
    """Calls that run or wait may not take all connections: the health probes need one too."""
    taken = settings.max_concurrent_requests + settings.max_queued_requests
    if settings.max_concurrent_requests and taken >= settings.worker_connections:
        problems.append(
            f"WORKER_CONNECTIONS must be larger than MAX_CONCURRENT_REQUESTS and MAX_QUEUED_REQUESTS together ({taken})"
        )


def quiet_haystack(environ: Mapping[str, str] = os.environ) -> None:
    """Haystack reports its use to its makers unless it is told not to, before it is imported."""
    os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", environ.get("HAYSTACK_TELEMETRY_ENABLED", "False"))


def _read(setting: Setting, environ: Mapping[str, str], values: dict[str, Any], problems: list[str]) -> None:
    """Puts the setting's value into `values`, or a sentence into `problems`. An empty value is an absent one."""
    for name in setting.names:
        text = environ.get(name, "").strip()
        if text:
            try:
                values[setting.field] = setting.read(text)
            except ValueError as error:
                shown = f", not {text!r}" if setting.may_show(text) else ""
                problems.append(f"{name} {error}{shown}")
            return


def load_settings(*, with_models: bool = True, **over: str) -> Settings:
    """The settings of this process's environment, as `config.load` reads them, with those of `over` in their place.

    Raises:
        ConfigurationError: with every problem at once.
    """
    return load({**read_environment(), **over} if over else None, with_models=with_models)
