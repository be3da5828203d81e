"""Connections over TLS and HTTP proxies, and hosts that cannot be reached."""

from __future__ import annotations

import socket
import traceback
from pathlib import Path

import pytest
from requests.exceptions import ConnectionError, ProxyError, SSLError

from openai_compat.backends.http.transport import LlhttpAdapter
from tests.support.raw_server import RawServer, answer_with, read_request, wait_for_close

from .helpers import CHUNKED, OK, over_tls, read, record_into, send


def test_a_port_without_a_listener_is_an_error(adapter: LlhttpAdapter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionError):
        send(adapter, f"http://127.0.0.1:{port}/")


def test_an_invalid_host_name_is_a_connection_error(adapter: LlhttpAdapter) -> None:
    with pytest.raises(ConnectionError):
        send(adapter, "http://a..b/")


def test_a_host_name_that_tls_rejects_is_a_connection_error(adapter: LlhttpAdapter) -> None:
    def proxy(client: socket.socket) -> None:
        read_request(client)
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")

    with RawServer(proxy) as server, pytest.raises(ConnectionError):
        send(adapter, "https://a..b/", proxies={"https": f"127.0.0.1:{server.port}"})


def test_a_tls_connection_with_the_configured_authority_is_reused(adapter: LlhttpAdapter, certificate: Path) -> None:
    with RawServer(over_tls(certificate, answer_with(OK, CHUNKED))) as server:
        for _ in range(2):
            assert read(send(adapter, f"https://localhost:{server.port}/", verify=str(certificate))) == b"hello"
        assert server.connections == 1


def test_a_certificate_of_an_unknown_authority_or_for_another_host_is_refused(
    adapter: LlhttpAdapter, certificate: Path
) -> None:
    with RawServer(over_tls(certificate, answer_with(OK))) as server:
        with pytest.raises(SSLError):
            send(adapter, f"https://localhost:{server.port}/")
        with pytest.raises(SSLError):
            send(adapter, f"https://127.0.0.1:{server.port}/", verify=str(certificate))


def test_a_server_without_tls_is_an_ssl_error(adapter: LlhttpAdapter) -> None:
    def plain(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        wait_for_close(client)

    with RawServer(plain) as server, pytest.raises(SSLError):
        send(adapter, server.url.replace("http:", "https:"))


def test_a_request_through_an_http_proxy_has_the_absolute_url(adapter: LlhttpAdapter) -> None:
    requests: list[bytes] = []
    with RawServer(record_into(requests)) as server:
        response = send(adapter, "http://upstream.test/v1/models", proxies={"http": server.url})
        assert read(response) == b"hello"
    assert requests[0].startswith(b"GET http://upstream.test/v1/models HTTP/1.1\r\nHost: upstream.test\r\n")


def test_users_and_passwords_of_urls_become_basic_authorization(adapter: LlhttpAdapter) -> None:
    requests: list[bytes] = []
    with RawServer(record_into(requests)) as server:
        proxy = f"me:p%40ss@127.0.0.1:{server.port}"
        send(adapter, "http://bob:hunter2@upstream.test/", proxies={"http": proxy})
        send(adapter, f"http://bob:hunter2@127.0.0.1:{server.port}/", headers={"authorization": "Bearer k"})
    assert b"\r\nproxy-authorization: Basic bWU6cEBzcw==\r\n" in requests[0]
    assert b"\r\nauthorization: Basic Ym9iOmh1bnRlcjI=\r\n" in requests[0]
    assert b"\r\nauthorization: Bearer k\r\n" in requests[1]
    assert b"Basic" not in requests[1]


def test_an_https_request_asks_the_proxy_for_a_tunnel(adapter: LlhttpAdapter) -> None:
    requests: list[bytes] = []

    def proxy(client: socket.socket) -> None:
        requests.append(read_request(client))
        client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

    with RawServer(proxy) as server, pytest.raises(ConnectionError):
        send(adapter, "https://upstream.test/", proxies={"https": server.url.replace("//", "//me:p%40ss@")})
    assert requests[0].startswith(b"CONNECT upstream.test:443 HTTP/1.1\r\nHost: upstream.test:443\r\n")
    assert b"Proxy-Authorization: Basic bWU6cEBzcw==\r\n" in requests[0]


@pytest.mark.parametrize("proxy", ["https://proxy.test:1", "socks5://proxy.test:1"])
def test_other_kinds_of_proxies_are_refused(adapter: LlhttpAdapter, proxy: str) -> None:
    with pytest.raises(ProxyError, match="only HTTP proxies"):
        send(adapter, "http://upstream.test/", proxies={"http": proxy})


@pytest.mark.parametrize("proxy", ["http://me:hunter2@proxy.test:hunter2", "http://[hunter2"])
def test_the_error_for_an_invalid_proxy_does_not_show_its_url(adapter: LlhttpAdapter, proxy: str) -> None:
    with pytest.raises(ProxyError) as caught:
        send(adapter, "https://upstream.test/", proxies={"https": proxy})
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
