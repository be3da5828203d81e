"""Applications in the test process, for tests that need no socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient

from openai_compat import create_app
from openai_compat.config import environment
from tests.support.mock_upstream import MockUpstream

MakeClient = Callable[..., FlaskClient]


@pytest.fixture
def make_client() -> MakeClient:
    """Return a function that makes an application with the given settings and returns its test client."""

    def make(**environ: str) -> FlaskClient:
        return create_app(environment.load(environ)).test_client()

    return make


@pytest.fixture
def client(make_client: MakeClient) -> FlaskClient:
    return make_client()


@pytest.fixture(scope="session")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock
