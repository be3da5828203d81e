"""Registry of the pipelines that the models file configures, and of the models that they call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Final

from openai_compat.app import create_app
from openai_compat.backends.base import Backend
from openai_compat.backends.haystack.backend import KIND
from openai_compat.backends.http.client import UpstreamClient
from openai_compat.backends.resources import BackendResources
from openai_compat.core.profiles import Profile
from openai_compat.core.settings import ModelConfig, Settings

from .conversations import Conversations, MemoryConversations
from .pipeline_backend import PipelineBackend
from .transport import ModelsTransport, Transports, UpstreamTransport

FORBIDDEN: Final = "openai_compat.sidecars.haystack.registry:ForbiddenPipeline"


class PipelineRegistry:
    """Registry of all pipelines. `settings` are the workers' settings.

    An application inside this process serves the models that pipelines call.
    """

    def __init__(self, settings: Settings, conversations: Conversations | None = None) -> None:
        self._settings = settings
        self._client = UpstreamClient(settings)
        self.conversations = conversations or MemoryConversations()
        resources = BackendResources(settings, self._client)
        self.backends: Mapping[str, PipelineBackend] = {
            name: PipelineBackend(_without_policies(entry), resources, lambda: self.transports, self.conversations)
            for name, entry in {**settings.hidden_entries, **settings.entries}.items()
            if entry.kind == KIND
        }

    @cached_property
    def transports(self) -> Transports:
        app = create_app(to_inner_settings(self._settings))
        return Transports(
            ModelsTransport(app),
            UpstreamTransport(self._client, self._settings.timeouts),
            has_default=self._settings.default_upstream is not None,
            without_usage=frozenset(_without_usage({**self._settings.hidden_entries, **self._settings.entries})),
        )


def _without_policies(entry: ModelConfig) -> ModelConfig:
    """Return the model config without what the workers apply to a call before and after the sidecar."""
    return replace(entry, routing=None, profile=None, hooks=None)


def _without_usage(entries: Mapping[str, ModelConfig]) -> Iterator[str]:
    """Yield the models that a streamed call must not ask for usage.

    These are the models whose strict profile rejects `stream_options`, and the models that route to one of them.
    """
    strict = {name for name, entry in entries.items() if _rejects_usage(entry)}
    for name, entry in entries.items():
        targets = {*entry.routing.targets, *entry.routing.fallbacks} if entry.routing else set()
        if name in strict or not strict.isdisjoint(targets):
            yield name


def _rejects_usage(entry: ModelConfig) -> bool:
    return entry.profile is not None and entry.profile.strict and entry.profile.strips("stream_options")


def to_inner_settings(settings: Settings) -> Settings:
    """Return the settings of the application that serves models to the pipelines.

    It has no API keys, because only this process can call it. Each pipeline's name stands for the pipeline's own model.
    All chat answers are translated, because Haystack's components fail for most deviations from OpenAI's protocol.
    """
    upstream = settings.default_upstream
    return replace(
        settings,
        default_upstream=upstream and _with_translation(upstream),
        entries=_with_own_models(settings.entries, settings),
        hidden_entries=_with_own_models(settings.hidden_entries, settings),
        accounts="off",
        api_keys=(),
        model_allow_list=(),
        max_concurrent_requests=0,  # the workers have already admitted these calls
        sse_keepalive_seconds=0.0,
    )


def _with_own_models(entries: Mapping[str, ModelConfig], settings: Settings) -> dict[str, ModelConfig]:
    return {name: _with_translation(_to_own_model(entry, settings)) for name, entry in entries.items()}


def _with_translation(entry: ModelConfig) -> ModelConfig:
    """Return the model config with translated chat answers. Kind `databricks` translates them unless told otherwise."""
    if entry.kind != "openai" and entry.profile is None:
        return entry
    return replace(entry, profile=replace(entry.profile or Profile(), translate_responses=True))


def _to_own_model(entry: ModelConfig, settings: Settings) -> ModelConfig:
    """Return the model that a pipeline calls under its own name, at its `base_url` or else the default upstream."""
    if entry.kind != KIND:
        return entry
    if entry.base_url:
        return ModelConfig(
            entry.name,
            "openai",
            base_url=entry.base_url,
            upstream_model=entry.upstream_model,
            api_key=entry.api_key,
            headers=entry.headers,
            timeouts=entry.timeouts,
            max_concurrent=entry.max_concurrent,
        )
    upstream = settings.default_upstream
    if upstream is None or entry.options.get("generator"):
        return ModelConfig(entry.name, FORBIDDEN)
    return replace(upstream, name=entry.name, upstream_model=entry.upstream_model or entry.name)


class ForbiddenPipeline(Backend):
    """Backend without capabilities that replaces pipelines inside the sidecar, so that no pipeline calls another."""
