"""Sealed reasoning, which clients keep for a stateless server and send back with the next request.

A client of `include: ["reasoning.encrypted_content"]` gets the text of the reasoning encrypted with a key of this
server (AES-GCM). It can neither read nor change it.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, Final

from openai_compat.core.types import JSONObject

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES: Final = 12
PURPOSE: Final = b"openai-compat reasoning 1"
"""Separates this key from others that are derived of the same secret, and versions the format."""

COMPACTION: Final = "compaction"
"""Type of an item with a summary, which every model may read, and the name under which it is sealed."""


DETAILS: Final = "\0details\0"
"""Mark between the text of the reasoning and its details, which most models do not have."""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The reasoning of a model. `details` are what it needs back to go on (see `ChatDelta.reasoning_details`)."""

    text: str = ""
    details: Sequence[JSONObject] = ()


class ReasoningSealer:
    """Sealer of reasoning. Servers with the same `secret` open what another one sealed.

    Without a secret the key is random, and lost at the end of the process.
    """

    def __init__(self, secret: str | None) -> None:
        self._key = sha256(PURPOSE + secret.encode()).digest() if secret else token_bytes(32)
        self._cipher: AESGCM | None = None

    def seal(self, text: str, details: Sequence[JSONObject] = (), *, model: str) -> str:
        """Return the reasoning of `model` as a text that only this server can read."""
        nonce = token_bytes(NONCE_BYTES)
        ending = f"{DETAILS}{json.dumps(list(details))}" if details else ""
        content = f"{model}\0{text}{ending}".encode("utf-8", "replace")
        return urlsafe_b64encode(nonce + self._aes().encrypt(nonce, content, PURPOSE)).decode()

    def open(self, sealed: str, model: str) -> Reasoning:
        """Return the reasoning, which is empty if another server or another model wrote it."""
        from cryptography.exceptions import InvalidTag

        try:
            content = urlsafe_b64decode(sealed)
            text = self._aes().decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], PURPOSE).decode()
        except (ValueError, InvalidTag):  # UnicodeError and binascii's error are ValueErrors
            return Reasoning()
        writer, _, reasoning = text.partition("\0")
        if writer != model:
            return Reasoning()
        reasoning, _, details = reasoning.partition(DETAILS)
        return Reasoning(reasoning, json.loads(details) if details else ())

    def read(self, item: Mapping[str, Any], model: str) -> Reasoning:
        """Return the content of a reasoning item for the model that wrote it, or of a compaction for any model.

        It is empty if there is none. A summary of reasoning is no substitute, because it is not what the model wrote.
        """
        sealed = item.get("encrypted_content")
        writer = COMPACTION if item.get("type") == COMPACTION else model
        if isinstance(sealed, str) and (opened := self.open(sealed, writer)) != Reasoning():
            return opened
        parts = item.get("content")
        texts = (part.get("text") for part in parts if isinstance(part, dict)) if isinstance(parts, list) else ()
        return Reasoning("".join(text for text in texts if isinstance(text, str)))

    def _aes(self) -> AESGCM:
        """Return the cipher. The library is imported at its first use, as few calls need it."""
        if self._cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._cipher = AESGCM(self._key)
        return self._cipher
