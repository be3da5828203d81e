"""Checks of embeddings."""

from __future__ import annotations

import base64
import struct

from .client import ConformanceClient, expect, require_error, require_object
from .registry import Section

EMBEDDINGS = Section("embeddings")
TOLERANCE = 1e-4


@EMBEDDINGS.check(
    "the response is a list of `embedding` objects with index and usage",
    why="typed clients read each of them",
)
def embedding_objects(client: ConformanceClient) -> None:
    reply = require_object(client.post_embeddings("A cat.", encoding_format="float"))
    expect(reply["object"] == "list", f"object {reply['object']!r}")
    item = reply["data"][0]
    expect(item["object"] == "embedding" and item["index"] == 0, f"{ {**item, 'embedding': '...'} }")
    expect(isinstance(item["embedding"][0], float), f"embedding of {type(item['embedding']).__name__}")
    expect(reply["usage"]["prompt_tokens"] and reply["usage"]["total_tokens"], f"usage {reply['usage']}")


@EMBEDDINGS.check(
    "base64 has the same numbers as little-endian float32",
    why="the official clients request it by default",
)
def embedding_base64(client: ConformanceClient) -> None:
    (floats,) = client.vectors("A cat.", encoding_format="float")
    (encoded,) = client.vectors("A cat.", encoding_format="base64")
    expect(isinstance(encoded, str), "numbers instead of base64")
    raw = base64.b64decode(encoded)
    numbers = struct.unpack(f"<{len(raw) // 4}f", raw)
    expect(len(numbers) == len(floats), f"{len(numbers)} numbers instead of {len(floats)}")
    difference = max(abs(a - b) for a, b in zip(numbers, floats, strict=True))
    expect(difference < TOLERANCE, f"the numbers differ by {difference}")


@EMBEDDINGS.check(
    "several inputs keep their order",
    why="vectors would be stored with the wrong text",
)
def embedding_order(client: ConformanceClient) -> None:
    (first,) = client.vectors("A cat.", encoding_format="float")
    both = client.vectors(["A dog on a hill.", "A cat."], encoding_format="float")
    expect(len(both) == 2, f"{len(both)} vectors")
    distances = [sum((a - b) ** 2 for a, b in zip(vector, first, strict=True)) for vector in both]
    expect(distances[1] <= distances[0], "the second vector does not belong to the second text")


@EMBEDDINGS.check(
    "inputs may be token ids",
    why="LangChain sends them",
)
def embedding_of_token_ids(client: ConformanceClient) -> None:
    expect(len(client.vectors([[1, 2, 3], [4, 5]], encoding_format="float")) == 2, "the number of vectors is not 2")


@EMBEDDINGS.check(
    "an empty input returns 400",
    why="the vector of an empty text corrupts an index silently",
)
def embedding_of_empty_input(client: ConformanceClient) -> None:
    require_error(client.post_embeddings(""), 400)


@EMBEDDINGS.check(
    "`dimensions` is respected or returns 400",
    why="a longer vector does not fit into the index",
)
def embedding_dimensions(client: ConformanceClient) -> None:
    response = client.post_embeddings("A cat.", encoding_format="float", dimensions=8)
    if response.status == 400:
        require_error(response, 400)
        return
    length = len(require_object(response)["data"][0]["embedding"])
    expect(length == 8, f"{length} numbers instead of 8")
