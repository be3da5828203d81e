"""The doors for chat, text completions and embeddings, under every root that OpenAI's and Azure's clients use."""

from __future__ import annotations

from flask import Blueprint, Response

from openai_compat.backends.base import SupportsForwarding
from openai_compat.core.errors import UnsupportedParameterError
from openai_compat.core.types import CallContext
from openai_compat.routing.route import Target
from openai_compat.routing.router import ModelRouter, Route
from openai_compat.services.chat import ChatService
from openai_compat.services.completions import CompletionService
from openai_compat.services.embeddings import EmbeddingService
from openai_compat.services.failover_streams import EventStream
from openai_compat.services.forwarding import ForwardedAnswer
from openai_compat.services.inference_call import InferenceCall
from openai_compat.web.failover import respond_with_failover
from openai_compat.web.inference import Endpoint, prepare_call, respond, respond_passthrough
from openai_compat.web.responses import BytesResponse, to_json
from openai_compat.web.schemas.chat import CHAT_REQUEST
from openai_compat.web.schemas.completions import COMPLETION_REQUEST
from openai_compat.web.schemas.embeddings import EMBEDDINGS_REQUEST

URL_PREFIXES = ("/v1", "", "/api/v1", "/openai/v1", "/openai/deployments/<path:deployment>")


TRUNCATED = "x-truncated-inputs"
"""Tells, by their indexes, whose embeddings leave out the end of the input."""


class TranslatedEmbeddings:
    """How the door for embeddings asks a backend, which may be one of several."""

    def __init__(self, embeddings: EmbeddingService, inference: InferenceCall) -> None:
        self._embeddings = embeddings
        self._inference = inference

    def whole(self, target: Target | Route, context: CallContext) -> ForwardedAnswer:
        vectors, usage, truncated = self._embeddings.create(
            target.backend, target.model, self._inference.payload, context
        )
        headers = {TRUNCATED: ",".join(map(str, truncated))} if truncated else {}
        return ForwardedAnswer(200, headers, to_json(vectors), usage)

    def stream(self, call: InferenceCall, target: Target, context: CallContext) -> EventStream:
        raise UnsupportedParameterError("stream", target.model, "embeddings come whole")


def chat_blueprint(routing: ModelRouter, chat: ChatService) -> Blueprint:
    """`POST {root}/chat/completions`."""
    blueprint = Blueprint("chat", __name__)
    door = Endpoint("chat/completions", CHAT_REQUEST)

    @blueprint.post("/chat/completions")
    def create_chat_completion(deployment: str | None = None) -> Response:
        return respond(door, routing, chat.start, deployment)

    return blueprint


def completions_blueprint(routing: ModelRouter, completions: CompletionService) -> Blueprint:
    """`POST {root}/completions`."""
    blueprint = Blueprint("completions", __name__)
    door = Endpoint("completions", COMPLETION_REQUEST)

    @blueprint.post("/completions")
    def create_completion(deployment: str | None = None) -> Response:
        return respond(door, routing, completions.start, deployment)

    return blueprint


def embeddings_blueprint(routing: ModelRouter, embeddings: EmbeddingService) -> Blueprint:
    """`POST {root}/embeddings`."""
    blueprint = Blueprint("embeddings", __name__)
    door = Endpoint("embeddings", EMBEDDINGS_REQUEST)

    @blueprint.post("/embeddings")
    def create_embeddings(deployment: str | None = None) -> Response:
        call, route, inference = prepare_call(door, routing, deployment)
        context = call.to_context(is_streamed=False)
        typed = TranslatedEmbeddings(embeddings, inference)
        if route.plan is not None:
            return respond_with_failover(route.plan, typed, inference, call, context)
        if isinstance(route.backend, SupportsForwarding):
            return respond_passthrough(route.backend, inference, call, context)
        whole = typed.whole(route, context)
        call.note_usage(whole.usage)
        return BytesResponse(whole.body, whole.status, whole.headers)

    return blueprint
