"""What differs between the major versions of Haystack, and nothing else.

From version 3 on there is one class of pipelines, which runs either way; in version 2 the asynchronous one was apart.
Version 3 holds the classes that a pipeline's file names to a list of modules, frees document stores that nobody uses,
and makes a component's client when it is first needed; version 2 makes it with the component.
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
    """The pipeline that a YAML file describes.

    Raises:
        whatever Haystack raises for a file that it cannot read.
    """
    if "allowed_modules" in inspect.signature(Pipeline.loads).parameters:
        return Pipeline.loads(text, allowed_modules=list(allowed_modules))
    return Pipeline.loads(text)


def new_document_store() -> InMemoryDocumentStore:
    """One that is freed with whoever holds it; version 2 keeps all of them for as long as the process lives."""
    options: dict[str, Any] = (
        {"shared": False} if "shared" in inspect.signature(InMemoryDocumentStore).parameters else {}
    )
    return InMemoryDocumentStore(embedding_similarity_function="cosine", **options)


def is_pipeline(value: object) -> bool:
    """A Pipeline, or version 2's AsyncPipeline."""
    return isinstance(value, PipelineBase)


def set_transport(component: Any, transport: httpx.BaseTransport, **options: Any) -> None:
    """Makes an OpenAI component speak through `transport`; `options` are the client's (`base_url`, `api_key`)."""
    component.http_client_kwargs = {"transport": transport}
    if component.client is not None:
        component.client = component.client.with_options(http_client=httpx.Client(transport=transport), **options)


def run_pipeline(pipeline: Any, inputs: dict[str, dict[str, Any]], outputs_from: set[str]) -> dict[str, dict[str, Any]]:
    """Runs it in this thread; both classes have `run`."""
    results: dict[str, dict[str, Any]] = pipeline.run(inputs, include_outputs_from=outputs_from)
    return results
