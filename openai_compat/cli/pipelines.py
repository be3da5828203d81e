"""The commands `index` and `pipeline`. Haystack is imported only when one of them runs."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from openai_compat.config.environment import load_settings
from openai_compat.core.errors import ConfigurationError, OpenAICompatError
from openai_compat.core.settings import Settings

from . import FAILED, USAGE_ERROR

if TYPE_CHECKING:
    from openai_compat.sidecars.haystack.registry import PipelineRegistry


def add_index_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `index`."""
    parser.add_argument("folder", type=Path, help="folder of Markdown, text, HTML and PDF files")
    parser.add_argument("--output", type=Path, help="index file to write (key `index` of the model)")
    parser.add_argument("--embedder", help="embedding model of the models file (key `embedder`)")
    parser.set_defaults(run=run_index)


def add_pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pipeline`."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    draw = actions.add_parser("draw", help="print a pipeline's diagram as Mermaid text")
    draw.add_argument("name", help="name of the model")
    draw.add_argument("--output", type=Path, help="file to write instead, such as pipeline.mmd")
    draw.set_defaults(run=run_draw)


def run_index(arguments: argparse.Namespace) -> int:
    """Build an index, print its size and return the exit code."""
    try:
        registry = _registry(load_settings())
        from openai_compat.sidecars.haystack.index import DocumentIndex
        from openai_compat.sidecars.haystack.loading import make_embed

        embed = make_embed(arguments.embedder, registry.transports.to_models) if arguments.embedder else None
        index = DocumentIndex(arguments.folder, arguments.output, arguments.embedder, embed).build(_print_progress)
    except ConfigurationError as error:
        return _fail(error.message, USAGE_ERROR)
    except (OSError, OpenAICompatError) as error:
        return _fail(str(error), FAILED)
    except Exception as error:  # noqa: BLE001 - the OpenAI client raises errors of its own for the embedding model
        from openai_compat.sidecars.haystack.errors import to_known_error

        return _fail(f"the embedding model failed: {to_known_error(error).message}", FAILED)
    passages = sum(1 for _ in index.entries)
    saved = f", saved in {arguments.output}" if arguments.output else ""
    print(f"{passages} passages of {len(index.files)} files{saved}")
    return 0


def _print_progress(done: int, total: int, path: str) -> None:
    """Print a line for each file, which the next one overwrites on a terminal."""
    end = "\r" if sys.stderr.isatty() and done < total else "\n"
    print(f"\x1b[K[{done}/{total}] {path}" if end == "\r" else f"[{done}/{total}] {path}", end=end, file=sys.stderr)


def run_draw(arguments: argparse.Namespace) -> int:
    """Print a pipeline's diagram, or write it and print the file's name, and return the exit code."""
    try:
        settings = load_settings()
        entry = settings.entries.get(arguments.name)
        if entry is None or entry.kind != "haystack":
            names = ", ".join(name for name, entry in settings.entries.items() if entry.kind == "haystack") or "none"
            return _fail(f"there is no model '{arguments.name}' of kind haystack; available: {names}", USAGE_ERROR)
        loaded = _registry(settings).backends[arguments.name].load()
    except ConfigurationError as error:
        return _fail(error.message, USAGE_ERROR)
    except OpenAICompatError as error:
        return _fail(error.message, FAILED)
    from openai_compat.sidecars.haystack.diagram import to_mermaid

    diagram = to_mermaid(loaded.pipeline, loaded.mapping)
    if arguments.output is None:
        print(diagram, end="")
        return 0
    output = _mermaid_path(arguments.output)
    output.write_text(diagram, "utf-8")
    print(output)
    return 0


def _mermaid_path(path: Path) -> Path:
    """Return the path to write.

    Earlier versions drew `.svg` files. Such a path gets the suffix `.mmd`, and a hint shows how to render the file.
    """
    if path.suffix.lower() != ".svg":
        return path
    source = path.with_suffix(".mmd")
    print(f"diagrams are Mermaid text; render {path} with: mmdc -i {source} -o {path}", file=sys.stderr)
    return source


def _registry(settings: Settings) -> PipelineRegistry:
    """Return the registry of the configured pipelines.

    Raises:
        ConfigurationError: the extra is not installed.
    """
    from importlib.util import find_spec

    from openai_compat.backends.haystack.backend import MISSING_EXTRA

    if find_spec("haystack") is None:
        raise ConfigurationError([MISSING_EXTRA])
    from openai_compat.sidecars.haystack.registry import PipelineRegistry

    return PipelineRegistry(replace(settings, log_level="warning"))


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
