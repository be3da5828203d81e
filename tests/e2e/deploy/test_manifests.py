"""compose.yaml and kubernetes.yaml match the settings of the server."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from openai_compat.core.settings import Settings
from tests.support.nginx import DEPLOY


@pytest.fixture
def pod() -> dict[str, Any]:
    deployment, _service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return pod


@pytest.fixture
def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return services


def test_kubernetes_waits_until_the_streams_have_ended(pod: dict[str, Any]) -> None:
    (server,) = pod["containers"]
    env = {variable["name"]: variable["value"] for variable in server["env"]}
    pause = int(server["lifecycle"]["preStop"]["exec"]["command"][1])
    assert int(env["GRACEFUL_TIMEOUT"]) == Settings().graceful_timeout
    assert pod["terminationGracePeriodSeconds"] > pause + int(env["GRACEFUL_TIMEOUT"])
    assert int(env["PORT"]) == server["ports"][0]["containerPort"]


def test_kubernetes_does_not_restart_the_server_if_a_model_is_down(pod: dict[str, Any]) -> None:
    (server,) = pod["containers"]
    assert server["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert server["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_compose_waits_until_the_streams_have_ended(services: dict[str, Any]) -> None:
    for service in services.values():
        assert int(service["stop_grace_period"].removesuffix("s")) > Settings().graceful_timeout


def test_compose_keeps_what_the_server_stores(services: dict[str, Any]) -> None:
    (volume,) = services["server"]["volumes"]
    name, path = volume.split(":")
    assert path == f"/app/{Settings().data_dir}"
    assert name in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["volumes"]


def test_compose_runs_nginx_on_the_network_of_the_server(services: dict[str, Any]) -> None:
    server = services["server"]["environment"]
    assert f"server {server['HOST']}:{server['PORT']};" in (DEPLOY / "nginx-site.conf").read_text()
    assert services["nginx"]["network_mode"] == "service:server"
