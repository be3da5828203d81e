"""The databricks backend keeps the contract with a server behind it that refuses what Databricks does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from openai_compat.backends.databricks.backend import DatabricksBackend, DatabricksOptions
from openai_compat.backends.http.client import UpstreamClient
from openai_compat.backends.resources import BackendResources
from openai_compat.core.settings import ModelConfig, Settings
from tests.contracts.test_openai import MakesBackends, TestOpenAIChat, mock, running
from tests.support.mock_upstream import MockUpstream

__all__ = ["mock", "running"]


@pytest.fixture
def make(mock: MockUpstream) -> Iterator[MakesDatabricks]:
    makes = MakesDatabricks(mock)
    yield makes
    makes.forwarder.close()


class MakesDatabricks(MakesBackends):
    def __call__(self, upstream_model: str | None = None, **entry: Any) -> DatabricksBackend:  # type: ignore[override]
        name = upstream_model or "fault-databricks"
        row = ModelConfig("contract-model", "databricks", base_url=self._mock.base_url, upstream_model=name, **entry)
        resources = BackendResources(Settings(databricks_token="dapi-1"), self.forwarder)
        return DatabricksBackend(row, DatabricksOptions(), resources)


class TestDatabricksChat(TestOpenAIChat):
    """It is not asked for usage, as it refuses to be."""

    has_usage = False


del TestOpenAIChat


def test_nothing_is_imported_or_fetched_before_the_first_call(make: MakesDatabricks, mock: MockUpstream) -> None:
    make()
    assert mock.stats()["requests_total"] == 0


def test_a_settings_host_is_enough() -> None:
    settings = Settings(databricks_host="https://ws.test", databricks_token="dapi-1")
    forwarder = UpstreamClient(settings)
    backend = DatabricksBackend(
        ModelConfig("m", "databricks"), DatabricksOptions(), BackendResources(settings, forwarder)
    )
    assert backend.entry.base_url == "https://ws.test/serving-endpoints"
    forwarder.close()
