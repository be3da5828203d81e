"""The command line: `python -m openai_compat ...`, or `openai-compat ...` where the package is installed."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Callable, Sequence

from openai_compat.backends.huggingface.engine_config import KIND, missing_library
from openai_compat.config.environment import load_settings
from openai_compat.core.errors import ConfigurationError
from openai_compat.core.extras import install_hint
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.validators import WholeNumber, check_host, to_address, without_secrets
from openai_compat.core.version import __version__
from openai_compat.server.checks import GUNICORN_FILE
from openai_compat.tools import conformance, doctor, mock_upstream

from . import check_adapter as adapter_check
from . import models as models_commands
from . import pipelines as pipelines

USAGE_ERROR = 2
CANNOT_LISTEN = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code."""
    parsed = _parser().parse_args(arguments)
    command: int = parsed.run(parsed)
    return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="openai-compat", description="OpenAI's API in front of any model.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="start the server (gunicorn with gevent workers)")
    serve.add_argument("--host", type=host_name, help="address to listen on (setting HOST)")
    serve.add_argument("--port", type=whole_number(0, 65535), help="port to listen on (setting PORT)")
    serve.add_argument("--workers", type=whole_number(1, 512), help="worker processes (setting WEB_CONCURRENCY)")
    serve.set_defaults(run=run_serve)

    check = commands.add_parser("check-config", help="say what is wrong with the configuration, or what it adds up to")
    check.set_defaults(run=run_check_config)

    pipelines.add_arguments(commands)
    models_commands.add_commands(commands)

    check = commands.add_parser("check-adapter", help="show what a chat API would be asked, and how its reply is read")
    adapter_check.add_arguments(check)

    mock = commands.add_parser("mock-upstream", help="start a fake OpenAI server that misbehaves on demand")
    mock_upstream.add_arguments(mock)
    mock.set_defaults(run=mock_upstream.run)

    look = commands.add_parser("doctor", help="examine a deployed server from its clients' side")
    doctor.add_arguments(look)
    look.set_defaults(run=doctor.run)

    ask = commands.add_parser("conformance", help="ask any server of OpenAI's API what its clients depend on")
    conformance.add_arguments(ask)
    ask.set_defaults(run=conformance.run)
    return parser


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """What argparse takes as a `type`, with the settings' own words for what is wrong."""
    parse = WholeNumber(least, most)

    def convert(text: str) -> int:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error}, not {text!r}") from error

    return convert


def host_name(text: str) -> str:
    """The same, for an address to listen on."""
    try:
        check_host(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, not {text!r}") from error
    return text


def run_serve(arguments: argparse.Namespace) -> int:  # noqa: RET503 - the process is another after its last line
    """Checks the configuration, says what will be served where, and becomes gunicorn.

    A process of its own: gevent must patch the standard library before anything else has been imported.
    """
    try:
        settings = load_settings()
    except ConfigurationError as error:
        return _refused(error)
    host = arguments.host or settings.host
    port = settings.port if arguments.port is None else arguments.port
    workers = arguments.workers or settings.web_concurrency
    problem = why_not_listen(host, port)
    if problem:
        print(f"cannot listen on {to_address(host, port)}: {problem}", file=sys.stderr)
        return CANNOT_LISTEN
    print(to_banner(settings, host, port), flush=True)
    command = [sys.executable, "-m", "gunicorn", "--config", str(GUNICORN_FILE)]
    command += ["--bind", to_address(host, port), "--workers", str(workers), "openai_compat:create_app()"]
    os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted


def why_not_listen(host: str, port: int) -> str | None:
    """Asked before anything is promised: gunicorn finds out after five seconds, and says so less plainly."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return None


def run_check_config(_arguments: argparse.Namespace) -> int:
    """Exit code 0 and a summary, or 2 and every problem."""
    try:
        settings = load_settings()
    except ConfigurationError as error:
        return _refused(error)
    print(to_banner(settings, settings.host, settings.port))
    return 0


def _refused(error: ConfigurationError) -> int:
    print(error.message, file=sys.stderr)
    return USAGE_ERROR


def _lack(entry: ModelConfig, settings: Settings) -> str:
    """What keeps a local model from being loaded, where that is known before anyone asks for it."""
    lacks = entry.kind == KIND and missing_library(settings.local_model_loader) is not None
    return f", which needs {install_hint('local')}" if lacks else ""


def to_banner(settings: Settings, host: str, port: int) -> str:
    """The address, the models, and a command that works when it is pasted."""
    is_everywhere = host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    address = f"http://{to_address('localhost' if is_everywhere else host, port)}"
    lines = [f"openai-compat {__version__} on {address}/v1", ""]
    lines += [f"  {name:<28} {entry.kind}{_lack(entry, settings)}" for name, entry in settings.entries.items()]
    if settings.default_upstream is not None:
        lines.append(f"  {'every other model':<28} {without_secrets(settings.default_upstream.base_url or '')}")
    question = {"model": settings.default_model, "messages": [{"role": "user", "content": "Hello!"}]}
    key = ' -H "Authorization: Bearer YOUR_KEY"' if settings.api_keys else ""
    lines += [
        "",
        "Try it:",
        f"  curl {address}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{json.dumps(question)}'",
        f"API documentation: {address}/docs",
        "",
    ]
    return "\n".join(lines)
