"""Command `serve`, which checks the configuration and starts gunicorn."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Callable

from openai_compat.config.environment import load_settings
from openai_compat.core.errors import ConfigurationError
from openai_compat.core.validators import WholeNumber, check_host, to_address
from openai_compat.server.checks import GUNICORN_FILE

from . import FAILED
from .check_config import report, to_banner


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--host", type=host_name, help="address to listen on (setting HOST)")
    parser.add_argument("--port", type=whole_number(0, 65535), help="port to listen on (setting PORT)")
    parser.add_argument("--workers", type=whole_number(1, 512), help="worker processes (setting WEB_CONCURRENCY)")


def whole_number(minimum: int, maximum: int) -> Callable[[str], int]:
    """Return an argparse `type` with the error messages of the settings."""
    parse = WholeNumber(minimum, maximum)

    def convert(text: str) -> int:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error}, not {text!r}") from error

    return convert


def host_name(text: str) -> str:
    """Return `text` if it is an address to listen on.

    Raises:
        argparse.ArgumentTypeError: it is not.
    """
    try:
        check_host(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, not {text!r}") from error
    return text


def run(arguments: argparse.Namespace) -> int:  # noqa: RET503 - the last line replaces the process
    """Check the configuration, print the banner, and replace this process with gunicorn.

    Return an exit code if the server cannot start. gevent must patch the standard library before any other import, so
    the server needs a new interpreter.
    """
    try:
        settings = load_settings()
    except ConfigurationError as error:
        return report(error)
    host = arguments.host or settings.host
    port = settings.port if arguments.port is None else arguments.port
    workers = arguments.workers or settings.web_concurrency
    addresses = [(host, port)]
    if settings.metrics_port is not None:
        addresses.append((settings.metrics_host or host, settings.metrics_port))
    for address in addresses:
        if (problem := listen_error(*address)) is not None:
            print(f"cannot listen on {to_address(*address)}: {problem}", file=sys.stderr)
            return FAILED
    print(to_banner(settings, host, port), flush=True)
    command = [sys.executable, "-m", "gunicorn", "--config", str(GUNICORN_FILE)]
    for address in addresses:
        command += ["--bind", to_address(*address)]
    command += ["--workers", str(workers), "openai_compat:create_app()"]
    os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted


def listen_error(host: str, port: int) -> str | None:
    """Return why the address cannot be listened on, or None. gunicorn would retry for five seconds first."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return None
