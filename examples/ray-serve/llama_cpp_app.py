"""Ray Serve application for a GGUF file on CPUs. Each replica runs llama.cpp's own server (package xllamacpp)."""

# Without `from __future__ import annotations`, because Ray Serve does not evaluate annotations.
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import xllamacpp
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from ray import serve
from ray.serve import Application

api = FastAPI()


class Options(BaseModel):
    """A replica answers `slots` calls at once, each of `window` tokens."""

    gguf_file: Path
    slots: int = 4
    window: int = 4096
    threads: int | None = None
    chat_template_file: Path | None = None
    max_tokens: int = 1024


@serve.deployment
@serve.ingress(api)
class LlamaCpp:
    def __init__(self, options: Options) -> None:
        parameters: Any = xllamacpp.CommonParams()
        parameters.model.path = str(options.gguf_file)
        parameters.hostnames, parameters.port = ["127.0.0.1"], 0
        parameters.n_parallel, parameters.n_ctx = options.slots, options.slots * options.window
        parameters.n_predict = options.max_tokens
        parameters.n_batch = 128  # a longer part of a prompt delays the other calls of this replica
        parameters.verbosity, parameters.ui = 1, False
        if options.threads is not None:
            parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = options.threads
        if options.chat_template_file is not None:
            parameters.chat_template = options.chat_template_file.read_text()
        self.server = xllamacpp.Server(parameters)
        self.client = httpx.AsyncClient(base_url=self.server.listening_address, timeout=None)

    @api.api_route("/v1/{path:path}", methods=["GET", "POST"])
    async def forward(self, request: Request, path: str) -> Response:
        headers = {"Content-Type": request.headers.get("Content-Type", "application/json")}
        call = self.client.build_request(request.method, f"/v1/{path}", content=await request.body(), headers=headers)
        answer = await self.client.send(call, stream=True)
        return StreamingResponse(self._content(answer), answer.status_code, media_type=answer.headers["Content-Type"])

    @staticmethod
    async def _content(answer: httpx.Response) -> AsyncIterator[bytes]:
        """Yield the bytes as they come, and close the connection when the client has disconnected."""
        try:
            async for part in answer.aiter_raw():
                yield part
        finally:
            await answer.aclose()


def build(args: Options) -> Application:
    """Return the application with the `args` of serve.yaml."""
    return LlamaCpp.options(max_ongoing_requests=args.slots).bind(args)
