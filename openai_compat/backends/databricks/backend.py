"""Backend for Databricks Model Serving endpoints and Foundation Model APIs, which speak OpenAI's protocol."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from openai_compat.backends.auth.base import USER_TOKEN, Credentials, ForwardedToken
from openai_compat.backends.auth.token_cache import Token
from openai_compat.backends.openai.backend import OpenAIBackend, OpenAIOptions
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import UpstreamAuthenticationError, UpstreamConnectionError, UpstreamTimeoutError
from openai_compat.core.extras import install_hint
from openai_compat.core.profiles import PROFILES
from openai_compat.core.redaction import Redactor
from openai_compat.core.settings import ModelConfig, Settings

from . import token_fetcher

log = logging.getLogger(__name__)

ENDPOINTS: Final = "/serving-endpoints"
CREDENTIALS: Final = ("auto", "token", "service-principal", "user")
MISSING_EXTRA: Final = f"a service principal needs {install_hint('databricks')}"
FETCH_TIMEOUT: Final = 60.0
"""Seconds in which the SDK must fetch a token."""
_VARIABLE: Final = re.compile(r"\$\{\w+\}")


@dataclass(frozen=True, slots=True)
class DatabricksOptions(OpenAIOptions):
    """Options of kind `databricks`.

    `credentials` selects the credential for the workspace: `token` (`DATABRICKS_TOKEN`, or the model config's
    `api_key_env`), `service-principal` (`DATABRICKS_CLIENT_ID` and `DATABRICKS_CLIENT_SECRET`, or the model config's
    `client_id` and `client_secret`), `user` (the signed-in user's token, in Databricks Apps) or `auto`. The default is
    the setting `DATABRICKS_CREDENTIALS`.
    """

    credentials: str | None = None
    client_id: str | None = None
    client_secret: str | None = None

    def __post_init__(self) -> None:
        if self.credentials is not None and self.credentials not in CREDENTIALS:
            raise ValueError(f"credentials must be one of {', '.join(CREDENTIALS)}")
        if (self.client_id is None) != (self.client_secret is None):
            raise ValueError("client_id and client_secret must be set together")
        if self.client_secret is not None and not _VARIABLE.fullmatch(str(self.client_secret)):
            raise ValueError("client_secret must name an environment variable: ${NAME}")


@dataclass(frozen=True, slots=True)
class _Workspace:
    """A workspace and its credential, from a model config and the settings."""

    host: str
    kind: str
    token: str | None
    client_id: str | None
    client_secret: str | None


class DatabricksBackend(OpenAIBackend):
    """A backend that forwards to `https://<workspace>/serving-endpoints` and refreshes its credential."""

    Options = DatabricksOptions
    takes_variables = True

    def __init__(self, entry: ModelConfig, options: DatabricksOptions, resources: BackendResources) -> None:
        workspace = _to_workspace(entry, options, resources.settings)
        config = replace(
            entry,
            base_url=entry.base_url or workspace.host + ENDPOINTS,
            api_key=workspace.token if workspace.kind == "token" else None,
            profile=entry.profile or PROFILES["databricks"],
        )
        super().__init__(config, options, resources, _to_credentials(workspace, resources))

    @classmethod
    def validate(cls, entry: ModelConfig, options: Any, settings: Settings) -> Iterator[str]:
        yield from super().validate(entry, options, settings)
        workspace = _to_workspace(entry, options, settings)
        if not workspace.host:
            yield "kind databricks needs DATABRICKS_HOST, or a `base_url`"
        if workspace.kind == "token" and not workspace.token:
            yield (
                "kind databricks needs DATABRICKS_TOKEN (or `api_key_env`), or DATABRICKS_CLIENT_ID and "
                "DATABRICKS_CLIENT_SECRET, or `credentials: user`"
            )
        elif workspace.kind == "service-principal" and not (workspace.client_id and workspace.client_secret):
            yield "a service principal needs DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET"
        elif workspace.kind == "service-principal" and not _has_sdk():
            yield MISSING_EXTRA


def _has_sdk() -> bool:
    try:
        return find_spec("databricks.sdk") is not None
    except ModuleNotFoundError:
        return False


def _to_workspace(entry: ModelConfig, options: DatabricksOptions, settings: Settings) -> _Workspace:
    """Combine a model config with the settings, which are its defaults. `auto` prefers a token."""
    root = urlsplit(entry.base_url or settings.databricks_host or "")
    token = entry.api_key or settings.databricks_token
    client_id = entry.expand(options.client_id) or settings.databricks_client_id
    client_secret = entry.expand(options.client_secret) or settings.databricks_client_secret
    kind = options.credentials or settings.databricks_credentials
    if kind == "auto":
        kind = "service-principal" if client_id and not token else "token"
        if options.client_id and not entry.api_key:
            kind = "service-principal"
    host = f"{root.scheme}://{root.netloc}" if root.netloc else ""
    return _Workspace(host, kind, token, client_id, client_secret)


def _to_credentials(workspace: _Workspace, resources: BackendResources) -> Credentials | None:
    """Return the provider of the credential, or None for a personal access token, which never changes."""
    if workspace.kind == "user":
        return ForwardedToken(USER_TOKEN)
    if workspace.kind == "service-principal":
        identity = (workspace.host, workspace.client_id, workspace.client_secret)
        return resources.tokens.get(identity, lambda: fetch_token(workspace, resources.settings))
    return None


def fetch_token(workspace: _Workspace, settings: Settings) -> Token:
    """Fetch a service principal's token with the SDK, in a process of its own.

    Raises:
        UpstreamAuthenticationError: The workspace refused the service principal.
        UpstreamConnectionError: The workspace could not be reached.
        UpstreamTimeoutError: The SDK did not finish within `FETCH_TIMEOUT`.
    """
    request = {"host": workspace.host, "client_id": workspace.client_id, "client_secret": workspace.client_secret}
    # The SDK uses `requests`, so the settings for proxies and authorities are passed as environment variables.
    environment = [] if settings.upstream_trust_env else ["NO_PROXY=*", "no_proxy=*"]
    if settings.upstream_ca_bundle:
        environment.append(f"REQUESTS_CA_BUNDLE={settings.upstream_ca_bundle}")
    command = ["env", *environment, sys.executable, "-P", str(Path(token_fetcher.__file__))]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command, input=json.dumps(request), capture_output=True, text=True, timeout=FETCH_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UpstreamTimeoutError("The workspace did not issue a token within the time limit.") from error
    if done.returncode == 0:
        return Token(**json.loads(done.stdout))
    reason = Redactor([workspace.client_secret]).mask(done.stderr.strip())
    log.warning("%s issued no token: %s", workspace.host, reason[-500:])
    if done.returncode == token_fetcher.UNREACHABLE:
        raise UpstreamConnectionError("The workspace could not be reached for a token.")
    raise UpstreamAuthenticationError("The workspace refused to issue a token to this server's service principal.")
