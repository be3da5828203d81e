"""Command `check-config`, which reports every problem of the configuration or prints a summary of it."""

from __future__ import annotations

import argparse
import json
import sys

from openai_compat.backends.local.backend import missing_extra_of
from openai_compat.backends.local.engine_config import LOCAL_KINDS
from openai_compat.config.environment import load_settings
from openai_compat.core.errors import ConfigurationError
from openai_compat.core.extras import install_hint
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.validators import to_address, without_secrets
from openai_compat.core.version import __version__

from . import USAGE_ERROR


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """Declare no arguments."""


def run(_arguments: argparse.Namespace) -> int:
    """Print the summary, or every problem, and a line for each former name in use. Return the exit code."""
    renamed: list[str] = []
    try:
        settings = load_settings(renamed=renamed)
    except ConfigurationError as error:
        return report(error)
    finally:
        for sentence in renamed:
            print(sentence, file=sys.stderr)
    print(to_banner(settings, settings.host, settings.port))
    return 0


def report(error: ConfigurationError) -> int:
    """Print every problem of the configuration, and return the exit code."""
    print(error.message, file=sys.stderr)
    return USAGE_ERROR


def to_banner(settings: Settings, host: str, port: int) -> str:
    """Return the server's address, the models, and a `curl` command that can be pasted."""
    is_any_address = host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    address = f"http://{to_address('localhost' if is_any_address else host, port)}"
    lines = [f"openai-compat {__version__} on {address}/v1", ""]
    lines += [f"  {name:<28} {entry.kind}{_missing_extra(entry, settings)}" for name, entry in settings.entries.items()]
    lines += [f"  {name:<28} another name of {model}" for name, model in settings.model_aliases.items()]
    if settings.default_upstream is not None:
        lines.append(f"  {'every other model':<28} {without_secrets(settings.default_upstream.base_url or '')}")
    request = {"model": settings.default_model, "messages": [{"role": "user", "content": "Hello!"}]}
    key = ' -H "Authorization: Bearer YOUR_KEY"' if settings.api_keys else ""
    lines += [
        "",
        "Try it:",
        f"  curl {address}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{json.dumps(request)}'",
        f"API documentation: {address}/docs",
        "",
    ]
    return "\n".join(lines)


def _missing_extra(entry: ModelConfig, settings: Settings) -> str:
    extra = missing_extra_of(entry.kind, settings) if entry.kind in LOCAL_KINDS else None
    return f", which needs {install_hint(extra)}" if extra is not None else ""
