"""Endpoints for chat, text completions and embeddings, under every root that OpenAI's and Azure's clients use."""

from __future__ import annotations

from flask import Blueprint, Response

from openai_compat.routing.router import ModelRouter
from openai_compat.services.chat import ChatService
from openai_compat.services.completions import CompletionService
from openai_compat.services.embeddings import EmbeddingService
from openai_compat.services.inference import EmbeddingsEndpoint, GenerationEndpoint
from openai_compat.services.inference_call import CHAT_PATH, COMPLETIONS_PATH
from openai_compat.services.stored_completions import StoredCompletions
from openai_compat.web.inference import respond_to_inference
from openai_compat.web.schemas.chat import CHAT_REQUEST
from openai_compat.web.schemas.completions import COMPLETION_REQUEST
from openai_compat.web.schemas.embeddings import EMBEDDINGS_REQUEST

URL_PREFIXES = ("/v1", "", "/api/v1", "/openai/v1", "/openai/deployments/<path:deployment>")


def chat_blueprint(router: ModelRouter, chat: ChatService, stored: StoredCompletions | None = None) -> Blueprint:
    """`POST {root}/chat/completions`. Answers to calls with `store: true` are kept in `stored`, if given."""
    blueprint = Blueprint("chat", __name__)
    endpoint = GenerationEndpoint(CHAT_PATH, chat.start, chat.tokens, stored)

    @blueprint.post("/chat/completions")
    def create_chat_completion(deployment: str | None = None) -> Response:
        return respond_to_inference(endpoint, CHAT_REQUEST, router, deployment)

    return blueprint


def completions_blueprint(router: ModelRouter, completions: CompletionService) -> Blueprint:
    """`POST {root}/completions`."""
    blueprint = Blueprint("completions", __name__)
    endpoint = GenerationEndpoint(COMPLETIONS_PATH, completions.start, completions.tokens)

    @blueprint.post("/completions")
    def create_completion(deployment: str | None = None) -> Response:
        return respond_to_inference(endpoint, COMPLETION_REQUEST, router, deployment)

    return blueprint


def embeddings_blueprint(router: ModelRouter, embeddings: EmbeddingService) -> Blueprint:
    """`POST {root}/embeddings`."""
    blueprint = Blueprint("embeddings", __name__)
    endpoint = EmbeddingsEndpoint(embeddings)

    @blueprint.post("/embeddings")
    def create_embeddings(deployment: str | None = None) -> Response:
        return respond_to_inference(endpoint, EMBEDDINGS_REQUEST, router, deployment)

    return blueprint
