"""Command line of `openai-compat`, and of `python -m openai_compat`.

The module of a command is imported when the command is chosen, because some of them import large libraries.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from openai_compat.core.version import __version__

FAILED: Final = 1
USAGE_ERROR: Final = 2
"""Exit codes, besides 0 for success."""

COMMANDS: Final = {
    "serve": ("openai_compat.cli.serve", "start the server (gunicorn with gevent workers)"),
    "check-config": ("openai_compat.cli.check_config", "check the configuration, and print what it configures"),
    "index": (
        "openai_compat.cli.pipelines:add_index_arguments",
        "index a folder of documents for a model of kind haystack",
    ),
    "pipeline": ("openai_compat.cli.pipelines:add_pipeline_arguments", "inspect the pipelines of the models file"),
    "models": ("openai_compat.cli.models", "list the configured models, and download or test local ones"),
    "keys": ("openai_compat.cli.keys", "create, list, revoke and rotate keys of callers"),
    "projects": ("openai_compat.cli.projects", "create and list projects of keys"),
    "usage": ("openai_compat.cli.usage:add_usage_arguments", "show what callers have used, and what it cost"),
    "budgets": ("openai_compat.cli.usage:add_budgets_arguments", "show what is left of limits and budgets"),
    "check-adapter": (
        "openai_compat.cli.check_adapter",
        "print the request to a chat API and how its response is parsed",
    ),
    "mock-upstream": ("openai_compat.tools.mock_upstream", "start a fake OpenAI server with fault injection"),
    "doctor": ("openai_compat.tools.doctor", "check a deployed server from its clients' side"),
    "conformance": ("openai_compat.tools.conformance", "test any server of OpenAI's API for what clients depend on"),
}
"""Name -> module and the line of `--help`.

`add_arguments(parser)` of the module, or the function after a colon, declares the arguments. `run(arguments)` runs the
command, unless the default `run` of the parser is another function.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` name, and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    parser = argparse.ArgumentParser(prog="openai-compat", description="OpenAI's API in front of any model.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (path, meaning) in COMMANDS.items():
        command = commands.add_parser(name, help=meaning)
        if name == chosen:
            _declare(command, path)
    parsed = parser.parse_args(arguments)
    code: int = parsed.run(parsed)
    return code


def _declare(command: argparse.ArgumentParser, path: str) -> None:
    """Import the command's module, and declare its arguments."""
    module_name, _, function = path.partition(":")
    module = import_module(module_name)
    command.set_defaults(run=getattr(module, "run", None))
    getattr(module, function or "add_arguments")(command)
