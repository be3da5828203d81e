"""Credentials that change from call to call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final

from openai_compat.core.errors import AuthenticationError
from openai_compat.core.former_names import CREDENTIAL_NAMES, adopt_former_attributes
from openai_compat.core.types import CallContext

USER_TOKEN: Final = "X-Forwarded-Access-Token"  # noqa: S105 - a header's name
"""Header that Databricks Apps adds to each request if user authorization is on (source: their documentation)."""


class Credentials(ABC):
    """Provider of the `Authorization` header for calls to an upstream."""

    is_caller_owned: bool = False
    """True if the credential is the caller's own. The upstream's 401 and 403 are then relayed to the caller."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Accept the former names of attributes in third-party classes."""
        super().__init_subclass__(**options)
        adopt_former_attributes(cls, CREDENTIAL_NAMES)

    @abstractmethod
    def authorization(self, context: CallContext) -> str:
        """Return the header's value for this call.

        Raises:
            RequestError: The caller did not send the credential.
            UpstreamError: The credential could not be fetched.
            CallCancelledError: The call was cancelled while it waited for the credential.
        """

    def refresh(self, refused: str, context: CallContext) -> str | None:
        """Return another value after the upstream refused `refused`, or None if there is no other.

        Raise the errors of `authorization`.
        """
        return None


class ForwardedToken(Credentials):
    """The signed-in user's token, which a proxy in front of this server adds to each request."""

    is_caller_owned = True

    def __init__(self, header: str) -> None:
        self._header = header

    def authorization(self, context: CallContext) -> str:
        token = context.sent_header(self._header)
        if not token:
            raise AuthenticationError(
                f"This model is called with the token of the signed-in user, but the header {self._header} is missing."
            )
        return f"Bearer {token}"
