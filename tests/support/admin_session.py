"""A session of the admin page, as a browser has it."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

ADMIN_KEY = "admin-key-1"
ORIGIN = {"Origin": "http://localhost"}


class AdminSession:
    """A signed-in administrator. The test client keeps the cookie."""

    def __init__(self, client: FlaskClient, key: str = ADMIN_KEY) -> None:
        self.client = client
        response = client.post("/admin/session", json={"admin_api_key": key}, headers=ORIGIN)
        assert response.status_code == 200, response.text
        self.token: str = response.json["csrf_token"]

    def send(self, method: str, path: str, body: Any = None) -> TestResponse:
        """Return the response of an endpoint below `/admin`."""
        headers = {**ORIGIN, "X-CSRF-Token": self.token}
        return self.client.open(f"/admin/{path}", method=method, json=body, headers=headers)

    def get(self, path: str) -> Any:
        """Return the JSON of an endpoint below `/admin/api`."""
        response = self.send("GET", f"api/{path}")
        assert response.status_code == 200, response.text
        return response.json
