"""Models to serve, from the settings and the models file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace

from openai_compat.backends.local.engine_config import LOCAL_KINDS
from openai_compat.backends.registry import load_backend_class
from openai_compat.core.extras import missing_extra
from openai_compat.core.settings import ECHO_MODEL, OPENAI_URL, ModelConfig, Settings

from .aliases import check_aliases
from .model_parser import ALIAS, ModelsFileParser, option_error, validate
from .routes import check_routes, names_of


def build_models(settings: Settings, environ: Mapping[str, str], problems: list[str], renamed: list[str]) -> Settings:
    """Return `settings` with its models and its default upstream.

    Every problem adds a sentence to `problems`, and every former key of the models file a sentence to `renamed`.
    """
    file = ModelsFileParser(settings, environ, problems, renamed)
    entries = [
        *file.models(),
        *_external_entries(settings, problems),
        *_databricks_entries(settings, problems),
    ]
    upstream = _default_upstream(settings)
    if not entries and upstream is None and not settings.models_file:
        entries = [ModelConfig(ECHO_MODEL, "echo", owned_by="mock")]
    configured = {entry.name for entry in entries}
    if _includes_presets(settings):
        entries += file.presets(configured)
    by_name: dict[str, ModelConfig] = {}
    for entry in entries:
        if entry.name in by_name:
            problems.append(f"the model '{entry.name}' is configured twice")
        by_name[entry.name] = entry
    problems += check_routes(by_name, has_upstream=upstream is not None)
    problems += _validate_together(by_name, file.invalid_names, settings, upstream)
    allowed = _apply_allow_list(by_name, settings, upstream, problems)
    aliases = {**file.aliases, **settings.model_aliases}
    problems += check_aliases(aliases, by_name, settings, has_upstream=upstream is not None)
    mentioned = names_of(allowed.values()) - allowed.keys()
    _check_preload(settings, allowed, problems)
    return replace(
        settings,
        entries=allowed,
        hidden_entries={name: by_name[name] for name in sorted(mentioned & by_name.keys())},
        default_upstream=upstream,
        model_aliases=aliases,
        default_model=_default_model(settings, allowed, configured, upstream, problems),
    )


def _validate_together(
    entries: Mapping[str, ModelConfig], invalid_names: Set[str], settings: Settings, upstream: ModelConfig | None
) -> Iterator[str]:
    """Yield the kinds' own problems with models that refer to others."""
    settings = replace(settings, default_upstream=upstream)
    for entry in entries.values():
        if entry.kind == ALIAS or entry.name in invalid_names:
            continue
        for problem in load_backend_class(entry.kind).validate_with_others(entry, settings, entries):
            yield f"model '{entry.name}': {problem}"


def _includes_presets(settings: Settings) -> bool:
    if settings.include_default_models is None:
        return missing_extra() is None
    return settings.include_default_models


def _check_preload(settings: Settings, entries: Mapping[str, ModelConfig], problems: list[str]) -> None:
    local = {name for name, entry in entries.items() if entry.kind in LOCAL_KINDS}
    unknown = sorted(set(settings.preload_models) - local)
    if unknown:
        problems.append(f"PRELOAD_MODELS names models that are not local models: {', '.join(unknown)}")


def _default_upstream(settings: Settings) -> ModelConfig | None:
    if not (settings.openai_api_key or settings.openai_base_url):
        return None
    return ModelConfig(
        name="*",
        kind="openai",
        base_url=settings.openai_base_url or OPENAI_URL,
        api_key=settings.openai_api_key,
        timeouts=settings.timeouts,
        routed_timeouts=settings.routed_timeouts,
        max_concurrent=settings.upstream_max_concurrent,
    )


def _external_entries(settings: Settings, problems: list[str]) -> list[ModelConfig]:
    """Return the model of `EXTERNAL_CHAT_URL`."""
    if settings.external_chat_url is None:
        return []
    path = settings.external_chat_reply_path
    options = {"reply_path": path} if path else {}
    problem = option_error(load_backend_class("external"), options)
    if problem:
        problems.append(f"EXTERNAL_CHAT_REPLY_PATH: {problem}")
    return [
        ModelConfig(
            name=settings.external_chat_model,
            kind="external",
            base_url=settings.external_chat_url,
            api_key=settings.external_chat_api_key,
            timeouts=settings.timeouts,
            routed_timeouts=settings.routed_timeouts,
            max_concurrent=settings.upstream_max_concurrent,
            owned_by="external",
            options=options,
        )
    ]


def _databricks_entries(settings: Settings, problems: list[str]) -> list[ModelConfig]:
    """Return the models of `DATABRICKS_ENDPOINTS`."""
    entries = [
        ModelConfig(
            name=endpoint,
            kind="databricks",
            timeouts=settings.timeouts,
            routed_timeouts=settings.routed_timeouts,
            max_concurrent=settings.upstream_max_concurrent,
            owned_by="databricks",
        )
        for endpoint in settings.databricks_endpoints
    ]
    if entries:
        problems += [f"DATABRICKS_ENDPOINTS: {problem}" for problem in validate(entries[0], settings)]
    return entries


def _apply_allow_list(
    entries: dict[str, ModelConfig], settings: Settings, upstream: ModelConfig | None, problems: list[str]
) -> dict[str, ModelConfig]:
    if not settings.model_allow_list:
        return entries
    allowed = set(settings.model_allow_list)
    unknown = sorted(allowed - entries.keys())
    if unknown and upstream is None:
        problems.append(f"MODEL_ALLOW_LIST names models that are not configured: {', '.join(unknown)}")
    return {name: entry for name, entry in entries.items() if name in allowed}


def _default_model(
    settings: Settings,
    entries: Mapping[str, ModelConfig],
    configured: Set[str],
    upstream: ModelConfig | None,
    problems: list[str],
) -> str | None:
    """Return `DEFAULT_MODEL`, or else the first configured model, a preset, or a small model of OpenAI's.

    A preset is only taken without a default upstream.
    """
    named = settings.default_model
    if named is not None:
        if named not in entries and upstream is None:
            problems.append(f"DEFAULT_MODEL names '{named}', which is not configured")
        elif settings.model_allow_list and named not in settings.model_allow_list:
            problems.append(f"DEFAULT_MODEL names '{named}', which MODEL_ALLOW_LIST leaves out")
        return named
    first = next((name for name in entries if name in configured or upstream is None), None)
    if first is not None:
        return first
    return settings.model_allow_list[0] if settings.model_allow_list else "gpt-4o-mini"
