"""Databricks: Model Serving endpoints and Foundation Model APIs, which speak OpenAI's protocol in a workspace."""

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
from openai_compat.backends.auth.token_cache import FETCH_TIMEOUT, CachedToken, Token
from openai_compat.backends.openai.backend import OpenAIBackend, OpenAIOptions
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import UpstreamAuthenticationError, UpstreamConnectionError, UpstreamTimeoutError
from openai_compat.core.extras import install_hint
from openai_compat.core.profiles import PROFILES
from openai_compat.core.settings import ModelConfig, Settings

from . import token_fetcher as databricks_token

log = logging.getLogger(__name__)

ENDPOINTS: Final = "/serving-endpoints"
CREDENTIALS: Final = ("auto", "token", "service-principal", "user")
MISSING_EXTRA: Final = f"a service principal needs {install_hint('databricks')}"
_VARIABLE: Final = re.compile(r"\$\{\w+\}")


@dataclass(frozen=True, slots=True)
class DatabricksOptions(OpenAIOptions):
    """`credentials` says with whose the workspace is called: `token` (`DATABRICKS_TOKEN`, or the row's `api_key_env`),
    `service-principal` (`DATABRICKS_CLIENT_ID` and `DATABRICKS_CLIENT_SECRET`, or the row's), `user` (the signed-in
    user's, in Databricks Apps); without it the setting `DATABRICKS_CREDENTIALS` does.
    """

    credentials: str | None = None
    client_id: str | None = None
    client_secret: str | None = None

    def __post_init__(self) -> None:
        if self.credentials is not None and self.credentials not in CREDENTIALS:
            raise ValueError(f"credentials must be one of {', '.join(CREDENTIALS)}")
        if (self.client_id is None) != (self.client_secret is None):
            raise ValueError("client_id and client_secret go together")
        if self.client_secret is not None and not _VARIABLE.fullmatch(str(self.client_secret)):
            raise ValueError("client_secret must name a variable of the environment: ${NAME}")


@dataclass(frozen=True, slots=True)
class _Workspace:
    """What a row and the settings add up to."""

    host: str
    kind: str
    token: str | None
    client_id: str | None
    client_secret: str | None


class DatabricksBackend(OpenAIBackend):
    """Forwards to `https://<workspace>/serving-endpoints`, with a credential that is renewed in time."""

    Options = DatabricksOptions
    takes_variables = True

    def __init__(self, entry: ModelConfig, options: DatabricksOptions, resources: BackendResources) -> None:
        workspace = _to_workspace(entry, options, resources.settings)
        whole = replace(
            entry,
            base_url=entry.base_url or workspace.host + ENDPOINTS,
            api_key=workspace.token if workspace.kind == "token" else None,
            profile=entry.profile or PROFILES["databricks"],
        )
        super().__init__(whole, options, resources, _to_credentials(workspace, resources.settings))

    @classmethod
    def validate(cls, entry: ModelConfig, options: Any, settings: Settings) -> Iterator[str]:
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
    """A row's own values before the settings'. `auto` takes a token if there is one."""
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


def _to_credentials(workspace: _Workspace, settings: Settings) -> Credentials | None:
    """None for a token, which is the same for every call."""
    if workspace.kind == "user":
        return ForwardedToken(USER_TOKEN)
    if workspace.kind == "service-principal":
        name = json.dumps([workspace.host, workspace.client_id, workspace.client_secret])
        return CachedToken(lambda: fetch_token(workspace, settings), name)
    return None


def fetch_token(workspace: _Workspace, settings: Settings) -> Token:
    """A service principal's token, by the SDK in a process of its own.

    Raises:
        UpstreamAuthenticationError, UpstreamConnectionError, UpstreamTimeoutError
    """
    asked = {"host": workspace.host, "client_id": workspace.client_id, "client_secret": workspace.client_secret}
    # `env`: what goes for calls to upstreams goes for this one too.
    environment = [] if settings.upstream_trust_env else ["NO_PROXY=*", "no_proxy=*"]
    if settings.upstream_ca_bundle:
        environment.append(f"REQUESTS_CA_BUNDLE={settings.upstream_ca_bundle}")
    command = ["env", *environment, sys.executable, "-P", str(Path(databricks_token.__file__))]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=FETCH_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UpstreamTimeoutError("The workspace gave no token within the time limit.") from error
    if done.returncode == 0:
        return Token(**json.loads(done.stdout))
    log.warning("no token from %s: %s", workspace.host, done.stderr.strip()[-500:])
    if done.returncode == databricks_token.UNREACHABLE:
        raise UpstreamConnectionError("The workspace could not be reached for a token.")
    raise UpstreamAuthenticationError("The workspace gave no token to this server's service principal.")
