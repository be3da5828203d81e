"""Endpoints of stored chat completions."""

from __future__ import annotations

import re
from typing import Final

from flask import Blueprint, Response, request

from openai_compat.core.errors import StorageUnavailableError
from openai_compat.services.inference_call import CHAT_PATH
from openai_compat.services.openai_objects import is_own_id
from openai_compat.services.stored_completions import PREFIX, StoredCompletions, missing_completion
from openai_compat.services.stored_lists import raise_unknown_cursor, to_list
from openai_compat.web.json_response import json_response
from openai_compat.web.stored_objects import (
    ObjectEndpoints,
    Passing,
    current_owner,
    json_bytes,
    read_cursor,
    reject_websocket,
)

_METADATA: Final = re.compile(r"metadata\[(.*)\]", re.DOTALL)


def completions_blueprint(completions: StoredCompletions, passing: Passing) -> Blueprint:
    """Return the blueprint of `{root}/chat/completions` without the one that creates completions.

    The list is the caller's own, or that of the default upstream if the caller has none here.
    """
    blueprint = Blueprint("stored_completions", __name__)
    blueprint.before_request(reject_websocket)
    endpoints = ObjectEndpoints(PREFIX, missing_completion, passing)

    @blueprint.get("/chat/completions")
    def list_completions() -> Response:
        own = _list_own(completions, is_optional=passing.serves(CHAT_PATH))
        return passing.forward(CHAT_PATH) if own is None else own

    @blueprint.get("/chat/completions/<id>")
    def get(id: str) -> Response:
        return endpoints.respond(id, f"{CHAT_PATH}/{id}", lambda owner: json_bytes(completions.get(owner, id)))

    @blueprint.post("/chat/completions/<id>")
    def update(id: str) -> Response:
        return endpoints.update_metadata(id, f"{CHAT_PATH}/{id}", completions.update)

    @blueprint.delete("/chat/completions/<id>")
    def delete(id: str) -> Response:
        return endpoints.respond(id, f"{CHAT_PATH}/{id}", lambda owner: json_response(completions.delete(owner, id)))

    @blueprint.get("/chat/completions/<id>/messages")
    def list_messages(id: str) -> Response:
        def answer(owner: str) -> Response:
            return json_bytes(completions.messages(owner, id, read_cursor("asc")))

        return endpoints.respond(id, f"{CHAT_PATH}/{id}/messages", answer)

    return blueprint


def _list_own(completions: StoredCompletions, *, is_optional: bool) -> Response | None:
    """Return the caller's list. With `is_optional`, return None if it is empty, unavailable or another server's."""
    after = request.args.get("after")
    if after is not None and not is_own_id(after, PREFIX):
        if is_optional:
            return None
        raise_unknown_cursor(after)
    metadata = {found[1]: value for name, value in request.args.items() if (found := _METADATA.fullmatch(name))}
    try:
        page = completions.page(current_owner(), read_cursor("asc"), request.args.get("model"), metadata)
    except StorageUnavailableError:
        if is_optional:
            return None
        raise
    return None if is_optional and not page.entries and after is None else json_bytes(to_list(page))
