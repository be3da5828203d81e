"""JSON web tokens of an identity provider, which callers may send in place of a key."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import jwt

from openai_compat.core.errors import AccountsUnavailableError, AuthenticationError

from .keys import digest_of

log = logging.getLogger(__name__)

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with a public key. A token that names any other algorithm is refused."""
LEEWAY: Final = 30.0
"""Seconds by which the clocks of the provider and this server may differ."""
FETCH_TIMEOUT: Final = 5.0
KEYS_SECONDS: Final = 600
"""Time after which the provider's keys are fetched again."""
PAUSE: Final = 30.0
"""Seconds without another attempt after the keys could not be fetched, while known ones can be used."""
FIRST_PAUSE: Final = 1.0
"""The same while no keys are known, so that every token is refused."""
REMEMBERED_SECONDS: Final = 60.0
"""Time for which a verified token is not verified again."""
MAX_REMEMBERED: Final = 10_000
MAX_TAGS: Final = 20


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a token is about.

    `id` is a digest of the issuer and the subject. `expires_at` is the end of its validity as a Unix time in seconds,
    with `LEEWAY`.
    """

    id: str
    subject: str
    project_id: str | None
    tags: tuple[str, ...]
    expires_at: int


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """Where the provider's keys are, what a token must contain, and the claims that name a project and tags."""

    jwks_url: str
    issuer: str
    audience: str
    project_claim: str
    tags_claim: str


class KeyClient(jwt.PyJWKClient):
    """Client for the provider's keys, which pauses after a failure, as a provider may take `FETCH_TIMEOUT` to fail."""

    _retry_at = 0.0
    _has_fetched = False

    def fetch_data(self) -> Any:
        """Fetch the keys.

        Raises:
            jwt's PyJWKClientConnectionError: the provider failed, or sent no keys.
        """
        if time.monotonic() < self._retry_at:
            raise jwt.PyJWKClientConnectionError("the provider has failed a moment ago")
        try:
            keys = super().fetch_data()
        except (jwt.PyJWTError, OSError, ValueError) as error:  # an HTML page is a ValueError
            self._retry_at = time.monotonic() + (PAUSE if self._has_fetched else FIRST_PAUSE)
            log.warning("the keys of the identity provider cannot be fetched: %s", error)
            raise jwt.PyJWKClientConnectionError(str(error)) from error
        self._has_fetched = True
        return keys


class TokenVerifier:
    """Verification of tokens, with the keys of the provider, which are fetched when the first token arrives."""

    def __init__(self, settings: TokenSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._client = KeyClient(settings.jwks_url, lifespan=KEYS_SECONDS, timeout=FETCH_TIMEOUT)
        self._keys: dict[str, jwt.PyJWK] = {}
        self._verified: OrderedDict[str, tuple[Identity, float]] = OrderedDict()

    def verify(self, token: str) -> Identity:
        """Return whom the token is about.

        Raises:
            AuthenticationError: the token is not valid. AccountsUnavailableError: the provider's keys are not known.
        """
        digest, now = digest_of(token), self._clock()
        identity, until = self._verified.get(digest, (None, 0.0))
        if identity is not None and now < until:
            return identity
        identity = self._to_identity(self._decode(token))
        self._verified[digest] = (identity, min(now + REMEMBERED_SECONDS, identity.expires_at))
        if len(self._verified) > MAX_REMEMBERED:
            self._verified.popitem(last=False)
        return identity

    def _decode(self, token: str) -> Mapping[str, Any]:
        if not token.isascii():
            raise AuthenticationError("The token is not valid for this server.")
        try:
            return jwt.decode(
                token,
                self._key_of(token),
                algorithms=ALGORITHMS,
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise AuthenticationError("The token has expired.") from error
        except jwt.InvalidTokenError as error:
            log.info("a token was refused: %s", type(error).__name__)
            raise AuthenticationError("The token is not valid for this server.") from error

    def _key_of(self, token: str) -> jwt.PyJWK:
        """Return the key that signed the token. One that is known is used while the provider is away.

        Raises:
            AuthenticationError, AccountsUnavailableError, jwt's InvalidTokenError
        """
        key_id = str(jwt.get_unverified_header(token).get("kid"))
        try:
            key = self._keys[key_id] = self._client.get_signing_key_from_jwt(token)
        except jwt.PyJWKClientConnectionError as error:
            if key_id not in self._keys:
                raise AccountsUnavailableError from error
            return self._keys[key_id]
        except jwt.PyJWKClientError as error:
            raise AuthenticationError("The token was signed with an unknown key.") from error
        return key

    def _to_identity(self, claims: Mapping[str, Any]) -> Identity:
        subject, project, tags = str(claims["sub"]), claims.get(self._settings.project_claim), self._tags(claims)
        if project is not None and not isinstance(project, str):
            raise AuthenticationError(f"The claim '{self._settings.project_claim}' of the token must be a text.")
        digest = sha256(f"{self._settings.issuer} {subject}".encode()).hexdigest()[:24]
        return Identity(f"jwt_{digest}", subject, project, tags, int(claims["exp"] + LEEWAY))

    def _tags(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        tags = claims.get(self._settings.tags_claim) or ()
        values = tags if isinstance(tags, list | tuple) else (tags,)
        return tuple(str(tag) for tag in values[:MAX_TAGS])
