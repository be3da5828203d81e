"""Loading of a pipeline from its model config."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import httpx
from haystack.components.embedders import OpenAITextEmbedder
from haystack.components.generators.chat import AzureOpenAIChatGenerator, OpenAIChatGenerator
from haystack.components.joiners import DocumentJoiner
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.utils import Secret

from openai_compat.backends.haystack.backend import HaystackOptions
from openai_compat.core.settings import ModelConfig

from .errors import PipelineMismatchError
from .generator import UNNAMED, GroundedChatGenerator, HaystackPipeline
from .haystack_compat import is_pipeline, load_pipeline, set_transport
from .index import DocumentIndex, Embed
from .io_mapping import IOMapping, map_pipeline
from .transport import MODELS_URL, Transports

log = logging.getLogger(__name__)

PROGRESS_INTERVAL: Final = 5.0
OWN_MODULES: Final = ("openai_compat.sidecars.haystack.*",)
"""Modules whose classes a pipeline file may name, besides Haystack's own and those in `allowed_modules`."""


@dataclass(frozen=True, slots=True)
class LoadedPipeline:
    """A pipeline that is ready to run.

    `index` is the index of the model's documents, if it has any. `supports_usage` is True if the component that streams
    can be asked for token usage.
    """

    entry: ModelConfig
    options: HaystackOptions
    pipeline: Any
    mapping: IOMapping
    index: DocumentIndex | None
    supports_usage: bool


def load(entry: ModelConfig, transports: Transports) -> LoadedPipeline:
    """Build the pipeline of a model config, index its documents and connect its models through `transports`.

    Raises:
        PipelineMismatchError: the model config and its pipeline do not fit.
        Exception: anything that the pipeline's own code raises.
    """
    options = HaystackOptions(**entry.options)
    index = build_index(options, transports) if options.documents else None
    pipeline = _build(options, index, transports)
    _connect_models(pipeline, entry, options, transports)
    mapping = map_pipeline(pipeline, options.inputs, options.outputs, options.stream_from)
    pipeline.warm_up()
    streaming = dict(pipeline.walk()).get(mapping.stream_from)
    calls_this_server = getattr(streaming, "api_base_url", None) == MODELS_URL
    supports_usage = calls_this_server and getattr(streaming, "model", None) not in transports.without_usage
    return LoadedPipeline(entry, options, pipeline, mapping, index, supports_usage)


def build_index(options: HaystackOptions, transports: Transports) -> DocumentIndex:
    """Build or update the index of the model's documents and log the progress."""
    folder = Path(options.documents or "")
    embed = make_embed(options.embedder, transports.to_models) if options.embedder else None
    index = DocumentIndex(folder, Path(options.index) if options.index else None, options.embedder, embed)
    index.build(_LoggedProgress())
    fields = {"files": len(index.files), "passages": sum(1 for _ in index.entries)}
    log.info("documents are indexed", extra={"fields": fields})
    return index


class _LoggedProgress:
    """Progress callback that writes a log line every `PROGRESS_INTERVAL` seconds."""

    def __init__(self) -> None:
        self._logged_at = time.monotonic()

    def __call__(self, done: int, total: int, _path: str) -> None:
        if time.monotonic() - self._logged_at > PROGRESS_INTERVAL:
            self._logged_at = time.monotonic()
            log.info("documents are being indexed", extra={"fields": {"done": done, "total": total}})


def make_embed(model: str, transport: httpx.BaseTransport) -> Embed:
    """Return a function that embeds texts with an embedding model of this server."""
    from openai import OpenAI

    client: Any = OpenAI(
        base_url=MODELS_URL,
        api_key=UNNAMED,
        max_retries=0,
        http_client=httpx.Client(transport=transport),  # type: ignore[arg-type]
    )

    def embed(texts: Any) -> list[list[float]]:
        reply = client.embeddings.create(model=model, input=list(texts), encoding_format="float")
        return [item.embedding for item in reply.data]

    return embed


def _build(options: HaystackOptions, index: DocumentIndex | None, transports: Transports) -> Any:
    if options.pipeline:
        return load_pipeline(Path(options.pipeline).read_text("utf-8"), [*OWN_MODULES, *options.allowed_modules])
    if options.factory:
        return _call_factory(options.factory)
    pipeline = HaystackPipeline(options.system_prompt).pipeline
    if index is not None:
        _add_retrieval(pipeline, options, index, transports)
    return pipeline


def _call_factory(path: str) -> Any:
    module_name, _, name = path.partition(":")
    result = getattr(import_module(module_name), name)()
    pipeline = getattr(result, "pipeline", result)
    if not is_pipeline(pipeline):
        raise PipelineMismatchError(f"factory: {path} returned no Pipeline and no object with a `pipeline`")
    return pipeline


def _add_retrieval(pipeline: Any, options: HaystackOptions, index: DocumentIndex, transports: Transports) -> None:
    """Add keyword retrieval (BM25) and, if an embedder is configured, embedding retrieval merged with it."""
    store = index.to_store()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=options.top_k))
    if options.embedder is None:
        pipeline.connect("retriever.documents", "generator.documents")
        return
    embedder = OpenAITextEmbedder(
        model=options.embedder,
        api_key=Secret.from_token(UNNAMED),
        api_base_url=MODELS_URL,
        max_retries=0,
        http_client_kwargs={"transport": transports.to_models},
    )
    pipeline.add_component("text_embedder", embedder)
    pipeline.add_component("embedding_retriever", InMemoryEmbeddingRetriever(store, top_k=options.top_k))
    pipeline.add_component("joiner", DocumentJoiner("reciprocal_rank_fusion", top_k=options.top_k))
    pipeline.connect("text_embedder.embedding", "embedding_retriever.query_embedding")
    pipeline.connect("retriever.documents", "joiner.documents")
    pipeline.connect("embedding_retriever.documents", "joiner.documents")
    pipeline.connect("joiner.documents", "generator.documents")


def _connect_models(pipeline: Any, entry: ModelConfig, options: HaystackOptions, transports: Transports) -> None:
    """Connect the pipeline's generators to the model that the model config names.

    Generators with a base URL of their own keep it and send their requests through this server's upstream client, so
    that a client disconnect ends them.

    Raises:
        PipelineMismatchError: `generator` names a model, but the pipeline has no OpenAIChatGenerator to use it, or no
            model serves the built-in generator.
    """
    is_named = bool(options.generator or entry.base_url)
    generators = list(_generators(pipeline))
    if options.generator and not generators:
        raise PipelineMismatchError("generator: the pipeline has no OpenAIChatGenerator that could call this model")
    for generator in generators:
        is_unnamed = isinstance(generator, GroundedChatGenerator) and generator.model == UNNAMED
        if is_unnamed and not (is_named or transports.has_default):
            raise PipelineMismatchError("it needs a `generator`, a `base_url`, or a default upstream (OPENAI_API_KEY)")
        if is_named or is_unnamed:
            generator.model = options.generator or entry.name
            generator.api_base_url = MODELS_URL
            generator.api_key = Secret.from_token(UNNAMED)
            set_transport(generator, transports.to_models, base_url=MODELS_URL, api_key=UNNAMED)
        elif not generator.http_client_kwargs:
            set_transport(generator, transports.to_upstreams)


def _generators(pipeline: Any) -> Iterator[Any]:
    """Yield the components that call OpenAI-compatible chat models, including those inside agents."""
    for _, component in pipeline.walk():
        for candidate in (component, getattr(component, "chat_generator", None)):
            if isinstance(candidate, OpenAIChatGenerator) and not isinstance(candidate, AzureOpenAIChatGenerator):
                yield candidate
