"""Differences between the major versions of Haystack.

Version 3 has one pipeline class that runs synchronously and asynchronously. Version 2 has a separate asynchronous
class. Version 3 restricts the classes in a pipeline file to a list of modules, frees unused document stores, and
creates a component's client at its first use. Version 2 creates the client with the component.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import httpx
from haystack import Pipeline
from haystack.core.pipeline.base import PipelineBase
from haystack.document_stores.in_memory import InMemoryDocumentStore

VERSION = version("haystack-ai")


def load_pipeline(text: str, allowed_modules: Sequence[str]) -> PipelineBase:
    """Return the pipeline that a YAML text describes.

    Raises:
        Exception: anything that Haystack raises for an invalid file.
    """
    if "allowed_modules" in inspect.signature(Pipeline.loads).parameters:
        return Pipeline.loads(text, allowed_modules=list(allowed_modules))
    return Pipeline.loads(text)


def new_document_store() -> InMemoryDocumentStore:
    """Return an empty document store.

    Version 3 frees it with its last reference. Version 2 keeps every store for the lifetime of the process.
    """
    options: dict[str, Any] = (
        {"shared": False} if "shared" in inspect.signature(InMemoryDocumentStore).parameters else {}
    )
    return InMemoryDocumentStore(embedding_similarity_function="cosine", **options)


def is_pipeline(value: object) -> bool:
    """Return True if the value is a Pipeline, or version 2's AsyncPipeline."""
    return isinstance(value, PipelineBase)


def set_transport(component: Any, transport: httpx.BaseTransport, **options: Any) -> None:
    """Make an OpenAI component use `transport`. `options` are the client's, such as `base_url` and `api_key`."""
    component.http_client_kwargs = {"transport": transport}
    if component.client is not None:
        component.client = component.client.with_options(http_client=httpx.Client(transport=transport), **options)


def run_pipeline(pipeline: Any, inputs: dict[str, dict[str, Any]], outputs_from: set[str]) -> dict[str, dict[str, Any]]:
    """Run the pipeline in this thread and return its outputs. Both pipeline classes have `run`."""
    results: dict[str, dict[str, Any]] = pipeline.run(inputs, include_outputs_from=outputs_from)
    return results
