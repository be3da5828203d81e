"""The conversations of a key on a server, by its API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from playwright.sync_api import Page


class StoredConversations:
    """The conversations of one key."""

    def __init__(self, url: str, key: str) -> None:
        self._url = f"{url}/v1/conversations"
        self._headers: Mapping[str, str] = {"Authorization": f"Bearer {key}"}

    def clear(self) -> None:
        while ids := self.ids():
            for id in ids:
                requests.delete(f"{self._url}/{id}", headers=self._headers, timeout=10).raise_for_status()

    def create(self, body: Mapping[str, Any]) -> None:
        requests.post(self._url, json=body, headers=self._headers, timeout=10).raise_for_status()

    def ids(self) -> list[str]:
        return [conversation["id"] for conversation in self._list("")]

    def items(self, id: str) -> list[tuple[str, str, str]]:
        """Return the role, the text and the status of each message."""
        return [
            (item["role"], item["content"][0]["text"], item["status"]) for item in self._list(f"/{id}/items?order=asc")
        ]

    def only(self) -> list[tuple[str, str, str]]:
        """Return the messages of the only conversation."""
        (id,) = self.ids()
        return self.items(id)

    def _list(self, path: str) -> list[dict[str, Any]]:
        response = requests.get(f"{self._url}{path}", headers=self._headers, timeout=10)
        response.raise_for_status()
        return list(response.json()["data"])


def give_key(page: Page, key: str) -> None:
    """Enter a key in the form that the page shows."""
    page.get_by_label("This server requires an API key.").fill(key)
    page.keyboard.press("Enter")
