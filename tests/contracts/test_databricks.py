"""The contract of the databricks backend, with an upstream that rejects the parameters that Databricks rejects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from openai_compat.backends.databricks.backend import DatabricksBackend, DatabricksOptions
from openai_compat.backends.http.client import UpstreamClient
from openai_compat.backends.resources import BackendResources
from openai_compat.core.settings import ModelConfig, Settings
from tests.contracts.test_openai import BackendFactory, TestOpenAIChat, mock, running
from tests.support.mock_upstream import MockUpstream

__all__ = ["mock", "running"]


@pytest.fixture
def make(mock: MockUpstream) -> Iterator[DatabricksFactory]:
    factory = DatabricksFactory(mock)
    yield factory
    factory.http_client.close()


class DatabricksFactory(BackendFactory):
    def __call__(self, upstream_model: str | None = None, **entry: Any) -> DatabricksBackend:  # type: ignore[override]
        name = upstream_model or "fault-databricks"
        config = ModelConfig("contract-model", "databricks", base_url=self._mock.base_url, upstream_model=name, **entry)
        resources = BackendResources(Settings(databricks_token="dapi-1"), self.http_client)
        return DatabricksBackend(config, DatabricksOptions(), resources)


class TestDatabricksChat(TestOpenAIChat):
    """Databricks rejects `stream_options`, so its streams report no usage."""

    has_usage = False


del TestOpenAIChat


def test_creating_a_backend_makes_no_request(make: DatabricksFactory, mock: MockUpstream) -> None:
    make()
    assert mock.stats()["requests_total"] == 0


def test_the_base_url_defaults_to_the_setting_s_host() -> None:
    settings = Settings(databricks_host="https://ws.test", databricks_token="dapi-1")
    http_client = UpstreamClient(settings)
    backend = DatabricksBackend(
        ModelConfig("m", "databricks"), DatabricksOptions(), BackendResources(settings, http_client)
    )
    assert backend.entry.base_url == "https://ws.test/serving-endpoints"
    http_client.close()
