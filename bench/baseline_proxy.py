"""Minimal proxy of Flask and `requests`, the baseline that the cost of this server's layers is compared with."""

from __future__ import annotations

import os
from collections.abc import Iterator

import requests
from flask import Flask, Response, request
from requests.adapters import HTTPAdapter

UPSTREAM = os.environ["UPSTREAM"]
KEY = os.environ["UPSTREAM_KEY"]

app = Flask(__name__)
session = requests.Session()
session.mount("http://", HTTPAdapter(pool_maxsize=2000))


@app.post("/v1/chat/completions")
def chat() -> Response:
    payload = request.get_json()
    is_streamed = payload.get("stream") is True
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = session.post(f"{UPSTREAM}/chat/completions", json=payload, headers=headers, stream=is_streamed)
    content_type = answer.headers["Content-Type"]
    if not is_streamed:
        return Response(answer.content, answer.status_code, content_type=content_type)

    def lines() -> Iterator[bytes]:
        for line in answer.iter_lines():
            if line:
                yield line + b"\n\n"

    return Response(lines(), answer.status_code, content_type=content_type)
