"""Reading of request bodies in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Final

from werkzeug.exceptions import HTTPException

from openai_compat.core.byte_budget import Share
from openai_compat.core.errors import InvalidRequestError, OpenAICompatError

READ_BYTES: Final = 65_536


def read_blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the blocks of a request body.

    Raises:
        InvalidRequestError: it is not framed as HTTP requires. RequestTimeoutError: it arrives too slowly.
        werkzeug's RequestEntityTooLarge: it is too long.
    """
    while True:
        try:
            block = stream.read(READ_BYTES)
        except (HTTPException, OpenAICompatError):
            raise
        except Exception as error:  # every WSGI server has its own exceptions
            raise unreadable_body() from error
        if not block:
            return
        yield block


def count_blocks(blocks: Iterator[bytes], held: Share) -> Iterator[bytes]:
    """Yield the blocks, which stay in memory, and count them in `held`."""
    for block in blocks:
        held.add(len(block))
        yield block


def join_blocks(blocks: Iterator[bytes], held: Share) -> bytes:
    """Return all blocks as one, which `held` counts until it is complete."""
    return b"".join(count_blocks(blocks, held))


def unreadable_body() -> InvalidRequestError:
    """Return the error for a body that is not framed as HTTP requires."""
    return InvalidRequestError("The request body could not be read.")
