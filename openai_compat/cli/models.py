"""Command `models`, which lists the configured models, downloads weights, and loads a model as a test."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from openai_compat.backends.local.backend import missing_extra_of
from openai_compat.backends.local.engine_config import LOCAL_KINDS, EngineConfig, to_engine_config, to_local_model
from openai_compat.backends.local.options import PooledModel
from openai_compat.backends.runtime_dir import temporary_parent
from openai_compat.config.environment import load_settings
from openai_compat.core.errors import ConfigurationError
from openai_compat.core.extras import install_hint
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.validators import without_secrets
from openai_compat.sidecars.huggingface.loader import KindLoader
from openai_compat.sidecars.huggingface.model_pool import to_load_error
from openai_compat.sidecars.huggingface.models import hub

from . import FAILED, USAGE_ERROR
from .models_schema import add_schema_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of `models`."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser(
        "list", help="list every configured model, and whether its weights are on this machine"
    )
    listing.set_defaults(run=run_list)
    pull = actions.add_parser("pull", help="download the weights of local models from the Hugging Face hub")
    pull.add_argument("names", nargs="+", metavar="NAME", help="a model's name, or 'all'")
    pull.set_defaults(run=run_pull)
    load = actions.add_parser("load", help="load a local model once, and print how long it took and what it needs")
    load.add_argument("names", nargs="+", metavar="NAME", help="a model's name, or 'all'")
    load.set_defaults(run=run_load)
    add_schema_command(actions)


def run_list(_arguments: argparse.Namespace) -> int:
    settings = _settings()
    if settings is None:
        return USAGE_ERROR
    for entry in settings.entries.values():
        print(f"{entry.name:<28} {entry.kind:<12} {_location(entry, settings)}")
    if settings.default_upstream is not None:
        print(f"{'every other model':<28} {'openai':<12} {without_secrets(settings.default_upstream.base_url or '')}")
    return 0


def run_pull(arguments: argparse.Namespace) -> int:
    settings = _settings()
    models = None if settings is None else _select(arguments.names, settings)
    if settings is None or models is None:
        return USAGE_ERROR
    return max([_pull(model, settings.hf_token) for model in models], default=0)


def run_load(arguments: argparse.Namespace) -> int:
    settings = _settings()
    models = None if settings is None else _select(arguments.names, settings)
    if settings is None or models is None:
        return USAGE_ERROR
    return _load_all(models, to_engine_config(settings))


def _settings() -> Settings | None:
    try:
        return load_settings()
    except ConfigurationError as error:
        print(error.message, file=sys.stderr)
        return None


def _location(entry: ModelConfig, settings: Settings) -> str:
    """Return the URL of a remote model, or where the weights of a local one are."""
    if entry.kind not in LOCAL_KINDS:
        return without_secrets(entry.base_url) if entry.base_url else ""
    model = to_local_model(entry, settings)
    return f"{model.source} ({_weights_location(model, missing_extra_of(entry.kind, settings))})"


def _weights_location(model: PooledModel, missing_extra: str | None) -> str:
    try:
        if missing_extra is None:
            return hub.weights_location(model)
    except ModuleNotFoundError:  # `make run-local` does without the hub's library
        missing_extra = model.extra
    return f"the extra '{missing_extra}' is not installed"


def _select(names: list[str], settings: Settings) -> list[PooledModel] | None:
    """Return the local models of these names. Print an error and return None if one does not exist."""
    entries = [entry for entry in settings.entries.values() if entry.kind in LOCAL_KINDS]
    local = {entry.name: to_local_model(entry, settings) for entry in entries}
    unknown = sorted(set(names) - local.keys() - {"all"})
    if unknown:
        known = ", ".join(local) or "none"
        print(f"not a local model: {', '.join(unknown)} (local models: {known})", file=sys.stderr)
        return None
    return [model for name, model in local.items() if name in names or "all" in names]


def _pull(model: PooledModel, token: str | None) -> int:
    try:
        if hub.weights_location(model) == "folder":
            print(f"{model.name}: {model.source} is on this machine, nothing to download")
        else:
            print(f"{model.name}: {model.source} is in {hub.pull(model, token)}")
    except ImportError as error:
        print(
            f"{model.name}: '{error.name}' is not installed. It comes with {install_hint(model.extra)}", file=sys.stderr
        )
        return FAILED
    except (OSError, ValueError) as error:
        print(f"{model.name}: {error}", file=sys.stderr)
        return FAILED
    return 0


def _load_all(models: list[PooledModel], config: EngineConfig) -> int:
    with TemporaryDirectory(dir=temporary_parent()) as folder:
        loader = KindLoader(config, Path(folder))
        return max([_load(model, loader) for model in models], default=0)


def _load(model: PooledModel, loader: KindLoader) -> int:
    started = time.monotonic()
    try:
        backend = loader.load(model, lambda step: print(f"{model.name}: {step}", file=sys.stderr))
    except Exception as error:  # noqa: BLE001 - the command reports every error of a loader
        print(to_load_error(model, error).message, file=sys.stderr)
        return FAILED
    details = {
        "context window": getattr(backend, "context_window", "?"),
        "memory": f"{getattr(backend, 'memory_bytes', 0) // 1_000_000} MB",
        **backend.describe(),
    }
    print(f"{model.name}: loaded in {time.monotonic() - started:.1f} s")
    for name, value in details.items():
        print(f"  {name:<20} {value}")
    backend.close()
    return 0
