"""Relays for tests, with errors by the status that an event's code or type stands for."""

from __future__ import annotations

import json
from functools import partial

from openai_compat.backends.parsing.openai_errors import find_status, to_status_error
from openai_compat.core.errors import UpstreamError
from openai_compat.services import sse_relay
from openai_compat.services.event_stream import JSON


def to_error(chunk: JSON) -> UpstreamError:
    return to_status_error(find_status(chunk) or 502, json.dumps(chunk).encode())


SSERelay = partial(sse_relay.SSERelay, to_error=to_error)
