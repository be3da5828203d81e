"""Lists of stored objects, as bytes of JSON that no list is parsed for."""

from __future__ import annotations

import json
from typing import NoReturn

from openai_compat.core.errors import InvalidRequestError
from openai_compat.storage.pages import Page


def to_list(page: Page) -> bytes:
    """Return OpenAI's list object for a page."""
    ids = [entry.id for entry in page.entries]
    first, last = (json.dumps(ids[0]), json.dumps(ids[-1])) if ids else ("null", "null")
    data = ",".join(entry.body for entry in page.entries)
    more = json.dumps(page.has_more)
    return f'{{"object":"list","data":[{data}],"first_id":{first},"last_id":{last},"has_more":{more}}}'.encode()


def raise_unknown_cursor(after: str | None) -> NoReturn:
    """Raise the error for a list without the entry `after`."""
    raise InvalidRequestError(
        f"Invalid 'after': the list has no entry with the id '{after}'.", param="after", code="invalid_value"
    )
