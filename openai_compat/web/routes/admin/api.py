"""Endpoints below `/admin/api`, which the admin page calls. Accounts have those of the administration API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, Response, request

from openai_compat.accounts.account_overview import describe_accounts
from openai_compat.accounts.service import Accounts
from openai_compat.core.errors import AccountsUnavailableError, NotFoundError
from openai_compat.core.observation import WorkerTotals
from openai_compat.routing.router import ModelRouter
from openai_compat.services.call_log.reports import MAX_PAGE, SPANS, CallReports
from openai_compat.services.chat import ChatService
from openai_compat.services.embeddings import EmbeddingService
from openai_compat.services.inference import EmbeddingsEndpoint, GenerationEndpoint
from openai_compat.services.inference_call import CHAT_PATH, EMBEDDINGS_PATH, InferenceCall
from openai_compat.services.model_status import can_chat, describe_models, find_target
from openai_compat.services.openai_objects import to_json
from openai_compat.services.stored_lists import raise_unknown_cursor
from openai_compat.state.base import StoreError
from openai_compat.storage.pages import UnknownCursorError
from openai_compat.storage.records import CallFilter
from openai_compat.web.administration import read_choice, read_number
from openai_compat.web.inference import read_payload, respond_to_call
from openai_compat.web.json_response import json_response
from openai_compat.web.request_context import current_context
from openai_compat.web.schemas.administration import MODEL_TEST_REQUEST
from openai_compat.web.static_pages import add_security_headers

from .page import NO_STORE

DEFAULT_PAGE: Final = 50
MAX_NUMBER: Final = 2**53
ACCOUNTS_OF_PAGE: Final = 100
QUESTION: Final = "Reply with the single word: pong"


@dataclass(frozen=True, slots=True)
class Sources:
    """What the page shows. `test` answers a call to a model, or to one of its targets. `totals` are of all workers."""

    router: ModelRouter
    reports: CallReports
    accounts: Accounts | None
    test: Callable[[str, str], Response]
    totals: Callable[[], WorkerTotals]


def api_blueprint(check: Callable[[], None], sources: Sources) -> Blueprint:
    """Return the blueprint, with paths below `/admin/api`. `check` raises an error without a session."""
    blueprint = Blueprint("admin_api", __name__, url_prefix="/admin/api")
    blueprint.before_request(check)
    blueprint.after_request(add_security_headers)
    blueprint.register_error_handler(StoreError, _raise_unavailable)
    _add_models(blueprint, sources)
    _add_calls(blueprint, sources)
    _add_accounts(blueprint, sources.accounts)
    return blueprint


def _add_models(blueprint: Blueprint, sources: Sources) -> None:
    @blueprint.get("/models")
    def list_models() -> Response:
        span = _read_span()
        models = describe_models(sources.router, sources.reports.by_target(span))
        return _answer({"span": span, "models": models})

    @blueprint.post("/models/test")
    def test_model() -> Response:
        body = read_payload(MODEL_TEST_REQUEST)[1]
        return sources.test(body["model"], body.get("target") or "")


def _add_calls(blueprint: Blueprint, sources: Sources) -> None:
    reports = sources.reports

    @blueprint.get("/overview")
    def overview() -> Response:
        report = reports.overview(_read_span())
        totals = sources.totals()
        return _answer({**report, "streams": totals.streams, "dropped": totals.dropped_calls})

    @blueprint.get("/calls")
    def list_calls() -> Response:
        limit = read_number("limit", DEFAULT_PAGE, 1, MAX_PAGE)
        before, after = (read_number(name, None, 0, MAX_NUMBER) for name in ("before", "after"))
        return _answer(reports.page(_read_filter(), before, after, limit))

    @blueprint.get("/calls/<id>")
    def get_call(id: str) -> Response:
        return _answer(reports.call(id))


def _add_accounts(blueprint: Blueprint, accounts: Accounts | None) -> None:
    @blueprint.get("/accounts")
    def list_accounts() -> Response:
        if accounts is None:
            raise NotFoundError("Accounts are off. Remove ACCOUNTS=off to use keys.")
        after = request.args.get("after")
        try:
            return _answer(describe_accounts(accounts.manager, accounts.meters, after, ACCOUNTS_OF_PAGE))
        except UnknownCursorError:
            raise_unknown_cursor(after)


def model_tester(
    router: ModelRouter, chats: ChatService, embeddings: EmbeddingService
) -> Callable[[str, str], Response]:
    """Return a function that makes a small call to a model, which is routed, logged and answered as any other."""
    chat = GenerationEndpoint(CHAT_PATH, chats.start, chats.tokens)
    embed = EmbeddingsEndpoint(embeddings)

    def test(model: str, target: str) -> Response:
        route = find_target(router, model, target)
        current_context().authorization = None  # of a proxy before this server, and no credential for an upstream
        if can_chat(route):
            payload: dict[str, Any] = {"model": route.model, "messages": [{"role": "user", "content": QUESTION}]}
            return respond_to_call(chat, route, InferenceCall(CHAT_PATH, to_json(payload), payload, route.model))
        payload = {"model": route.model, "input": QUESTION}
        return respond_to_call(embed, route, InferenceCall(EMBEDDINGS_PATH, to_json(payload), payload, route.model))

    return test


def _answer(value: dict[str, Any]) -> Response:
    return json_response(value, headers=NO_STORE)


def _raise_unavailable(error: StoreError) -> Response:
    """Raise the error of a ledger that is away."""
    raise AccountsUnavailableError from error


def _read_span() -> str:
    return read_choice("span", tuple(SPANS), "hour")


def _read_filter() -> CallFilter:
    status = read_choice("status", ("all", "ok", "failed"), "all")
    return CallFilter(
        request.args.get("key") or None,
        request.args.get("model") or None,
        None if status == "all" else status == "failed",
    )
