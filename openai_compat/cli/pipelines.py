"""The commands `index` and `pipeline`: Haystack is imported when one of them runs."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from openai_compat.config.environment import load_settings
from openai_compat.core.errors import ConfigurationError, OpenAICompatError
from openai_compat.core.settings import Settings

if TYPE_CHECKING:
    from openai_compat.sidecars.haystack.registry import PipelineRegistry

USAGE_ERROR = 2
FAILED = 1


def add_index_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `index`."""
    parser.add_argument("folder", type=Path, help="the folder: Markdown, text, HTML and PDF files")
    parser.add_argument("--output", type=Path, help="file to keep the index in (key `index` of the model's row)")
    parser.add_argument("--embedder", help="embedding model of the models file (key `embedder`)")
    parser.set_defaults(run=run_index)


def add_pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pipeline`."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    draw = actions.add_parser("draw", help="write a pipeline's picture")
    draw.add_argument("name", help="the model's name")
    draw.add_argument("--output", type=Path, help="file to write: .svg, or .mmd for Mermaid's text (NAME.svg)")
    draw.set_defaults(run=run_draw)


def run_index(arguments: argparse.Namespace) -> int:
    """Exit code 0 and how much is in the index; 1 where it could not be made."""
    try:
        catalog = _catalog(load_settings())
        from openai_compat.sidecars.haystack.index import DocumentIndex
        from openai_compat.sidecars.haystack.loading import to_embed

        embed = to_embed(arguments.embedder, catalog.transports.to_models) if arguments.embedder else None
        index = DocumentIndex(arguments.folder, arguments.output, arguments.embedder, embed).build(_show)
    except ConfigurationError as error:
        return _say(error.message, USAGE_ERROR)
    except (OSError, OpenAICompatError) as error:
        return _say(str(error), FAILED)
    except Exception as error:  # noqa: BLE001 - the embedding model's, whoever's it is
        from openai_compat.sidecars.haystack.errors import to_known_error

        return _say(f"the embedding model failed: {to_known_error(error).message}", FAILED)
    passages = sum(1 for _ in index.entries)
    kept = f", kept in {arguments.output}" if arguments.output else ""
    print(f"{passages} passages of {len(index.files)} files{kept}")
    return 0


def _show(done: int, total: int, path: str) -> None:
    """A line for each file; one that is written over where there is a terminal."""
    end = "\r" if sys.stderr.isatty() and done < total else "\n"
    print(f"\x1b[K[{done}/{total}] {path}" if end == "\r" else f"[{done}/{total}] {path}", end=end, file=sys.stderr)


def run_draw(arguments: argparse.Namespace) -> int:
    """Exit code 0 and the file's name."""
    try:
        settings = load_settings()
        entry = settings.entries.get(arguments.name)
        if entry is None or entry.kind != "haystack":
            known = ", ".join(name for name, row in settings.entries.items() if row.kind == "haystack") or "none"
            return _say(f"there is no model '{arguments.name}' of kind haystack; there are: {known}", USAGE_ERROR)
        loaded = _catalog(settings).model(arguments.name).loaded()
    except ConfigurationError as error:
        return _say(error.message, USAGE_ERROR)
    except OpenAICompatError as error:
        return _say(error.message, FAILED)
    from openai_compat.sidecars.haystack.diagram import to_graph, to_mermaid, to_svg

    output = arguments.output or Path(f"{arguments.name.replace('/', '-')}.svg")
    graph = to_graph(loaded.pipeline, loaded.mapped)
    output.write_text(to_mermaid(graph) if output.suffix in {".mmd", ".mermaid"} else to_svg(graph), "utf-8")
    print(output)
    return 0


def _catalog(settings: Settings) -> PipelineRegistry:
    """
    Raises:
        ConfigurationError: the extra is not installed.
    """
    from importlib.util import find_spec

    from openai_compat.backends.haystack.backend import MISSING_EXTRA

    if find_spec("haystack") is None:
        raise ConfigurationError([MISSING_EXTRA])
    from openai_compat.sidecars.haystack.registry import PipelineRegistry

    return PipelineRegistry(replace(settings, log_level="warning"))


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
