"""Credentials that change: a token that expires, or one that each caller brings along."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from openai_compat.core.errors import AuthenticationError
from openai_compat.core.types import CallContext

USER_TOKEN: Final = "X-Forwarded-Access-Token"  # noqa: S105 - a header's name
"""Databricks Apps adds it to each request, where user authorization is on (source: their documentation)."""


class Credentials(ABC):
    """What a call to an upstream says in its `Authorization`."""

    is_caller_owned: bool = False
    """Whether it is the caller's own, so that the upstream's refusal of it is for the caller to hear."""

    @abstractmethod
    def authorization(self, context: CallContext) -> str:
        """The header's value for this call.

        Raises:
            RequestError: the caller should have sent one.
            UpstreamError, CallCancelledError: none could be had.
        """

    def refresh(self, refused: str, context: CallContext) -> str | None:
        """Another value than the one that the upstream has just refused; None where there is none to be had. Raises as
        `authorization` does.
        """
        return None


class ForwardedToken(Credentials):
    """The token of the signed-in user, as a proxy in front of this server adds it to each request."""

    is_caller_owned = True

    def __init__(self, header: str) -> None:
        self._header = header

    def authorization(self, context: CallContext) -> str:
        token = context.sent_header(self._header)
        if not token:
            raise AuthenticationError(
                f"This model answers with the token of the signed-in user, and the header {self._header} is not there."
            )
        return f"Bearer {token}"
