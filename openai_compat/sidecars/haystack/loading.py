"""From a row of the models file to a pipeline that is ready to run."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

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
from .transport import MODELS_URL

if TYPE_CHECKING:
    from .registry import Transports

log = logging.getLogger(__name__)

PROGRESS_INTERVAL: Final = 5.0
OWN_MODULES: Final = ("openai_compat.sidecars.haystack.*",)
"""What a pipeline's file may name besides Haystack's own classes and those that the row allows."""


@dataclass(frozen=True, slots=True)
class LoadedPipeline:
    """A row's pipeline. `index` is that of its documents, where it has any; `tells_usage` whether the component that
    streams can be asked for token usage."""

    entry: ModelConfig
    options: HaystackOptions
    pipeline: Any
    mapped: IOMapping
    index: DocumentIndex | None
    tells_usage: bool


def load(entry: ModelConfig, transports: Transports) -> LoadedPipeline:
    """The pipeline of a row, its models reached through `transports`, its documents indexed.

    Raises:
        UnfitPipelineError: with a sentence on what is wrong with the row or its pipeline.
        whatever the pipeline's own code raises.
    """
    options = HaystackOptions(**entry.options)
    index = build_index(options, transports) if options.documents else None
    pipeline = _build(options, index, transports)
    _connect_models(pipeline, entry, options, transports)
    mapped = map_pipeline(pipeline, options.inputs, options.outputs, options.stream_from)
    pipeline.warm_up()
    speaker = dict(pipeline.walk()).get(mapped.stream_from)
    is_ours = getattr(speaker, "api_base_url", None) == MODELS_URL
    tells_usage = is_ours and getattr(speaker, "model", None) not in transports.without_usage
    return LoadedPipeline(entry, options, pipeline, mapped, index, tells_usage)


def build_index(options: HaystackOptions, transports: Transports) -> DocumentIndex:
    """The index of the row's documents, read or renewed; the log tells how far it is."""
    folder = Path(options.documents or "")
    embed = to_embed(options.embedder, transports.to_models) if options.embedder else None
    index = DocumentIndex(folder, Path(options.index) if options.index else None, options.embedder, embed)
    index.build(_LoggedProgress())
    facts = {"files": len(index.files), "passages": sum(1 for _ in index.entries)}
    log.info("documents are indexed", extra={"fields": facts})
    return index


class _LoggedProgress:
    """A line in the log now and then, while many documents are read."""

    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def __call__(self, done: int, total: int, _path: str) -> None:
        if time.monotonic() - self._told_at > PROGRESS_INTERVAL:
            self._told_at = time.monotonic()
            log.info("documents are being indexed", extra={"fields": {"done": done, "total": total}})


def to_embed(model: str, transport: httpx.BaseTransport) -> Embed:
    """A function that asks an embedding model of this server."""
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
    built = HaystackPipeline(options.system_prompt).pipeline
    if index is not None:
        _add_retrieval(built, options, index, transports)
    return built


def _call_factory(path: str) -> Any:
    module_name, _, name = path.partition(":")
    made = getattr(import_module(module_name), name)()
    pipeline = getattr(made, "pipeline", made)
    if not is_pipeline(pipeline):
        raise PipelineMismatchError(f"factory: {path} returned no Pipeline, and nothing that has one")
    return pipeline


def _add_retrieval(pipeline: Any, options: HaystackOptions, index: DocumentIndex, transports: Transports) -> None:
    """By the words of the question, and, where there is an embedding model, by its meaning as well."""
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
    """Gives the pipeline's generators the row's model. Those that keep an address of their own are called through this
    server's forwarder, so that a client that leaves ends their calls.
    """
    is_named = bool(options.generator or entry.base_url)
    generators = list(_generators(pipeline))
    if options.generator and not generators:
        raise PipelineMismatchError("generator: the pipeline has no OpenAIChatGenerator that could ask this model")
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
    """The components that ask models in OpenAI's language, those within agents included."""
    for _, component in pipeline.walk():
        for candidate in (component, getattr(component, "chat_generator", None)):
            if isinstance(candidate, OpenAIChatGenerator) and not isinstance(candidate, AzureOpenAIChatGenerator):
                yield candidate
