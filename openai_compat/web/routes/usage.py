"""Endpoints of usage and costs, and the export of the rows of calls."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from time import time
from typing import Final

from flask import Blueprint, Response

from openai_compat.accounts.service import Accounts
from openai_compat.accounts.usage_export import FORMATS, Format, encode_rows
from openai_compat.accounts.usage_report import COLUMNS, KINDS, LIMITS, Kind, ReportRequest
from openai_compat.core.errors import InvalidRequestError
from openai_compat.web.administration import ROOT, invalid_choice, read_choice, read_list, read_number
from openai_compat.web.json_response import json_response

PATHS: Final[dict[Kind, str]] = {
    "completions": f"{ROOT}/usage/completions",
    "embeddings": f"{ROOT}/usage/embeddings",
    "costs": f"{ROOT}/costs",
}
FILTERS: Final = {
    "project_ids": "project_id",
    "api_key_ids": "api_key_id",
    "user_ids": "user_id",
    "models": "model",
}
"""Parameter of the query -> what it filters by."""
MAX_TIME: Final = 2**40


def add_usage_routes(blueprint: Blueprint, accounts: Accounts) -> None:
    """Add the endpoints to the administration blueprint."""
    for kind in KINDS:
        blueprint.add_url_rule(PATHS[kind], kind, lambda kind=kind: _report(accounts, kind))

    @blueprint.get(f"{ROOT}/usage/export")
    def export() -> Response:
        return _export(accounts)


def _report(accounts: Accounts, kind: Kind) -> Response:
    width = read_choice("bucket_width", tuple(LIMITS), "1d")
    default, most = LIMITS[width]
    start, end = _read_times()
    report = ReportRequest(
        kind,
        start,
        end,
        width,
        read_number("limit", default, 1, most),
        _read_groups(),
        _read_filters(),
        read_number("page", None, start, end),
    )
    return json_response(accounts.usage.page(report))


def _export(accounts: Accounts) -> Response:
    """Return the rows as a stream. Its first part exists before the response does, so that failures have a status."""
    format: Format = "jsonl" if read_choice("format", tuple(FORMATS), "csv") == "jsonl" else "csv"
    start, end = _read_times()
    filters = {COLUMNS[name]: values for name, values in _read_filters().items()}
    parts = encode_rows(accounts.usage.rows(start, end, filters), format)
    first = list(_take(parts, 2))  # the head and the first rows
    headers = {"content-disposition": f'attachment; filename="usage.{format}"'}
    return Response(chain(first, parts), content_type=FORMATS[format], headers=headers)


def _take(parts: Iterator[bytes], number: int) -> Iterator[bytes]:
    for _, part in zip(range(number), parts, strict=False):
        yield part


def _read_times() -> tuple[int, int]:
    """Return the start and the end, which is now if the query has none.

    Raises:
        InvalidRequestError
    """
    start = read_number("start_time", None, 0, MAX_TIME)
    if start is None:
        raise InvalidRequestError(
            "Missing required parameter: 'start_time'.", param="start_time", code="missing_required_parameter"
        )
    end = read_number("end_time", int(time()) + 1, 0, MAX_TIME)
    if end <= start:
        raise InvalidRequestError("'end_time' must be after 'start_time'.", param="end_time", code="invalid_value")
    return start, end


def _read_groups() -> tuple[str, ...]:
    groups = read_list("group_by")
    for name in groups:
        if name not in COLUMNS:
            raise invalid_choice("group_by", name, tuple(COLUMNS))
    return groups


def _read_filters() -> dict[str, tuple[str, ...]]:
    return {column: values for name, column in FILTERS.items() if (values := read_list(name))}
